//! Trees and single files that a guest sent, onto the host.
//!
//! The archive is hostile. Names stay beneath the destination, which is opened once; links are
//! made as text and not followed; nothing is given set-id bits, foreign owners or extended
//! attributes. All of it counts or nothing: a tree that is new or replaces another is renamed
//! into its place when it is whole, and one that is merged is taken back when it fails.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use pyro_archive::beneath::{DIRECTORY, Relative, Root};
use pyro_archive::extract::options::{Attributes, Options, Progress};
use pyro_archive::extract::{ExtractError, Extractor, Replacing, Stage};
use pyro_archive::tar::read::{ReadError, Reader};
use pyro_archive::tar::{Kind, Member};
use rustix::fs::{Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use serde::Serialize;

use super::TreeError;
use super::place::{Place, open_directory};
use super::unfinished::Unfinished;

/// What is taken of a mode: no set-id or sticky bits.
const MODE: u32 = 0o777;

/// Mode of a directory that is made, before the user's mask.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);

/// What may become of something that stands at the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// It is an error.
    #[default]
    Refuse,
    /// A directory is merged with one; a file or link takes the place of one.
    Merge,
    /// It goes as a whole, when what takes its place is whole.
    Replace,
}

/// What is made of symbolic links in the directories that lead to an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Links {
    /// They are followed.
    #[default]
    Follow,
    /// They are refused. For an output that was judged without links in it, so that one that appears meanwhile leads nowhere.
    Refuse,
}

/// How to unpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackOptions {
    /// What may become of what is there.
    pub overwrite: Overwrite,
    /// What is made of links on the way to it.
    pub links: Links,
    /// Most bytes of content.
    pub max_bytes: u64,
    /// Most members.
    pub max_entries: u64,
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Members.
    pub entry_count: u64,
    /// Bytes of files, holes included.
    pub bytes_written: u64,
    /// What is at the destination now.
    pub artifact_type: Artifact,
}

/// What was unpacked as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Artifact {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// Unpacks the tar that `reader` gives as the directory `destination`.
///
/// # Errors
/// [`TreeError::Exists`] if something is there that must stay, [`TreeError::Unpack`] for an
/// archive that is damaged, refused or too large, [`TreeError::Io`] for what the host refuses.
/// After any of them the destination is as it was.
pub fn unpack_tree(
    reader: &mut impl Read,
    destination: &Path,
    options: &UnpackOptions,
    unfinished: &Unfinished,
) -> Result<Unpacked, TreeError> {
    let merges = options.overwrite == Overwrite::Merge && destination.is_dir();
    if merges {
        return merge(reader, destination, options, unfinished);
    }
    let overwrite = match options.overwrite {
        // There is nothing to merge with.
        Overwrite::Merge => Overwrite::Refuse,
        overwrite @ (Overwrite::Refuse | Overwrite::Replace) => overwrite,
    };
    let place = Place::open(destination, overwrite, options.links, unfinished)?;
    rustix::fs::mkdirat(place.hidden(), Place::new_name(), DIRECTORY_MODE)
        .map_err(TreeError::io("make", destination))?;
    let new = || -> Result<OwnedFd, TreeError> {
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        rustix::fs::openat(place.hidden(), Place::new_name(), flags, Mode::empty())
            .map_err(TreeError::io("open", destination))
    };
    let directory = new()?;
    let failed = |source| unpack_error(destination, source);
    let progress = Progress::default();
    let mut extractor = Extractor::new(
        Root::from_directory(new()?),
        extract_options(options),
        &progress,
    )
    .map_err(failed)?;
    let root = members(reader, &mut extractor, options.max_entries).map_err(failed)?;
    extractor.finish().map_err(failed)?;
    let unpacked = Unpacked {
        entry_count: extractor.summary().entries + u64::from(root.is_some()),
        bytes_written: extractor.summary().bytes,
        artifact_type: Artifact::Directory,
    };
    place.commit(overwrite)?;
    // Only now: a directory that is closed to its owner cannot be renamed.
    if let Some(root) = root {
        let _ = rustix::fs::fchmod(&directory, Mode::from_raw_mode(root.mode & MODE));
        let _ = rustix::fs::futimens(&directory, &modified(root.modified));
    }
    Ok(unpacked)
}

/// Unpacks the tar that `reader` gives, which holds one file or symbolic link, as `output`.
///
/// # Errors
/// As [`unpack_tree`], and [`TreeError::Unexpected`] if it holds anything else.
pub fn unpack_single(
    reader: &mut impl Read,
    output: &Path,
    options: &UnpackOptions,
    unfinished: &Unfinished,
) -> Result<Unpacked, TreeError> {
    let place = Place::open(output, options.overwrite, options.links, unfinished)?;
    let failed = |source| unpack_error(output, source);
    let read = |source: ReadError| failed(ExtractError::Archive(source));
    let hidden = place.hidden().try_clone();
    let hidden = hidden.map_err(TreeError::io("open", output))?;
    let progress = Progress::default();
    let root = Root::from_directory(hidden);
    let mut extractor =
        Extractor::new(root, extract_options(options), &progress).map_err(failed)?;
    let mut reader = Reader::new(reader);
    let member = reader.next_member().map_err(read)?;
    let mut member = member.ok_or(TreeError::Unexpected {
        why: "it holds nothing",
    })?;
    let artifact_type = match &member.kind {
        Kind::File { .. } | Kind::Sparse { .. } => Artifact::File,
        Kind::Symlink(_) => Artifact::Symlink,
        Kind::Directory
        | Kind::HardLink(_)
        | Kind::Fifo
        | Kind::CharDevice(_)
        | Kind::BlockDevice(_) => {
            return Err(TreeError::Unexpected {
                why: "it holds neither a file nor a symbolic link",
            });
        }
    };
    member.path = Place::new_name().as_encoded_bytes().to_vec();
    soften(&mut member);
    extractor.put(&member, &mut reader).map_err(failed)?;
    if reader.next_member().map_err(read)?.is_some() {
        return Err(TreeError::Unexpected {
            why: "it holds more than one member",
        });
    }
    reader.finish().map_err(read)?;
    let bytes_written = extractor.summary().bytes;
    place.commit(options.overwrite)?;
    Ok(Unpacked {
        entry_count: 1,
        bytes_written,
        artifact_type,
    })
}

/// Puts the members of an archive into a directory that is there.
fn merge(
    reader: &mut impl Read,
    destination: &Path,
    options: &UnpackOptions,
    unfinished: &Unfinished,
) -> Result<Unpacked, TreeError> {
    let root = Root::from_directory(open_directory(destination, options.links)?);
    let failed = |source| unpack_error(destination, source);
    let progress = Progress::default();
    let noting = unfinished.of_merges();
    let stage = Stage::open_noted(root, Relative::root(), &noting).map_err(failed)?;
    let mut extractor = stage
        .extractor(extract_options(options), &progress)
        .map_err(failed)?;
    // The directory keeps its own mode and time: it is the user's.
    let root = members(reader, &mut extractor, options.max_entries).map_err(failed)?;
    let summary = stage
        .commit(extractor, Replacing::AllButDirectories)
        .map_err(failed)?;
    Ok(Unpacked {
        entry_count: summary.entries + u64::from(root.is_some()),
        bytes_written: summary.bytes,
        artifact_type: Artifact::Directory,
    })
}

/// Unpacks every member but one for the root itself, which is returned.
fn members<R: Read>(
    input: &mut R,
    extractor: &mut Extractor<'_>,
    limit: u64,
) -> Result<Option<Member>, ExtractError> {
    let mut reader = Reader::new(input);
    let mut root = None;
    let mut roots = 0;
    while let Some(mut member) = reader.next_member()? {
        soften(&mut member);
        let is_root = !member.path.starts_with(b"/")
            && member.kind == Kind::Directory
            && Relative::parse(&member.path).is_ok_and(|path| path.parts().is_empty());
        if is_root {
            roots += 1;
            if roots > limit {
                let what = "members";
                return Err(ExtractError::Limit { what, limit });
            }
            root = Some(member);
            continue;
        }
        extractor.put(&member, &mut reader)?;
    }
    // Whoever sends it may fail behind the last member.
    reader.finish()?;
    Ok(root)
}

fn soften(member: &mut Member) {
    member.mode &= MODE;
}

fn extract_options(options: &UnpackOptions) -> Options {
    Options {
        attributes: Attributes::LeftOut,
        max_entries: options.max_entries,
        max_bytes: options.max_bytes,
        ..Options::import()
    }
}

fn unpack_error(path: &Path, source: ExtractError) -> TreeError {
    TreeError::Unpack {
        path: path.to_owned(),
        source,
    }
}

fn modified(time: Timespec) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: time,
    }
}
