//! Unpacking the layers of an image, one onto the other.
//!
//! A layer says by *whiteouts* what of the layers below it is gone: a member `.wh.NAME` that
//! `NAME` is, a member `.wh..wh..opq` that everything in its directory is. Both are about the
//! layers below and not about the layer itself, wherever in it they stand; so a layer is read
//! twice, for its whiteouts first. The lowest one has nothing below it and is read once.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::options::{Options, Progress};
use super::remove::{empty, remove};
use super::{ExtractError, Extractor, Summary};
use crate::beneath::{Relative, Root};
use crate::codec::decode::{Compression, Decoder};
use crate::tar::read::{ReadError, Reader};

/// What the last part of a whiteout's name begins with.
const WHITEOUT: &[u8] = b".wh.";

/// What the names of aufs' own files begin with.
const RESERVED: &[u8] = b".wh..wh.";

/// The name of the whiteout of all that is in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Bytes of a layer that are read at a time.
const BUFFER: usize = 64 * 1024;

/// Where a layer lies above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Nothing: its whiteouts have no meaning.
    Lowest,
    /// Other layers, which were unpacked before.
    Above,
}

/// Unpacks the layer that `input` holds, compressed or not, beneath `root`.
pub fn unpack<R: Read + Seek>(
    input: R,
    root: Root,
    position: Position,
    progress: &Progress,
) -> Result<Summary, ExtractError> {
    let mut input = BufReader::with_capacity(BUFFER, input);
    let plain = open(&mut input)?.is_plain();
    match position {
        Position::Lowest => {}
        Position::Above if plain => {
            rewind(&mut input)?;
            let mut reader = Reader::seekable(&mut input).with_unpadded_end();
            apply_whiteouts(&mut reader, &root, progress)?;
        }
        Position::Above => {
            rewind(&mut input)?;
            let mut reader = Reader::new(BufReader::with_capacity(BUFFER, open(&mut input)?))
                .with_unpadded_end();
            apply_whiteouts(&mut reader, &root, progress)?;
        }
    }
    rewind(&mut input)?;
    let mut reader =
        Reader::new(BufReader::with_capacity(BUFFER, open(&mut input)?)).with_unpadded_end();
    let mut extractor = Extractor::new(root, Options::layer(), progress)?;
    while let Some(member) = reader.next_member()? {
        if Whiteout::read(&member.path)?.is_none() {
            extractor.put(&member, &mut reader)?;
        }
    }
    reader.finish()?;
    extractor.finish()?;
    Ok(extractor.summary().clone())
}

/// A part of a file: a layer on a disk that has others beside it and is padded behind it.
#[derive(Debug)]
pub struct Section {
    file: File,
    begin: u64,
    size: u64,
    at: u64,
}

impl Section {
    /// The `size` bytes of `file` that begin at `begin`.
    pub fn new(file: File, begin: u64, size: u64) -> Self {
        Self {
            file,
            begin,
            size,
            at: 0,
        }
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.at);
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            // A hostile size leads beyond any place that the kernel would take.
            return Ok(0);
        }
        let at = self.begin.saturating_add(self.at);
        let count = self.file.read_at(&mut buffer[..most], at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(to) => Some(to),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// What a member says about the layers below its own.
enum Whiteout {
    /// This is gone.
    Of(Relative),
    /// All that is in this directory is gone.
    Below(Relative),
}

impl Whiteout {
    fn read(path: &[u8]) -> Result<Option<Self>, ExtractError> {
        let end = path.iter().rposition(|byte| *byte != b'/');
        let path = &path[..end.map_or(0, |end| end + 1)];
        let start = path
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |at| at + 1);
        let (above, name) = path.split_at(start);
        let Some(gone) = name.strip_prefix(WHITEOUT) else {
            return Ok(None);
        };
        let outside = |_| ExtractError::name(path, "the name leads out of the root");
        if name == OPAQUE {
            return Ok(Some(Self::Below(Relative::parse(above).map_err(outside)?)));
        }
        if name.starts_with(RESERVED) {
            return Err(ExtractError::refused(
                path,
                "it is a file of aufs' own, which other file systems have no use for",
            ));
        }
        if matches!(gone, b"" | b"." | b"..") {
            return Err(ExtractError::name(path, "it is a whiteout of nothing"));
        }
        let gone = [above, gone].concat();
        Ok(Some(Self::Of(Relative::parse(&gone).map_err(outside)?)))
    }

    /// Takes away what is gone. A link in the place of a directory is none: there is nothing
    /// in it that could be gone.
    fn apply(&self, root: &Root) -> rustix::io::Result<()> {
        let (directory, name) = match self {
            Self::Below(directory) => (directory.clone(), None),
            Self::Of(path) => match path.split() {
                Some((above, name)) => (above, Some(name)),
                None => return Ok(()),
            },
        };
        match root.open_directory_without_links(&directory) {
            Ok(directory) => match name {
                None => empty(&directory),
                Some(name) => remove(&directory, name),
            },
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

fn apply_whiteouts<R: Read>(
    reader: &mut Reader<R>,
    root: &Root,
    progress: &Progress,
) -> Result<(), ExtractError> {
    while let Some(member) = reader.next_member()? {
        progress.check()?;
        if let Some(whiteout) = Whiteout::read(&member.path)? {
            whiteout
                .apply(root)
                .map_err(ExtractError::system(&member.path, "applying it"))?;
        }
    }
    Ok(())
}

fn open<R: BufRead>(input: R) -> Result<Decoder<R>, ExtractError> {
    Decoder::new(input, Compression::Auto).map_err(unreadable)
}

fn rewind<R: Seek>(input: &mut R) -> Result<(), ExtractError> {
    input.rewind().map_err(unreadable)
}

fn unreadable(source: io::Error) -> ExtractError {
    ExtractError::Archive(ReadError::Input { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_its_end_a_section_has_nothing_however_far_that_is() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"0123456789").unwrap();
        let mut section = Section::new(file, 2, 5);
        let mut text = String::new();
        section.read_to_string(&mut text).unwrap();
        assert_eq!(text, "23456");
        for far in [5, 6, i64::MAX as u64, u64::MAX] {
            section.seek(SeekFrom::Start(far)).unwrap();
            assert_eq!(section.read(&mut [0; 8]).unwrap(), 0, "{far}");
        }
    }
}
