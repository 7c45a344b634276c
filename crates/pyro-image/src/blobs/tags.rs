//! What tags meant when they were last resolved.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::blobs::BlobStore;
use crate::digest::Sha256Digest;
use crate::disk::{self, DiskError};

/// The version of the records' format.
const SCHEMA: u32 = 1;
/// A record is a few hundred bytes.
const RECORD_BYTES: u64 = 16 * 1024;

/// The digest that a tag was resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// What the tag meant: an index or a manifest.
    pub digest: Sha256Digest,
    /// The image's whole name with its tag.
    pub reference: String,
    /// When, seconds since the epoch.
    pub resolved_at: i64,
    /// Version of this format.
    pub schema: u32,
}

impl BlobStore {
    /// What a name meant when it was last resolved. A record that cannot be read is none.
    pub fn tag(&self, reference: &str) -> Option<TagRecord> {
        read(&self.tag_path(reference)).filter(|record| record.reference == reference)
    }

    /// Every record that can be read.
    pub(super) fn tag_records(&self) -> Result<Vec<TagRecord>, DiskError> {
        let tags = self.root.join("tags");
        let names = disk::names(&tags)?;
        Ok(names
            .iter()
            .filter_map(|name| read(&tags.join(name)))
            .collect())
    }

    /// Records what a name means now.
    pub fn record_tag(&self, reference: &str, digest: Sha256Digest) -> Result<(), DiskError> {
        self.create()?;
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        let record = TagRecord {
            digest,
            reference: reference.to_owned(),
            resolved_at: i64::try_from(seconds).unwrap_or(i64::MAX),
            schema: SCHEMA,
        };
        let bytes = serde_json::to_vec(&record).expect("a record has string keys");
        disk::write_atomically(&self.tag_path(reference), &bytes)
    }

    /// Forgets what a name meant, if it is known.
    pub fn forget_tag(&self, reference: &str) -> Result<(), DiskError> {
        disk::remove_tree(&self.tag_path(reference))
    }

    fn tag_path(&self, reference: &str) -> PathBuf {
        let name = Sha256Digest::of(reference.as_bytes()).hex();
        self.root.join("tags").join(format!("{name}.json"))
    }
}

fn read(path: &Path) -> Option<TagRecord> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(RECORD_BYTES).read_to_end(&mut bytes).ok()?;
    let record: TagRecord = serde_json::from_slice(&bytes).ok()?;
    (record.schema == SCHEMA).then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_meaning_of_a_tag_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::new(dir.path());
        assert_eq!(store.tag("h.x/a:t"), None);
        store.record_tag("h.x/a:t", Sha256Digest::of(b"1")).unwrap();
        store.record_tag("h.x/a:t", Sha256Digest::of(b"2")).unwrap();
        let record = store.tag("h.x/a:t").unwrap();
        assert_eq!(record.digest, Sha256Digest::of(b"2"));
        assert!(record.resolved_at > 1_700_000_000);
        assert_eq!(store.tag("h.x/a:u"), None);
        store.forget_tag("h.x/a:t").unwrap();
        store.forget_tag("h.x/a:t").unwrap();
        assert_eq!(store.tag("h.x/a:t"), None);
        std::fs::write(store.tag_path("h.x/a:t"), b"{}").unwrap();
        assert_eq!(store.tag("h.x/a:t"), None);
    }
}
