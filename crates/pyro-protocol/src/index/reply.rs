//! What the agent answers about trees.

use serde::{Deserialize, Serialize};

use crate::files::ArtifactType;

/// A SHA-256: of a file's content, or the generation of a manifest. In JSON 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TreeDigest(pub [u8; 32]);

impl std::fmt::Display for TreeDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for TreeDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl From<TreeDigest> for String {
    fn from(digest: TreeDigest) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = digest
            .0
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|digit| char::from(DIGITS[usize::from(digit)]));
        digits.collect()
    }
}

impl TryFrom<String> for TreeDigest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let refused = "a digest has 64 lower-case hex digits";
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(refused),
        };
        let text = text.as_bytes();
        if text.len() != 64 {
            return Err(refused);
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(digest))
    }
}

/// First line of a streamed reply about a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeHeader {
    /// Always true.
    pub frames: bool,
    /// The directory, absolute in the guest; every path of the lines is below it.
    pub path: String,
}

/// How far a walk has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeProgress {
    /// Entries visited.
    pub entries: u64,
    /// Files read.
    pub files_hashed: u64,
    /// Bytes read of them.
    pub bytes_hashed: u64,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeNode {
    /// What it is.
    pub artifact_type: ArtifactType,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file or of a link's text; 0 for anything else.
    pub size_bytes: u64,
    /// Time of the last change of content, in nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Digest of a file's content; absent if it was not asked for or could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<TreeDigest>,
    /// Text of a symbolic link; with replacement characters if it is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
    /// The text of the link in base64 if it is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target_b64: Option<String>,
    /// Number of a device, as `stat` tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u64>,
}

/// A line of a manifest. Lines are sorted by the bytes of their paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    /// Path below the directory; with replacement characters if it is no UTF-8.
    pub path: String,
    /// The path in base64 if it is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// What stands there.
    #[serde(flatten)]
    pub node: TreeNode,
}

/// In what a path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeStatus {
    /// There was nothing.
    Added,
    /// There is nothing any more.
    Deleted,
    /// Another content, link text or device number; mode and owner may differ too.
    Modified,
    /// Something of another type.
    TypeChanged,
    /// Mode or owner differ, and nothing else.
    ModeChanged,
}

/// A path that differs. Lines are sorted by the bytes of their paths. A rename is a deleted
/// path and an added one with equal digests: pairing them is the reader's affair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeChange {
    /// Path below the directory; with replacement characters if it is no UTF-8.
    pub path: String,
    /// The path in base64 if it is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// In what.
    pub status: ChangeStatus,
    /// What was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<TreeNode>,
    /// What is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<TreeNode>,
}

/// How many paths differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeCounts {
    /// Paths that are new.
    pub added: u64,
    /// Paths that are gone.
    pub deleted: u64,
    /// Paths with another content.
    pub modified: u64,
    /// Paths with something of another type.
    pub type_changed: u64,
    /// Paths with another mode or owner only.
    pub mode_changed: u64,
}

/// End frame of a streamed reply about a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEnd {
    /// Digest of the whole manifest.
    pub generation: TreeDigest,
    /// Entries of the manifest.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Files read by this request.
    pub files_hashed: u64,
    /// Bytes read of them.
    pub bytes_hashed: u64,
    /// Files whose digest was known already.
    pub reused: u64,
    /// Entries of which something could not be read: a file's content or a directory's names.
    pub unreadable: u64,
    /// Files that were changed while they were read, each time it was tried.
    pub unsettled: u64,
    /// Lines sent.
    pub lines: u64,
    /// What differs, when two manifests were compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<ChangeCounts>,
    /// What it took, in milliseconds.
    pub elapsed_ms: u64,
}

/// A baseline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselineInfo {
    /// Its name.
    pub name: String,
    /// The directory, absolute in the guest.
    pub path: String,
    /// Digest of the whole manifest.
    pub generation: TreeDigest,
    /// Entries of the manifest.
    pub entries: u64,
    /// When it was begun, in nanoseconds since the epoch.
    pub created_ns: i64,
    /// Bytes that it takes on the machine's disk.
    pub stored_bytes: u64,
}

/// Reply of `tree_baselines`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselineList {
    /// Sorted by name.
    pub baselines: Vec<BaselineInfo>,
    /// Names of baselines that are damaged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
}
