//! Bringing to its end what a process that died had staged.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Dir, FileType, Mode};
use rustix::io::Errno;

use super::ExtractError;
use super::leaving::put_back;
use super::ledger::{Ledger, Left};
use super::merge::{Merge, kind};
use super::options::{Options, Progress};
use super::parents::open;
use super::remove::remove;
use super::seal::{Mark, Seal, list};
use super::stage::{OLD, TREE};
use crate::beneath::{Relative, Root};

/// A stage that a process which died had left.
#[derive(Debug)]
pub struct Recovered {
    /// Where its staging directory was.
    pub path: PathBuf,
    /// Nothing of it is left, or why it is still there. Then the next who looks tries it again.
    pub outcome: Result<(), ExtractError>,
}

/// Brings every stage in `ledger` whose owner died to its end: what was being put in its place is put there, anything else is taken
/// back. Blocks.
pub fn recover(ledger: &Ledger) -> Vec<Recovered> {
    ledger.left().into_iter().map(recovered).collect()
}

fn recovered(left: Left) -> Recovered {
    let below = String::from_utf8_lossy(&left.below).into_owned();
    let path = left.at.join(below).join(&left.name);
    let outcome = bring_to_end(&left);
    match outcome {
        Ok(()) => drop(left.record),
        Err(_) => left.record.keep(),
    }
    Recovered { path, outcome }
}

fn bring_to_end(left: &Left) -> Result<(), ExtractError> {
    let shown = left.name.as_encoded_bytes();
    let failed = ExtractError::system(shown, "finding what was staged");
    let Ok(base) = Relative::parse(&left.below) else {
        return Ok(());
    };
    let is_gone = |errno| matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP);
    let root = match Root::open(&left.at) {
        Ok(root) => root,
        Err(errno) if is_gone(errno) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    };
    let anchor = match root.open_directory(&base) {
        Ok(anchor) => anchor,
        Err(errno) if is_gone(errno) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    };
    let stage = match open(&anchor, &left.name) {
        Ok(stage) => stage,
        Err(errno) if is_gone(errno) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    };
    let found = rustix::fs::fstat(&stage).map_err(&failed)?;
    let is_ours = kind(&found) == FileType::Directory
        && found.st_uid == rustix::process::geteuid().as_raw()
        && Mode::from_raw_mode(found.st_mode & 0o777) == Mode::RWXU;
    if !is_ours {
        // Somebody else has made something of that name; ours is gone.
        return Ok(());
    }
    match Mark::of(&stage).map_err(&failed)? {
        None => {}
        Some(Mark::Removing) => {
            let seal = seal(&stage, shown)?;
            let old = open(&stage, OLD.as_ref()).map_err(&failed)?;
            let mut list = list(&stage)
                .map_err(ExtractError::input_output(shown, "reading what was to go"))?;
            put_back(&root, &base, &old, &mut list, seal.edits)?;
        }
        Some(Mark::Merging) => go_on(&root, &base, &anchor, &stage, shown)?,
    }
    // Without a mark a half of it is nothing.
    Mark::clear(&stage).map_err(&failed)?;
    remove(&anchor, &left.name).map_err(failed)
}

fn go_on(
    root: &Root,
    base: &Relative,
    anchor: &OwnedFd,
    stage: &OwnedFd,
    shown: &[u8],
) -> Result<(), ExtractError> {
    let failed = ExtractError::system(shown, "opening what was staged");
    let seal = seal(stage, shown)?;
    let tree = open(stage, TREE.as_ref()).map_err(&failed)?;
    let old = open(stage, OLD.as_ref()).map_err(&failed)?;
    let first = first_free(&old).map_err(&failed)?;
    let spool = stage.try_clone();
    let spool = spool.map_err(ExtractError::input_output(shown, "opening what was staged"))?;
    let progress = Progress::default();
    let mut merge = Merge::new(root, base, old, spool, seal.replacing, &progress);
    merge.keep_out_of(&rustix::fs::fstat(stage).map_err(&failed)?);
    merge.number_from(first);
    let before = rustix::fs::fstat(anchor).map_err(&failed)?;
    merge.run(&tree, anchor, &before)?;
    let there = root.open_directory(&base.join(&seal.missing));
    let there = Root::from_directory(there.map_err(&failed)?);
    let options = Options {
        times: seal.times,
        ..Options::import()
    };
    seal.directories.apply(&there, &options, &progress)
}

/// A number above all that something is kept under.
fn first_free(old: &OwnedFd) -> rustix::io::Result<u64> {
    let mut first = 0;
    for entry in Dir::read_from(old)? {
        let number = entry?
            .file_name()
            .to_str()
            .ok()
            .and_then(|name| name.parse::<u64>().ok());
        first = first.max(number.map_or(0, |number| number.saturating_add(1)));
    }
    Ok(first)
}

fn seal(stage: &OwnedFd, shown: &[u8]) -> Result<Seal, ExtractError> {
    Seal::load(stage).map_err(ExtractError::input_output(
        shown,
        "reading what was written down of it",
    ))
}
