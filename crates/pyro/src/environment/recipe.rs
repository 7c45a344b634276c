//! An environment out of the distribution's packages.

use pyro_image::recipe::build_layer;
use pyro_image::store::{BUILD_SPACE_BYTES, Installed, NewEnvironment, RootKey};
use pyro_image::{Kernel, ProgressSink, Staging};

use super::EnvironmentOptions;
use super::layers::{LayersFile, Part};
use crate::Pyro;
use crate::error::Error;

impl Pyro {
    pub(super) async fn make_by_recipe(
        &self,
        staging: Staging,
        options: EnvironmentOptions,
        progress: &ProgressSink,
    ) -> Result<(Installed, Kernel), Error> {
        staging.require_space(BUILD_SPACE_BYTES)?;
        let kernel = self.kernel(options, progress).await?;
        let scratch = staging.dir().join("scratch");
        std::fs::create_dir(&scratch).map_err(|source| Error::Io {
            action: "make",
            path: scratch.clone(),
            source,
        })?;
        let tar = staging.dir().join("layer.tar");
        let layer = build_layer(staging.entry(), &tar, &scratch, progress).await?;
        let layers = LayersFile {
            path: layer.path,
            parts: vec![Part {
                offset: 0,
                size: layer.size,
            }],
        };
        self.build_root_image(&staging, &kernel, &layers, progress)
            .await?;
        let environment = NewEnvironment {
            kernel_digest: Some(kernel.digest),
            kernel_release: kernel.release.clone(),
            layer_sha256: Some(layer.sha256),
            packages: layer.packages,
            recipe: Some(layer.recipe.to_owned()),
            root_key: RootKey::of_layers([layer.sha256]),
            source: format!("recipe://{}", layer.recipe),
            source_digest: Some(layer.sha256.to_string()),
            ..NewEnvironment::default()
        };
        Ok((staging.commit(environment, progress).await?, kernel))
    }
}
