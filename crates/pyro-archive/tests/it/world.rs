//! Where archives are unpacked in tests, with all around it that nothing may touch.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::{BufReader, Cursor, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use pyro_archive::beneath::{Relative, Root};
use pyro_archive::codec::decode::{Compression, Decoder};
use pyro_archive::extract::layer::{self, Position};
use pyro_archive::extract::options::{Options, Progress};
use pyro_archive::extract::{ExtractError, Extractor, Replacing, Stage, Summary};
use pyro_archive::tar::read::{ReadError, Reader};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A root to unpack into, and beside it a directory that nothing may reach.
pub(crate) struct World {
    directory: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::in_directory(TempDir::new().expect("a directory"))
    }

    /// One in memory: disks are slow at making things by the thousand.
    pub(crate) fn in_memory() -> Self {
        Self::in_directory(TempDir::new_in("/dev/shm").expect("a directory"))
    }

    fn in_directory(directory: TempDir) -> Self {
        let world = Self { directory };
        fs::create_dir(world.root()).expect("it is empty");
        fs::create_dir(world.outside()).expect("it is empty");
        fs::write(world.outside().join("victim"), "untouched").expect("it is ours");
        world
    }

    /// One whose root holds files, directories and links, some of them to the outside.
    pub(crate) fn lived_in() -> Self {
        let world = Self::in_memory();
        let root = world.root();
        fs::create_dir_all(root.join("dir/sub")).expect("it is ours");
        fs::write(root.join("file"), "old file").expect("it is ours");
        fs::write(root.join("dir/file"), "old dir/file").expect("it is ours");
        fs::write(root.join("dir/sub/file"), "old dir/sub/file").expect("it is ours");
        fs::hard_link(root.join("file"), root.join("dir/hard")).expect("it is ours");
        symlink(world.outside(), root.join("out")).expect("it is ours");
        symlink("../outside/victim", root.join("victim")).expect("it is ours");
        symlink("dir", root.join("in")).expect("it is ours");
        symlink("nowhere", root.join("dangling")).expect("it is ours");
        world
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    /// Everything there is, in and around the root.
    pub(crate) fn survey(&self) -> Survey {
        survey(self.directory.path())
    }

    /// Unpacks an archive staged into `destination` below the root.
    pub(crate) fn import_at(
        &self,
        archive: &[u8],
        destination: &str,
        options: Options,
        replacing: Replacing,
    ) -> Result<Summary, ExtractError> {
        let root = Root::open(&self.root()).expect("it is there");
        let destination = Relative::parse(destination.as_bytes()).expect("it is below");
        let progress = Progress::default();
        let mut reader = reader(archive)?;
        let stage = Stage::open(root, destination)?;
        let mut extractor = stage.extractor(options, &progress)?;
        extractor.unpack(&mut reader)?;
        reader.finish()?;
        stage.commit(extractor, replacing)
    }

    /// Unpacks an archive staged into the root.
    pub(crate) fn import(&self, archive: &[u8]) -> Result<Summary, ExtractError> {
        self.import_at(
            archive,
            ".",
            Options::import(),
            Replacing::AllButDirectories,
        )
    }

    /// Unpacks an archive in place.
    pub(crate) fn import_in_place(&self, archive: &[u8]) -> Result<Summary, ExtractError> {
        let root = Root::open(&self.root()).expect("it is there");
        let progress = Progress::default();
        let mut extractor = Extractor::new(root, Options::import_in_place(), &progress)?;
        let mut reader = reader(archive)?;
        extractor.unpack(&mut reader)?;
        reader.finish()?;
        extractor.finish()?;
        Ok(extractor.summary().clone())
    }

    /// Unpacks the lowest layer of an image.
    pub(crate) fn unpack(&self, archive: &[u8]) -> Result<Summary, ExtractError> {
        self.layer(Cursor::new(archive), Position::Lowest)
    }

    /// Unpacks a layer above those that were unpacked.
    pub(crate) fn unpack_above(&self, archive: &[u8]) -> Result<Summary, ExtractError> {
        self.layer(Cursor::new(archive), Position::Above)
    }

    pub(crate) fn layer(
        &self,
        input: impl Read + std::io::Seek,
        position: Position,
    ) -> Result<Summary, ExtractError> {
        let root = Root::open(&self.root()).expect("it is there");
        layer::unpack(input, root, position, &Progress::default())
    }

    /// Checks that nothing outside the root was made, changed or removed.
    pub(crate) fn assert_outside_untouched(&self) {
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

/// A reader of an archive in memory, compressed or not.
pub(crate) fn reader(archive: &[u8]) -> Result<Reader<BufReader<Decoder<&[u8]>>>, ExtractError> {
    let plain = Decoder::new(archive, Compression::Auto);
    let plain = plain.map_err(|source| ReadError::Input { source })?;
    Ok(Reader::new(BufReader::new(plain)))
}

/// Bytes of the largest file whose content a survey looks at: a sparse one may be any size.
const LARGEST_READ: u64 = 64 << 20;

/// What stands at each path below a directory: kind, mode, owner, size, link target, time of
/// the last change, content.
pub(crate) type Survey = BTreeMap<PathBuf, String>;

/// Looks at everything below `directory`, and at itself.
pub(crate) fn survey(directory: &Path) -> Survey {
    let mut found = Survey::new();
    look(directory, &mut found);
    found
}

/// What of a survey lies elsewhere.
pub(crate) fn elsewhere(survey: &Survey, path: &Path) -> Survey {
    let elsewhere = survey.iter().filter(|(found, _)| !found.starts_with(path));
    elsewhere
        .map(|(path, what)| (path.clone(), what.clone()))
        .collect()
}

fn look(path: &Path, found: &mut Survey) {
    let stat = fs::symlink_metadata(path).expect("it is there");
    let kind = stat.file_type();
    let mut what = format!(
        "{kind:?} {:o} {}:{} {}.{:09}",
        stat.mode(),
        stat.uid(),
        stat.gid(),
        stat.mtime(),
        stat.mtime_nsec(),
    );
    if kind.is_symlink() {
        let target = fs::read_link(path).expect("it is a link");
        write!(what, " -> {:?}", target.as_os_str().as_bytes()).expect("it grows");
    } else if kind.is_file() && stat.len() > LARGEST_READ {
        write!(what, " {} bytes, {} links", stat.len(), stat.nlink()).expect("it grows");
    } else if kind.is_file() {
        let content = fs::read(path).expect("it is readable");
        let digest = Sha256::digest(&content);
        write!(
            what,
            " {} bytes, {} links, {digest:x?}",
            content.len(),
            stat.nlink()
        )
        .expect("it grows");
    } else if kind.is_dir() {
        for entry in fs::read_dir(path).expect("it is readable") {
            look(&entry.expect("an entry").path(), found);
        }
    }
    found.insert(path.to_owned(), what);
}
