//! The data of a sparse file, without its holes.
//!
//! Owns the walk over a file's extents and the making of holes. Blocks the calling thread.

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// What becomes a hole as a whole or not at all. Smaller pieces would cost more calls than they save blocks.
const GRAIN_BYTES: usize = 64 * 1024;

/// Calls `each` with the ranges that hold data, in their order, until one fails.
pub(crate) fn each_extent(
    file: &File,
    mut each: impl FnMut(Range<u64>) -> io::Result<()>,
) -> io::Result<()> {
    let mut position = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(position)) {
            Ok(start) => start,
            // No data behind the position.
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        position = seek(file, SeekFrom::Hole(start))?;
        each(start..position)?;
    }
}

/// Makes holes of the zeros that were written to `file`. What it reads as stays the same. A file system without holes keeps
/// its zeros.
pub(crate) fn punch_zeros(file: &File) -> io::Result<()> {
    let mut grain = vec![0; GRAIN_BYTES];
    let punched = each_extent(file, |extent| {
        let mut zeros = extent.start..extent.start;
        let mut at = extent.start;
        while at < extent.end {
            let room =
                usize::try_from(extent.end - at).map_or(GRAIN_BYTES, |left| left.min(GRAIN_BYTES));
            let bytes = &mut grain[..room];
            file.read_exact_at(bytes, at)?;
            at += room as u64;
            if bytes.iter().all(|&byte| byte == 0) {
                zeros.end = at;
            } else {
                punch(file, &zeros)?;
                zeros = at..at;
            }
        }
        punch(file, &zeros)
    });
    match punched {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => Ok(()),
        punched => punched,
    }
}

fn punch(file: &File, range: &Range<u64>) -> io::Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(
        file,
        flags,
        range.start,
        range.end - range.start,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeros_become_holes_and_nothing_else_changes() {
        let file = tempfile::tempfile().unwrap();
        let grain = GRAIN_BYTES as u64;
        let mut content = vec![0; 20 * GRAIN_BYTES + 77];
        for at in [0, 5 * GRAIN_BYTES + 3, 6 * GRAIN_BYTES, 20 * GRAIN_BYTES] {
            content[at] = 1;
        }
        file.write_all_at(&content, 0).unwrap();
        punch_zeros(&file).unwrap();
        let mut found = vec![1; content.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == content, "the content has changed");
        let mut extents = Vec::new();
        each_extent(&file, |extent| {
            extents.push(extent.start / grain..extent.end.div_ceil(grain));
            Ok(())
        })
        .unwrap();
        assert_eq!(extents, [0..1, 5..7, 20..21]);
        let found = file.metadata().unwrap();
        assert_eq!(found.len(), content.len() as u64);
        assert!(found.blocks() * 512 <= 5 * grain, "{}", found.blocks());
    }

    #[test]
    fn a_file_of_zeros_has_no_data() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![0; 5 * GRAIN_BYTES], 0).unwrap();
        punch_zeros(&file).unwrap();
        each_extent(&file, |extent| panic!("{extent:?}")).unwrap();
        punch_zeros(&file).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 5 * GRAIN_BYTES as u64);
    }
}
