//! Environments for people.

use std::fmt::Write;

use pyro::{
    EnvironmentListing, EnvironmentReport, PruneResult, PublishedEnvironment, Removed,
    VerifiedEnvironment,
};

use super::size::size;

/// `env list`.
pub(crate) fn listing(listing: &EnvironmentListing) -> String {
    let mut text = format!("Catalog version: {}\n", listing.catalog_version);
    for found in &listing.environments {
        let _ = write!(
            text,
            "{} [{}] {}",
            found.name,
            state(found),
            found.description
        );
        if let Some(bytes) = found.disk_bytes.filter(|_| found.installed) {
            let _ = write!(text, " ({})", size(bytes));
        }
        text.push('\n');
    }
    text
}

/// The detail block of `env inspect` and `env pull`.
pub(crate) fn details(title: &str, found: &EnvironmentReport) -> String {
    let mut text = format!("{title}: {}\n", found.name);
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name}: {value}");
    };
    row("Version", &found.version);
    if !found.distribution.is_empty() {
        row(
            "Distribution",
            &format!("{} {}", found.distribution, found.distribution_version),
        );
    }
    row("Installed", if found.installed { "yes" } else { "no" });
    if let Some(reason) = &found.invalid_reason {
        row("Damaged", reason);
    }
    row("Cache dir", &found.cache_dir.display().to_string());
    if !found.default_packages.is_empty() {
        row("Packages", &found.default_packages.join(", "));
    }
    row("Description", &found.description);
    if let Some(manifest) = &found.install_manifest {
        row("Install dir", &found.install_dir.display().to_string());
        if let (Some(apparent), Some(disk)) = (found.size_bytes, found.disk_bytes) {
            row(
                "Size",
                &format!("{} on disk, {} apparent", size(disk), size(apparent)),
            );
        }
        for (name, artifact) in &manifest.artifacts {
            row(&format!("Digest of {name}"), &artifact.sha256.to_string());
        }
        if let Some(release) = &manifest.kernel_release {
            row("Kernel", release);
        }
        row("Source", &manifest.source);
        let defaults = &manifest.defaults;
        if let Some(user) = &defaults.user {
            row("User", user);
        }
        if let Some(directory) = &defaults.working_dir {
            row("Working directory", directory);
        }
        if !defaults.command().is_empty() {
            row("Command", &defaults.command().join(" "));
        }
    }
    if let (Some(registry), Some(repository), Some(reference)) = (
        &found.oci_registry,
        &found.oci_repository,
        &found.oci_reference,
    ) {
        let separator = if reference.starts_with("sha256:") {
            '@'
        } else {
            ':'
        };
        row(
            "OCI source",
            &format!("{registry}/{repository}{separator}{reference}"),
        );
    }
    text
}

/// `env prune`.
pub(crate) fn pruned(pruned: &PruneResult, dry_run: bool) -> String {
    let verb = if dry_run { "Would delete" } else { "Deleted" };
    let mut text = format!("{verb} {} cached environment directories\n", pruned.count);
    for name in &pruned.deleted_environment_dirs {
        let _ = writeln!(text, "- {name}");
    }
    let _ = writeln!(
        text,
        "{verb} {} blobs, {} kernels and {} templates, {} in all",
        pruned.deleted_blobs,
        pruned.deleted_kernels,
        pruned.deleted_templates,
        size(pruned.freed_bytes)
    );
    for name in &pruned.in_use {
        let _ = writeln!(text, "In use: {name}");
    }
    text
}

/// `env remove`.
pub(crate) fn removed(removed: &[Removed]) -> String {
    let mut text = String::new();
    for one in removed {
        let _ = writeln!(text, "Removed {} ({})", one.name, size(one.freed_bytes));
    }
    text
}

/// `env publish`.
pub(crate) fn published(published: &PublishedEnvironment) -> String {
    let mut text = format!("Published: {} {}\n", published.name, published.version);
    if let (Some(reference), Some(sent)) = (&published.reference, published.sent_bytes) {
        let _ = writeln!(text, "Reference: {reference} ({} sent)", size(sent));
    }
    if let Some(layout) = &published.layout {
        let _ = writeln!(text, "Layout: {}", layout.display());
    }
    let _ = writeln!(text, "Digest: {}", published.manifest_digest);
    text
}

/// `env verify`.
pub(crate) fn verified(verified: &[VerifiedEnvironment]) -> String {
    let mut text = String::new();
    for found in verified {
        match &found.reason {
            None => {
                let _ = writeln!(text, "{}: intact", found.name);
            }
            Some(reason) => {
                let _ = writeln!(text, "{}: damaged: {reason}", found.name);
            }
        }
    }
    if verified.is_empty() {
        text.push_str("No environment is installed\n");
    }
    text
}

fn state(found: &EnvironmentReport) -> &'static str {
    match (found.installed, &found.invalid_reason) {
        (true, _) => "installed",
        (false, Some(_)) => "damaged",
        (false, None) => "not installed",
    }
}
