//! The frames that follow the header line of a streaming action.
//!
//! Wire form: `kind: u8`, `length: u32` big-endian, `payload`. The same form runs in both
//! directions. Owns the codec only; what the payloads mean is said where they are used.

use crate::limits::MAX_FRAME_PAYLOAD;

/// Bytes before the payload of a frame.
pub const HEADER_LEN: usize = 5;

/// What a frame carries. The numbers are the wire's and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The last frame of a reply: a JSON object with the outcome. Guest to host.
    End = 0,
    /// Bytes of standard output. Guest to host.
    Stdout = 1,
    /// Bytes of standard error. Guest to host.
    Stderr = 2,
    /// Bytes for standard input. Host to guest.
    Stdin = 3,
    /// Standard input is at its end. Host to guest, empty.
    StdinEnd = 4,
    /// A signal number for the command, one byte. Host to guest.
    Signal = 5,
    /// How many more stdin bytes were consumed: `u32` big-endian. Guest to host.
    Window = 6,
    /// A JSON object on how far long work has come. Guest to host.
    Progress = 7,
}

impl Kind {
    /// The kind with the number `byte`, if there is one.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::End,
            1 => Self::Stdout,
            2 => Self::Stderr,
            3 => Self::Stdin,
            4 => Self::StdinEnd,
            5 => Self::Signal,
            6 => Self::Window,
            7 => Self::Progress,
            _ => return None,
        })
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: Kind,
    /// At most [`MAX_FRAME_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The kind is not of this generation.
    #[error("unknown frame kind {kind}")]
    UnknownKind {
        /// The byte found.
        kind: u8,
    },
    /// The declared length exceeds the bound.
    #[error("frame of {length} bytes exceeds the limit of {MAX_FRAME_PAYLOAD}")]
    TooLong {
        /// The declared length in bytes.
        length: u32,
    },
}

/// The header of a frame with `length` payload bytes.
///
/// # Panics
/// If `length` exceeds [`MAX_FRAME_PAYLOAD`]: a sender's own fault.
pub fn header(kind: Kind, length: usize) -> [u8; HEADER_LEN] {
    assert!(
        length <= MAX_FRAME_PAYLOAD,
        "a sender keeps its frames within the limit"
    );
    let length = u32::try_from(length)
        .expect("the limit fits in 32 bits")
        .to_be_bytes();
    [kind as u8, length[0], length[1], length[2], length[3]]
}

/// A whole frame as bytes.
pub fn encode(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
    bytes.extend_from_slice(&header(kind, payload.len()));
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads the header of a frame: its kind and the length of its payload in bytes.
pub fn parse_header(bytes: [u8; HEADER_LEN]) -> Result<(Kind, usize), FrameError> {
    let [kind, a, b, c, d] = bytes;
    let kind = Kind::from_byte(kind).ok_or(FrameError::UnknownKind { kind })?;
    let length = u32::from_be_bytes([a, b, c, d]);
    match usize::try_from(length) {
        Ok(len) if len <= MAX_FRAME_PAYLOAD => Ok((kind, len)),
        _ => Err(FrameError::TooLong { length }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wire_form() {
        assert_eq!(encode(Kind::Stderr, b"ab"), [2, 0, 0, 0, 2, b'a', b'b']);
        assert_eq!(
            parse_header([9, 0, 0, 0, 0]),
            Err(FrameError::UnknownKind { kind: 9 })
        );
        assert_eq!(
            parse_header([1, 0, 4, 0, 1]),
            Err(FrameError::TooLong {
                length: 0x0004_0001
            })
        );
    }

    proptest! {
        #[test]
        fn a_header_never_promises_more_than_the_limit(bytes: [u8; HEADER_LEN]) {
            if let Ok((kind, len)) = parse_header(bytes) {
                prop_assert!(len <= MAX_FRAME_PAYLOAD);
                prop_assert_eq!(header(kind, len), bytes);
            }
        }
    }
}
