//! Records of an extraction: a few in memory, any number in a file without a name.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::bounds::{MAX_PATH, SPOOL_MEMORY};

/// Bytes of a length, which stands before and behind each record.
const LENGTH: usize = 4;

/// Longest record: a path and some numbers.
const MAX_RECORD: usize = MAX_PATH * 2 + 256;

/// Records in the order in which they came.
#[derive(Debug)]
pub(super) struct Spool {
    /// Where the file is made when memory does not suffice.
    directory: OwnedFd,
    memory: Vec<u8>,
    file: Option<File>,
    /// Bytes in the file.
    filed: u64,
}

impl Spool {
    /// An empty one, whose file would be made in `directory`.
    pub(super) fn new(directory: OwnedFd) -> Self {
        Self {
            directory,
            memory: Vec::new(),
            file: None,
            filed: 0,
        }
    }

    /// Sees to it that the next record finds room: what can fail is done here.
    pub(super) fn make_room(&mut self) -> io::Result<()> {
        if self.memory.len() + MAX_RECORD <= SPOOL_MEMORY {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(nameless(&self.directory)?),
        };
        file.write_all_at(&self.memory, self.filed)?;
        self.filed += self.memory.len() as u64;
        self.memory.clear();
        Ok(())
    }

    /// Takes a record, for which there is room.
    pub(super) fn push(&mut self, record: &[u8]) {
        let length = u32::try_from(record.len())
            .expect("a record is a path and some numbers")
            .to_be_bytes();
        self.memory.extend_from_slice(&length);
        self.memory.extend_from_slice(record);
        self.memory.extend_from_slice(&length);
    }

    /// Hands out every record, the first one first.
    pub(super) fn forward<E: From<io::Error>>(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut filed: Box<dyn Read> = match &self.file {
            Some(file) => {
                let mut file = file.try_clone()?;
                file.rewind()?;
                Box::new(BufReader::new(file).take(self.filed))
            }
            None => Box::new(io::empty()),
        };
        let mut records = filed.by_ref().chain(&self.memory[..]);
        let mut record = Vec::new();
        loop {
            let mut length = [0; LENGTH];
            match records.read_exact(&mut length) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            record.resize(u32::from_be_bytes(length) as usize, 0);
            records.read_exact(&mut record)?;
            records.read_exact(&mut length)?;
            take(&record)?;
        }
    }

    /// Hands out every record, the last one first.
    pub(super) fn backward(&self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut memory = &self.memory[..];
        while let Some((rest, length)) = memory.split_last_chunk::<LENGTH>() {
            let start = rest.len() - u32::from_be_bytes(*length) as usize;
            take(&rest[start..]);
            memory = &rest[..start - LENGTH];
        }
        let Some(file) = &self.file else {
            return Ok(());
        };
        let mut end = self.filed;
        let mut record = Vec::new();
        while end > 0 {
            let mut length = [0; LENGTH];
            end -= LENGTH as u64;
            file.read_exact_at(&mut length, end)?;
            record.resize(u32::from_be_bytes(length) as usize, 0);
            end -= record.len() as u64;
            file.read_exact_at(&mut record, end)?;
            take(&record);
            end -= LENGTH as u64;
        }
        Ok(())
    }
}

/// A file in `directory` that nobody else can open.
fn nameless(directory: &OwnedFd) -> io::Result<File> {
    let mode = Mode::from_raw_mode(0o600);
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, ".", flags | OFlags::TMPFILE, mode) {
        Ok(file) => return Ok(File::from(file)),
        // Not every file system can; overlayfs learnt it in 6.1.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    let fresh = flags | OFlags::CREATE | OFlags::EXCL;
    let (file, name) = super::fresh_name(".pyro-records-", |name| {
        let file = rustix::fs::openat(directory, name, fresh, mode)?;
        Ok((file, OsString::from(name)))
    })?;
    rustix::fs::unlinkat(directory, &name, AtFlags::empty())?;
    Ok(File::from(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_in_both_orders() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(File::open(directory.path()).unwrap().into());
        // Several times what memory holds.
        let record = |number: u32| {
            let mut record = number.to_be_bytes().to_vec();
            record.resize(4 + number as usize % 700, b'x');
            record
        };
        for number in 0..3000 {
            spool.make_room().unwrap();
            spool.push(&record(number));
            assert!(spool.memory.len() <= SPOOL_MEMORY);
        }
        assert!(spool.filed > 0);
        let mut next = 0;
        spool
            .forward(|told| {
                assert_eq!(told, record(next));
                next += 1;
                io::Result::Ok(())
            })
            .unwrap();
        assert_eq!(next, 3000);
        spool
            .backward(|told| {
                next -= 1;
                assert_eq!(told, record(next));
            })
            .unwrap();
        assert_eq!(next, 0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
