//! A bounded ring of bytes in a file, read by absolute position.
//!
//! A file and not memory, because the agent's memory is bounded however many jobs talk. The
//! file has no name: it goes with its owner and leaves nothing to clean up.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much of a ring is looked at in one piece for its lines, in bytes.
const TAIL_BLOCK: usize = 64 * 1024;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// The last bytes of a stream.
#[derive(Debug)]
pub(crate) struct DiskRing {
    file: File,
    capacity: u64,
    end: u64,
}

impl DiskRing {
    /// An empty ring of `capacity` bytes on the disk of `directory`.
    pub(crate) fn create(directory: &Path, capacity: u64) -> io::Result<Self> {
        // A name for a moment: the overlay of Linux 6.1 makes no files without one.
        let name = format!(
            "ring-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = directory.join(name);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        std::fs::remove_file(path)?;
        Ok(Self {
            file,
            capacity,
            end: 0,
        })
    }

    /// Bytes that the stream had so far.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Position of the oldest byte that is left.
    pub(crate) fn start(&self) -> u64 {
        self.end.saturating_sub(self.capacity)
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Of more than the ring holds, only the end would be left.
        let capacity = usize::try_from(self.capacity).unwrap_or(usize::MAX);
        let skipped = bytes.len().saturating_sub(capacity);
        let mut position = self.end + skipped as u64;
        let mut rest = &bytes[skipped..];
        while !rest.is_empty() {
            let offset = position % self.capacity;
            let room = usize::try_from(self.capacity - offset).unwrap_or(usize::MAX);
            let (piece, later) = rest.split_at(room.min(rest.len()));
            self.file.write_all_at(piece, offset)?;
            position += piece.len() as u64;
            rest = later;
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// At most `most` bytes from `cursor` on, and the position where they begin.
    pub(crate) fn read(&self, cursor: u64, most: usize) -> io::Result<(u64, Vec<u8>)> {
        let begin = cursor.clamp(self.start(), self.end);
        let there = usize::try_from(self.end - begin).unwrap_or(usize::MAX);
        let mut bytes = vec![0; most.min(there)];
        let mut position = begin;
        let mut rest = bytes.as_mut_slice();
        while !rest.is_empty() {
            let offset = position % self.capacity;
            let room = usize::try_from(self.capacity - offset).unwrap_or(usize::MAX);
            let (piece, later) = rest.split_at_mut(room.min(rest.len()));
            self.file.read_exact_at(piece, offset)?;
            position += piece.len() as u64;
            rest = later;
        }
        Ok((begin, bytes))
    }

    /// Where the last `lines` lines of what is kept begin, at most `most` bytes before the
    /// end. What follows the last newline is a line too. Reads backwards and no farther than
    /// it must.
    pub(crate) fn tail(&self, lines: u64, most: u64) -> io::Result<u64> {
        let oldest = self.start().max(self.end.saturating_sub(most));
        if lines == 0 {
            return Ok(self.end);
        }
        let mut wanted = lines;
        let mut until = self.end;
        while until > oldest {
            let from = oldest.max(until.saturating_sub(TAIL_BLOCK as u64));
            let (_, block) =
                self.read(from, usize::try_from(until - from).unwrap_or(TAIL_BLOCK))?;
            for (index, _) in block
                .iter()
                .enumerate()
                .rev()
                .filter(|(_, byte)| **byte == b'\n')
            {
                let behind = from + index as u64 + 1;
                // The newline at the very end ends the last line and begins none.
                if behind == self.end {
                    continue;
                }
                wanted -= 1;
                if wanted == 0 {
                    return Ok(behind);
                }
            }
            until = from;
        }
        Ok(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_tail_is_the_last_lines_of_what_is_kept(
            chunks in vec("[ab\n]{0,40}", 0..12),
            capacity in 1_u64..80,
            lines in 0_u64..12,
            most in 0_u64..90,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut ring = DiskRing::create(directory.path(), capacity).unwrap();
            for chunk in &chunks {
                ring.append(chunk.as_bytes()).unwrap();
            }
            let stream = chunks.concat();
            let kept = usize::try_from(capacity.min(most)).unwrap().min(stream.len());
            let kept = &stream[stream.len() - kept..];
            let all: Vec<&str> = kept.split_inclusive('\n').collect();
            let few = all.len().saturating_sub(usize::try_from(lines).unwrap());
            let expected = all[few..].concat();
            let begin = ring.tail(lines, most).unwrap();
            let (at, bytes) = ring.read(begin, usize::MAX).unwrap();
            prop_assert_eq!(at, begin);
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        }
    }

    #[test]
    fn a_tail_goes_over_many_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let mut ring = DiskRing::create(directory.path(), 10 * TAIL_BLOCK as u64).unwrap();
        let line = [vec![b'x'; TAIL_BLOCK], b"\n".to_vec()].concat();
        for _ in 0..20 {
            ring.append(&line).unwrap();
        }
        let end = 20 * line.len() as u64;
        assert_eq!(ring.tail(3, u64::MAX).unwrap(), end - 3 * line.len() as u64);
        assert_eq!(ring.tail(99, u64::MAX).unwrap(), ring.start());
        assert_eq!(ring.tail(3, 10).unwrap(), end - 10);
    }

    #[test]
    fn any_chunking_leaves_the_end_of_the_stream() {
        let directory = tempfile::tempdir().unwrap();
        let stream: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for (capacity, chunk) in [(100, 7), (100, 100), (100, 250), (4096, 1), (8192, 999)] {
            let mut ring = DiskRing::create(directory.path(), capacity).unwrap();
            for piece in stream.chunks(chunk) {
                ring.append(piece).unwrap();
            }
            assert_eq!(ring.end(), 5000);
            let (begin, bytes) = ring.read(0, usize::MAX).unwrap();
            assert_eq!(begin, 5000u64.saturating_sub(capacity));
            assert_eq!(bytes, stream[usize::try_from(begin).unwrap()..]);
            let (begin, bytes) = ring.read(4990, 5).unwrap();
            assert_eq!((begin, bytes.as_slice()), (4990, &stream[4990..4995]));
            assert_eq!(ring.read(9999, 5).unwrap(), (5000, Vec::new()));
        }
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            0,
            "no file has a name"
        );
    }
}
