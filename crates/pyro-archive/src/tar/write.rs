//! Writing a tar as a stream.
//!
//! Owns that an archive is whole: each member has exactly the bytes that its header promises,
//! and the end is marked. What is written comes from the caller; nothing is read here.

use std::io::{self, Write};

use super::BLOCK;
use super::header::Member;

/// Writes members to `W` one after another.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Bytes of content that the last header promised and that have not come.
    owed: u64,
    /// Zeros that fill up the last block of the member.
    padding: usize,
    written: u64,
    header: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self {
            out,
            owed: 0,
            padding: 0,
            written: 0,
            header: Vec::new(),
        }
    }

    /// Begins a member. Its content, if it has some, must follow.
    ///
    /// # Panics
    /// If content of the member before is missing: a caller's own fault.
    pub fn member(&mut self, member: &Member<'_>) -> io::Result<()> {
        assert_eq!(self.owed, 0, "a member is whole before the next begins");
        self.header.clear();
        self.owed = member.encode(&mut self.header);
        let over = usize::try_from(self.owed % BLOCK as u64).unwrap_or(0);
        self.padding = over.next_multiple_of(BLOCK) - over;
        self.written += self.header.len() as u64;
        self.out.write_all(&self.header)
    }

    /// Bytes of content that are still missing.
    pub fn owed(&self) -> u64 {
        self.owed
    }

    /// Adds content of the member.
    ///
    /// # Panics
    /// If it is more than is [`owed`](Self::owed).
    pub fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        self.owed = self
            .owed
            .checked_sub(length)
            .expect("content keeps to what its header promised");
        self.written += length;
        self.out.write_all(bytes)?;
        if self.owed == 0 {
            self.written += self.padding as u64;
            self.out.write_all(&[0; BLOCK][..self.padding])?;
            self.padding = 0;
        }
        Ok(())
    }

    /// Ends the archive; it can have no further member.
    pub fn finish(&mut self) -> io::Result<()> {
        assert_eq!(self.owed, 0, "the last member is whole");
        self.written += 2 * BLOCK as u64;
        self.out.write_all(&[0; 2 * BLOCK])
    }

    /// Bytes of the archive so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Where the archive goes.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Where the archive went.
    pub fn into_inner(self) -> W {
        self.out
    }
}
