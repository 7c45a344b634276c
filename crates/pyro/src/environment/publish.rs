//! Publishing an installed environment in the original's format, for anyone to host.

use std::path::{Path, PathBuf};

use pyro_image::artifacts::EnvironmentMetadata;
use pyro_image::blocking::blocking;
use pyro_image::oci::{Platform, RegistryReference};
use pyro_image::publish::{PreparedImage, Publication, write_layout};
use pyro_image::{CatalogEntry, Kernel, ProgressSink, Sha256Digest};
use serde::Serialize;

use super::EnvironmentOptions;
use super::ensure::Held;
use crate::Pyro;
use crate::error::Error;

/// What is published, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishOptions {
    /// The environment: installed, or made first.
    pub environment: String,
    /// The name in a registry to push to, with a tag.
    pub reference: Option<String>,
    /// A directory to write an OCI layout below.
    pub output: Option<PathBuf>,
    /// The name that the published environment calls itself; its own if absent.
    pub name: Option<String>,
    /// The version that it calls itself; its own if absent.
    pub version: Option<String>,
}

/// What was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublishedEnvironment {
    /// The environment.
    pub environment: String,
    /// The name that the published one calls itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Digest of the manifest: what to pin.
    pub manifest_digest: Sha256Digest,
    /// Where it was pushed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Bytes that the registry did not have before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    /// The OCI layout that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<PathBuf>,
}

impl Pyro {
    /// Publishes an environment to a registry, into a layout, or both.
    pub async fn publish_environment(
        &self,
        options: PublishOptions,
        progress: &ProgressSink,
    ) -> Result<PublishedEnvironment, Error> {
        let reference = options
            .reference
            .as_deref()
            .map(str::parse::<RegistryReference>)
            .transpose()
            .map_err(pyro_image::OciError::from)?;
        if reference.is_none() && options.output.is_none() {
            return Err(Error::invalid(
                "there is nowhere to publish it to",
                "name a place in a registry such as `ghcr.io/owner/name:1.0.0`, or a directory with `--output`",
            ));
        }
        let entry = self.entry(&options.environment)?;
        // Nobody removes it while it is read.
        let Held {
            installed,
            kernel,
            hold: _hold,
        } = self
            .ensure(
                &options.environment,
                EnvironmentOptions::default(),
                progress,
            )
            .await?;
        let publication = Publication {
            metadata: metadata(&options, &entry, &kernel),
            defaults: installed.manifest.defaults.clone(),
            platform: Platform::linux_amd64(),
            kernel: kernel.boot_image().to_owned(),
            rootfs: installed.rootfs.clone(),
        };
        let mut published = PublishedEnvironment {
            environment: entry.name,
            name: publication.metadata.environment.clone(),
            version: publication.metadata.version.clone(),
            manifest_digest: Sha256Digest::of(b""),
            reference: None,
            sent_bytes: None,
            layout: None,
        };
        let prepared = PreparedImage::prepare(publication, progress).await?;
        published.manifest_digest = prepared.manifest_digest();
        let (prepared, layout) = match options.output {
            Some(output) => written(prepared, output, progress).await?,
            None => (prepared, None),
        };
        published.layout = layout;
        if let Some(reference) = reference {
            let client = self.registry_client()?;
            let pushed = client.push(&prepared, &reference, progress).await?;
            published.reference = Some(reference.to_string());
            published.sent_bytes = Some(pushed.sent_bytes);
        }
        Ok(published)
    }
}

async fn written(
    prepared: PreparedImage,
    output: PathBuf,
    progress: &ProgressSink,
) -> Result<(PreparedImage, Option<PathBuf>), Error> {
    let progress = progress.clone();
    let write = move || {
        let layout = write_layout(&prepared, Path::new(&output), &progress)?;
        Ok((prepared, Some(layout.path)))
    };
    blocking(write).await
}

/// What the published environment says about itself.
fn metadata(
    options: &PublishOptions,
    entry: &CatalogEntry,
    kernel: &Kernel,
) -> EnvironmentMetadata {
    let last = entry.name.rsplit('/').next().unwrap_or(&entry.name);
    let name = last.split('@').next().unwrap_or(last);
    let able = ["vm_boot", "guest_exec", "guest_network"];
    let versions = [
        ("guest_agent", pyro_guest::AGENT_BUILD_ID.to_owned()),
        ("kernel", kernel.release.clone().unwrap_or_default()),
        (
            "base_distro",
            format!("{} {}", entry.distribution, entry.distribution_version)
                .trim()
                .to_owned(),
        ),
    ];
    EnvironmentMetadata {
        bundle_version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: able.map(|name| (name.to_owned(), true)).into(),
        component_versions: versions
            .map(|(name, version)| (name.to_owned(), version))
            .into_iter()
            .filter(|(_, version)| !version.is_empty())
            .collect(),
        default_packages: entry.default_packages.clone(),
        description: entry.description.clone(),
        distribution: entry.distribution.clone(),
        distribution_version: entry.distribution_version.clone(),
        environment: options.name.clone().unwrap_or_else(|| name.to_owned()),
        platform: entry.platform.clone(),
        source_profile: entry.source_profile.clone(),
        version: options
            .version
            .clone()
            .unwrap_or_else(|| entry.version.clone()),
    }
}
