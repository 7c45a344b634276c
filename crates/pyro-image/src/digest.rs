//! SHA-256 digests: the newtype and the hashing of files.
//!
//! This module never decides whether a file is trusted; see [`crate::record`].

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Bytes read at a time: large enough that system calls do not count beside the hashing.
const CHUNK: usize = 256 * 1024;

/// A SHA-256 digest. Displayed and serialised as `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest of a file's content and its length in bytes. Reads the whole file, blocking.
    pub fn of_file(path: &Path) -> io::Result<(Self, u64)> {
        Self::of_reader(&mut File::open(path)?)
    }

    /// The digest of everything that a reader gives, and its length in bytes.
    pub fn of_reader(reader: &mut impl Read) -> io::Result<(Self, u64)> {
        let mut hasher = Hasher::new();
        hasher.update_from(reader)?;
        Ok((hasher.finish(), hasher.length))
    }

    /// The 64 lower-case hex digits, without the algorithm's name.
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        }
        text
    }
}

/// A digest text that is not `sha256:<64 hex digits>` or 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a sha256 digest")]
pub struct DigestParseError {
    /// The beginning of the refused text.
    pub text: String,
}

impl DigestParseError {
    /// What to write instead.
    pub fn hint(&self) -> Option<String> {
        Some("write `sha256:` and 64 hexadecimal digits".to_owned())
    }
}

impl FromStr for Sha256Digest {
    type Err = DigestParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || DigestParseError {
            text: text.chars().take(80).collect(),
        };
        let digits = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        if digits.len() != 64 {
            return Err(refused());
        }
        let mut value = [0; 32];
        for (byte, pair) in value.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex_digit(pair[0])
                .zip(hex_digit(pair[1]))
                .map(|(high, low)| high << 4 | low)
                .ok_or_else(refused)?;
        }
        Ok(Self(value))
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Sha256Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Hashes bytes as they pass by.
pub(crate) struct Hasher {
    inner: Sha256,
    length: u64,
}

impl Hasher {
    pub(crate) fn new() -> Self {
        Self {
            inner: Sha256::new(),
            length: 0,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// Takes everything that a reader gives.
    pub(crate) fn update_from(&mut self, reader: &mut impl Read) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            match reader.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(count) => self.update(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn finish(&self) -> Sha256Digest {
        Sha256Digest(self.inner.clone().finalize().into())
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn both_spellings_parse_and_one_is_displayed() {
        let digest = Sha256Digest::of(b"");
        assert_eq!(EMPTY.parse(), Ok(digest));
        assert_eq!(format!("sha256:{EMPTY}").parse(), Ok(digest));
        assert_eq!(EMPTY.to_uppercase().parse(), Ok(digest));
        assert_eq!(digest.to_string(), format!("sha256:{EMPTY}"));
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"sha256:{EMPTY}\""));
        assert_eq!(serde_json::from_str::<Sha256Digest>(&json).unwrap(), digest);
    }

    #[test]
    fn wrong_texts_are_refused() {
        for text in ["", "sha256:", "sha512:00", &EMPTY[1..], &"ü".repeat(32)] {
            let error = text.parse::<Sha256Digest>().unwrap_err();
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn a_reader_of_several_chunks_hashes_like_its_bytes() {
        let bytes = vec![7; CHUNK * 2 + 3];
        let (digest, length) = Sha256Digest::of_reader(&mut &bytes[..]).unwrap();
        assert_eq!(digest, Sha256Digest::of(&bytes));
        assert_eq!(length, bytes.len() as u64);
    }
}
