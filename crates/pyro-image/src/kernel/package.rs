//! Makes a kernel directory out of the distribution's kernel package.
//!
//! The package is downloaded by apt, which checks its signature, and unpacked below a staging
//! directory. It is never installed, and its scripts never run.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::apt::{Candidate, FetchError, PackageLists};
use crate::digest::Sha256Digest;
use crate::disk::{self, DiskError};
use crate::host::{HostError, HostProgram, Invocation};
use crate::kernel::manifest::{FileEntry, KernelManifest, ModuleEntry, SCHEMA};
use crate::kernel::modules::{self, Compression, ModuleIndex};
use crate::kernel::vmlinux::{self, ExtractError};
use crate::kernel::{IMAGE, KernelError, KernelFormat, MANIFEST, UNCOMPRESSED_IMAGE, image};
use crate::progress::{self, Progress, ProgressSink};

/// The package that always depends on the newest kernel for virtual machines.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// Unpacking writes about a hundred megabytes.
const UNPACK_DEADLINE: Duration = Duration::from_mins(10);

/// Makes `<staging>/install` and gives its path and the digest of its manifest. Everything else
/// in `staging` is scrap.
pub(super) async fn build(
    staging: &Path,
    progress: &ProgressSink,
) -> Result<(PathBuf, Sha256Digest), KernelError> {
    let (candidate, deb) = fetch(staging, progress).await?;
    progress::phase(progress, "kernel-unpack", candidate.package.clone());
    let tree = staging.join("tree");
    Invocation::new(HostProgram::DpkgDeb, UNPACK_DEADLINE)
        .args(["-x".as_ref(), deb.as_os_str(), tree.as_os_str()])
        .answer()
        .await?;
    let install = staging.join("install");
    let manifest = assemble(&candidate, &deb, &tree, &install, progress).await?;
    let bytes = manifest.to_bytes();
    disk::write_new(&install.join(MANIFEST), &bytes)?;
    Ok((install, Sha256Digest::of(&bytes)))
}

/// Downloads the newest kernel: by the system's package lists or, if these are missing or too
/// old, by fresh lists of our own.
async fn fetch(
    staging: &Path,
    progress: &ProgressSink,
) -> Result<(Candidate, PathBuf), KernelError> {
    let directory = staging.join("deb");
    disk::create_private_dir(&directory)?;
    let system = PackageLists::system();
    if let Some(candidate) = resolve(&system).await? {
        match download(&system, &candidate, &directory, progress).await {
            Ok(deb) => return Ok((candidate, deb)),
            // A mirror drops the version that old lists name.
            Err(KernelError::Host(HostError::Failed { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    let private = PackageLists::fetch(&staging.join("apt"), progress).await?;
    let candidate = resolve(&private)
        .await?
        .ok_or_else(|| KernelError::PackageUnknown {
            package: META_PACKAGE.to_owned(),
        })?;
    let deb = download(&private, &candidate, &directory, progress).await?;
    Ok((candidate, deb))
}

/// The real package behind the meta package.
async fn resolve(lists: &PackageLists) -> Result<Option<Candidate>, HostError> {
    let Some(meta) = lists.candidate(META_PACKAGE).await? else {
        return Ok(None);
    };
    let image = meta
        .depends
        .iter()
        .find(|name| name.starts_with("linux-image-") && name.ends_with("-cloud-amd64"));
    match image {
        Some(image) => lists.candidate(image).await,
        None => Ok(None),
    }
}

async fn download(
    lists: &PackageLists,
    candidate: &Candidate,
    directory: &Path,
    progress: &ProgressSink,
) -> Result<PathBuf, KernelError> {
    progress::phase(
        progress,
        "kernel-download",
        format!("{} {}", candidate.package, candidate.version),
    );
    let deb = lists
        .download(candidate, directory, progress)
        .await
        .map_err(|error: FetchError| KernelError::from(error))?;
    Ok(deb)
}

async fn assemble(
    candidate: &Candidate,
    deb: &Path,
    tree: &Path,
    install: &Path,
    progress: &ProgressSink,
) -> Result<KernelManifest, KernelError> {
    let unusable = |problem: String| KernelError::PackageUnusable {
        package: candidate.package.clone(),
        problem,
    };
    let (deb_sha256, _) =
        Sha256Digest::of_file(deb).map_err(|source| DiskError::new("read", deb, source))?;
    // apt has compared them already; this guards against taking the wrong file.
    if candidate
        .sha256
        .as_ref()
        .is_some_and(|listed| *listed != deb_sha256.hex())
    {
        return Err(unusable(format!(
            "the downloaded file has the digest {deb_sha256}"
        )));
    }

    disk::create_private_dir(&install.join("modules"))?;
    let source = only_entry(&tree.join("boot"), "vmlinuz-")?
        .ok_or_else(|| unusable("it holds no single `boot/vmlinuz-*`".to_owned()))?;
    let vmlinuz = install_file(&source, &install.join(IMAGE))?;
    let format = image::inspect(&source)?.format;
    let vmlinux = match format {
        KernelFormat::BzImage => install_uncompressed(&source, tree, install, progress).await?,
        KernelFormat::Elf => None,
    };

    let mut directory = None;
    for parent in ["lib/modules", "usr/lib/modules"] {
        directory = directory.or(only_entry(&tree.join(parent), "")?);
    }
    let directory = directory.ok_or_else(|| unusable("it holds no modules".to_owned()))?;
    let release = directory
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| unusable("its release is not text".to_owned()))?;
    Ok(KernelManifest {
        deb_sha256,
        modules: install_modules(&ModuleIndex::read(&directory)?, tree, install).await?,
        package: candidate.package.clone(),
        package_version: candidate.version.clone(),
        release: release.to_owned(),
        schema: SCHEMA,
        vmlinux,
        vmlinuz,
    })
}

/// Installs the uncompressed form of an image. A kernel that has none boots as it is.
async fn install_uncompressed(
    bz_image: &Path,
    tree: &Path,
    install: &Path,
    progress: &ProgressSink,
) -> Result<Option<FileEntry>, KernelError> {
    let vmlinux = tree.join("vmlinux");
    match vmlinux::extract(bz_image, &tree.join("payload"), &vmlinux).await {
        Ok(()) => install_file(&vmlinux, &install.join(UNCOMPRESSED_IMAGE)).map(Some),
        Err(ExtractError::Work(error)) => Err(error),
        Err(reason) => {
            progress(Progress::Step {
                text: format!("the kernel stays compressed: {reason}"),
            });
            Ok(None)
        }
    }
}

async fn install_modules(
    index: &ModuleIndex,
    tree: &Path,
    install: &Path,
) -> Result<Vec<ModuleEntry>, KernelError> {
    // Finding the order needs uncompressed modules, and uncompressing needs child processes:
    // so try, uncompress what the try asked for, and try again.
    let mut ready: BTreeMap<String, PathBuf> = BTreeMap::new();
    let order = loop {
        let mut wanted = None;
        let order = index.load_order(|name| {
            if let Some(path) = ready.get(name) {
                return modules::dependencies(path);
            }
            wanted.get_or_insert_with(|| name.to_owned());
            Ok(Vec::new())
        })?;
        let Some(name) = wanted else { break order };
        let path = index
            .file(&name)
            .expect("the order names indexed files only");
        let plain = uncompressed(path, &tree.join(format!("{name}.ko"))).await?;
        ready.insert(name, plain);
    };
    let mut entries = Vec::new();
    for (name, load) in order {
        let file = format!("modules/{name}.ko");
        let content = install_file(&ready[&name], &install.join(&file))?;
        entries.push(ModuleEntry {
            file,
            load,
            name,
            sha256: content.sha256,
            size: content.size,
        });
    }
    disk::sync(&install.join("modules"))?;
    Ok(entries)
}

/// The module itself, or an uncompressed copy of it at `scrap`.
async fn uncompressed(path: &Path, scrap: &Path) -> Result<PathBuf, KernelError> {
    match modules::compression(path)? {
        Compression::None => Ok(path.to_owned()),
        Compression::Xz => {
            let mut output = tokio::fs::File::create(scrap)
                .await
                .map_err(|source| DiskError::new("create", scrap, source))?;
            Invocation::new(HostProgram::Xz, UNPACK_DEADLINE)
                .args(["-dc".as_ref(), "--".as_ref(), path.as_os_str()])
                .start()?
                .finish(
                    async |stdout| {
                        tokio::io::copy(stdout, &mut output).await?;
                        output.sync_all().await
                    },
                    |_| {},
                )
                .await?;
            Ok(scrap.to_owned())
        }
    }
}

/// Copies a file into the install directory with mode 0644, flushed.
fn install_file(from: &Path, to: &Path) -> Result<FileEntry, KernelError> {
    let copy = || -> io::Result<(Sha256Digest, u64)> {
        fs::copy(from, to)?;
        fs::set_permissions(to, Permissions::from_mode(0o644))?;
        File::open(to)?.sync_all()?;
        Sha256Digest::of_file(to)
    };
    let (sha256, size) = copy().map_err(|source| DiskError::new("write", to, source))?;
    Ok(FileEntry { sha256, size })
}

/// The only entry of a directory with this prefix; `None` if there is none or several.
fn only_entry(directory: &Path, prefix: &str) -> Result<Option<PathBuf>, KernelError> {
    let names = disk::names(directory)?;
    let mut fitting = names.iter().filter(|name| name.starts_with(prefix));
    Ok(match (fitting.next(), fitting.next()) {
        (Some(name), None) => Some(directory.join(name)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_compressed_module_is_uncompressed_into_the_scrap() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("overlay.ko");
        fs::write(&plain, "module ".repeat(10_000)).unwrap();
        let scrap = dir.path().join("scrap.ko");
        assert_eq!(uncompressed(&plain, &scrap).await.unwrap(), plain);
        let packed = std::process::Command::new("xz")
            .args(["--keep", "--check=crc32"])
            .arg(&plain)
            .status()
            .unwrap();
        assert!(packed.success());
        let path = dir.path().join("overlay.ko.xz");
        assert_eq!(uncompressed(&path, &scrap).await.unwrap(), scrap);
        assert_eq!(fs::read(&scrap).unwrap(), fs::read(&plain).unwrap());

        fs::write(&path, "no xz").unwrap();
        let error = uncompressed(&path, &scrap).await.unwrap_err();
        assert!(matches!(error, KernelError::Host(_)), "{error}");
    }

    #[test]
    fn the_only_entry_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let only = |prefix| only_entry(dir.path(), prefix).unwrap();
        assert_eq!(only("vmlinuz-"), None);
        fs::write(dir.path().join("vmlinuz-1"), "").unwrap();
        fs::write(dir.path().join("config-1"), "").unwrap();
        assert_eq!(only("vmlinuz-"), Some(dir.path().join("vmlinuz-1")));
        fs::write(dir.path().join("vmlinuz-2"), "").unwrap();
        assert_eq!(only("vmlinuz-"), None);
    }
}
