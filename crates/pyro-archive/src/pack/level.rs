//! One directory of the walk: its names in the order of their bytes.
//!
//! As many names are held at a time as there is room for; the directory is read again for
//! those behind them. Each level takes at most half of the room that those above it left, so
//! that the memory of a walk is bounded however deep and wide the tree is.

use std::collections::BinaryHeap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, RawDir, SeekFrom};

/// Bytes of names that the levels of one walk share.
const ROOM: usize = 512 * 1024;

/// Bytes of names that a level may hold even if there is no room.
const LEAST: usize = 4 * 1024;

/// What a name costs besides its bytes.
const OVERHEAD: usize = 48;

/// Bytes of a directory read at a time.
const BUFFER: usize = 32 * 1024;

#[derive(Debug)]
pub(super) struct Level {
    pub(super) directory: Arc<OwnedFd>,
    /// Length of the walk's path without this directory.
    pub(super) parent_length: usize,
    /// The next names, the last first.
    names: Vec<Name>,
    held: usize,
    room: usize,
    /// The name after which the directory is to be read again.
    after: Option<Box<[u8]>>,
    read: Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    NotYet,
    InPart,
    Whole,
}

/// The fields' order is that of the walk.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    bytes: Box<[u8]>,
    kind: u32,
}

impl Level {
    /// The level of `directory`, below levels that hold so many bytes.
    pub(super) fn new(directory: OwnedFd, parent_length: usize, held_above: usize) -> Self {
        Self {
            directory: Arc::new(directory),
            parent_length,
            names: Vec::new(),
            held: 0,
            room: (ROOM.saturating_sub(held_above) / 2).max(LEAST),
            after: None,
            read: Read::NotYet,
        }
    }

    /// Bytes that it holds.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// The next name and what it was when the directory was read.
    pub(super) fn next(&mut self) -> rustix::io::Result<Option<(Box<[u8]>, FileType)>> {
        if self.names.is_empty() && self.read != Read::Whole {
            self.read_names()?;
        }
        let Some(name) = self.names.pop() else {
            return Ok(None);
        };
        self.held -= name.bytes.len() + OVERHEAD;
        if self.names.is_empty() && self.read == Read::InPart {
            self.after = Some(name.bytes.clone());
        }
        Ok(Some((name.bytes, FileType::from_raw_mode(name.kind))))
    }

    fn read_names(&mut self) -> rustix::io::Result<()> {
        if self.read == Read::InPart {
            rustix::fs::seek(&*self.directory, SeekFrom::Start(0))?;
        }
        self.read = Read::Whole;
        self.held = 0;
        let mut first = BinaryHeap::new();
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut entries = RawDir::new(&*self.directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let is_past = self.after.as_ref().is_some_and(|after| name <= &after[..]);
            if matches!(name, b"." | b"..") || is_past {
                continue;
            }
            self.held += name.len() + OVERHEAD;
            first.push(Name {
                bytes: name.into(),
                kind: entry.file_type().as_raw_mode(),
            });
            while self.held > self.room && first.len() > 1 {
                if let Some(last) = first.pop() {
                    self.held -= last.bytes.len() + OVERHEAD;
                    self.read = Read::InPart;
                }
            }
        }
        self.names = first.into_sorted_vec();
        self.names.reverse();
        Ok(())
    }
}
