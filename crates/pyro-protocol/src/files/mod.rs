//! The file actions: requests as checked types, and replies.
//!
//! Every request names a path and, when it does not mean the workspace, a `root` above it.
//! A relative path lies below the root; an absolute one must begin with it. Paths that are
//! no UTF-8 come as `path_b64`. What a path resolves to is the agent's affair.

mod reply;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::code::{ErrorCode, ErrorReply};
use crate::limits::{
    DEFAULT_GREP_LINE, DEFAULT_GREP_MATCHES, DEFAULT_PAGE, MAX_FILE_INLINE, MAX_GLOBS,
    MAX_GREP_CONTEXT, MAX_GREP_LINE, MAX_GREP_MATCHES, MAX_PAGE, MAX_PATH, MAX_PATTERN,
};
use crate::request::invalid;

pub use reply::{
    ArtifactType, FileCount, FileEntry, FilePage, FileReadEnd, FileReadHeader, FileText,
    FileWritten, GrepLine, GrepReply,
};

/// The root of a request that names none.
pub const WORKSPACE: &str = "/workspace";

/// The actions of this module: ours, then those of the original's version 3.11.
pub const FILE_ACTIONS: &[&str] = &[
    "file_stat",
    "file_list",
    "file_read",
    "file_write",
    "file_mkdir",
    "file_rename",
    "file_remove",
    "file_copy",
    "file_glob",
    "file_grep",
    "list_workspace",
    "read_workspace_file",
    "write_workspace_file",
    "delete_workspace_path",
];

/// A file request, checked.
#[derive(Clone, Debug, PartialEq)]
pub enum FileRequest {
    /// What is at a path?
    Stat(FileStat),
    /// One page of a directory's entries.
    List(FileList),
    /// Content of a file, or a part of it.
    Read(FileRead),
    /// Replace or extend a file.
    Write(FileWrite),
    /// Make a directory.
    Mkdir(FileMkdir),
    /// Give a file or a tree another name.
    Rename(FileMove),
    /// Remove a file or a tree.
    Remove(FileRemove),
    /// Copy a file or a tree.
    Copy(FileMove),
    /// Paths that match patterns.
    Glob(FileGlob),
    /// Lines that match a regular expression.
    Grep(FileGrep),
    /// The original's listing.
    LegacyList(LegacyList),
    /// The original's read.
    LegacyRead(LegacyRead),
    /// The original's write.
    LegacyWrite(LegacyWrite),
    /// The original's removal.
    LegacyDelete(LegacyPath),
}

impl FileRequest {
    /// Parses the request of `action`, which is one of [`FILE_ACTIONS`].
    pub(crate) fn parse(action: &str, value: Value) -> Result<Self, ErrorReply> {
        match action {
            "file_stat" => decode(value).map(Self::Stat),
            "file_list" => decode(value).and_then(FileList::check).map(Self::List),
            "file_read" => decode(value).and_then(FileRead::check).map(Self::Read),
            "file_write" => decode(value).and_then(FileWrite::check).map(Self::Write),
            "file_mkdir" => decode(value).and_then(FileMkdir::check).map(Self::Mkdir),
            "file_rename" => decode(value).map(Self::Rename),
            "file_remove" => decode(value).map(Self::Remove),
            "file_copy" => decode(value).map(Self::Copy),
            "file_glob" => decode(value).and_then(FileGlob::check).map(Self::Glob),
            "file_grep" => decode(value).and_then(FileGrep::check).map(Self::Grep),
            "list_workspace" => decode(value).map(Self::LegacyList),
            "read_workspace_file" => decode(value)
                .and_then(LegacyRead::check)
                .map(Self::LegacyRead),
            "write_workspace_file" => decode(value)
                .and_then(LegacyWrite::check)
                .map(Self::LegacyWrite),
            "delete_workspace_path" => decode(value).map(Self::LegacyDelete),
            unknown => Err(ErrorReply::new(
                ErrorCode::Unsupported,
                format!("unknown file action `{unknown}`"),
            )),
        }
    }
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TargetWire", into = "TargetWire")]
pub struct Target {
    /// Absolute path of the directory that nothing leads out of; the workspace if absent.
    pub root: Option<String>,
    /// Below the root; not empty, at most [`MAX_PATH`] bytes, no NUL.
    pub path: Vec<u8>,
}

impl Target {
    /// `path` in the workspace.
    pub fn workspace(path: impl Into<Vec<u8>>) -> Self {
        Self {
            root: None,
            path: path.into(),
        }
    }

    /// Checks a root and the path that a request has under `name`, as text or in base64.
    pub(crate) fn named(
        name: &str,
        root: Option<String>,
        path: Option<String>,
        path_b64: Option<String>,
    ) -> Result<Self, String> {
        if let Some(root) = &root
            && (!root.starts_with('/') || root.len() > MAX_PATH || root.contains('\0'))
        {
            return Err("`root` must be an absolute path".into());
        }
        let path = one_path(name, path, path_b64)?;
        Ok(Self { root, path })
    }

    /// Root, path, and the path in base64 in its place.
    pub(crate) fn into_texts(self) -> (Option<String>, Option<String>, Option<String>) {
        let (path, path_b64) = text_or_base64(self.path);
        (self.root, path, path_b64)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct TargetWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
}

impl TryFrom<TargetWire> for Target {
    type Error = String;

    fn try_from(wire: TargetWire) -> Result<Self, String> {
        Self::named("path", wire.root, wire.path, wire.path_b64)
    }
}

impl From<Target> for TargetWire {
    fn from(target: Target) -> Self {
        let (root, path, path_b64) = target.into_texts();
        Self {
            root,
            path,
            path_b64,
        }
    }
}

/// The second path of a request that has two, below the same root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DestinationWire", into = "DestinationWire")]
pub struct Destination(pub Vec<u8>);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct DestinationWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_b64: Option<String>,
}

impl TryFrom<DestinationWire> for Destination {
    type Error = String;

    fn try_from(wire: DestinationWire) -> Result<Self, String> {
        one_path("to", wire.to, wire.to_b64).map(Self)
    }
}

impl From<Destination> for DestinationWire {
    fn from(destination: Destination) -> Self {
        let (to, to_b64) = text_or_base64(destination.0);
        Self { to, to_b64 }
    }
}

/// `file_stat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// Of what.
    #[serde(flatten)]
    pub target: Target,
    /// Follow a symlink at the end of the path.
    #[serde(default)]
    pub follow: bool,
}

/// `file_list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileList {
    /// The directory; anything else yields itself as the only entry.
    #[serde(flatten)]
    pub target: Target,
    /// Go down into directories; symlinks are not followed.
    #[serde(default)]
    pub recursive: bool,
    /// How many levels to go down when `recursive`; 1 is the directory itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_depth: Option<u32>,
    /// Most entries of this page.
    #[serde(default = "default_page")]
    pub limit: usize,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl FileList {
    fn check(self) -> Result<Self, ErrorReply> {
        within("limit", self.limit, 1, MAX_PAGE)?;
        if self.max_depth == Some(0) {
            return Err(invalid("`max_depth` must be at least 1"));
        }
        Ok(self)
    }
}

/// `file_read`. Answers [`FileReadHeader`], content in frames and [`FileReadEnd`]; with
/// `text` one line, [`FileText`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRead {
    /// The file; symlinks are followed beneath the root.
    #[serde(flatten)]
    pub target: Target,
    /// First byte.
    #[serde(default)]
    pub offset: u64,
    /// Most bytes; to the end if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Answer with one line.
    #[serde(default)]
    pub text: bool,
}

impl FileRead {
    fn check(self) -> Result<Self, ErrorReply> {
        if self.text && self.length.is_some_and(|length| length > MAX_FILE_INLINE) {
            return Err(invalid(format!(
                "`length` of a text read exceeds {MAX_FILE_INLINE}"
            )));
        }
        Ok(self)
    }
}

/// `file_write`. Content comes as `content` or `content_b64`, else as stdin frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileWrite {
    /// The file. A symlink in its place is followed beneath the root, also to a file that does
    /// not exist yet; with `must_not_exist` it is something that exists.
    #[serde(flatten)]
    pub target: Target,
    /// The content as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The content in base64. Excludes `content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_b64: Option<String>,
    /// Permission bits; those of the old file, or 0644, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Make the directories above it.
    #[serde(default)]
    pub create_parents: bool,
    /// Add to the end of the file in place instead of replacing it.
    #[serde(default)]
    pub append: bool,
    /// Refuse if something is there.
    #[serde(default)]
    pub must_not_exist: bool,
}

impl FileWrite {
    fn check(self) -> Result<Self, ErrorReply> {
        check_mode(self.mode)?;
        if self.append && self.must_not_exist {
            return Err(invalid("`append` and `must_not_exist` exclude each other"));
        }
        self.inline()?;
        Ok(self)
    }

    /// The content that came with the request; `None` if it comes as frames.
    pub fn inline(&self) -> Result<Option<Vec<u8>>, ErrorReply> {
        let content = match (&self.content, &self.content_b64) {
            (None, None) => return Ok(None),
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(encoded)) => STANDARD
                .decode(encoded)
                .map_err(|error| invalid(format!("`content_b64` is no base64: {error}")))?,
            (Some(_), Some(_)) => {
                return Err(invalid("`content` and `content_b64` exclude each other"));
            }
        };
        if content.len() as u64 > MAX_FILE_INLINE {
            return Err(invalid(format!(
                "inline content exceeds {MAX_FILE_INLINE} bytes; send frames"
            )));
        }
        Ok(Some(content))
    }
}

/// `file_mkdir`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMkdir {
    /// The directory.
    #[serde(flatten)]
    pub target: Target,
    /// Make those above it too, and take one that is there.
    #[serde(default)]
    pub parents: bool,
    /// Permission bits of the directory itself; 0755 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

impl FileMkdir {
    fn check(self) -> Result<Self, ErrorReply> {
        check_mode(self.mode)?;
        Ok(self)
    }
}

/// `file_rename` and `file_copy`. Neither follows a symlink at the end of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMove {
    /// What is there now.
    #[serde(flatten)]
    pub target: Target,
    /// Where it shall be.
    #[serde(flatten)]
    pub to: Destination,
    /// Replace a file, or rename onto an empty directory; otherwise that is an error.
    #[serde(default)]
    pub replace: bool,
    /// Make the directories above `to`.
    #[serde(default)]
    pub create_parents: bool,
}

/// `file_remove`. A symlink is removed itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRemove {
    /// What.
    #[serde(flatten)]
    pub target: Target,
    /// Directories too, with all that is in them.
    #[serde(default)]
    pub recursive: bool,
    /// Nothing there is no error.
    #[serde(default)]
    pub missing_ok: bool,
}

/// Which files a walk leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Visit names that begin with a dot.
    #[serde(default)]
    pub hidden: bool,
    /// Visit what `.gitignore` and `.ignore` files name.
    #[serde(default)]
    pub ignored: bool,
}

/// `file_glob`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileGlob {
    /// The directory to look in.
    #[serde(flatten)]
    pub target: Target,
    /// Patterns for the whole path below it: `*` stays in one part, `**` does not.
    pub patterns: Vec<String>,
    /// What to visit.
    #[serde(flatten)]
    pub leaving: Leaving,
    /// Most entries of this page.
    #[serde(default = "default_page")]
    pub limit: usize,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl FileGlob {
    fn check(self) -> Result<Self, ErrorReply> {
        within("limit", self.limit, 1, MAX_PAGE)?;
        if self.patterns.is_empty() {
            return Err(invalid("`patterns` is empty"));
        }
        check_patterns("patterns", &self.patterns)?;
        Ok(self)
    }
}

/// `file_grep`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileGrep {
    /// The file or directory to search.
    #[serde(flatten)]
    pub target: Target,
    /// The regular expression.
    pub pattern: String,
    /// It is plain text.
    #[serde(default)]
    pub fixed: bool,
    /// Letters match in either case.
    #[serde(default)]
    pub ignore_case: bool,
    /// Match whole words.
    #[serde(default)]
    pub word: bool,
    /// Only files that one of these matches; a pattern without `/` matches at any depth.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// No file or directory that one of these matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// What to visit.
    #[serde(flatten)]
    pub leaving: Leaving,
    /// Lines before and after each match.
    #[serde(default)]
    pub context: usize,
    /// Most matching lines in all.
    #[serde(default = "default_matches")]
    pub max_matches: usize,
    /// Most matching lines of one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_file: Option<usize>,
    /// Most bytes told of one line.
    #[serde(default = "default_line")]
    pub max_line_bytes: usize,
}

impl FileGrep {
    fn check(self) -> Result<Self, ErrorReply> {
        check_patterns("pattern", std::slice::from_ref(&self.pattern))?;
        check_patterns("include", &self.include)?;
        check_patterns("exclude", &self.exclude)?;
        within("context", self.context, 0, MAX_GREP_CONTEXT)?;
        within("max_matches", self.max_matches, 1, MAX_GREP_MATCHES)?;
        within("max_line_bytes", self.max_line_bytes, 1, MAX_GREP_LINE)?;
        if let Some(most) = self.max_per_file {
            within("max_per_file", most, 1, MAX_GREP_MATCHES)?;
        }
        Ok(self)
    }
}

/// `list_workspace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyList {
    /// Absolute below the workspace, or relative to it.
    #[serde(default = "workspace")]
    pub path: String,
    /// Go down into directories.
    #[serde(default)]
    pub recursive: bool,
}

/// `read_workspace_file`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyRead {
    /// Absolute below the workspace, or relative to it.
    pub path: String,
    /// A larger file is an error.
    #[serde(default = "max_inline")]
    pub max_bytes: u64,
}

impl LegacyRead {
    fn check(self) -> Result<Self, ErrorReply> {
        if self.max_bytes == 0 || self.max_bytes > MAX_FILE_INLINE {
            return Err(invalid(format!(
                "`max_bytes` must be 1 to {MAX_FILE_INLINE}"
            )));
        }
        Ok(self)
    }
}

/// `write_workspace_file`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyWrite {
    /// Absolute below the workspace, or relative to it.
    pub path: String,
    /// The whole content.
    pub text: String,
}

impl LegacyWrite {
    fn check(self) -> Result<Self, ErrorReply> {
        if self.text.len() as u64 > MAX_FILE_INLINE {
            return Err(invalid(format!("`text` exceeds {MAX_FILE_INLINE} bytes")));
        }
        Ok(self)
    }
}

/// `delete_workspace_path`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyPath {
    /// Absolute below the workspace, or relative to it.
    pub path: String,
}

fn decode<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, ErrorReply> {
    serde_json::from_value(value).map_err(|error| invalid(format!("malformed request: {error}")))
}

fn one_path(name: &str, text: Option<String>, encoded: Option<String>) -> Result<Vec<u8>, String> {
    let path = match (text, encoded) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(encoded)) => STANDARD
            .decode(encoded)
            .map_err(|error| format!("`{name}_b64` is no base64: {error}"))?,
        (None, None) => return Err(format!("missing field `{name}`")),
        (Some(_), Some(_)) => return Err(format!("`{name}` and `{name}_b64` exclude each other")),
    };
    if path.is_empty() || path.len() > MAX_PATH || path.contains(&0) {
        return Err(format!(
            "`{name}` must have 1 to {MAX_PATH} bytes and no NUL"
        ));
    }
    Ok(path)
}

fn text_or_base64(path: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(path) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    }
}

fn within(name: &str, value: usize, least: usize, most: usize) -> Result<(), ErrorReply> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(invalid(format!("`{name}` must be {least} to {most}")))
}

fn check_mode(mode: Option<u32>) -> Result<(), ErrorReply> {
    match mode {
        Some(mode) if mode > 0o7777 => Err(invalid("`mode` has more than permission bits")),
        Some(_) | None => Ok(()),
    }
}

fn check_patterns(name: &str, patterns: &[String]) -> Result<(), ErrorReply> {
    within(name, patterns.len(), 0, MAX_GLOBS)?;
    if patterns.iter().any(|pattern| pattern.len() > MAX_PATTERN) {
        return Err(invalid(format!("`{name}` exceeds {MAX_PATTERN} bytes")));
    }
    Ok(())
}

fn default_page() -> usize {
    DEFAULT_PAGE
}

fn default_matches() -> usize {
    DEFAULT_GREP_MATCHES
}

fn default_line() -> usize {
    DEFAULT_GREP_LINE
}

fn max_inline() -> u64 {
    MAX_FILE_INLINE
}

fn workspace() -> String {
    WORKSPACE.into()
}

#[cfg(test)]
mod tests;
