//! A blob in the making: locked, resumable, verified before it appears.
//!
//! ```text
//! begin ──► Present (another process was quicker, or it was there)
//!   └─────► Download ──append…──finish──► the blob, renamed into place
//!                └──drop──► stays, and is hashed again by the next one that begins
//! ```
//!
//! The lock is a `flock` on the partial file itself. Whoever gets it checks that the file still
//! has its name: it was renamed or removed if the one before has finished.

use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::blobs::{BlobError, BlobStore};
use crate::blocking::blocking;
use crate::digest::{Hasher, Sha256Digest};
use crate::disk::{self, DiskError};
use crate::progress::{Progress, ProgressSink};
use crate::sparse;

/// How often a taken lock is tried again. `flock` cannot be awaited.
const POLL: Duration = Duration::from_millis(100);
/// How often a waiting caller hears about it.
const REPORT: Duration = Duration::from_secs(5);
/// How often the file under a lock may turn out to have lost its name before we wait again.
const LOOKS: usize = 8;
/// Bytes that are collected before they are hashed and written, on a thread for blocking work.
const BATCH: usize = 512 * 1024;

/// What [`BlobStore::begin`] found.
#[derive(Debug)]
pub enum Begun {
    /// The blob is there.
    Present(PathBuf),
    /// It has to be fetched.
    Download(Box<Download>),
}

/// A blob that is being fetched. Dropping it keeps what was written, to be resumed.
#[derive(Debug)]
pub struct Download {
    store: BlobStore,
    digest: Sha256Digest,
    size: u64,
    batch: Vec<u8>,
    // Away only while a blocking thread uses it.
    state: Option<State>,
}

struct State {
    file: File,
    path: PathBuf,
    hasher: Hasher,
}

impl BlobStore {
    /// Begins to fetch a blob, or to go on with what an interrupted download left. Waits up to
    /// `deadline` while another process fetches it.
    pub async fn begin(
        &self,
        digest: Sha256Digest,
        size: u64,
        deadline: Duration,
        progress: &ProgressSink,
    ) -> Result<Begun, BlobError> {
        let start = Instant::now();
        let mut next_report = Duration::ZERO;
        loop {
            let store = self.clone();
            let tried = blocking(move || store.try_begin(digest, size)).await?;
            if let Some(begun) = tried {
                return Ok(begun);
            }
            let waited = start.elapsed();
            if waited >= deadline {
                return Err(BlobError::Locked {
                    digest,
                    path: self.partial_path(digest),
                    seconds: waited.as_secs(),
                });
            }
            if waited >= next_report {
                progress(Progress::Waiting {
                    what: digest.to_string(),
                    seconds: waited.as_secs(),
                });
                next_report = waited + REPORT;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Bytes of a blob that an interrupted download has already, unverified.
    pub fn partial_bytes(&self, digest: Sha256Digest) -> u64 {
        fs::metadata(self.partial_path(digest)).map_or(0, |metadata| metadata.len())
    }

    fn try_begin(&self, digest: Sha256Digest, size: u64) -> Result<Option<Begun>, BlobError> {
        if let Some(path) = self.find(digest, size)? {
            return Ok(Some(Begun::Present(path)));
        }
        self.create()?;
        let path = self.partial_path(digest);
        let Some(mut file) = lock(&path)? else {
            return Ok(None);
        };
        // Another process may have finished between the look and the lock.
        if let Some(present) = self.find(digest, size)? {
            remove(&path)?;
            return Ok(Some(Begun::Present(present)));
        }
        let failed = |source| DiskError::new("read", &path, source);
        if file.metadata().map_err(failed)?.len() > size {
            file.set_len(0).map_err(failed)?;
        }
        let mut hasher = Hasher::new();
        hasher.update_from(&mut file).map_err(failed)?;
        Ok(Some(Begun::Download(Box::new(Download {
            store: self.clone(),
            digest,
            size,
            batch: Vec::new(),
            state: Some(State { file, path, hasher }),
        }))))
    }

    fn partial_path(&self, digest: Sha256Digest) -> PathBuf {
        self.root.join("partial").join(digest.hex())
    }
}

impl Download {
    /// The blob.
    pub fn digest(&self) -> Sha256Digest {
        self.digest
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes are there: what is fetched next begins here.
    pub fn offset(&self) -> u64 {
        self.state().hasher.length() + self.batch.len() as u64
    }

    /// Takes the bytes that follow. More than the blob's size are refused.
    pub async fn append(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        if bytes.len() as u64 > self.size - self.offset() {
            return Err(BlobError::TooLong {
                digest: self.digest,
                expected: self.size,
            });
        }
        self.batch.extend_from_slice(bytes);
        if self.batch.len() >= BATCH {
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes what was taken, so that a later process can go on from here.
    pub async fn flush(&mut self) -> Result<(), BlobError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.batch = self
            .with_state(move |state| {
                // Root images are blobs as well, and mostly zeros.
                let begin = state.hasher.length();
                sparse::write_at(&state.file, begin, &batch)
                    .and_then(|()| state.file.set_len(begin + batch.len() as u64))
                    .map_err(|source| DiskError::new("write", &state.path, source))?;
                state.hasher.update(&batch);
                batch.clear();
                Ok(batch)
            })
            .await?;
        Ok(())
    }

    /// Forgets all that was taken and begins again.
    pub async fn restart(&mut self) -> Result<(), BlobError> {
        self.batch.clear();
        self.with_state(|state| {
            state
                .file
                .set_len(0)
                .and_then(|()| state.file.seek(SeekFrom::Start(0)))
                .map_err(|source| DiskError::new("write", &state.path, source))?;
            state.hasher = Hasher::new();
            Ok(())
        })
        .await
    }

    /// Verifies size and digest and makes it a blob. Too few bytes are an error after which more
    /// may be appended; a wrong digest is one after which only [`Self::restart`] helps.
    pub async fn finish(&mut self) -> Result<PathBuf, BlobError> {
        self.flush().await?;
        let (digest, size, store) = (self.digest, self.size, self.store.clone());
        self.with_state(move |state| {
            if state.hasher.length() != size {
                return Err(BlobError::TooShort {
                    digest,
                    expected: size,
                    found: state.hasher.length(),
                });
            }
            let found = state.hasher.finish();
            if found != digest {
                return Err(BlobError::WrongDigest {
                    expected: digest,
                    found,
                });
            }
            let target = store.path(digest);
            let failed = |source| DiskError::new("write", &target, source);
            state.file.sync_all().map_err(failed)?;
            fs::rename(&state.path, &target).map_err(failed)?;
            disk::sync(&store.root.join("sha256"))?;
            store.mark(digest)?;
            Ok(target)
        })
        .await
    }

    fn state(&self) -> &State {
        self.state
            .as_ref()
            .expect("a future that took the state and was dropped is the last to use it")
    }

    async fn with_state<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut State) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, BlobError> {
        let mut state = self
            .state
            .take()
            .expect("a future that took the state and was dropped is the last to use it");
        let (state, result) = blocking(move || {
            let result = work(&mut state);
            (state, result)
        })
        .await;
        self.state = Some(state);
        result
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("path", &self.path)
            .field("length", &self.hasher.length())
            .finish_non_exhaustive()
    }
}

/// Opens and locks a partial file. `None` if another process holds it.
fn lock(path: &Path) -> Result<Option<File>, DiskError> {
    for _ in 0..LOOKS {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(|source| DiskError::new("open", path, source))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(DiskError::new("lock", path, error.into())),
        }
        let ours = file
            .metadata()
            .map_err(|source| DiskError::new("read", path, source))?;
        let named = fs::symlink_metadata(path)
            .is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino()));
        if named {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

fn remove(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DiskError::new("remove", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::BlobState;
    use crate::progress;

    const SOON: Duration = Duration::from_secs(20);

    async fn download(store: &BlobStore, content: &[u8]) -> Box<Download> {
        let digest = Sha256Digest::of(content);
        let size = content.len() as u64;
        match store.begin(digest, size, SOON, &progress::ignore()).await {
            Ok(Begun::Download(download)) => download,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_dropped_download_is_resumed_and_verified_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::new(dir.path());
        let content = vec![9; BATCH * 2 + 5];
        let digest = Sha256Digest::of(&content);
        let mut first = download(&store, &content).await;
        first.append(&content[..=BATCH]).await.unwrap();
        drop(first);
        assert_eq!(store.state(digest).unwrap(), BlobState::Absent);
        assert_eq!(store.partial_bytes(digest), BATCH as u64 + 1);
        let mut second = download(&store, &content).await;
        assert_eq!(second.offset(), BATCH as u64 + 1);
        let short = second.finish().await.unwrap_err();
        assert!(matches!(short, BlobError::TooShort { .. }), "{short}");
        second.append(&content[BATCH + 1..]).await.unwrap();
        let path = second.finish().await.unwrap();
        assert_eq!(fs::read(path).unwrap(), content);
        assert_eq!(store.partial_bytes(digest), 0);
        let again = store
            .begin(digest, content.len() as u64, SOON, &progress::ignore())
            .await;
        assert!(matches!(again, Ok(Begun::Present(_))));
    }

    #[tokio::test]
    async fn wrong_and_surplus_bytes_never_become_a_blob() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::new(dir.path());
        let mut download = download(&store, b"right").await;
        let error = download.append(b"longer").await.unwrap_err();
        assert!(matches!(error, BlobError::TooLong { expected: 5, .. }));
        download.append(b"wrong").await.unwrap();
        let error = download.finish().await.unwrap_err();
        assert!(matches!(error, BlobError::WrongDigest { .. }));
        assert!(error.hint().is_some());
        download.restart().await.unwrap();
        download.append(b"right").await.unwrap();
        download.finish().await.unwrap();
        let digest = Sha256Digest::of(b"right");
        assert_eq!(store.verify(digest).unwrap(), BlobState::Valid { size: 5 });
    }

    #[tokio::test]
    async fn one_downloads_while_the_others_wait_and_find_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::new(dir.path());
        let digest = Sha256Digest::of(b"shared");
        let mut first = download(&store, b"shared").await;
        let refused = store
            .begin(digest, 6, Duration::ZERO, &progress::ignore())
            .await;
        assert!(matches!(refused, Err(BlobError::Locked { .. })));
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.begin(digest, 6, SOON, &progress::ignore()).await }
        });
        first.append(b"shared").await.unwrap();
        first.finish().await.unwrap();
        assert!(matches!(waiting.await.unwrap(), Ok(Begun::Present(_))));
        assert!(disk::names(&dir.path().join("partial")).unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_partial_file_that_is_too_long_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::new(dir.path());
        store.create().unwrap();
        let digest = Sha256Digest::of(b"right");
        fs::write(store.partial_path(digest), b"much longer").unwrap();
        assert_eq!(download(&store, b"right").await.offset(), 0);
    }
}
