//! What the agent answers about files.

use serde::{Deserialize, Serialize};

use crate::code::ErrorReply;

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// One path and what stands there. Paths are absolute in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// The path; with replacement characters if it is no UTF-8.
    pub path: String,
    /// The path in base64 if it is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// What it is.
    pub artifact_type: ArtifactType,
    /// Bytes of a file or of a link's text; 0 for anything else.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of content, in nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Text of a symlink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
}

/// Reply of `file_list` and `file_glob`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePage {
    /// What was listed.
    pub path: String,
    /// What that is.
    pub artifact_type: ArtifactType,
    /// Sorted by the bytes of their paths.
    pub entries: Vec<FileEntry>,
    /// For the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// First line of a streamed `file_read`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReadHeader {
    /// Always true.
    pub frames: bool,
    /// The file.
    pub path: String,
    /// Size of the whole file.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Time of the last change, in nanoseconds since the epoch.
    pub mtime_ns: i64,
}

/// End frame of a streamed `file_read`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReadEnd {
    /// Bytes sent.
    pub bytes_read: u64,
    /// Whether the file ended there.
    pub end_of_file: bool,
    /// Why it stopped early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReply>,
}

/// Reply of a text `file_read`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileText {
    /// The file.
    pub path: String,
    /// Size of the whole file.
    pub size_bytes: u64,
    /// The content; with replacement characters if it is no UTF-8.
    pub content: String,
    /// The content in base64 if it is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_b64: Option<String>,
    /// Whether the file goes on after it.
    pub truncated: bool,
}

/// Reply of `file_write`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileWritten {
    /// The file.
    pub path: String,
    /// Its size now.
    pub size_bytes: u64,
    /// Bytes of this request.
    pub bytes_written: u64,
    /// Permission bits.
    pub mode: u32,
    /// Whether nothing was there before.
    pub created: bool,
}

/// Reply of `file_copy` and `file_remove`: how much it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCount {
    /// What was copied to, or removed.
    pub path: String,
    /// Files, directories, links and the rest.
    pub entries: u64,
    /// Bytes of regular files.
    pub bytes: u64,
}

/// One line of a `file_grep`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrepLine {
    /// The file.
    pub path: String,
    /// The path in base64 if it is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// From 1.
    pub line_number: u64,
    /// The line without its end; with replacement characters if it is no UTF-8.
    pub line: String,
    /// `line` was cut at `max_line_bytes`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub line_truncated: bool,
    /// The line is told as the neighbour of a match.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub context: bool,
}

/// Reply of `file_grep`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrepReply {
    /// What was searched.
    pub path: String,
    /// Sorted by path and line.
    pub lines: Vec<GrepLine>,
    /// Matching lines told.
    pub matches: u64,
    /// Text files searched.
    pub files_searched: u64,
    /// Those of them with a match.
    pub files_matched: u64,
    /// Files left out because they hold binary data.
    pub binary_files: u64,
    /// Files left out because they could not be read, or have a line beyond all bounds.
    pub unreadable_files: u64,
    /// A limit ended the search; there may be more.
    pub truncated: bool,
}
