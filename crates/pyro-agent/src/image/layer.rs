//! A layer on a disk, and how much of it has been read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use pyro_archive::beneath::Root;
use pyro_archive::extract::ExtractError;
use pyro_archive::extract::layer::{Position, Section, unpack};
use pyro_archive::extract::options::Progress;
use pyro_protocol::code::ErrorReply;
use pyro_protocol::request::{BuildProgress, LayerDisk};

use super::failed;
use crate::archive::fault;

/// How far the unpacking of all layers has come. Read by another thread.
#[derive(Debug, Default)]
pub(super) struct Reached {
    members: Progress,
    bytes: AtomicU64,
}

impl Reached {
    pub(super) fn read(&self) -> BuildProgress {
        BuildProgress {
            entries: self.members.entries(),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// Unpacks the layer on `device` beneath `root`, onto the layers below.
pub(super) fn put(
    device: File,
    disk: &LayerDisk,
    root: &str,
    position: Position,
    reached: &Reached,
) -> Result<(), ErrorReply> {
    let root = Root::open(Path::new(root)).map_err(|error| failed("opening the root", &error))?;
    let input = Told {
        section: Section::new(device, disk.offset, disk.size),
        at: 0,
        before: reached.bytes.load(Ordering::Relaxed),
        reached,
    };
    let unpacked: Result<_, ExtractError> = unpack(input, root, position, &reached.members);
    unpacked.map(drop).map_err(|error| fault::reply(&error))
}

/// Tells the furthest byte that was read: a layer may be read twice.
struct Told<'a> {
    section: Section,
    at: u64,
    /// Bytes of the layers below.
    before: u64,
    reached: &'a Reached,
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.section.read(buffer)?;
        self.at += count as u64;
        let reached = self.before + self.at;
        self.reached.bytes.fetch_max(reached, Ordering::Relaxed);
        Ok(count)
    }
}

impl Seek for Told<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.section.seek(to)?;
        Ok(self.at)
    }
}
