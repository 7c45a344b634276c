//! Environments for people.

use std::fmt::Write;

use pyro::{EnvironmentListing, EnvironmentReport, PruneResult};

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
    row(
        "Distribution",
        &format!("{} {}", found.distribution, found.distribution_version),
    );
    row("Installed", if found.installed { "yes" } else { "no" });
    if let Some(reason) = &found.invalid_reason {
        row("Damaged", reason);
    }
    row("Cache dir", &found.cache_dir.display().to_string());
    row("Packages", &found.default_packages.join(", "));
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
    }
    if let (Some(registry), Some(repository), Some(reference)) = (
        &found.oci_registry,
        &found.oci_repository,
        &found.oci_reference,
    ) {
        row(
            "OCI source",
            &format!("{registry}/{repository}:{reference}"),
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
    text
}

fn state(found: &EnvironmentReport) -> &'static str {
    match (found.installed, &found.invalid_reason) {
        (true, _) => "installed",
        (false, Some(_)) => "damaged",
        (false, None) => "not installed",
    }
}
