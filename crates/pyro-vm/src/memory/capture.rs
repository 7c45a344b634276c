//! Copying the memory of a paused machine.
//!
//! Owns the question where a page is: in the file, or in the engine's own copy of it. Holes stay holes. Blocks the calling
//! thread.

use super::{GuestMemory, Mapping};
use crate::disk::copy_data;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt};

/// The unit of the kernel's page tables on this platform.
const PAGE: u64 = 4096;

/// Bytes of one entry of `/proc/<pid>/pagemap`.
const ENTRY: u64 = 8;

/// Entries that are read at once: those of 128 MiB.
const ENTRIES: usize = 32 * 1024;

/// Most that is copied at once.
const MAX_PIECE: u64 = 1024 * 1024;

/// Longest list of mappings that is read. A machine has some hundreds, a line of about 100 bytes each.
const MAX_MAPS_BYTES: u64 = 4 * 1024 * 1024;

/// Flags of an entry (Linux, `Documentation/admin-guide/mm/pagemap.rst`).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_A_FILE: u64 = 1 << 61;

/// Copies the memory of the machine whose engine is the process `pid` into the empty file `to`. The machine must stand still.
pub(crate) fn copy(memory: &GuestMemory, pid: u32, to: &File) -> io::Result<()> {
    copy_data(&memory.file, to)?;
    match memory.mapping {
        Mapping::Shared => Ok(()),
        Mapping::CopyOnWrite => copy_own_pages(&memory.file, pid, to),
    }
}

/// Copies over `to` the pages that the engine has a copy of its own of.
fn copy_own_pages(file: &File, pid: u32, to: &File) -> io::Result<()> {
    let pages = File::open(format!("/proc/{pid}/pagemap"))?;
    let content = File::open(format!("/proc/{pid}/mem"))?;
    let mappings = mappings(file, pid)?;
    let mut entries = vec![0; ENTRIES * 8];
    let mut piece = vec![0; usize::try_from(MAX_PIECE).expect("a small constant")];
    for mapping in mappings {
        let mut at = mapping.start;
        while at < mapping.end {
            let count = ((mapping.end - at) / PAGE).min(ENTRIES as u64);
            let entries = &mut entries[..usize::try_from(count * ENTRY).expect("a bounded buffer")];
            pages.read_exact_at(entries, at / PAGE * ENTRY)?;
            for run in own_runs(entries) {
                let (start, end) = (at + run.start * PAGE, at + run.end * PAGE);
                copy_run(&content, start, end, &mut piece, |bytes, from| {
                    to.write_all_at(bytes, mapping.offset + (from - mapping.start))
                })?;
            }
            at += count * PAGE;
        }
    }
    Ok(())
}

fn copy_run(
    content: &File,
    mut from: u64,
    end: u64,
    piece: &mut [u8],
    mut write: impl FnMut(&[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    while from < end {
        let length = (end - from).min(MAX_PIECE);
        let bytes = &mut piece[..usize::try_from(length).expect("a bounded buffer")];
        content.read_exact_at(bytes, from)?;
        write(bytes, from)?;
        from += length;
    }
    Ok(())
}

/// The runs of pages that are the engine's own, numbered from the first entry.
fn own_runs(entries: &[u8]) -> Vec<std::ops::Range<u64>> {
    let mut runs: Vec<std::ops::Range<u64>> = Vec::new();
    for (number, entry) in (0..).zip(entries.chunks_exact(8)) {
        let entry = u64::from_ne_bytes(entry.try_into().expect("a chunk of eight"));
        let own = entry & (PRESENT | SWAPPED) != 0 && entry & OF_A_FILE == 0;
        match runs.last_mut() {
            _ if !own => {}
            Some(run) if run.end == number => run.end += 1,
            _ => runs.push(number..number + 1),
        }
    }
    runs
}

/// What is wrong with mappings that a snapshot cannot be made from.
const NOT_ONCE: &str = "the engine does not map every byte of the memory exactly once";

/// A part of the file in the engine's address space.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    start: u64,
    end: u64,
    offset: u64,
}

/// Where the engine has `file`, from its first byte to its last.
fn mappings(file: &File, pid: u32) -> io::Result<Vec<Part>> {
    let metadata = file.metadata()?;
    let maps = File::open(format!("/proc/{pid}/maps"))?;
    whole(parts(maps, metadata.ino())?, metadata.len())
}

/// The private mappings of `inode` in a list in the form of `/proc/<pid>/maps`.
fn parts(maps: impl Read, inode: u64) -> io::Result<Vec<Part>> {
    let mut maps = BufReader::new(maps.take(MAX_MAPS_BYTES));
    let mut found = Vec::new();
    for line in maps.by_ref().lines() {
        found.extend(part(&line?, inode));
    }
    if maps.get_ref().limit() == 0 {
        return Err(io::Error::other("the engine has too many mappings"));
    }
    Ok(found)
}

/// `parts` in the order of the file, if they are `length` bytes of it, each of them once.
///
/// This is what tells the memory from other files: their inodes may have the same number on other file systems. Of the
/// device the kernel shows another number than `stat` on some file systems, so it cannot be compared.
fn whole(mut parts: Vec<Part>, length: u64) -> io::Result<Vec<Part>> {
    parts.sort_unstable_by_key(|part| part.offset);
    let mut end = 0;
    for part in &parts {
        if part.offset != end {
            return Err(io::Error::other(NOT_ONCE));
        }
        end = part
            .end
            .checked_sub(part.start)
            .and_then(|bytes| end.checked_add(bytes))
            .filter(|end| *end > part.offset && *end <= length)
            .ok_or_else(|| io::Error::other(NOT_ONCE))?;
    }
    if end == length {
        Ok(parts)
    } else {
        Err(io::Error::other(NOT_ONCE))
    }
}

/// One line of `/proc/<pid>/maps`, if it maps `inode` privately.
fn part(line: &str, inode: u64) -> Option<Part> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let private = words.next()?.ends_with('p');
    let offset = words.next()?;
    let _device = words.next()?;
    let same = words.next()?.parse() == Ok(inode);
    if !private || !same {
        return None;
    }
    let hexadecimal = |digits| u64::from_str_radix(digits, 16).ok();
    Some(Part {
        start: hexadecimal(start)?,
        end: hexadecimal(end)?,
        offset: hexadecimal(offset)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_the_pages_that_no_file_has() {
        let entries: Vec<u8> = [
            0,
            PRESENT,
            PRESENT,
            PRESENT | OF_A_FILE,
            SWAPPED,
            SWAPPED | OF_A_FILE,
            0,
            PRESENT,
        ]
        .iter()
        .flat_map(|entry: &u64| entry.to_ne_bytes())
        .collect();
        assert_eq!(own_runs(&entries), [1..3, 4..5, 7..8]);
        assert!(own_runs(&[]).is_empty());
    }

    #[test]
    fn only_private_mappings_of_the_file_count() {
        let line = "7f0000000000-7f0010000000 rw-p 00001000 fe:00 1234   /a file (deleted)";
        let found = part(line, 1234).unwrap();
        assert_eq!(
            found,
            Part {
                start: 0x7f00_0000_0000,
                end: 0x7f00_1000_0000,
                offset: 0x1000
            }
        );
        assert_eq!(part(line, 1235), None);
        assert_eq!(part(&line.replace("rw-p", "rw-s"), 1234), None);
        assert_eq!(part("", 1234), None);
        assert_eq!(part("7f00-zz rw-p 0 fe:00 1234", 1234), None);
    }
    #[test]
    fn only_parts_that_are_the_file_are_taken_for_it() {
        let part = |start, bytes, offset| Part {
            start,
            end: start + bytes,
            offset,
        };
        let split = || vec![part(0x9000, 0x1000, 0x3000), part(0x1000, 0x3000, 0)];
        let found = whole(split(), 0x4000).unwrap();
        assert_eq!(
            found,
            [part(0x1000, 0x3000, 0), part(0x9000, 0x1000, 0x3000)]
        );
        let and = |other: Part| split().into_iter().chain([other]).collect::<Vec<_>>();
        for (wrong, parts, length) in [
            ("nothing", Vec::new(), 0x4000),
            (
                "a gap",
                vec![part(0x1000, 0x1000, 0), part(0x5000, 0x2000, 0x2000)],
                0x4000,
            ),
            ("no beginning", vec![part(0x9000, 0x3000, 0x1000)], 0x4000),
            ("no end", split(), 0x5000),
            ("an end beyond the file's", split(), 0x3000),
            (
                "the code of another file",
                and(part(0x7000, 0x2000, 0x1000)),
                0x4000,
            ),
            (
                "the first page of another file",
                and(part(0x7000, 0x1000, 0)),
                0x4000,
            ),
            (
                "more behind the end",
                and(part(0xd000, 0x1000, 0x4000)),
                0x4000,
            ),
            ("nothing at a place", and(part(0xd000, 0, 0x4000)), 0x4000),
            (
                "an end before its start",
                vec![Part {
                    start: 0x9000,
                    end: 0x1000,
                    offset: 0,
                }],
                0x4000,
            ),
            (
                "an end beyond all numbers",
                vec![
                    part(0, 0x1000, 0),
                    Part {
                        start: 0,
                        end: u64::MAX,
                        offset: 0x1000,
                    },
                ],
                u64::MAX,
            ),
        ] {
            let error = whole(parts, length).unwrap_err();
            assert_eq!(error.to_string(), NOT_ONCE, "{wrong}");
        }
    }

    #[test]
    fn a_list_that_was_cut_is_refused() {
        let line = b"7f0000000000-7f0010000000 rw-p 00000000 fe:00 1234 /memory\n";
        let bound = usize::try_from(MAX_MAPS_BYTES).unwrap();
        let short = line.repeat(bound / line.len());
        assert_eq!(parts(&short[..], 1234).unwrap().len(), bound / line.len());
        let long = line.repeat(bound / line.len() + 1);
        let error = parts(&long[..], 1234).unwrap_err();
        assert_eq!(error.to_string(), "the engine has too many mappings");
    }

    #[test]
    fn a_file_that_is_not_mapped_whole_is_not_copied() {
        let file = File::from(
            rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::CLOEXEC).unwrap(),
        );
        file.set_len(PAGE).unwrap();
        let error = mappings(&file, std::process::id()).unwrap_err();
        assert_eq!(error.to_string(), NOT_ONCE);
    }
}
