//! Files of this host that images are copied from: bounded reads, and verified copies.
//!
//! Only regular files are read, whatever a name leads to.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use tokio::io::AsyncReadExt as _;

use crate::blobs::{BlobError, Download};
use crate::disk::DiskError;
use crate::oci::document::MAX_DOCUMENT;
use crate::oci::error::OciError;
use crate::oci::meter::Meter;

/// Bytes that are copied at a time.
const CHUNK: usize = 256 * 1024;

/// A file, and what it is for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct File<'a> {
    pub(super) origin: &'a str,
    pub(super) path: &'a Path,
    pub(super) what: &'a str,
}

impl File<'_> {
    pub(super) fn open(self) -> Result<std::fs::File, OciError> {
        // A pipe without a writer must not hold us up.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(self.path, flags, Mode::empty())
            .map_err(|error| self.failed(error.into()))?;
        let file = std::fs::File::from(file);
        if file
            .metadata()
            .map_err(|error| self.failed(error))?
            .is_file()
        {
            Ok(file)
        } else {
            Err(self.failed(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            )))
        }
    }

    /// All of a document. Blocking for a moment.
    pub(super) fn read(self) -> Result<Vec<u8>, OciError> {
        let mut bytes = Vec::new();
        self.open()?
            .take(MAX_DOCUMENT + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.failed(error))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(OciError::TooLarge {
                origin: self.origin.to_owned(),
                what: self.what.to_owned(),
                limit: MAX_DOCUMENT,
            });
        }
        Ok(bytes)
    }

    /// Copies a blob that begins here into the store and installs it. A file that ends with the
    /// blob must have its size.
    pub(super) async fn copy(
        self,
        begin: u64,
        download: &mut Download,
        meter: &mut Meter<'_>,
    ) -> Result<(), OciError> {
        let mut resumed = download.offset() > 0;
        let of_store = |error| OciError::of_blob(error, self.origin, self.what);
        loop {
            self.append(begin, download, meter).await?;
            match download.finish().await {
                Ok(_) => return Ok(()),
                // The part from an earlier time may be to blame.
                Err(BlobError::WrongDigest { .. }) if resumed => {
                    resumed = false;
                    download.restart().await.map_err(of_store)?;
                }
                Err(error) => {
                    download.restart().await.map_err(of_store)?;
                    return Err(of_store(error));
                }
            }
        }
    }

    async fn append(
        self,
        begin: u64,
        download: &mut Download,
        meter: &mut Meter<'_>,
    ) -> Result<(), OciError> {
        let mut file = self.open()?;
        let failed = |error| self.failed(error);
        let length = file.metadata().map_err(failed)?.len();
        // Inside an archive a member is followed by others.
        if begin == 0 && length != download.size() {
            return Err(OciError::WrongSize {
                origin: self.origin.to_owned(),
                what: self.what.to_owned(),
                expected: download.size(),
                found: length.to_string(),
            });
        }
        let at = SeekFrom::Start(begin + download.offset());
        file.seek(at).map_err(failed)?;
        let left = download.size() - download.offset();
        let mut file = tokio::fs::File::from_std(file).take(left);
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = file.read(&mut chunk).await.map_err(failed)?;
            if count == 0 {
                return Ok(());
            }
            let taken = download.append(&chunk[..count]).await;
            taken.map_err(|error| OciError::of_blob(error, self.origin, self.what))?;
            meter.reached(download.offset());
        }
    }

    pub(super) fn failed(self, source: io::Error) -> OciError {
        if source.kind() == io::ErrorKind::NotFound {
            OciError::NotFound {
                origin: self.origin.to_owned(),
                what: self.what.to_owned(),
            }
        } else {
            OciError::Store(DiskError::new("read", self.path, source))
        }
    }
}
