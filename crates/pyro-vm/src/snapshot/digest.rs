//! The digest of a sparse file: of its data and where they lie. Holes are not read.
//!
//! The same bytes with other holes have another digest: what is compared was written once and never copied.

use super::facts::hexadecimal;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
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
    let mut position = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(hexadecimal(&hash.finalize())),
            Err(error) => return Err(error.into()),
        };
        position = seek(file, SeekFrom::Hole(start))?;
        hash.update(start.to_le_bytes());
        hash.update(position.to_le_bytes());
        let mut from = start;
        while from < position {
            let room =
                usize::try_from(position - from).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            file.read_exact_at(&mut chunk[..room], from)?;
            hash.update(&chunk[..room]);
            from += room as u64;
        }
    }
}
