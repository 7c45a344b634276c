//! What is said about directories, kept until nothing is put into them any more.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, Timespec};
use rustix::io::Errno;

use super::ExtractError;
use super::options::{Options, Progress, Times};
use super::put::stamps;
use super::spool::Spool;
use crate::beneath::{DIRECTORY, Relative, Root};
use crate::bounds::MAX_PATH;

/// Modes and times of directories, in the order of their members.
#[derive(Debug)]
pub(super) struct Directories {
    spool: Spool,
    /// The root's own.
    root: Option<Said>,
}

/// Mode and time.
#[derive(Clone, Copy, Debug)]
struct Said {
    mode: u32,
    modified: Timespec,
}

/// Bytes of the numbers before a path.
const NUMBERS: usize = 20;

impl Directories {
    /// None yet; many would be kept in a file without a name in `directory`.
    pub(super) fn new(directory: OwnedFd) -> Self {
        Self {
            spool: Spool::new(directory),
            root: None,
        }
    }

    /// Notes what a member says.
    pub(super) fn note(
        &mut self,
        path: &Relative,
        mode: u32,
        modified: Timespec,
    ) -> io::Result<()> {
        if path.parts().is_empty() {
            self.root = Some(Said { mode, modified });
            return Ok(());
        }
        self.spool.make_room()?;
        let mut record = Said { mode, modified }.numbers().to_vec();
        record.extend_from_slice(&path.to_bytes());
        self.spool.push(&record);
        Ok(())
    }

    /// Writes down what was noted, for whoever comes after this process.
    pub(super) fn save(&self, out: &mut impl Write) -> io::Result<()> {
        match &self.root {
            Some(said) => {
                out.write_all(&[1])?;
                out.write_all(&said.numbers())?;
            }
            None => out.write_all(&[0])?,
        }
        self.spool.forward(|record| {
            let length = u32::try_from(record.len()).map_err(io::Error::other)?;
            out.write_all(&length.to_be_bytes())?;
            out.write_all(record)
        })
    }

    /// Reads what was written down; many would be kept in a file without a name in `directory`.
    pub(super) fn load(input: &mut impl Read, directory: OwnedFd) -> io::Result<Self> {
        let mut directories = Self::new(directory);
        let mut flag = [0];
        input.read_exact(&mut flag)?;
        if flag == [1] {
            let mut numbers = [0; NUMBERS];
            input.read_exact(&mut numbers)?;
            directories.root = Some(Said::read(&numbers));
        }
        loop {
            let mut length = [0; 4];
            match input.read_exact(&mut length) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(directories);
                }
                Err(error) => return Err(error),
            }
            let length = u32::from_be_bytes(length) as usize;
            if !(NUMBERS..=NUMBERS + MAX_PATH * 2).contains(&length) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut record = vec![0; length];
            input.read_exact(&mut record)?;
            directories.spool.make_room()?;
            directories.spool.push(&record);
        }
    }

    /// Gives the directories beneath `root` what was noted, the root itself last.
    pub(super) fn apply(
        &self,
        root: &Root,
        options: &Options,
        progress: &Progress,
    ) -> Result<(), ExtractError> {
        let applied = self.spool.forward(|record| {
            progress.check().map_err(Failed::Extract)?;
            let (numbers, path) = record.split_at(NUMBERS);
            let said = Said::read(numbers);
            let relative = Relative::parse(path).map_err(|_| Failed::Spool)?;
            match root.open_at(&relative, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(directory) => said
                    .apply(&directory, options)
                    .map_err(ExtractError::system(path, "setting its mode and time"))
                    .map_err(Failed::Extract),
                // A later member took its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(errno) => Err(Failed::Extract(ExtractError::system(
                    path,
                    "opening the directory",
                )(errno))),
            }
        });
        applied.map_err(|failed| match failed {
            Failed::Extract(error) => error,
            Failed::Spool => ExtractError::system(b"/", "reading what was noted")(Errno::IO),
        })?;
        self.apply_root(root.directory(), options)
            .map_err(ExtractError::system(b"/", "setting its mode and time"))
    }

    /// Gives the root what was noted about it.
    pub(super) fn apply_root(&self, root: &OwnedFd, options: &Options) -> rustix::io::Result<()> {
        match self.root {
            Some(said) => said.apply(root, options),
            None => Ok(()),
        }
    }
}

impl Said {
    fn numbers(&self) -> [u8; NUMBERS] {
        let mut numbers = [0; NUMBERS];
        numbers[..4].copy_from_slice(&self.mode.to_be_bytes());
        numbers[4..12].copy_from_slice(&self.modified.tv_sec.to_be_bytes());
        numbers[12..].copy_from_slice(&self.modified.tv_nsec.to_be_bytes());
        numbers
    }

    fn read(numbers: &[u8]) -> Self {
        let part = |from: usize| {
            let bytes = numbers[from..from + 8].try_into();
            i64::from_be_bytes(bytes.expect("eight bytes were taken"))
        };
        let mode = numbers[..4].try_into().expect("four bytes were taken");
        Self {
            mode: u32::from_be_bytes(mode),
            modified: Timespec {
                tv_sec: part(4),
                tv_nsec: part(12),
            },
        }
    }

    fn apply(&self, directory: &OwnedFd, options: &Options) -> rustix::io::Result<()> {
        rustix::fs::fchmod(directory, Mode::from_raw_mode(self.mode))?;
        match options.times {
            Times::Kept => rustix::fs::futimens(directory, &stamps(self.modified)),
            Times::Now => Ok(()),
        }
    }
}

enum Failed {
    Extract(ExtractError),
    Spool,
}

impl From<io::Error> for Failed {
    fn from(_: io::Error) -> Self {
        Self::Spool
    }
}
