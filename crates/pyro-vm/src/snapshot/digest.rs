//! The digest of a sparse file: of its data and where they lie. Holes are not read.
//!
//! The same bytes with other holes have another digest: what is compared was written once and never copied.

use super::facts::hexadecimal;
use crate::disk::each_extent;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How much is read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Blocks the calling thread for as long as it takes to read every byte of data.
pub(super) fn of(file: &File) -> io::Result<String> {
    let length = file.metadata()?.len();
    let mut hash = Sha256::new();
    hash.update(length.to_le_bytes());
    let mut chunk = vec![0; CHUNK_BYTES];
    each_extent(file, |extent| {
        hash.update(extent.start.to_le_bytes());
        hash.update(extent.end.to_le_bytes());
        let mut from = extent.start;
        while from < extent.end {
            let room = usize::try_from(extent.end - from)
                .map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            file.read_exact_at(&mut chunk[..room], from)?;
            hash.update(&chunk[..room]);
            from += room as u64;
        }
        Ok(())
    })?;
    Ok(hexadecimal(&hash.finalize()))
}
