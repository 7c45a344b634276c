//! Engines that are fetched: installed, listed, removed.

pub use pyro_image::runtime::{InstalledRuntime, Release, RuntimeInstallation};

use crate::Pyro;
use crate::error::Error;
use crate::progress::ProgressSink;

impl Pyro {
    /// Installs the Firecracker that this version is made for, unless it is there. `mirror` is a complete address of the
    /// released archive in place of the maker's; what comes from there is checked all the same.
    pub async fn install_runtime(
        &self,
        mirror: Option<&str>,
        progress: &ProgressSink,
    ) -> Result<RuntimeInstallation, Error> {
        let settings = self.settings();
        let store = settings.home.runtime_store();
        let release = Release::firecracker();
        Ok(store
            .install(
                &release,
                mirror,
                &settings.registries,
                settings.offline,
                progress,
            )
            .await?)
    }

    /// The engines that are installed. Reads their programs as a whole, a few megabytes.
    pub fn list_runtimes(&self) -> Result<Vec<InstalledRuntime>, Error> {
        let store = self.settings().home.runtime_store();
        Ok(store
            .installed(&Release::firecracker())?
            .into_iter()
            .collect())
    }

    /// Removes the Firecracker that was installed, and tells whether there was one. Machines that run go on.
    pub async fn remove_runtime(&self, progress: &ProgressSink) -> Result<bool, Error> {
        let store = self.settings().home.runtime_store();
        Ok(store.remove(&Release::firecracker(), progress).await?)
    }
}
