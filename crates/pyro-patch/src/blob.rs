//! The ids by which git names contents.

use std::fmt::Write as _;

use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// The id of a content that is not there, as an `index` line tells it.
pub const NOTHING: &str = "0000000000000000000000000000000000000000";

/// The id of `content` in a repository of git's usual kind: SHA-1, 40 hexadecimal digits.
pub fn id(content: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(head(content));
    hash.update(content);
    hex(&hash.finalize())
}

/// The id of `content` in a repository of SHA-256: 64 hexadecimal digits.
pub fn id_sha256(content: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(head(content));
    hash.update(content);
    hex(&hash.finalize())
}

fn head(content: &[u8]) -> String {
    format!("blob {}\0", content.len())
}

fn hex(digest: &[u8]) -> String {
    let mut text = String::with_capacity(digest.len() * 2);
    for byte in digest {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_git_hash_object() {
        assert_eq!(id(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(id(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(
            id_sha256(b""),
            "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813"
        );
    }
}
