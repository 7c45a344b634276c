//! Binary contents in the text of a patch: base85 of deflated bytes, whole or as what is copied
//! of the old content.

use std::fmt;
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use crate::limits::MAX_CONTENT;

/// What a digit of base85 stands for, by its place.
const DIGITS: &[u8; 85] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";

/// Bytes that one line holds at most.
const LINE: usize = 52;

/// How a binary content becomes another.
#[derive(Clone, PartialEq, Eq)]
pub struct Delta {
    /// What the bytes are.
    pub kind: DeltaKind,
    /// How many bytes there are once inflated, as the patch says.
    pub size: usize,
    deflated: Vec<u8>,
}

/// What the bytes of a [`Delta`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaKind {
    /// The new content.
    Literal,
    /// What of the old content is copied, and what is put between.
    Copying,
}

/// A binary change that cannot be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BinaryError {
    /// The bytes do not inflate.
    #[error("the deflated bytes are damaged")]
    Deflate,
    /// More or fewer bytes than were told.
    #[error("the deflated bytes do not have the {size} bytes that are told")]
    Size {
        /// What the patch tells.
        size: usize,
    },
    /// A content larger than may be.
    #[error("the content has more than {max} bytes")]
    TooLarge {
        /// What may be, in bytes.
        max: usize,
    },
    /// The delta is not well formed, or is of another content.
    #[error("the delta is damaged, or does not belong to this content")]
    Delta,
}

impl Delta {
    /// The new content, told whole.
    pub(crate) fn literal(content: &[u8]) -> Self {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        let deflated = encoder
            .write_all(content)
            .and_then(|()| encoder.finish())
            .expect("memory takes everything");
        Self {
            kind: DeltaKind::Literal,
            size: content.len(),
            deflated,
        }
    }

    pub(crate) fn new(kind: DeltaKind, size: usize, deflated: Vec<u8>) -> Self {
        Self {
            kind,
            size,
            deflated,
        }
    }

    /// What becomes of `old`: at most `max` bytes.
    pub fn apply(&self, old: &[u8], max: usize) -> Result<Vec<u8>, BinaryError> {
        let max = max.min(MAX_CONTENT);
        let bytes = self.inflate(max)?;
        match self.kind {
            DeltaKind::Literal => Ok(bytes),
            DeltaKind::Copying => copied(&bytes, old, max),
        }
    }

    fn inflate(&self, max: usize) -> Result<Vec<u8>, BinaryError> {
        if self.size > max {
            return Err(BinaryError::TooLarge { max });
        }
        let limit = u64::try_from(self.size).map_err(|_| BinaryError::TooLarge { max })? + 1;
        let mut bytes = Vec::new();
        ZlibDecoder::new(&self.deflated[..])
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|_| BinaryError::Deflate)?;
        if bytes.len() != self.size {
            return Err(BinaryError::Size { size: self.size });
        }
        Ok(bytes)
    }

    /// Its lines in a patch, with the empty one that ends them.
    pub(crate) fn print(&self, patch: &mut Vec<u8>) {
        let word = match self.kind {
            DeltaKind::Literal => "literal",
            DeltaKind::Copying => "delta",
        };
        patch.extend(format!("{word} {}\n", self.size).bytes());
        for bytes in self.deflated.chunks(LINE) {
            encode_line(bytes, patch);
            patch.push(b'\n');
        }
        patch.push(b'\n');
    }
}

impl fmt::Debug for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes", self.kind, self.size)
    }
}

fn encode_line(bytes: &[u8], line: &mut Vec<u8>) {
    let length = u8::try_from(bytes.len()).expect("a line is short");
    line.push(if length <= 26 {
        b'A' + length - 1
    } else {
        b'a' + length - 27
    });
    for group in bytes.chunks(4) {
        let mut padded = [0; 4];
        padded[..group.len()].copy_from_slice(group);
        let mut number = u32::from_be_bytes(padded);
        let mut digits = [0; 5];
        for digit in digits.iter_mut().rev() {
            *digit = DIGITS[(number % 85) as usize];
            number /= 85;
        }
        line.extend(digits);
    }
}

/// Appends the bytes of one line. `None` if it is not well formed.
pub(crate) fn decode_line(line: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    let (&length, digits) = line.split_first()?;
    let length = match length {
        b'A'..=b'Z' => length - b'A' + 1,
        b'a'..=b'z' => length - b'a' + 27,
        _ => return None,
    };
    let length = usize::from(length);
    if digits.len() != length.div_ceil(4) * 5 {
        return None;
    }
    let end = bytes.len() + length;
    for group in digits.chunks(5) {
        let mut number: u32 = 0;
        for digit in group {
            let value = DIGITS.iter().position(|one| one == digit)?;
            number = number
                .checked_mul(85)?
                .checked_add(u32::try_from(value).ok()?)?;
        }
        bytes.extend(number.to_be_bytes());
    }
    bytes.truncate(end);
    Some(())
}

/// Carries out git's delta format: the sizes of both contents, then copies and insertions.
fn copied(mut delta: &[u8], old: &[u8], max: usize) -> Result<Vec<u8>, BinaryError> {
    let before = number(&mut delta)?;
    let after = number(&mut delta)?;
    if before != old.len() {
        return Err(BinaryError::Delta);
    }
    if after > max {
        return Err(BinaryError::TooLarge { max });
    }
    let mut new = Vec::new();
    while let Some((&order, rest)) = delta.split_first() {
        delta = rest;
        let piece = if order & 0x80 != 0 {
            let offset = packed(&mut delta, order & 0x0f, 4)?;
            let size = match packed(&mut delta, order >> 4 & 0x07, 3)? {
                0 => 0x10000,
                size => size,
            };
            let end = offset.checked_add(size).ok_or(BinaryError::Delta)?;
            old.get(offset..end).ok_or(BinaryError::Delta)?
        } else if order != 0 {
            let (piece, rest) = delta
                .split_at_checked(usize::from(order))
                .ok_or(BinaryError::Delta)?;
            delta = rest;
            piece
        } else {
            return Err(BinaryError::Delta);
        };
        if piece.len() > after - new.len() {
            return Err(BinaryError::Delta);
        }
        new.extend_from_slice(piece);
    }
    if new.len() != after {
        return Err(BinaryError::Delta);
    }
    Ok(new)
}

/// A number of seven bits per byte, the lowest first.
fn number(delta: &mut &[u8]) -> Result<usize, BinaryError> {
    let mut value: u64 = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = delta.split_first().ok_or(BinaryError::Delta)?;
        *delta = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return usize::try_from(value).map_err(|_| BinaryError::Delta);
        }
    }
    Err(BinaryError::Delta)
}

/// A number of which only the bytes are there that `present` tells.
fn packed(delta: &mut &[u8], present: u8, bytes: u8) -> Result<usize, BinaryError> {
    let mut value = 0;
    for at in 0..bytes {
        if present & 1 << at != 0 {
            let (&byte, rest) = delta.split_first().ok_or(BinaryError::Delta)?;
            *delta = rest;
            value |= usize::from(byte) << (8 * at);
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_length_come_back() {
        for length in 1..=LINE {
            let bytes: Vec<u8> = (0..length)
                .map(|at| u8::try_from(at * 7 % 256).unwrap() ^ 0xff)
                .collect();
            let mut line = Vec::new();
            encode_line(&bytes, &mut line);
            let mut decoded = Vec::new();
            assert_eq!(decode_line(&line, &mut decoded), Some(()));
            assert_eq!(decoded, bytes);
        }
    }

    #[test]
    fn damaged_lines_are_refused() {
        for line in [
            &b""[..],
            b"A",
            b"B0000",
            b"0000000",
            b"D~~~~~",
            b"D000 0",
            b"D0000000000",
        ] {
            assert_eq!(decode_line(line, &mut Vec::new()), None);
        }
    }

    #[test]
    fn a_literal_has_the_size_that_is_told() {
        let mut delta = Delta::literal(b"content");
        assert_eq!(delta.apply(b"whatever", 7).unwrap(), b"content");
        assert_eq!(delta.apply(b"", 6), Err(BinaryError::TooLarge { max: 6 }));
        delta.size = 6;
        assert_eq!(delta.apply(b"", 7), Err(BinaryError::Size { size: 6 }));
        delta.size = 8;
        assert_eq!(delta.apply(b"", 8), Err(BinaryError::Size { size: 8 }));
        delta.deflated[0] ^= 0xff;
        assert_eq!(delta.apply(b"", 8), Err(BinaryError::Deflate));
    }

    #[test]
    fn a_delta_copies_and_inserts() {
        let old = b"0123456789";
        // Six bytes from the second, then two of its own.
        let delta = [10, 8, 0x91, 1, 6, 2, b'x', b'y'];
        assert_eq!(copied(&delta, old, 8).unwrap(), b"123456xy");
        assert_eq!(
            copied(&delta, old, 7),
            Err(BinaryError::TooLarge { max: 7 })
        );
        assert_eq!(copied(&delta, b"short", 8), Err(BinaryError::Delta));
        for broken in [
            &delta[..7],
            &delta[..3],
            &delta[..1],
            &[10, 8, 0x91, 5, 6, 2, b'x', b'y'],
            &[10, 8, 0],
            &[10, 1, 0x91, 1, 6],
            &[0xff; 12],
        ] {
            assert_eq!(
                copied(broken, old, 8),
                Err(BinaryError::Delta),
                "{broken:?}"
            );
        }
    }
}
