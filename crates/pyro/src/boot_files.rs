//! What a machine boots from: the kernel and the initramfs around the agent.
//!
//! An initramfs depends on nothing but the agent's build and the kernel's modules, so it is
//! written once and named after both.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pyro_guest::AGENT_BUILD_ID;
use pyro_guest::initramfs::{self, Module, Modules};
use pyro_image::kernel::{KernelModule, ModuleLoad};
use pyro_image::{Kernel, Sha256Digest};

use crate::error::Error;
use crate::settings::Settings;

/// A kernel and the initramfs for it.
#[derive(Clone, Debug)]
pub(crate) struct BootFiles {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// Identity of the kernel.
    pub(crate) kernel_digest: Sha256Digest,
}

impl BootFiles {
    /// The boot files for `kernel`, or for the kernel that the settings put in its place.
    pub(crate) fn prepare(settings: &Settings, kernel: &Kernel) -> Result<Self, Error> {
        let replacement = replacement(settings)?;
        let kernel = replacement.as_ref().unwrap_or(kernel);
        let directory = settings.home.initramfs();
        let initramfs = directory.join(file_name(kernel));
        if !initramfs.is_file() {
            write(&directory, &initramfs, kernel).map_err(|source| Error::Io {
                action: "write the initramfs",
                path: initramfs.clone(),
                source,
            })?;
        }
        Ok(Self {
            kernel: kernel.boot_image().to_owned(),
            initramfs,
            kernel_digest: kernel.digest,
        })
    }
}

/// The kernel that the settings put in place of every environment's.
pub(crate) fn replacement(settings: &Settings) -> Result<Option<Kernel>, Error> {
    let Some(path) = settings.kernel.as_deref() else {
        return Ok(None);
    };
    Kernel::from_override(path)
        .map(Some)
        .map_err(|source| Error::KernelOverride {
            path: path.to_owned(),
            source,
        })
}

/// Whether an initramfs of this name was made for this build of the agent.
pub(crate) fn is_current(name: &str) -> bool {
    name.strip_prefix(AGENT_BUILD_ID)
        .is_some_and(|rest| rest.starts_with('-'))
}

fn file_name(kernel: &Kernel) -> String {
    // A bare image has no modules, so its initramfs is that of every bare image.
    let of = if kernel.manifest.is_some() {
        kernel.digest.hex()
    } else {
        "bare".to_owned()
    };
    format!("{AGENT_BUILD_ID}-{of}.cpio")
}

fn write(directory: &Path, path: &Path, kernel: &Kernel) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let boot = read(kernel.modules_for(&[ModuleLoad::Boot]))?;
    let network = read(kernel.modules_for(&[ModuleLoad::Network]))?;
    let vsock = read(kernel.modules_for(&[ModuleLoad::Vsock]))?;
    let modules = Modules {
        boot: &borrow(&boot),
        network: &borrow(&network),
        vsock: &borrow(&vsock),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".partial-")
        .tempfile_in(directory)?;
    initramfs::write(&mut file, &modules)?;
    file.flush()?;
    // The VMM's own user opens it through an inherited descriptor.
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn read<'a>(modules: impl Iterator<Item = &'a KernelModule>) -> io::Result<Vec<(String, Vec<u8>)>> {
    modules
        .map(|module| Ok((module.name.clone(), fs::read(&module.path)?)))
        .collect()
}

fn borrow(modules: &[(String, Vec<u8>)]) -> Vec<Module<'_>> {
    modules
        .iter()
        .map(|(name, content)| Module { name, content })
        .collect()
}
