//! Files of a workspace without a shell between: listed, read, written, edited, searched.
//!
//! Paths are absolute below the workspace's directory or relative to it; the guest resolves them inside it.

use pyro_protocol::files::{FileEntry, FilePage, FileText, FileWritten, GrepReply};
use serde::Serialize;
use serde_json::json;

use super::Workspace;
use super::events::Event;
use super::jobs::ask;
use super::payload::{EXECUTION_MODE, WORKSPACE_PATH};
use crate::error::Error;

/// The most of a file that is read at once, in bytes.
pub const MAX_READ: u64 = 1024 * 1024;

/// The original's default for a read.
pub const DEFAULT_READ: u64 = 65_536;

/// The largest text that is written or edited, in bytes.
pub const MAX_WRITE: usize = 1024 * 1024;

/// The most entries of one listing.
const MAX_ENTRIES: usize = 10_000;

/// What of a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// First byte.
    pub offset: u64,
    /// Most bytes, 1 to 1048576.
    pub max_bytes: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            offset: 0,
            max_bytes: DEFAULT_READ,
        }
    }
}

/// An exact replacement in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEdit {
    /// What is there, as it is there.
    pub old_text: String,
    /// What shall be there.
    pub new_text: String,
    /// Replace every place; otherwise there must be exactly one.
    pub replace_all: bool,
}

/// What is searched for, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrepOptions {
    /// A regular expression.
    pub pattern: String,
    /// Where, below the workspace.
    pub path: String,
    /// It is plain text.
    pub fixed: bool,
    /// Letters match in either case.
    pub ignore_case: bool,
    /// Only files that one of these matches.
    pub include: Vec<String>,
    /// No file or directory that one of these matches.
    pub exclude: Vec<String>,
    /// Look into hidden files, too, and into those that `.gitignore` names.
    pub all: bool,
    /// Lines before and after each match.
    pub context: usize,
    /// Most matching lines.
    pub max_matches: usize,
}

impl GrepOptions {
    /// A search of the whole workspace.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self {
            pattern: pattern.into(),
            path: WORKSPACE_PATH.into(),
            fixed: false,
            ignore_case: false,
            include: Vec::new(),
            exclude: Vec::new(),
            all: false,
            context: 0,
            max_matches: 200,
        }
    }
}

/// The entries of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileListPayload {
    /// The workspace.
    pub workspace_id: String,
    /// What was listed.
    pub path: String,
    /// Whether directories below were listed, too.
    pub recursive: bool,
    /// In the order of their paths' bytes.
    pub entries: Vec<FileEntry>,
    /// Whether there are more.
    pub truncated: bool,
    /// How it was done.
    pub execution_mode: &'static str,
}

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileReadPayload {
    /// The workspace.
    pub workspace_id: String,
    /// The file.
    pub path: String,
    /// Size of the whole file.
    pub size_bytes: u64,
    /// First byte that was read.
    pub offset: u64,
    /// The most that was wanted.
    pub max_bytes: u64,
    /// The content as text; invalid UTF-8 is replaced.
    pub content: String,
    /// The content in base64, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_b64: Option<String>,
    /// Whether the file goes on behind it.
    pub truncated: bool,
    /// How it was done.
    pub execution_mode: &'static str,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileWritePayload {
    /// The workspace.
    pub workspace_id: String,
    /// The file.
    pub path: String,
    /// Its size now.
    pub size_bytes: u64,
    /// Bytes that were written.
    pub bytes_written: u64,
    /// Whether it is new.
    pub created: bool,
    /// How it was done.
    pub execution_mode: &'static str,
}

/// A file that was edited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileEditPayload {
    /// The workspace.
    pub workspace_id: String,
    /// The file.
    pub path: String,
    /// Places that were replaced.
    pub replacements: u64,
    /// Its size now.
    pub size_bytes: u64,
    /// How it was done.
    pub execution_mode: &'static str,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GrepPayload {
    /// The workspace.
    pub workspace_id: String,
    /// What was found.
    #[serde(flatten)]
    pub found: GrepReply,
    /// How it was done.
    pub execution_mode: &'static str,
}

impl Workspace {
    /// The entries of a directory, at most 10,000.
    pub async fn list_files(&self, path: &str, recursive: bool) -> Result<FileListPayload, Error> {
        let request = json!({"action": "file_list", "path": path, "recursive": recursive});
        let (path, entries, truncated) = self.pages(request).await?;
        Ok(FileListPayload {
            workspace_id: self.id.clone(),
            path,
            recursive,
            entries,
            truncated,
            execution_mode: EXECUTION_MODE,
        })
    }

    /// The paths below `path` that one of the patterns matches, at most 10,000.
    pub async fn glob(
        &self,
        path: &str,
        patterns: &[String],
        all: bool,
    ) -> Result<FileListPayload, Error> {
        let request = json!({
            "action": "file_glob", "path": path, "patterns": patterns,
            "hidden": all, "ignored": all,
        });
        let (path, entries, truncated) = self.pages(request).await?;
        Ok(FileListPayload {
            workspace_id: self.id.clone(),
            path,
            recursive: true,
            entries,
            truncated,
            execution_mode: EXECUTION_MODE,
        })
    }

    async fn pages(
        &self,
        mut request: serde_json::Value,
    ) -> Result<(String, Vec<FileEntry>, bool), Error> {
        let live = self.live().await?;
        request["limit"] = pyro_protocol::limits::MAX_PAGE.into();
        let mut entries = Vec::new();
        loop {
            let page: FilePage = self.explained(&live, ask(&live, &request).await).await?;
            entries.extend(page.entries);
            let Some(cursor) = page.next_cursor else {
                return Ok((page.path, entries, false));
            };
            if entries.len() >= MAX_ENTRIES {
                entries.truncate(MAX_ENTRIES);
                return Ok((page.path, entries, true));
            }
            request["cursor"] = cursor.into();
        }
    }

    /// A part of a file.
    pub async fn read_file(
        &self,
        path: &str,
        options: ReadOptions,
    ) -> Result<FileReadPayload, Error> {
        if !(1..=MAX_READ).contains(&options.max_bytes) {
            return Err(Error::invalid(
                format!("{} bytes cannot be read at once", options.max_bytes),
                format!("ask for 1 to {MAX_READ}"),
            ));
        }
        let live = self.live().await?;
        let request = json!({
            "action": "file_read", "path": path, "offset": options.offset,
            "length": options.max_bytes, "text": true,
        });
        let text: FileText = self.explained(&live, ask(&live, &request).await).await?;
        Ok(FileReadPayload {
            workspace_id: self.id.clone(),
            path: text.path,
            size_bytes: text.size_bytes,
            offset: options.offset,
            max_bytes: options.max_bytes,
            content: text.content,
            content_b64: text.content_b64,
            truncated: text.truncated,
            execution_mode: EXECUTION_MODE,
        })
    }

    /// Writes a whole file, at most 1 MiB; directories above it are made.
    pub async fn write_file(&self, path: &str, text: &str) -> Result<FileWritePayload, Error> {
        check_size(text.len())?;
        let live = self.live().await?;
        let written = self.put(&live, path, text).await?;
        self.touch().await?;
        self.log(&Event::FileWrite {
            path: &written.path,
            bytes: written.bytes_written,
        })
        .await;
        Ok(FileWritePayload {
            workspace_id: self.id.clone(),
            path: written.path,
            size_bytes: written.size_bytes,
            bytes_written: written.bytes_written,
            created: written.created,
            execution_mode: EXECUTION_MODE,
        })
    }

    async fn put(
        &self,
        live: &super::live::Live,
        path: &str,
        text: &str,
    ) -> Result<FileWritten, Error> {
        let request = json!({
            "action": "file_write", "path": path, "content": text, "create_parents": true,
        });
        let written = self.explained(live, ask(live, &request).await).await?;
        self.sync(live).await?;
        Ok(written)
    }

    /// Replaces text in a file.
    ///
    /// # Errors
    /// Nothing is changed if the old text is not there, or is there more than once and not all are meant.
    pub async fn edit_file(&self, path: &str, edit: &FileEdit) -> Result<FileEditPayload, Error> {
        let live = self.live().await?;
        let request = json!({
            "action": "file_read", "path": path, "offset": 0, "length": MAX_READ, "text": true,
        });
        let file: FileText = self.explained(&live, ask(&live, &request).await).await?;
        if file.truncated {
            return Err(Error::invalid(
                format!("`{path}` is larger than {MAX_READ} bytes"),
                "change it with a command in the workspace",
            ));
        }
        if file.content_b64.is_some() {
            return Err(Error::invalid(
                format!("`{path}` is no UTF-8 text"),
                "change it with a command in the workspace",
            ));
        }
        let (text, replacements) = edited(path, &file.content, edit)?;
        check_size(text.len())?;
        let written = self.put(&live, path, &text).await?;
        self.touch().await?;
        self.log(&Event::FileEdit {
            path: &written.path,
            replacements,
        })
        .await;
        Ok(FileEditPayload {
            workspace_id: self.id.clone(),
            path: written.path,
            replacements,
            size_bytes: written.size_bytes,
            execution_mode: EXECUTION_MODE,
        })
    }

    /// Lines that match.
    pub async fn grep(&self, options: &GrepOptions) -> Result<GrepPayload, Error> {
        let live = self.live().await?;
        let request = json!({
            "action": "file_grep", "path": options.path, "pattern": options.pattern,
            "fixed": options.fixed, "ignore_case": options.ignore_case,
            "include": options.include, "exclude": options.exclude,
            "hidden": options.all, "ignored": options.all,
            "context": options.context, "max_matches": options.max_matches,
        });
        let found = self.explained(&live, ask(&live, &request).await).await?;
        Ok(GrepPayload {
            workspace_id: self.id.clone(),
            found,
            execution_mode: EXECUTION_MODE,
        })
    }
}

fn check_size(bytes: usize) -> Result<(), Error> {
    if bytes <= MAX_WRITE {
        return Ok(());
    }
    Err(Error::invalid(
        format!("{bytes} bytes are too many for a file that is written whole"),
        format!("write at most {MAX_WRITE} bytes, or push the file with `sync push`"),
    ))
}

/// The text after an edit, and how many places were replaced.
fn edited(path: &str, text: &str, edit: &FileEdit) -> Result<(String, u64), Error> {
    if edit.old_text.is_empty() || edit.old_text == edit.new_text {
        return Err(Error::invalid(
            "the old text is empty or the same as the new one",
            "give the text that is there, and another one",
        ));
    }
    let places = text.matches(&edit.old_text).count();
    match places {
        0 => Err(Error::invalid(
            format!("the old text is not in `{path}`"),
            "read the file again and give the text exactly, with its white space",
        )),
        1 => Ok((text.replacen(&edit.old_text, &edit.new_text, 1), 1)),
        _ if edit.replace_all => Ok((text.replace(&edit.old_text, &edit.new_text), places as u64)),
        _ => Err(Error::invalid(
            format!("the old text is {places} times in `{path}`"),
            "give more of the lines around it, or replace all",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_needs_one_place_or_means_all() {
        let edit = |old: &str, new: &str, replace_all| FileEdit {
            old_text: old.into(),
            new_text: new.into(),
            replace_all,
        };
        let done = |text: &str, edit: &FileEdit| edited("f", text, edit);
        assert_eq!(
            done("a b", &edit("b", "c", false)).unwrap(),
            ("a c".into(), 1)
        );
        assert!(done("b b", &edit("b", "c", false)).is_err());
        assert_eq!(
            done("b b", &edit("b", "c", true)).unwrap(),
            ("c c".into(), 2)
        );
        assert!(done("a", &edit("b", "c", true)).is_err());
        assert!(done("a", &edit("", "c", true)).is_err());
        assert!(done("a", &edit("a", "a", true)).is_err());
    }
}
