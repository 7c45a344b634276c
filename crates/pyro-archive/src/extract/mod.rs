//! Unpacking archives beneath a root.
//!
//! Every name is resolved by [`crate::beneath`] or from a handle that was; the last part of a
//! name is never followed: what stands there gives way. [`Extractor`] writes in place;
//! [`Stage`] keeps what is unpacked apart until all of it is there and then merges it, so
//! that a failure leaves what was there as it was; [`Swap`] does so with a directory as a
//! whole. [`layer`] unpacks the layers of an image.
//! Memory is bounded whatever the archive holds.

mod directories;
mod edits;
mod error;
pub mod layer;
mod leaving;
pub mod ledger;
mod merge;
pub mod options;
mod parents;
mod put;
mod recover;
mod remove;
mod seal;
mod spool;
mod stage;
mod swap;

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use crate::beneath::{Relative, Root};
use crate::bounds::MAX_PARTS;
use crate::tar::read::Reader;
use crate::tar::{Kind, Member, shown};
use directories::Directories;
pub use edits::Edit;
pub use error::ExtractError;
pub use merge::Replacing;
use options::{AbsoluteNames, Links, Options, Progress, SpecialFiles};
use parents::Parents;
pub use recover::{Recovered, recover};
pub use stage::{Noting, Stage, Survives};
pub use swap::Swap;

/// Bytes of content that are moved at a time.
const PIECE: usize = 128 * 1024;

/// Names tried before giving up; more than one only after a crash left some behind.
const NAME_ATTEMPTS: usize = 1000;

static NEXT_NAME: AtomicU64 = AtomicU64::new(0);

/// Unpacks members beneath a root.
#[derive(Debug)]
pub struct Extractor<'a> {
    parents: Parents,
    /// Where the target of a hard link may lie as well.
    existing: Option<Root>,
    options: Options,
    directories: Directories,
    progress: &'a Progress,
    buffer: Vec<u8>,
    summary: Summary,
}

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Members.
    pub entries: u64,
    /// Bytes of regular files, holes included.
    pub bytes: u64,
    /// Bytes of content that were written.
    pub stored: u64,
    /// Extended attributes that could not be set here and were left out.
    pub attributes_left_out: u64,
    /// Name of the last member that was unpacked, shortened.
    pub last: Option<String>,
}

impl<'a> Extractor<'a> {
    /// An extractor beneath `root`.
    pub fn new(root: Root, options: Options, progress: &'a Progress) -> Result<Self, ExtractError> {
        let opening = ExtractError::input_output(b"/", "opening the root");
        let directory = root.directory().try_clone().map_err(opening)?;
        Ok(Self {
            parents: Parents::new(root),
            existing: None,
            options,
            directories: Directories::new(directory),
            progress,
            buffer: Vec::new(),
            summary: Summary::default(),
        })
    }

    /// Lets hard links lead to what lies beneath `root` too, which must be on the same file
    /// system.
    pub fn link_into(&mut self, root: Root) {
        self.existing = Some(root);
    }

    /// Unpacks all that `reader` has.
    pub fn unpack<R: Read>(&mut self, reader: &mut Reader<R>) -> Result<(), ExtractError> {
        while let Some(member) = reader.next_member()? {
            self.put(&member, reader)?;
        }
        Ok(())
    }

    /// Unpacks one member, whose content `reader` is about to tell.
    pub fn put<R: Read>(
        &mut self,
        member: &Member,
        reader: &mut Reader<R>,
    ) -> Result<(), ExtractError> {
        self.progress.check()?;
        if self.summary.entries >= self.options.max_entries {
            return Err(ExtractError::Limit {
                what: "members",
                limit: self.options.max_entries,
            });
        }
        let path = self.path(&member.path)?;
        self.permit(member)?;
        let stored = self.summary.stored.saturating_add(reader.left());
        if stored > self.options.max_bytes {
            return Err(ExtractError::Limit {
                what: "bytes of content",
                limit: self.options.max_bytes,
            });
        }
        match path.split() {
            None => self.put_root(member)?,
            Some((parents, name)) => {
                let parent = self.parents.make(&parents, &self.options)?;
                self.put_at(&parent, name, &path, member, reader)?;
            }
        }
        let summary = &mut self.summary;
        summary.entries += 1;
        summary.bytes = summary.bytes.saturating_add(member.kind.size());
        summary.stored = stored;
        summary.last = Some(shown(&member.path));
        self.progress.add_entry();
        Ok(())
    }

    /// Gives the directories their modes and times, which had to wait: what is put into a
    /// directory changes the one and may be hindered by the other.
    pub fn finish(&mut self) -> Result<(), ExtractError> {
        let root = self.parents.root();
        self.directories.apply(root, &self.options, self.progress)
    }

    /// What was unpacked so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    fn path(&self, name: &[u8]) -> Result<Relative, ExtractError> {
        if name.starts_with(b"/") && self.options.absolute_names == AbsoluteNames::Refused {
            return Err(ExtractError::name(name, "the name is absolute"));
        }
        let path = Relative::parse(name)
            .map_err(|_| ExtractError::name(name, "the name leads out of the root"))?;
        if path.parts().len() > MAX_PARTS {
            return Err(ExtractError::name(name, "the name has more than 200 parts"));
        }
        Ok(path)
    }

    fn permit(&self, member: &Member) -> Result<(), ExtractError> {
        match &member.kind {
            Kind::File { .. } | Kind::Sparse { .. } | Kind::Directory => Ok(()),
            Kind::Symlink(_) | Kind::HardLink(_) => match self.options.links {
                Links::Made => Ok(()),
                Links::Refused => Err(ExtractError::refused(&member.path, "it is a link")),
            },
            Kind::Fifo | Kind::CharDevice(_) | Kind::BlockDevice(_) => {
                match self.options.special_files {
                    SpecialFiles::Made => Ok(()),
                    SpecialFiles::Refused => Err(ExtractError::refused(
                        &member.path,
                        "it is a device or a pipe",
                    )),
                }
            }
        }
    }
}

/// Makes something under a name that begins with `prefix` and that nothing has.
fn fresh_name<T>(
    prefix: &str,
    make: impl Fn(&OsStr) -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    let process = rustix::process::getpid().as_raw_nonzero();
    for _ in 0..NAME_ATTEMPTS {
        let number = NEXT_NAME.fetch_add(1, Ordering::Relaxed);
        let name = OsString::from(format!("{prefix}{process}-{number}"));
        match make(&name) {
            Err(Errno::EXIST) => {}
            made => return made,
        }
    }
    Err(Errno::EXIST)
}
