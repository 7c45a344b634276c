//! The store of kernels, shared by all environments and all processes of a user.
//!
//! ```text
//! <dir>/.lock                      held by the process that installs
//! <dir>/.partial-<random>/         staging of that process
//! <dir>/<hex>/manifest.json        <hex> is the digest of this file
//! <dir>/<hex>/vmlinuz
//! <dir>/<hex>/vmlinux              the same uncompressed, where that can be had
//! <dir>/<hex>/modules/<name>.ko
//! <dir>/<hex>/records.json         marks of the files on this disk
//! ```
//!
//! An installed kernel never changes; a damaged one is replaced as a whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::digest::Sha256Digest;
use crate::disk::{self, DiskError};
use crate::kernel::{Kernel, KernelError, MANIFEST, manifest, package};
use crate::lock::FileLock;
use crate::progress::{self, ProgressSink};

/// Another process needs at most this long to fetch a kernel over a slow line.
const LOCK_DEADLINE: Duration = Duration::from_mins(45);
/// Room for the package, its unpacked tree and the installed files.
const BUILD_SPACE_BYTES: u64 = 512 * 1024 * 1024;
/// How staging directories begin.
const STAGING: &str = ".partial-";

/// The kernels below one directory.
#[derive(Debug, Clone)]
pub struct KernelStore {
    dir: PathBuf,
}

impl KernelStore {
    /// The store in this directory, which need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The newest installed kernel; if there is none, the distribution's newest is fetched.
    /// Waits while another process installs one.
    pub async fn ensure(&self, progress: &ProgressSink) -> Result<Kernel, KernelError> {
        if let Some(kernel) = self.latest()? {
            return Ok(kernel);
        }
        let _lock = self.lock(progress).await?;
        // Another process may have installed it while we waited.
        match self.latest()? {
            Some(kernel) => Ok(kernel),
            None => self.install(progress).await,
        }
    }

    /// Fetches the distribution's newest kernel, even if another one is installed. Kernels that
    /// are installed already stay.
    pub async fn update(&self, progress: &ProgressSink) -> Result<Kernel, KernelError> {
        let _lock = self.lock(progress).await?;
        self.install(progress).await
    }

    /// The installed kernel with this digest. Cheap, unless the marks of its files have changed;
    /// then they are hashed, blocking.
    pub fn open(&self, digest: Sha256Digest) -> Result<Kernel, KernelError> {
        let dir = self.dir.join(digest.hex());
        if !dir.is_dir() {
            return Err(KernelError::NotInstalled { digest });
        }
        let (manifest, found) = manifest::read(&dir)?;
        if found != digest {
            return Err(KernelError::Invalid {
                dir,
                problem: format!("`{MANIFEST}` has the digest {found}"),
            });
        }
        manifest::verify_cheaply(&dir, &manifest)?;
        Kernel::from_manifest(&dir, manifest, digest)
    }

    /// Like [`Self::open`], but hashes every file.
    pub fn verify(&self, digest: Sha256Digest) -> Result<Kernel, KernelError> {
        let kernel = self.open(digest)?;
        if let Some(manifest) = &kernel.manifest {
            manifest::verify_content(&kernel.dir, manifest)?;
        }
        Ok(kernel)
    }

    /// The valid kernel that was installed last. Damaged ones are passed over.
    pub fn latest(&self) -> Result<Option<Kernel>, KernelError> {
        let mut found: Vec<(SystemTime, Sha256Digest)> = Vec::new();
        for digest in self.digests()? {
            let manifest = self.dir.join(digest.hex()).join(MANIFEST);
            if let Ok(time) = fs::metadata(manifest).and_then(|metadata| metadata.modified()) {
                found.push((time, digest));
            }
        }
        found.sort();
        Ok(found
            .into_iter()
            .rev()
            .find_map(|(_, digest)| self.open(digest).ok()))
    }

    /// An installed kernel whose uncompressed image has this digest.
    pub fn with_vmlinux(&self, sha256: Sha256Digest) -> Result<Option<Kernel>, KernelError> {
        Ok(self
            .digests()?
            .into_iter()
            .filter_map(|digest| self.open(digest).ok())
            .find(|kernel| {
                let vmlinux = kernel.manifest.as_ref().and_then(|found| found.vmlinux);
                vmlinux.is_some_and(|vmlinux| vmlinux.sha256 == sha256)
            }))
    }

    /// The digests of all kernel directories, valid or not, sorted.
    pub fn digests(&self) -> Result<Vec<Sha256Digest>, KernelError> {
        Ok(disk::names(&self.dir)?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect())
    }

    /// Staging directories that no process uses any more; unless `dry_run`, they are removed.
    pub fn remove_stale_staging(&self, dry_run: bool) -> Result<Vec<PathBuf>, KernelError> {
        let stale = self.staging_dirs()?;
        if stale.is_empty() {
            return Ok(stale);
        }
        let Some(_lock) = FileLock::try_take(&self.lock_path())? else {
            return Ok(Vec::new());
        };
        if !dry_run {
            for path in &stale {
                disk::remove_tree(path)?;
            }
        }
        Ok(stale)
    }

    /// Removes the installed kernels that are neither in `keep` nor the newest, and tells how
    /// many and their bytes; with `dry_run` only tells. Does nothing while one is installed.
    pub fn remove_unused(
        &self,
        keep: &[Sha256Digest],
        dry_run: bool,
    ) -> Result<(usize, u64), KernelError> {
        let newest = self.latest()?.map(|kernel| kernel.digest);
        let unused = |digest: &Sha256Digest| !keep.contains(digest) && newest != Some(*digest);
        let unused: Vec<_> = self.digests()?.into_iter().filter(unused).collect();
        if unused.is_empty() {
            return Ok((0, 0));
        }
        let Some(_lock) = FileLock::try_take(&self.lock_path())? else {
            return Ok((0, 0));
        };
        let mut bytes = 0_u64;
        for digest in &unused {
            let dir = self.dir.join(digest.hex());
            bytes = bytes.saturating_add(disk::bytes_with_links(&dir, u64::MAX));
            if !dry_run {
                disk::remove_tree(&dir)?;
            }
        }
        Ok((unused.len(), bytes))
    }

    fn staging_dirs(&self) -> Result<Vec<PathBuf>, KernelError> {
        Ok(disk::names(&self.dir)?
            .into_iter()
            .filter(|name| name.starts_with(STAGING))
            .map(|name| self.dir.join(name))
            .collect())
    }

    async fn lock(&self, progress: &ProgressSink) -> Result<FileLock, KernelError> {
        disk::create_private_dir(&self.dir)?;
        let path = self.lock_path();
        Ok(FileLock::take(&path, "the guest kernel", LOCK_DEADLINE, progress).await?)
    }

    /// The caller holds the lock.
    async fn install(&self, progress: &ProgressSink) -> Result<Kernel, KernelError> {
        for stale in self.staging_dirs()? {
            disk::remove_tree(&stale)?;
        }
        disk::require_space(&self.dir, BUILD_SPACE_BYTES)?;
        let staging = StagingDir(disk::create_staging_dir(&self.dir, STAGING)?);
        let (install, digest) = package::build(&staging.0, progress).await?;
        disk::sync(&install)?;
        let target = self.dir.join(digest.hex());
        if let Ok(kernel) = self.open(digest) {
            return Ok(kernel);
        }
        progress::phase(progress, "kernel-install", digest.to_string());
        disk::remove_tree(&target)?;
        fs::rename(&install, &target)
            .map_err(|source| DiskError::new("rename into", &target, source))?;
        disk::sync(&self.dir)?;
        let (manifest, _) = manifest::read(&target)?;
        manifest::write_marks(&target, &manifest)?;
        Kernel::from_manifest(&target, manifest, digest)
    }

    fn lock_path(&self) -> PathBuf {
        self.dir.join(".lock")
    }
}

/// Removes itself when the work ends, however it ends.
struct StagingDir(PathBuf);

impl Drop for StagingDir {
    fn drop(&mut self) {
        // What cannot be removed now is found by `remove_stale_staging`.
        let _ = disk::remove_tree(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::manifest::{FileEntry, KernelManifest, SCHEMA};
    use crate::kernel::{IMAGE, KernelFormat, UNCOMPRESSED_IMAGE};

    fn fake(store: &KernelStore, release: &str) -> Sha256Digest {
        let image = format!("\x7fELF {release}");
        let entry = FileEntry {
            sha256: Sha256Digest::of(image.as_bytes()),
            size: image.len() as u64,
        };
        let manifest = KernelManifest {
            deb_sha256: Sha256Digest::of(b"deb"),
            modules: Vec::new(),
            package: "linux-image".to_owned(),
            package_version: "1".to_owned(),
            release: release.to_owned(),
            schema: SCHEMA,
            vmlinux: Some(entry),
            vmlinuz: entry,
        };
        install_fake(store, &image, &manifest.to_bytes())
    }

    fn install_fake(store: &KernelStore, image: &str, bytes: &[u8]) -> Sha256Digest {
        let digest = Sha256Digest::of(bytes);
        let dir = store.dir().join(digest.hex());
        fs::create_dir_all(&dir).unwrap();
        for name in [IMAGE, UNCOMPRESSED_IMAGE] {
            fs::write(dir.join(name), image).unwrap();
        }
        fs::write(dir.join(MANIFEST), bytes).unwrap();
        digest
    }

    #[test]
    fn kernels_that_nothing_needs_are_removed_but_the_newest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = KernelStore::new(dir.path());
        let all = ["1", "2", "3"].map(|release| fake(&store, release));
        let newest = store.latest().unwrap().unwrap().digest;
        let others: Vec<_> = all.into_iter().filter(|one| *one != newest).collect();
        let (count, bytes) = store.remove_unused(&others[..1], true).unwrap();
        assert_eq!(count, 1);
        assert!(bytes > 0);
        assert_eq!(
            store.remove_unused(&others[..1], false).unwrap(),
            (1, bytes)
        );
        let mut left = vec![newest, others[0]];
        left.sort_unstable();
        assert_eq!(store.digests().unwrap(), left);
        assert_eq!(store.remove_unused(&others[..1], false).unwrap(), (0, 0));
    }

    #[test]
    fn the_newest_valid_kernel_wins() {
        let dir = tempfile::tempdir().unwrap();
        let store = KernelStore::new(dir.path());
        assert_eq!(store.latest().unwrap(), None);
        let old = fake(&store, "1");
        std::thread::sleep(Duration::from_millis(20));
        let new = fake(&store, "2");
        assert_eq!(store.latest().unwrap().unwrap().digest, new);
        assert_eq!(store.open(old).unwrap().format, KernelFormat::Elf);

        // Same length, so only the content tells.
        fs::write(dir.path().join(new.hex()).join(IMAGE), "\x7fELF X").unwrap();
        assert!(matches!(store.open(new), Err(KernelError::Invalid { .. })));
        assert_eq!(store.latest().unwrap().unwrap().digest, old);
        fs::write(dir.path().join(old.hex()).join(MANIFEST), "{}").unwrap();
        assert_eq!(store.latest().unwrap(), None);
    }

    #[test]
    fn the_uncompressed_image_is_booted_and_verified() {
        let dir = tempfile::tempdir().unwrap();
        let store = KernelStore::new(dir.path());
        let digest = fake(&store, "1");
        let kernel = store.open(digest).unwrap();
        let vmlinux = kernel.dir.join(UNCOMPRESSED_IMAGE);
        assert_eq!(kernel.boot_image(), vmlinux);
        fs::remove_file(&vmlinux).unwrap();
        assert!(matches!(
            store.open(digest),
            Err(KernelError::Invalid { .. })
        ));
        fs::write(&vmlinux, "\x7fELF X").unwrap();
        assert_eq!(store.latest().unwrap(), None);
    }

    #[test]
    fn kernels_of_another_schema_count_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let store = KernelStore::new(dir.path());
        let current = fake(&store, "1");
        let bytes = fs::read_to_string(dir.path().join(current.hex()).join(MANIFEST)).unwrap();
        let old = bytes.replace("\"schema\": 2", "\"schema\": 1");
        std::thread::sleep(Duration::from_millis(20));
        let others = [&old, "{\"schema\": 3}"]
            .map(|manifest| install_fake(&store, "\x7fELF 1", manifest.as_bytes()));
        for other in others {
            assert!(matches!(
                store.open(other),
                Err(KernelError::Invalid { .. })
            ));
        }
        assert_eq!(store.latest().unwrap().unwrap().digest, current);
        fs::remove_dir_all(dir.path().join(current.hex())).unwrap();
        assert_eq!(store.latest().unwrap(), None);
    }

    #[test]
    fn an_override_is_a_directory_or_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = KernelStore::new(dir.path());
        let digest = fake(&store, "1");
        let kernel = Kernel::from_override(&dir.path().join(digest.hex())).unwrap();
        assert_eq!(kernel.release.as_deref(), Some("1"));
        assert_eq!(kernel.digest, digest);
        let bare = Kernel::from_override(&kernel.vmlinuz).unwrap();
        assert!(bare.modules.is_empty() && bare.manifest.is_none());
        assert_eq!(bare.boot_image(), kernel.vmlinuz);
        assert!(Kernel::from_override(dir.path()).is_err());
    }

    #[test]
    fn stale_staging_goes_unless_somebody_installs() {
        let dir = tempfile::tempdir().unwrap();
        let store = KernelStore::new(dir.path());
        let staging = dir.path().join(".partial-abc");
        fs::create_dir(&staging).unwrap();
        let lock = FileLock::try_take(&store.lock_path()).unwrap().unwrap();
        assert!(store.remove_stale_staging(false).unwrap().is_empty());
        drop(lock);
        let stale = vec![staging.clone()];
        assert_eq!(store.remove_stale_staging(true).unwrap(), stale);
        assert!(staging.exists());
        assert_eq!(store.remove_stale_staging(false).unwrap(), stale);
        assert!(!staging.exists());
    }
}
