//! Putting a staged tree into its place, entry by entry, and taking that back.
//!
//! What is missing comes by one rename; what exists as a directory on both sides is merged;
//! what is replaced is kept until the end. Each step is noted before the next one, so that
//! all of it can be undone from the last to the first.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, RenameFlags, Stat, Timespec, Uid};
use rustix::io::Errno;

use super::ExtractError;
use super::options::Progress;
use super::parents::open;
use super::spool::Spool;
use super::stage::modified_only;
use crate::beneath::{Relative, Root};
use crate::bounds::MAX_TOLD;
use crate::tar::shown;

/// What a member may take the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacing {
    /// Of anything but a directory. One that is merged with a symbolic link to a directory
    /// goes where that leads beneath the root.
    AllButDirectories,
    /// Of its own kind: the original's rule. A symbolic link takes the place of one, a file
    /// that of what is neither a directory nor a link; a directory is merged with one.
    ItsKind,
}

/// A merge, as far as it has come.
pub(super) struct Merge<'a> {
    pub(super) root: &'a Root,
    /// Path of the directory that is merged into.
    pub(super) base: &'a Relative,
    /// Where what is replaced is kept, under numbers.
    pub(super) old: OwnedFd,
    next_old: u64,
    journal: Spool,
    replacing: Replacing,
    pub(super) progress: &'a Progress,
    /// Device and inode of the staging directory, which nothing is merged into.
    pub(super) stage: (u64, u64),
}

/// One step that can be taken back.
pub(super) enum Step {
    /// Something new has this name.
    Placed,
    /// What had this name is kept under that number.
    Replaced(u64),
    /// A directory was like this.
    Touched(Before),
}

pub(super) struct Before {
    mode: u32,
    uid: u32,
    gid: u32,
    modified: Timespec,
}

impl<'a> Merge<'a> {
    pub(super) fn new(
        root: &'a Root,
        base: &'a Relative,
        old: OwnedFd,
        spool: OwnedFd,
        replacing: Replacing,
        progress: &'a Progress,
    ) -> Self {
        Self {
            root,
            base,
            old,
            next_old: 0,
            journal: Spool::new(spool),
            replacing,
            progress,
            stage: (0, 0),
        }
    }

    pub(super) fn keep_out_of(&mut self, stage: &Stat) {
        self.stage = (stage.st_dev, stage.st_ino);
    }

    /// Keeps what is replaced under this number and those behind it.
    pub(super) fn number_from(&mut self, first: u64) {
        self.next_old = first;
    }

    /// From here on it is brought to its end: who gives it up is not asked any more.
    pub(super) fn go_on_whatever(&mut self, progress: &'a Progress) {
        self.progress = progress;
    }

    /// Merges the directory `from` into `to`, which was `before`.
    pub(super) fn run(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        before: &Stat,
    ) -> Result<(), ExtractError> {
        self.note(&[], &Step::touched(before))?;
        self.directory(from, to, &[])
    }

    /// Takes back what was done because of `error`, and tells what could not be.
    pub(super) fn undo(&mut self, error: ExtractError) -> ExtractError {
        let mut left: Vec<String> = Vec::new();
        let mut uncounted = 0_u64;
        let (root, base, old) = (self.root, self.base, &self.old);
        let next_old = &mut self.next_old;
        let undone = self.journal.backward(|record| {
            let Some((step, path)) = Step::read(record) else {
                return;
            };
            let undone = take_back(root, base, old, next_old, &step, path);
            if let Err(errno) = undone {
                if left.len() < MAX_TOLD {
                    left.push(format!("`{}` ({errno})", shown(path)));
                } else {
                    uncounted += 1;
                }
            }
        });
        if let Err(error) = undone {
            left.push(format!("everything before that ({error})"));
        }
        if left.is_empty() {
            return error;
        }
        if uncounted > 0 {
            left.push(format!("and {uncounted} more"));
        }
        ExtractError::LeftBehind {
            source: Box::new(error),
            left: left.join(", "),
        }
    }

    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, path: &[u8]) -> Result<(), ExtractError> {
        let failed = ExtractError::system(path, "reading the staging directory");
        // Whatever is merged leaves `from`: read it until nothing is left.
        loop {
            let mut found = false;
            for entry in Dir::read_from(from).map_err(&failed)? {
                let entry = entry.map_err(&failed)?;
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                found = true;
                let below = match path {
                    [] => name.to_vec(),
                    _ => [path, b"/", name].concat(),
                };
                self.entry(from, to, OsStr::from_bytes(name), &below)?;
            }
            if !found {
                return Ok(());
            }
        }
    }

    fn entry(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &OsStr,
        path: &[u8],
    ) -> Result<(), ExtractError> {
        self.progress.check()?;
        let failed = ExtractError::system(path, "putting it into its place");
        self.make_room(path)?;
        match rustix::fs::renameat_with(from, name, to, name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.push(path, &Step::Placed);
                return Ok(());
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let ours = kind(&rustix::fs::statat(from, name, flags).map_err(&failed)?);
        let there = rustix::fs::statat(to, name, flags).map_err(&failed)?;
        if ours == FileType::Directory
            && let Some(below) = self.merged_with(to, name, path, &there)?
        {
            let ours = open(from, name).map_err(&failed)?;
            let before = rustix::fs::fstat(&below).map_err(&failed)?;
            self.keep_out(&before, path)?;
            self.note(path, &Step::touched(&before))?;
            self.directory(&ours, &below, path)?;
            return rustix::fs::unlinkat(from, name, AtFlags::REMOVEDIR)
                .map_err(ExtractError::system(path, "leaving the staging directory"));
        }
        self.permit(ours, kind(&there), path)?;
        self.make_room(path)?;
        let number = self.set_aside(to, name, ours).map_err(&failed)?;
        self.push(path, &Step::Replaced(number));
        if ours == FileType::Directory {
            self.make_room(path)?;
            rustix::fs::renameat_with(from, name, to, name, RenameFlags::NOREPLACE)
                .map_err(failed)?;
            self.push(path, &Step::Placed);
            return Ok(());
        }
        rustix::fs::renameat(from, name, to, name).map_err(failed)
    }

    /// Refuses the staging directory.
    pub(super) fn keep_out(&self, directory: &Stat, path: &[u8]) -> Result<(), ExtractError> {
        if (directory.st_dev, directory.st_ino) == self.stage {
            return Err(ExtractError::refused(path, "it is the staging directory"));
        }
        Ok(())
    }

    /// The existing directory that one of ours is merged with.
    pub(super) fn merged_with(
        &self,
        to: &OwnedFd,
        name: &OsStr,
        path: &[u8],
        there: &Stat,
    ) -> Result<Option<OwnedFd>, ExtractError> {
        let failed = ExtractError::system(path, "opening the directory");
        match (kind(there), self.replacing) {
            (FileType::Directory, _) => open(to, name).map(Some).map_err(failed),
            (FileType::Symlink, Replacing::AllButDirectories) => {
                match self.root.open_directory(&self.below_root(path)) {
                    Ok(below) => Ok(Some(below)),
                    // It leads nowhere, or to no directory.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
                    Err(errno) => Err(failed(errno)),
                }
            }
            _ => Ok(None),
        }
    }

    pub(super) fn permit(
        &self,
        ours: FileType,
        there: FileType,
        path: &[u8],
    ) -> Result<(), ExtractError> {
        let refused = |what| Err(ExtractError::refused(path, what));
        if there == FileType::Directory {
            return refused("a directory stands there");
        }
        match self.replacing {
            Replacing::AllButDirectories => Ok(()),
            Replacing::ItsKind => match (ours, there) {
                (FileType::Directory, _) => refused("something that is no directory stands there"),
                (FileType::Symlink, FileType::Symlink) => Ok(()),
                (FileType::Symlink, _) => {
                    refused("something that is no symbolic link stands there")
                }
                (_, FileType::Symlink) => refused("a symbolic link stands there"),
                _ => Ok(()),
            },
        }
    }

    /// Keeps what has a name. It keeps that name too where it can, so that there is no
    /// moment without it: the rename that follows takes its place.
    fn set_aside(&mut self, to: &OwnedFd, name: &OsStr, ours: FileType) -> rustix::io::Result<u64> {
        let number = self.next_old;
        self.next_old += 1;
        let kept = old_name(number);
        // A directory takes the place of nothing.
        if ours != FileType::Directory
            && rustix::fs::linkat(to, name, &self.old, &kept, AtFlags::empty()).is_ok()
        {
            return Ok(number);
        }
        rustix::fs::renameat(to, name, &self.old, &kept)?;
        Ok(number)
    }

    fn below_root(&self, path: &[u8]) -> Relative {
        self.base.join(&relative(path))
    }

    pub(super) fn make_room(&mut self, path: &[u8]) -> Result<(), ExtractError> {
        self.journal
            .make_room()
            .map_err(ExtractError::input_output(path, "noting it"))
    }

    pub(super) fn note(&mut self, path: &[u8], step: &Step) -> Result<(), ExtractError> {
        self.make_room(path)?;
        self.push(path, step);
        Ok(())
    }

    pub(super) fn push(&mut self, path: &[u8], step: &Step) {
        self.journal.push(&step.record(path));
    }
}

fn take_back(
    root: &Root,
    base: &Relative,
    old: &OwnedFd,
    next_old: &mut u64,
    step: &Step,
    path: &[u8],
) -> rustix::io::Result<()> {
    let whole = base.join(&relative(path));
    if let Step::Touched(before) = step {
        let directory = root.open_directory(&whole)?;
        return before.restore(&directory);
    }
    let Some((_, name)) = relative(path)
        .split()
        .map(|(above, name)| (above, name.to_owned()))
    else {
        return Ok(());
    };
    let above = whole.above(whole.parts().len() - 1);
    let parent = root.open_directory(&above)?;
    match step {
        Step::Placed => {
            let number = *next_old;
            *next_old += 1;
            rustix::fs::renameat(&parent, &name, old, old_name(number))
        }
        Step::Replaced(number) => rustix::fs::renameat(old, old_name(*number), &parent, &name),
        Step::Touched(_) => Ok(()),
    }
}

impl Step {
    pub(super) fn touched(before: &Stat) -> Self {
        let modified = modified_only(before).last_modification;
        Self::Touched(Before {
            mode: before.st_mode & 0o7777,
            uid: before.st_uid,
            gid: before.st_gid,
            modified,
        })
    }

    fn record(&self, path: &[u8]) -> Vec<u8> {
        let mut record = Vec::with_capacity(path.len() + 32);
        match self {
            Self::Placed => record.push(b'P'),
            Self::Replaced(number) => {
                record.push(b'R');
                record.extend_from_slice(&number.to_be_bytes());
            }
            Self::Touched(before) => {
                record.push(b'T');
                for number in [before.mode, before.uid, before.gid] {
                    record.extend_from_slice(&number.to_be_bytes());
                }
                record.extend_from_slice(&before.modified.tv_sec.to_be_bytes());
                record.extend_from_slice(&before.modified.tv_nsec.to_be_bytes());
            }
        }
        record.extend_from_slice(path);
        record
    }

    fn read(record: &[u8]) -> Option<(Self, &[u8])> {
        let (tag, rest) = record.split_first()?;
        match tag {
            b'P' => Some((Self::Placed, rest)),
            b'R' => {
                let (number, path) = rest.split_first_chunk()?;
                Some((Self::Replaced(u64::from_be_bytes(*number)), path))
            }
            b'T' => {
                let (mode, rest) = rest.split_first_chunk()?;
                let (uid, rest) = rest.split_first_chunk()?;
                let (gid, rest) = rest.split_first_chunk()?;
                let (seconds, rest) = rest.split_first_chunk()?;
                let (nanoseconds, path) = rest.split_first_chunk()?;
                let before = Before {
                    mode: u32::from_be_bytes(*mode),
                    uid: u32::from_be_bytes(*uid),
                    gid: u32::from_be_bytes(*gid),
                    modified: Timespec {
                        tv_sec: i64::from_be_bytes(*seconds),
                        tv_nsec: i64::from_be_bytes(*nanoseconds),
                    },
                };
                Some((Self::Touched(before), path))
            }
            _ => None,
        }
    }
}

impl Before {
    fn restore(&self, directory: &OwnedFd) -> rustix::io::Result<()> {
        let now = rustix::fs::fstat(directory)?;
        if (now.st_uid, now.st_gid) != (self.uid, self.gid) {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            rustix::fs::fchown(directory, Some(uid), Some(gid))?;
        }
        if now.st_mode & 0o7777 != self.mode {
            rustix::fs::fchmod(directory, Mode::from_raw_mode(self.mode))?;
        }
        let mut times = modified_only(&now);
        times.last_modification = self.modified;
        rustix::fs::futimens(directory, &times)
    }
}

pub(super) fn old_name(number: u64) -> OsString {
    OsString::from(number.to_string())
}

pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// A path that was made of the names of existing entries.
fn relative(path: &[u8]) -> Relative {
    Relative::parse(path).expect("names of entries are neither `..` nor hold a NUL")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::path::Path;

    fn opened(path: &Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    #[test]
    fn what_cannot_be_taken_back_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["from", "to", "old", "from/both", "to/both"] {
            fs::create_dir(path(name)).unwrap();
        }
        for number in 0..30 {
            fs::write(path(&format!("from/both/{number}")), "new").unwrap();
            fs::write(path(&format!("to/both/{number}")), "old").unwrap();
        }
        fs::write(path("from/fresh"), "new").unwrap();
        let (root, base) = (Root::open(&path("to")).unwrap(), Relative::root());
        let progress = Progress::default();
        let replacing = Replacing::AllButDirectories;
        let old = opened(&path("old"));
        let spool = opened(directory.path());
        let mut merge = Merge::new(&root, &base, old, spool, replacing, &progress);
        let to = opened(&path("to"));
        let before = rustix::fs::fstat(&to).unwrap();
        merge.run(&opened(&path("from")), &to, &before).unwrap();
        assert_eq!(fs::read_to_string(path("to/both/7")).unwrap(), "new");
        // Somebody takes away what was kept.
        let kept = fs::read_dir(path("old")).unwrap();
        for kept in kept.skip(5) {
            fs::remove_file(kept.unwrap().path()).unwrap();
        }
        let told = merge.undo(ExtractError::Stopped).to_string();
        assert!(told.contains("could not all be taken back"), "{told}");
        assert_eq!(told.matches("`both/").count(), MAX_TOLD, "{told}");
        assert!(told.ends_with("and 5 more"), "{told}");
        assert!(!path("to/fresh").exists());
    }
}
