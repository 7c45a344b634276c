//! An environment out of an artifact image, which brings its own root image and kernel.

use pyro_image::artifacts::{ArtifactImage, ArtifactLimits, ExtractedArtifacts, extract};
use pyro_image::blocking::blocking;
use pyro_image::kernel::missing_drivers;
use pyro_image::oci::PulledImage;
use pyro_image::store::RootKey;
use pyro_image::{Kernel, Progress, ProgressSink, Staging, StoreError};

use super::EnvironmentOptions;
use crate::Pyro;
use crate::error::Error;

/// Where the artifacts are extracted to, below the staging directory.
const EXTRACTED: &str = "extracted";

impl Pyro {
    /// Puts the artifacts of `pulled` into the staging directory, and gives the kernel to boot
    /// them with and what the root image is made of. `None` if it is an ordinary image.
    pub(super) async fn take_artifacts(
        &self,
        staging: &mut Staging,
        pulled: &PulledImage,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<Option<(Kernel, RootKey)>, Error> {
        let Some(image) = ArtifactImage::of(pulled) else {
            return Ok(None);
        };
        progress(Progress::Phase {
            phase: "artifact-extract".into(),
            detail: pulled.reference.to_string(),
        });
        let into = staging.dir().join(EXTRACTED);
        std::fs::create_dir(&into).map_err(|source| Error::Io {
            action: "make",
            path: into.clone(),
            source,
        })?;
        let limits = ArtifactLimits {
            rootfs: self.settings().max_image_bytes,
            ..ArtifactLimits::default()
        };
        let extracted = extract(image, &into, limits, progress).await?;
        let kernel = self
            .kernel_of_artifacts(staging, &extracted, options, progress)
            .await?;
        let key = RootKey::of_image(extracted.rootfs.sha256);
        if options.force || !staging.adopt(key)? {
            rename(&extracted.rootfs.path, &staging.rootfs())?;
        }
        Ok(Some((kernel, key)))
    }

    /// The kernel that the image brings, if the store has it with its modules, or if it needs
    /// none to run in our machines; else the packaged one.
    async fn kernel_of_artifacts(
        &self,
        staging: &Staging,
        extracted: &ExtractedArtifacts,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<Kernel, Error> {
        let vmlinux = &extracted.kernel;
        let known = self.settings().home.kernel_store();
        if let Some(kernel) = known.with_vmlinux(vmlinux.sha256)? {
            return Ok(kernel);
        }
        let path = vmlinux.path.clone();
        let missing = blocking(move || missing_drivers(&path)).await;
        let missing = missing.map_err(StoreError::from)?;
        if missing.is_empty() {
            rename(&vmlinux.path, &staging.vmlinux())?;
            return Ok(Kernel::bare(&staging.vmlinux(), vmlinux.sha256)?);
        }
        progress(Progress::Step {
            text: format!(
                "its kernel has no {} of its own: taking the packaged kernel",
                missing.join(", ")
            ),
        });
        self.kernel(options, progress).await
    }
}

fn rename(from: &std::path::Path, to: &std::path::Path) -> Result<(), Error> {
    std::fs::rename(from, to).map_err(|source| Error::Io {
        action: "rename into",
        path: to.to_owned(),
        source,
    })
}
