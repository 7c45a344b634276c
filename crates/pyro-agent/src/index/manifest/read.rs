//! Reading a manifest, record by record.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use super::{
    Damage, Head, MAGIC, MAX_BLOCK, MAX_HEAD, PREFIX, Prefix, Record, TOTALS, Totals, VERSION,
};

/// A manifest that is being read. Holds one block at a time.
pub(crate) struct Reader {
    file: File,
    head: Head,
    block: Vec<u8>,
    at: usize,
    left: u32,
    number: u32,
    current: Option<Record>,
    ended: bool,
}

impl Reader {
    /// Reads the head of `file`, which stands at its beginning.
    pub(crate) fn new(mut file: File) -> Result<Self, Damage> {
        let mut start = [0; MAGIC.len()];
        exactly(&mut file, &mut start)?;
        let prefix = read_prefix(&mut file)?;
        let length = prefix.length as usize;
        if start != *MAGIC || prefix.number != VERSION || length > MAX_HEAD {
            return Err(Damage::Broken);
        }
        let mut head = vec![0; length];
        exactly(&mut file, &mut head)?;
        if !prefix.matches(&head) {
            return Err(Damage::Broken);
        }
        let head = serde_json::from_slice(&head).map_err(|_| Damage::Broken)?;
        let mut reader = Self {
            file,
            head,
            block: Vec::with_capacity(MAX_BLOCK),
            at: 0,
            left: 0,
            number: 0,
            current: None,
            ended: false,
        };
        reader.take()?;
        Ok(reader)
    }

    /// What the manifest is of.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// The record that the reader stands at; `None` behind the last.
    pub(crate) fn current(&self) -> Option<&Record> {
        self.current.as_ref()
    }

    /// Takes the current record, and goes on to the next.
    pub(crate) fn take(&mut self) -> Result<Option<Record>, Damage> {
        let next = self.next_record()?;
        // Whatever wrote it: a merge relies on the order.
        if let (Some(before), Some(next)) = (&self.current, &next)
            && before.path >= next.path
        {
            return Err(Damage::Broken);
        }
        Ok(std::mem::replace(&mut self.current, next))
    }

    /// Goes on to `path` and takes its record, if there is one.
    pub(crate) fn find(&mut self, path: &[u8]) -> Result<Option<Record>, Damage> {
        while let Some(record) = &self.current {
            match record.path.as_slice().cmp(path) {
                std::cmp::Ordering::Less => drop(self.take()?),
                std::cmp::Ordering::Equal => return self.take(),
                std::cmp::Ordering::Greater => break,
            }
        }
        Ok(None)
    }

    fn next_record(&mut self) -> Result<Option<Record>, Damage> {
        while self.left == 0 {
            if self.ended {
                return Ok(None);
            }
            self.read_block()?;
        }
        let (record, rest) = Record::decode(&self.block[self.at..])?;
        self.at = self.block.len() - rest.len();
        self.left -= 1;
        if self.left == 0 && self.at != self.block.len() {
            return Err(Damage::Broken);
        }
        Ok(Some(record))
    }

    fn read_block(&mut self) -> Result<(), Damage> {
        let prefix = read_prefix(&mut self.file)?;
        let length = prefix.length as usize;
        if prefix.number != self.number || length > MAX_BLOCK {
            return Err(Damage::Broken);
        }
        self.block.resize(length, 0);
        exactly(&mut self.file, &mut self.block)?;
        if !prefix.matches(&self.block) {
            return Err(Damage::Broken);
        }
        self.number += 1;
        self.at = 0;
        self.left = prefix.records;
        if prefix.records == 0 {
            if length != TOTALS {
                return Err(Damage::Broken);
            }
            self.ended = true;
        }
        Ok(())
    }
}

/// The totals of the manifest in `file`, without a look at its records.
pub(crate) fn totals(file: &File) -> Result<Totals, Damage> {
    const LAST: usize = PREFIX + TOTALS;
    let length = file.metadata()?.len();
    let at = length.checked_sub(LAST as u64).ok_or(Damage::Broken)?;
    let mut last = [0; LAST];
    file.read_exact_at(&mut last, at)?;
    let (prefix, totals) = last.split_first_chunk().ok_or(Damage::Broken)?;
    let prefix = Prefix::decode(prefix);
    if prefix.records != 0 || !prefix.matches(totals) {
        return Err(Damage::Broken);
    }
    let totals = totals.try_into().map_err(|_| Damage::Broken)?;
    Ok(Totals::decode(totals))
}

fn read_prefix(file: &mut File) -> Result<Prefix, Damage> {
    let mut bytes = [0; PREFIX];
    exactly(file, &mut bytes)?;
    Ok(Prefix::decode(&bytes))
}

fn exactly(file: &mut File, bytes: &mut [u8]) -> Result<(), Damage> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Damage::Broken,
        _ => Damage::Read(error),
    })
}
