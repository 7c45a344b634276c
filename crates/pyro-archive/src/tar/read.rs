//! Reading an archive, member by member, from any stream of bytes.
//!
//! Knows the forms of v7, ustar, GNU and PAX, sparse files in all of GNU tar's ways. Where
//! readers disagree about what bytes mean, they are refused: what one program checked must
//! not be something else to the next. An archive ends with a block of zeros, or where its
//! bytes end at the border of a member, as for GNU tar; anything else that ends early is
//! told as truncated.

mod header;
mod number;
mod pax;
mod sparse;

use std::io::{self, Read, Seek, SeekFrom};

use rustix::fs::Timespec;

use super::{BLOCK, Device, Kind, Member, shown};
use crate::bounds::{MAX_BEHIND_END, MAX_PATH, MAX_PAX, MAX_SIZE};
use header::Header;
use pax::{Facts, Pax};

/// Bytes that are skipped at a time where the input cannot be sought.
const SKIP: usize = 16 * 1024;

const BLOCK_LENGTH: u64 = BLOCK as u64;

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes did not come.
    #[error("the archive cannot be read")]
    Input {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// They ended too early.
    #[error("the archive is damaged: it is truncated after {offset} bytes")]
    Truncated {
        /// Bytes that there were.
        offset: u64,
    },
    /// They are no sound archive.
    #[error("the archive is damaged near byte {offset}: {what}")]
    Damaged {
        /// Where, in bytes of the plain archive.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// Something is larger than any bound allows.
    #[error("{what} of the archive exceeds {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A member is of a kind that no file is.
    #[error("`{path}` is a member of the unsupported kind `{kind}`")]
    Unsupported {
        /// Which.
        path: String,
        /// The letter of its kind.
        kind: char,
    },
}

impl ReadError {
    fn damaged(offset: u64, what: &'static str) -> Self {
        Self::Damaged { offset, what }
    }

    fn too_large(what: &'static str, limit: u64) -> Self {
        Self::TooLarge { what, limit }
    }
}

/// A reader of the archive that `R` delivers. Give it a buffered one: it reads in blocks.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    skip: fn(&mut R, u64) -> io::Result<u64>,
    /// Bytes taken from the input.
    offset: u64,
    /// Content of the current member that has not been read.
    left: u64,
    /// Zeros that follow it.
    padding: u64,
    facts: Facts,
    ended: bool,
    unpadded_end: bool,
}

impl<R: Read> Reader<R> {
    /// Reads from a stream.
    pub fn new(input: R) -> Self {
        Self::with_skip(input, skip_by_reading)
    }

    fn with_skip(input: R, skip: fn(&mut R, u64) -> io::Result<u64>) -> Self {
        Self {
            input,
            skip,
            offset: 0,
            left: 0,
            padding: 0,
            facts: Facts::default(),
            ended: false,
            unpadded_end: false,
        }
    }

    /// Takes an archive that ends with the content of a member, without the zeros behind it:
    /// some makers of image layers never end them. Only for what a digest holds together.
    #[must_use]
    pub fn with_unpadded_end(mut self) -> Self {
        self.unpadded_end = true;
        self
    }

    /// The next member, its content left to [`Reader::content`]; what was not read of the
    /// one before is skipped. `None` at the end of the archive.
    pub fn next_member(&mut self) -> Result<Option<Member>, ReadError> {
        self.skip_content()?;
        if self.ended {
            return Ok(None);
        }
        let mut said = Said::default();
        loop {
            let at = self.offset;
            let Some(block) = self.block()? else {
                return self.end(&said);
            };
            if block.iter().all(|byte| *byte == 0) {
                return self.end(&said);
            }
            let header = Header::check(&block)
                .ok_or_else(|| ReadError::damaged(at, "the checksum of a header is wrong"))?;
            // The size of an extension is its header's own: what an extended header says
            // about sizes is about the file that follows (CVE-2025-62518).
            match header.type_flag() {
                b'L' => {
                    let name = self.long_text(&header)?;
                    said.once(at, |said| &mut said.name, name)?;
                }
                b'K' => {
                    let link = self.long_text(&header)?;
                    said.once(at, |said| &mut said.link, link)?;
                }
                // `X` is what Solaris wrote before POSIX chose a letter.
                b'x' | b'X' => {
                    let records = self.extension(&header, MAX_PAX, "an extended header")?;
                    let pax = Pax::parse(&records, self.offset)?;
                    said.once(at, |said| &mut said.pax, pax)?;
                }
                b'g' => {
                    let records = self.extension(&header, MAX_PAX, "an extended header")?;
                    let facts = Pax::parse(&records, self.offset)?.global(self.offset)?;
                    self.facts = Facts {
                        uid: facts.uid.or(self.facts.uid),
                        gid: facts.gid.or(self.facts.gid),
                        modified: facts.modified.or(self.facts.modified),
                    };
                }
                _ => return self.member(&header, said).map(Some),
            }
        }
    }

    /// What the archive holds of the current member, which ends where that does. Of a sparse
    /// file it is the data of its segments.
    pub fn content(&mut self) -> Content<'_, R> {
        Content { reader: self }
    }

    /// Bytes of the current member's content that have not been read.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Reads what stands behind the end of the archive up to the end of the input, so that a
    /// checksum over all of it can be told.
    pub fn finish(&mut self) -> Result<(), ReadError> {
        let skipped = skip_by_reading(&mut self.input, MAX_BEHIND_END + 1)
            .map_err(|source| self.input_error(source))?;
        if skipped > MAX_BEHIND_END {
            return Err(ReadError::too_large("what follows the end", MAX_BEHIND_END));
        }
        Ok(())
    }

    /// What the bytes come from.
    pub fn get_ref(&self) -> &R {
        &self.input
    }

    fn end(&mut self, said: &Said) -> Result<Option<Member>, ReadError> {
        if said.is_anything() {
            return Err(ReadError::damaged(
                self.offset,
                "it ends behind the extension of a member, before the member",
            ));
        }
        self.ended = true;
        Ok(None)
    }

    fn member(&mut self, header: &Header<'_>, said: Said) -> Result<Member, ReadError> {
        let at = self.offset;
        let damaged = |what| ReadError::damaged(at, what);
        let number = || damaged("a number is malformed");
        let pax = said.pax.unwrap_or_default();
        let sparse_name = pax.sparse.name.clone().filter(|_| pax.sparse.is_told());
        let path = sparse_name
            .or_else(|| pax.path.clone())
            .or(said.name)
            .unwrap_or_else(|| header.name());
        let link = pax
            .link
            .clone()
            .or(said.link)
            .unwrap_or_else(|| header.link());
        if path.is_empty() {
            return Err(damaged("a member has no name"));
        }
        if path.contains(&0) || link.contains(&0) {
            return Err(damaged("a name holds a NUL"));
        }
        let size = match pax.size {
            Some(size) => size,
            None => header.size().ok_or_else(number)?,
        };
        let flag = header.type_flag();
        if pax.sparse.is_told() && !matches!(flag, b'0' | 0 | b'7') {
            return Err(damaged("what is no file is said to be sparse"));
        }
        let kind = match flag {
            b'0' | 0 | b'7' if pax.sparse.is_told() => {
                self.begin(size)?;
                self.pax_sparse(&pax)?
            }
            // The archivers of v7 told a directory by its name.
            b'0' | 0 | b'7' if path.ends_with(b"/") => {
                self.without_content(size, Kind::Directory)?
            }
            b'0' | 0 | b'7' => {
                self.begin(size)?;
                Kind::File { size }
            }
            b'S' => {
                let kind = self.old_sparse(header, size)?;
                self.begin(size)?;
                kind
            }
            // A hard link repeats the size of its file and has no content.
            b'1' => Kind::HardLink(link),
            b'2' => self.without_content(size, Kind::Symlink(link))?,
            b'3' | b'4' => {
                let (major, minor) = header.device().ok_or_else(number)?;
                let device = Device { major, minor };
                let kind = if flag == b'3' {
                    Kind::CharDevice(device)
                } else {
                    Kind::BlockDevice(device)
                };
                self.without_content(size, kind)?
            }
            b'5' => self.without_content(size, Kind::Directory)?,
            // GNU tar's incremental form: a directory with a list of what was in it, which is no content of it.
            b'D' => {
                self.begin(size)?;
                self.skip_content()?;
                Kind::Directory
            }
            b'6' => self.without_content(size, Kind::Fifo)?,
            other => {
                return Err(ReadError::Unsupported {
                    path: shown(&path),
                    kind: char::from(other),
                });
            }
        };
        let facts = Facts {
            uid: pax.facts.uid.or(self.facts.uid),
            gid: pax.facts.gid.or(self.facts.gid),
            modified: pax.facts.modified.or(self.facts.modified),
        };
        Ok(Member {
            path,
            kind,
            mode: header.mode().ok_or_else(number)?,
            uid: match facts.uid {
                Some(uid) => uid,
                None => header.uid().ok_or_else(number)?,
            },
            gid: match facts.gid {
                Some(gid) => gid,
                None => header.gid().ok_or_else(number)?,
            },
            modified: match facts.modified {
                Some(modified) => modified,
                None => Timespec {
                    tv_sec: header.modified().ok_or_else(number)?,
                    tv_nsec: 0,
                },
            },
            xattrs: pax.xattrs,
        })
    }

    /// Readers disagree whether such a member has the content that it claims.
    fn without_content(&self, size: u64, kind: Kind) -> Result<Kind, ReadError> {
        if size != 0 {
            return Err(ReadError::damaged(
                self.offset,
                "a member that is no file claims content",
            ));
        }
        Ok(kind)
    }

    /// The content of a member begins here.
    fn begin(&mut self, size: u64) -> Result<(), ReadError> {
        if size > MAX_SIZE {
            return Err(ReadError::damaged(self.offset, "a size is no file's"));
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK_LENGTH) - size;
        Ok(())
    }

    fn long_text(&mut self, header: &Header<'_>) -> Result<Vec<u8>, ReadError> {
        // It ends in a NUL.
        if header.size().is_some_and(|size| size > MAX_PATH as u64 + 1) {
            return Err(ReadError::too_large("a name", MAX_PATH as u64));
        }
        let mut text = self.extension(header, MAX_PATH as u64 + 1, "a name")?;
        if let Some(end) = text.iter().position(|byte| *byte == 0) {
            text.truncate(end);
        }
        if text.len() > MAX_PATH {
            return Err(ReadError::too_large("a name", MAX_PATH as u64));
        }
        Ok(text)
    }

    /// The whole content of an extension.
    fn extension(
        &mut self,
        header: &Header<'_>,
        limit: u64,
        what: &'static str,
    ) -> Result<Vec<u8>, ReadError> {
        let size = header
            .size()
            .ok_or_else(|| ReadError::damaged(self.offset, "a number is malformed"))?;
        if size > limit {
            return Err(ReadError::too_large(what, limit));
        }
        self.begin(size)?;
        let mut bytes = Vec::new();
        let read = self.content().read_to_end(&mut bytes);
        read.map_err(unwrapped)?;
        self.skip_content()?;
        Ok(bytes)
    }

    fn skip_content(&mut self) -> Result<(), ReadError> {
        let rest = self.left + self.padding;
        if rest == 0 {
            return Ok(());
        }
        let skipped = (self.skip)(&mut self.input, rest);
        let skipped = skipped.map_err(|source| self.input_error(source))?;
        self.offset += skipped;
        let needed = if self.unpadded_end { self.left } else { rest };
        if skipped < needed {
            return Err(ReadError::Truncated {
                offset: self.offset,
            });
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// One block; `None` where the input ends before its first byte.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, ReadError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => {
                    return Err(ReadError::Truncated {
                        offset: self.offset,
                    });
                }
                Ok(count) => {
                    filled += count;
                    self.offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.input_error(source)),
            }
        }
        Ok(Some(block))
    }

    fn input_error(&self, source: io::Error) -> ReadError {
        if source.kind() == io::ErrorKind::UnexpectedEof && source.get_ref().is_none() {
            return ReadError::Truncated {
                offset: self.offset,
            };
        }
        ReadError::Input { source }
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Reads from something that can pass over content without reading it.
    pub fn seekable(input: R) -> Self {
        Self::with_skip(input, skip_by_seeking)
    }
}

/// The content of one member.
#[derive(Debug)]
pub struct Content<'a, R> {
    reader: &'a mut Reader<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let reader = &mut *self.reader;
        let most = usize::try_from(reader.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            return Ok(0);
        }
        let count = reader.input.read(&mut buffer[..most])?;
        if count == 0 {
            let truncated = ReadError::Truncated {
                offset: reader.offset,
            };
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, truncated));
        }
        reader.offset += count as u64;
        reader.left -= count as u64;
        Ok(count)
    }
}

/// What a [`Content`] said, as the reader's own error.
pub fn unwrapped(error: io::Error) -> ReadError {
    match error.downcast::<ReadError>() {
        Ok(told) => told,
        Err(source) => ReadError::Input { source },
    }
}

/// Whether `block` is a header by its own checksum.
pub(super) fn is_header(block: &[u8; BLOCK]) -> bool {
    Header::check(block).is_some()
}

/// What extensions said about the member that follows them.
#[derive(Default)]
struct Said {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl Said {
    /// Notes what an extension says. Of two for one member readers take different ones.
    fn once<T>(
        &mut self,
        at: u64,
        place: impl FnOnce(&mut Self) -> &mut Option<T>,
        said: T,
    ) -> Result<(), ReadError> {
        match place(self).replace(said) {
            None => Ok(()),
            Some(_) => Err(ReadError::damaged(
                at,
                "a member has the same extension twice",
            )),
        }
    }

    fn is_anything(&self) -> bool {
        self.name.is_some() || self.link.is_some() || self.pax.is_some()
    }
}

fn skip_by_reading<R: Read>(input: &mut R, count: u64) -> io::Result<u64> {
    let mut buffer = [0; SKIP];
    let mut skipped = 0;
    while skipped < count {
        let most = usize::try_from(count - skipped).map_or(SKIP, |left| left.min(SKIP));
        match input.read(&mut buffer[..most]) {
            Ok(0) => break,
            Ok(read) => skipped += read as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(skipped)
}

fn skip_by_seeking<R: Read + Seek>(input: &mut R, count: u64) -> io::Result<u64> {
    // Up to a buffer's worth it is cheaper to read on.
    if count <= SKIP as u64 {
        return skip_by_reading(input, count);
    }
    // The last byte is read, so that an end before it is noticed.
    let jump = i64::try_from(count - 1).map_err(io::Error::other)?;
    input.seek(SeekFrom::Current(jump))?;
    Ok(count - 1 + skip_by_reading(input, 1)?)
}
