//! The unpacking of layers, on a directory instead of a disk.
//!
//! All entries belong to whoever runs the tests, so that no test needs root.

mod beneath;
mod damage;
mod entries;
mod oracle;
mod replace;

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::Counters;
use super::layer::{LayerError, unpack};

/// Time of every entry that names no other.
const MODIFIED: u64 = 1_000_000_000;

/// A root to unpack into, and beside it a directory that nothing may reach.
struct World {
    directory: TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self {
            directory: TempDir::new().expect("a directory"),
        };
        fs::create_dir(world.root()).expect("it is empty");
        fs::create_dir(world.outside()).expect("it is empty");
        fs::write(world.outside().join("victim"), "untouched").expect("it is ours");
        world
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    /// Unpacks a finished archive.
    fn unpack(&self, archive: &[u8]) -> Result<Counters, LayerError> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(archive).expect("there is room");
        std::io::Seek::rewind(&mut file).expect("a plain file");
        self.unpack_file(file, archive.len() as u64)
    }

    fn unpack_file(&self, file: File, size: u64) -> Result<Counters, LayerError> {
        let counters = Counters::default();
        let root = self.root();
        unpack(file, size, root.to_str().expect("UTF-8"), &counters)?;
        Ok(counters)
    }

    /// Checks that nothing outside the root was made, changed or removed.
    fn assert_outside_untouched(&self) {
        let names: Vec<_> = fs::read_dir(self.outside())
            .expect("it is there")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(names, ["victim"]);
        let victim = fs::read_to_string(self.outside().join("victim")).expect("it is there");
        assert_eq!(victim, "untouched");
        let around = fs::read_dir(self.directory.path()).expect("it is there");
        assert_eq!(around.count(), 2, "the root and the outside, nothing else");
    }
}

/// An archive in the making.
struct Layer {
    builder: Builder<Vec<u8>>,
}

impl Layer {
    fn new() -> Self {
        Self {
            builder: Builder::new(Vec::new()),
        }
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(header(EntryType::Regular), path, content)
    }

    fn directory(self, path: &str) -> Self {
        self.entry(header(EntryType::Directory), path, "")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, path, target)
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Link, path, target)
    }

    fn link(self, kind: EntryType, path: &str, target: &str) -> Self {
        let mut header = header(kind);
        let field = &mut header.as_gnu_mut().expect("made as one").linkname;
        field[..target.len()].copy_from_slice(target.as_bytes());
        self.entry(header, path, "")
    }

    /// Appends an entry under exactly that name, sound or not.
    fn entry(mut self, mut header: Header, path: &str, content: &str) -> Self {
        header.as_gnu_mut().expect("made as one").name[..path.len()]
            .copy_from_slice(path.as_bytes());
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.builder
            .append(&header, content.as_bytes())
            .expect("memory takes all");
        self
    }

    fn finish(self) -> Vec<u8> {
        self.builder.into_inner().expect("memory takes all")
    }
}

/// The header of an entry without a name.
fn header(kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory {
        0o755
    } else {
        0o644
    });
    header.set_uid(rustix::process::geteuid().as_raw().into());
    header.set_gid(rustix::process::getegid().as_raw().into());
    header.set_mtime(MODIFIED);
    header
}
