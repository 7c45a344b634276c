//! Writing a file whose zeros are holes.
//!
//! Where the bytes come from, and what they mean, is the caller's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Zeros that become a hole: a block of every file system in use, at a multiple of its size.
const BLOCK: usize = 4096;
/// Bytes that are looked at together: a multiple of a block.
const BATCH: usize = 64 * BLOCK;

const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A new, empty file that is written from its first byte to its last.
pub(crate) struct SparseFile {
    file: File,
    /// Where `waiting` begins: a multiple of a block.
    begin: u64,
    waiting: Vec<u8>,
}

impl SparseFile {
    /// `file` is empty, and is written by nobody else.
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            begin: 0,
            waiting: Vec::with_capacity(BATCH),
        }
    }

    /// Appends bytes.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = (BATCH - self.waiting.len()).min(bytes.len());
            self.waiting.extend_from_slice(&bytes[..room]);
            bytes = &bytes[room..];
            if self.waiting.len() == BATCH {
                self.put()?;
            }
        }
        Ok(())
    }

    /// Gives the file its length and flushes it to the disk.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.put()?;
        self.file.set_len(self.begin)?;
        self.file.sync_all()
    }

    fn put(&mut self) -> io::Result<()> {
        write_at(&self.file, self.begin, &self.waiting)?;
        self.begin += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}

/// Writes the blocks that hold something, those that touch at once. The caller sees to the
/// file's length, and to there being nothing yet where zeros stand.
pub(crate) fn write_at(file: &File, begin: u64, bytes: &[u8]) -> io::Result<()> {
    let mut run = 0..0;
    for block in bytes.chunks(BLOCK) {
        if *block != ZEROS[..block.len()] {
            run.end += block.len();
            continue;
        }
        file.write_all_at(&bytes[run.clone()], begin + run.start as u64)?;
        let next = run.end + block.len();
        run = next..next;
    }
    file.write_all_at(&bytes[run.clone()], begin + run.start as u64)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn written(content: &[u8], piece: usize) -> (Vec<u8>, u64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = SparseFile::new(File::create(&path).unwrap());
        for piece in content.chunks(piece) {
            file.append(piece).unwrap();
        }
        file.finish().unwrap();
        let allocated = std::fs::metadata(&path).unwrap().blocks() * 512;
        (std::fs::read(&path).unwrap(), allocated)
    }

    #[test]
    fn content_is_kept_whatever_its_pieces() {
        let mut content = vec![0; 3 * BATCH + 77];
        for at in [0, BLOCK - 1, 5 * BLOCK, BATCH - 1, BATCH, 2 * BATCH + 9] {
            content[at] = 1;
        }
        for length in [0, 1, BLOCK, BATCH, content.len()] {
            for piece in [1000, BLOCK, BATCH + 1] {
                let (found, _) = written(&content[..length], piece);
                assert!(found == content[..length], "{length} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn zeros_take_no_room() {
        let mut content = vec![0; 4 * BATCH + 100];
        content[2 * BATCH] = 1;
        let (found, allocated) = written(&content, 777);
        assert_eq!(found, content);
        assert!(allocated <= 2 * BLOCK as u64, "{allocated}");
        let (found, allocated) = written(&vec![0; BATCH * 2], BATCH);
        assert_eq!((found.len(), allocated), (BATCH * 2, 0));
    }
}
