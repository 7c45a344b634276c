//! Repositories and tags.

use crate::oci::reference::ReferenceError;

/// The longest tag, as the specification says.
const MAX_TAG: usize = 128;
/// The namespace of one-part names of the registry of names without a host.
const DEFAULT_NAMESPACE: &str = "library";
/// The tag that is meant when there is neither tag nor digest.
const DEFAULT_TAG: &str = "latest";

/// A repository's name in its registry: `library/alpine`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(String);

/// A tag: `3.20`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Repository {
    pub(super) fn parse(text: &str, whole: &str) -> Result<Self, ReferenceError> {
        if !text.split('/').all(is_path_component) {
            let reason = if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                "its path has capital letters"
            } else {
                "its path is not made of letters, digits and single separators"
            };
            return Err(ReferenceError::new(whole, reason));
        }
        Ok(Self(text.to_owned()))
    }

    /// What a name of one part means in the registry of names without a host.
    pub(super) fn official(self) -> Self {
        Self(format!("{DEFAULT_NAMESPACE}/{}", self.0))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// Parses a tag.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let valid = (1..=MAX_TAG).contains(&text.len())
            && is_word(text.as_bytes()[0])
            && text
                .bytes()
                .all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(ReferenceError::new(
                text,
                "its tag is not made of at most 128 letters, digits, `_`, `.` and `-`",
            ))
        }
    }

    pub(super) fn latest() -> Self {
        Self(DEFAULT_TAG.to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Runs of lower-case letters and digits, separated by `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(&first, &last)| is_letter(first) && is_letter(last))
        && bytes
            .split(|&byte| is_letter(byte))
            .all(|separator| match separator {
                [] | b"." | b"_" | b"__" => true,
                many => many.iter().all(|&byte| byte == b'-'),
            })
}
