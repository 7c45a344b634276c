//! Trees leaving the guest: requests as checked types, and replies.
//!
//! `tree_export` answers a header line, the archive as `Stdout` frames with `Progress` frames
//! between them, and in `End` a [`TreeExportEnd`] or an error: an archive without an end whose
//! size and digest are those of its bytes is not whole. `export_archive` is the original's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::code::ErrorReply;
use crate::files::{ArtifactType, Target, WORKSPACE};
use crate::limits::{MAX_EXPORT_PATHS, MAX_GLOBS, MAX_PATH, MAX_PATTERN};
use crate::request::invalid;

/// `tree_export`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TreeExportWire", into = "TreeExportWire")]
pub struct TreeExport {
    /// Absolute path of the directory that nothing leads out of; the workspace if absent.
    pub root: Option<String>,
    /// What to pack.
    pub what: Exported,
    /// How the archive is compressed.
    pub compression: Compression,
    /// Nothing that one of these matches; a pattern without `/` matches at any depth, others
    /// the whole name of a member. What is named itself is packed in any case.
    pub exclude: Vec<String>,
    /// Give a directory that is exported an entry `./` of its own.
    pub include_root: bool,
    /// Pack devices and named pipes; else they are skipped.
    pub special: bool,
    /// Go into other file systems that are mounted in the tree.
    pub mounts: bool,
    /// Most bytes of the archive before it is compressed.
    pub max_bytes: Option<u64>,
    /// Most members.
    pub max_entries: Option<u64>,
}

/// What is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exported {
    /// A directory, whose entries become the members; or a file or link under its own name.
    One(Vec<u8>),
    /// 1 to [`MAX_EXPORT_PATHS`] paths, whose members are called by their path below the root.
    Several(Vec<Vec<u8>>),
}

impl TreeExport {
    /// The export of `path` in the workspace.
    pub fn workspace(path: impl Into<Vec<u8>>) -> Self {
        Self {
            root: None,
            what: Exported::One(path.into()),
            compression: Compression::None,
            exclude: Vec::new(),
            include_root: false,
            special: false,
            mounts: false,
            max_bytes: None,
            max_entries: None,
        }
    }

    /// The places that are exported, each below the root.
    pub fn targets(&self) -> Vec<Target> {
        let paths = match &self.what {
            Exported::One(path) => std::slice::from_ref(path),
            Exported::Several(paths) => paths,
        };
        let target = |path: &Vec<u8>| Target {
            root: self.root.clone(),
            path: path.clone(),
        };
        paths.iter().map(target).collect()
    }

    pub(crate) fn check(self) -> Result<Self, ErrorReply> {
        if self.exclude.len() > MAX_GLOBS {
            return Err(invalid(format!("`exclude` exceeds {MAX_GLOBS} patterns")));
        }
        if self.exclude.iter().any(|one| one.len() > MAX_PATTERN) {
            return Err(invalid(format!("`exclude` exceeds {MAX_PATTERN} bytes")));
        }
        Ok(self)
    }
}

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all: the quickest, as both ends are on one host.
    #[default]
    None,
    /// Gzip.
    Gzip,
    /// Zstandard. The encoder is slower than that of gzip.
    Zstd,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct TreeExportWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paths: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paths_b64: Option<Vec<String>>,
    #[serde(default)]
    compression: Compression,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exclude: Vec<String>,
    #[serde(default)]
    include_root: bool,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    mounts: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_entries: Option<u64>,
}

impl TryFrom<TreeExportWire> for TreeExport {
    type Error = String;

    fn try_from(wire: TreeExportWire) -> Result<Self, String> {
        if let Some(root) = &wire.root
            && (!root.starts_with('/') || root.len() > MAX_PATH || root.contains('\0'))
        {
            return Err("`root` must be an absolute path".into());
        }
        let decode = |text: String| {
            STANDARD
                .decode(text)
                .map_err(|error| format!("a path is no base64: {error}"))
        };
        let what = match (wire.path, wire.path_b64, wire.paths, wire.paths_b64) {
            (None, None, None, None) => Exported::One(b".".to_vec()),
            (Some(path), None, None, None) => Exported::One(path.into_bytes()),
            (None, Some(path), None, None) => Exported::One(decode(path)?),
            (None, None, texts, encoded) => {
                let mut paths: Vec<Vec<u8>> = texts
                    .unwrap_or_default()
                    .into_iter()
                    .map(String::into_bytes)
                    .collect();
                for text in encoded.unwrap_or_default() {
                    paths.push(decode(text)?);
                }
                Exported::Several(paths)
            }
            _ => return Err("`path` excludes every other field with paths".into()),
        };
        let paths = match &what {
            Exported::One(path) => std::slice::from_ref(path),
            Exported::Several(paths) => paths,
        };
        if paths.is_empty() || paths.len() > MAX_EXPORT_PATHS {
            return Err(format!("`paths` must name 1 to {MAX_EXPORT_PATHS} paths"));
        }
        let is_path = |path: &Vec<u8>| (1..=MAX_PATH).contains(&path.len()) && !path.contains(&0);
        if !paths.iter().all(is_path) {
            return Err(format!("a path must have 1 to {MAX_PATH} bytes and no NUL"));
        }
        Ok(Self {
            root: wire.root,
            what,
            compression: wire.compression,
            exclude: wire.exclude,
            include_root: wire.include_root,
            special: wire.special,
            mounts: wire.mounts,
            max_bytes: wire.max_bytes,
            max_entries: wire.max_entries,
        })
    }
}

impl From<TreeExport> for TreeExportWire {
    fn from(export: TreeExport) -> Self {
        let (mut path, mut path_b64, mut paths, mut paths_b64) = (None, None, None, None);
        match export.what {
            Exported::One(bytes) => match String::from_utf8(bytes) {
                Ok(text) => path = Some(text),
                Err(error) => path_b64 = Some(STANDARD.encode(error.as_bytes())),
            },
            Exported::Several(several) => {
                let (mut texts, mut encoded) = (Vec::new(), Vec::new());
                for bytes in several {
                    match String::from_utf8(bytes) {
                        Ok(text) => texts.push(text),
                        Err(error) => encoded.push(STANDARD.encode(error.as_bytes())),
                    }
                }
                paths = (!texts.is_empty()).then_some(texts);
                paths_b64 = (!encoded.is_empty()).then_some(encoded);
            }
        }
        Self {
            root: export.root,
            path,
            path_b64,
            paths,
            paths_b64,
            compression: export.compression,
            exclude: export.exclude,
            include_root: export.include_root,
            special: export.special,
            mounts: export.mounts,
            max_bytes: export.max_bytes,
            max_entries: export.max_entries,
        }
    }
}

/// First line of a `tree_export`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeExportHeader {
    /// Always true.
    pub ok: bool,
    /// Always true.
    pub frames: bool,
    /// What is exported; the root if it is several paths.
    pub path: String,
    /// What that is.
    pub artifact_type: ArtifactType,
    /// As it was asked for.
    pub compression: Compression,
}

/// How far an export has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeExportProgress {
    /// Members so far.
    pub entries: u64,
    /// Bytes of the archive sent so far.
    pub bytes: u64,
}

/// End frame of a `tree_export` that is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeExportEnd {
    /// Members.
    pub entry_count: u64,
    /// Bytes of regular files, holes included.
    pub bytes_written: u64,
    /// Bytes of the archive as it was sent.
    pub archive_size: u64,
    /// `sha256:` and the digest of those bytes in hexadecimal.
    pub digest: String,
    /// Left out for what they are: sockets, and devices, named pipes and mounted file systems
    /// unless asked for.
    pub skipped: PathList,
    /// Changed while they were read: cut, or filled with zeros, to the size that they had.
    pub changed: PathList,
    /// Gone or replaced before they could be read, and left out.
    pub vanished: PathList,
    /// Could not be read: left out, filled with zeros, or without their attributes.
    pub unreadable: PathList,
}

/// Members that something is to be told about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathList {
    /// How many there are.
    pub count: u64,
    /// The first of them, with replacement characters where a name is no UTF-8.
    pub paths: Vec<String>,
}

/// `export_archive`, the original's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportArchive {
    /// Absolute below the workspace, or relative to it.
    #[serde(default = "workspace")]
    pub path: String,
}

/// First line of an `export_archive`; exactly `archive_size` bytes of tar follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportArchiveHeader {
    /// What is exported.
    pub workspace_path: String,
    /// A file, a directory or a symlink.
    pub artifact_type: ArtifactType,
    /// Bytes that follow.
    pub archive_size: u64,
    /// Members.
    pub entry_count: u64,
    /// Bytes of regular files.
    pub bytes_written: u64,
}

fn workspace() -> String {
    WORKSPACE.into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(request: Value) -> Result<TreeExport, String> {
        serde_json::from_value::<TreeExport>(request)
            .map_err(|error| error.to_string())
            .and_then(|export| export.check().map_err(|error| error.error))
    }

    #[test]
    fn what_is_exported_is_one_path_or_several() {
        let what = |request| parse(request).map(|export| export.what);
        assert_eq!(what(json!({})), Ok(Exported::One(b".".to_vec())));
        let one = what(json!({"path_b64": "/w=="}));
        assert_eq!(one, Ok(Exported::One(vec![0xff])));
        let several = what(json!({"paths": ["a"], "paths_b64": ["/w=="]}));
        assert_eq!(
            several,
            Ok(Exported::Several(vec![b"a".to_vec(), vec![0xff]]))
        );
        for (request, part) in [
            (json!({"path": "a", "paths": ["b"]}), "excludes"),
            (json!({"paths": []}), "1 to 256 paths"),
            (json!({"paths": vec!["a"; 257]}), "1 to 256 paths"),
            (json!({"path": ""}), "1 to 4095 bytes"),
            (json!({"paths": ["a\0"]}), "no NUL"),
            (json!({"path_b64": "!"}), "no base64"),
            (json!({"root": "relative"}), "absolute"),
            (json!({"compression": "lzma"}), "lzma"),
            (json!({"exclude": vec!["a"; 101]}), "100 patterns"),
        ] {
            let error = parse(request.clone()).unwrap_err();
            assert!(error.contains(part), "{request}: {error}");
        }
    }

    #[test]
    fn a_request_survives_its_wire() {
        for what in [
            Exported::One(b"a".to_vec()),
            Exported::One(vec![0xff]),
            Exported::Several(vec![b"a".to_vec(), vec![0xff]]),
        ] {
            let export = TreeExport {
                what,
                compression: Compression::Zstd,
                max_bytes: Some(7),
                ..TreeExport::workspace("")
            };
            let wire = serde_json::to_value(&export).unwrap();
            assert_eq!(parse(wire), Ok(export));
        }
    }
}
