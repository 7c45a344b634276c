//! An environment out of a directory of this host that is a root file system.

use std::path::Path;
use std::sync::Arc;

use pyro_image::blocking::blocking;
use pyro_image::directory::pack_directory;
use pyro_image::store::{Installed, NewEnvironment, RootKey};
use pyro_image::{Kernel, Progress, ProgressSink, Staging};

use super::EnvironmentOptions;
use super::layers::{LayersFile, Part, Wanted};
use crate::Pyro;
use crate::error::Error;

impl Pyro {
    pub(super) async fn make_of_directory(
        &self,
        mut staging: Staging,
        directory: &Path,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<(Installed, Kernel), Error> {
        progress(Progress::Phase {
            phase: "directory-pack".into(),
            detail: directory.display().to_string(),
        });
        let tar = staging.dir().join("layers.tar");
        let limit = self.settings().max_image_bytes;
        let wanted = Wanted::default();
        let packed = {
            let (directory, tar) = (directory.to_owned(), tar.clone());
            let (progress, asked) = (Arc::clone(progress), wanted.watch());
            blocking(move || {
                pack_directory(&directory, &tar, limit, &progress, &|| asked.is_wanted())
            })
        };
        let packed = packed.await?;
        let kernel = self.kernel(options, progress).await?;
        let root_key = RootKey::of_layers([packed.sha256]);
        let shared = match root_key {
            Some(key) if !options.force => staging.adopt(key)?,
            _ => false,
        };
        if !shared {
            let layers = LayersFile {
                path: tar,
                parts: vec![Part {
                    offset: 0,
                    size: packed.size,
                }],
            };
            self.build_root_image(&staging, &kernel, &layers, progress)
                .await?;
        }
        let environment = NewEnvironment {
            kernel_digest: Some(kernel.digest),
            kernel_release: kernel.release.clone(),
            layer_sha256: Some(packed.sha256),
            root_key,
            source: format!("dir:{}", directory.display()),
            source_digest: Some(packed.sha256.to_string()),
            ..NewEnvironment::default()
        };
        Ok((staging.commit(environment, progress).await?, kernel))
    }
}
