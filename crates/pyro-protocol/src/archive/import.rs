//! Archives that a host sends: requests as checked types, and replies.
//!
//! `tree_import` is ours: the archive comes as stdin frames under the same window as a
//! command's input. `extract_archive` and `install_secrets` are the original's: that many
//! raw bytes follow the request line.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::code::{ErrorCode, ErrorReply};
use crate::files::{Target, WORKSPACE};
use crate::limits::{MAX_IMPORT_EDITS, MAX_IMPORT_ENTRIES, MAX_SECRETS_BODY};
use crate::request::invalid;

/// The actions of this module.
pub const IMPORT_ACTIONS: &[&str] = &["tree_import", "extract_archive", "install_secrets"];

/// Where the original's secrets are.
pub const SECRETS: &str = "/run/pyro-secrets";

/// A request that brings an archive, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportRequest {
    /// Ours.
    Tree(TreeImport),
    /// The original's.
    Extract(ExtractArchive),
    /// The original's, for secrets.
    Secrets(InstallSecrets),
}

impl ImportRequest {
    /// Parses the request of `action`, which is one of [`IMPORT_ACTIONS`].
    pub(crate) fn parse(action: &str, value: Value) -> Result<Self, ErrorReply> {
        match action {
            "tree_import" => decode(value).and_then(TreeImport::check).map(Self::Tree),
            "extract_archive" => decode(value).map(Self::Extract),
            "install_secrets" => decode(value)
                .and_then(InstallSecrets::check)
                .map(Self::Secrets),
            unknown => Err(ErrorReply::new(
                ErrorCode::Unsupported,
                format!("unknown action about archives `{unknown}`"),
            )),
        }
    }
}

/// `tree_import`. Answers `{"ok": true, "frames": true}`, then `Window` and `Progress`
/// ([`ImportProgress`]) while it takes `Stdin` and `StdinEnd`, and `End` with
/// [`ImportEnd`] or an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TreeImportWire", into = "TreeImportWire")]
pub struct TreeImport {
    /// The directory to fill; made if it is missing.
    pub destination: Target,
    /// How the archive is compressed.
    pub compression: ImportCompression,
    /// To whom things belong.
    pub owner: ImportOwner,
    /// Let it count as a whole or not at all; else it is unpacked in place.
    pub staged: bool,
    /// Most bytes of content; without a bound the disk is one.
    pub max_bytes: Option<u64>,
    /// Most members.
    pub max_entries: u64,
    /// SHA-256 of the bytes as they are sent. Another one is refused before a staged
    /// import counts.
    pub sha256: Option<[u8; 32]>,
    /// Keep permission bits; else 0755 and 0644.
    pub keep_mode: bool,
    /// Keep times of the last change; else it is now.
    pub keep_mtime: bool,
    /// Bytes of a list of what goes, which stands before the archive: see `pyro_archive::extract::Edit`. Needs a staged import.
    pub edits_bytes: u64,
}

impl TreeImport {
    /// An import into the workspace, with all defaults.
    pub fn workspace() -> Self {
        Self {
            destination: Target::workspace(WORKSPACE),
            compression: ImportCompression::Auto,
            owner: ImportOwner::default(),
            staged: true,
            max_bytes: None,
            max_entries: MAX_IMPORT_ENTRIES,
            sha256: None,
            keep_mode: true,
            keep_mtime: true,
            edits_bytes: 0,
        }
    }

    fn check(self) -> Result<Self, ErrorReply> {
        if self.max_entries > MAX_IMPORT_ENTRIES {
            return Err(invalid(format!(
                "`max_entries` exceeds {MAX_IMPORT_ENTRIES}"
            )));
        }
        if self.sha256.is_some() && !self.staged {
            return Err(invalid(
                "`sha256` needs a staged import: in place it would be too late",
            ));
        }
        if self.edits_bytes > MAX_IMPORT_EDITS {
            return Err(invalid(format!("`edits_bytes` exceeds {MAX_IMPORT_EDITS}")));
        }
        if self.edits_bytes > 0 && !self.staged {
            return Err(invalid(
                "`edits_bytes` needs a staged import: in place nothing could be put back",
            ));
        }
        Ok(self)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct TreeImportWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    destination_b64: Option<String>,
    #[serde(default)]
    compression: ImportCompression,
    #[serde(default)]
    owner: ImportOwner,
    #[serde(default = "yes")]
    staged: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    #[serde(default = "most_entries")]
    max_entries: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(default = "yes")]
    keep_mode: bool,
    #[serde(default = "yes")]
    keep_mtime: bool,
    #[serde(default, skip_serializing_if = "is_none")]
    edits_bytes: u64,
}

impl TryFrom<TreeImportWire> for TreeImport {
    type Error = String;

    fn try_from(wire: TreeImportWire) -> Result<Self, String> {
        let nowhere = wire.destination.is_none() && wire.destination_b64.is_none();
        let destination = if nowhere {
            Some(wire.root.clone().unwrap_or_else(|| WORKSPACE.into()))
        } else {
            wire.destination
        };
        let destination =
            Target::named("destination", wire.root, destination, wire.destination_b64)?;
        Ok(Self {
            destination,
            compression: wire.compression,
            owner: wire.owner,
            staged: wire.staged,
            max_bytes: wire.max_bytes,
            max_entries: wire.max_entries,
            sha256: wire.sha256.as_deref().map(digest).transpose()?,
            keep_mode: wire.keep_mode,
            keep_mtime: wire.keep_mtime,
            edits_bytes: wire.edits_bytes,
        })
    }
}

impl From<TreeImport> for TreeImportWire {
    fn from(import: TreeImport) -> Self {
        let (root, destination, destination_b64) = import.destination.into_texts();
        Self {
            root,
            destination,
            destination_b64,
            compression: import.compression,
            owner: import.owner,
            staged: import.staged,
            max_bytes: import.max_bytes,
            max_entries: import.max_entries,
            sha256: import.sha256.map(|digest| hex(&digest)),
            keep_mode: import.keep_mode,
            keep_mtime: import.keep_mtime,
            edits_bytes: import.edits_bytes,
        }
    }
}

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportCompression {
    /// As its first bytes tell.
    #[default]
    Auto,
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// zstd, with a window of at most 8 MiB.
    Zstd,
}

/// To whom imported things belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ImportOwner {
    /// As a word says.
    Word(OwnerWord),
    /// To these numbers; set-id bits are dropped.
    Numbers {
        /// The owner.
        uid: u32,
        /// The group.
        gid: u32,
    },
}

/// To whom imported things belong, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerWord {
    /// To the agent's own user, root: numbers of the host mean nothing in the guest. Set-id
    /// bits are dropped with them.
    Agent,
    /// To the numbers in the archive.
    Archive,
}

impl Default for ImportOwner {
    fn default() -> Self {
        Self::Word(OwnerWord::Agent)
    }
}

/// How far an import has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportProgress {
    /// Members unpacked.
    pub entries: u64,
    /// Bytes of the archive taken, as they were sent.
    pub bytes: u64,
}

/// The end of a `tree_import` that went well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportEnd {
    /// What was filled.
    pub destination: String,
    /// Members of the archive.
    pub entries: u64,
    /// Bytes of its regular files, holes included.
    pub bytes_written: u64,
    /// Extended attributes that could not be set there and were left out.
    pub attributes_left_out: u64,
}

/// `extract_archive`. Answers [`ArchiveExtracted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractArchive {
    /// Absolute below the workspace, or relative to it.
    #[serde(default = "workspace")]
    pub destination: String,
    /// Bytes that follow the request line.
    #[serde(default)]
    pub archive_size: u64,
}

/// `install_secrets`. Answers [`ArchiveExtracted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallSecrets {
    /// Bytes that follow the request line.
    #[serde(default)]
    pub archive_size: u64,
}

impl InstallSecrets {
    fn check(self) -> Result<Self, ErrorReply> {
        if self.archive_size > MAX_SECRETS_BODY {
            return Err(invalid(format!(
                "`archive_size` exceeds {MAX_SECRETS_BODY}"
            )));
        }
        Ok(self)
    }
}

/// The original's reply to an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveExtracted {
    /// What was filled.
    pub destination: String,
    /// Members of the archive.
    pub entry_count: u64,
    /// Bytes of its regular files.
    pub bytes_written: u64,
}

fn digest(text: &str) -> Result<[u8; 32], String> {
    let malformed = || "`sha256` must be 64 hexadecimal digits".to_owned();
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(malformed());
    }
    for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| malformed())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| malformed())?;
    }
    Ok(digest)
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        // A string takes whatever is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn decode<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, ErrorReply> {
    serde_json::from_value(value).map_err(|error| invalid(format!("malformed request: {error}")))
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out a reference"
)]
fn is_none(bytes: &u64) -> bool {
    *bytes == 0
}

fn yes() -> bool {
    true
}

fn most_entries() -> u64 {
    MAX_IMPORT_ENTRIES
}

fn workspace() -> String {
    WORKSPACE.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;

    fn parse(line: &str) -> Result<ImportRequest, ErrorReply> {
        match Request::parse(line.as_bytes())? {
            Request::Import(request) => Ok(*request),
            other => panic!("{other:?} is no import"),
        }
    }

    #[test]
    fn defaults_are_a_staged_import_into_the_workspace() {
        let all = parse(r#"{"action": "tree_import"}"#).unwrap();
        assert_eq!(all, ImportRequest::Tree(TreeImport::workspace()));
        let ImportRequest::Tree(import) =
            parse(r#"{"action": "tree_import", "root": "/srv"}"#).unwrap()
        else {
            panic!("another action")
        };
        assert_eq!(import.destination.path, b"/srv");
        let extract = parse(r#"{"action": "extract_archive"}"#).unwrap();
        let expected = ExtractArchive {
            destination: "/workspace".into(),
            archive_size: 0,
        };
        assert_eq!(extract, ImportRequest::Extract(expected));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let import = TreeImport {
            destination: Target {
                root: Some("/".into()),
                path: b"a\xff".into(),
            },
            owner: ImportOwner::Numbers { uid: 1, gid: 2 },
            sha256: Some([0xa7; 32]),
            max_bytes: Some(5),
            edits_bytes: 7,
            ..TreeImport::workspace()
        };
        let json = serde_json::to_value(&import).unwrap();
        assert_eq!(json["destination_b64"], "Yf8=");
        assert_eq!(json["sha256"].as_str().unwrap(), "a7".repeat(32));
        assert_eq!(serde_json::from_value::<TreeImport>(json).unwrap(), import);
    }

    #[test]
    fn malformed_requests_are_named() {
        for (fields, part) in [
            (r#""tree_import", "sha256": "00""#, "64 hexadecimal digits"),
            (
                r#""tree_import", "compression": "xz""#,
                "unknown variant `xz`",
            ),
            (r#""tree_import", "owner": "me""#, "owner"),
            (
                r#""tree_import", "max_entries": 99999999999"#,
                "`max_entries` exceeds",
            ),
            (r#""tree_import", "max_bytes": -1"#, "invalid value"),
            (
                r#""tree_import", "edits_bytes": 99999999999"#,
                "`edits_bytes` exceeds",
            ),
            (
                r#""tree_import", "destination": """#,
                "`destination` must have",
            ),
            (
                r#""tree_import", "destination": "a", "root": "b""#,
                "`root` must be",
            ),
            (r#""extract_archive", "archive_size": -1"#, "invalid value"),
            (r#""install_secrets", "archive_size": -1"#, "invalid value"),
            (
                r#""install_secrets", "archive_size": 99999999999"#,
                "`archive_size` exceeds",
            ),
        ] {
            let error = parse(&format!(r#"{{"action": {fields}}}"#)).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{fields}");
            // An untagged type tells what did not match, not where.
            let told = error.error.contains(part) || part == "owner";
            assert!(told, "{fields}: {}", error.error);
        }
        let line = r#"{"action": "tree_import", "edits_bytes": 3, "staged": false}"#;
        assert!(
            parse(line)
                .unwrap_err()
                .error
                .contains("`edits_bytes` needs a staged")
        );
        let digest = "ab".repeat(32);
        let line = format!(r#"{{"action": "tree_import", "sha256": "{digest}", "staged": false}}"#);
        let error = parse(&line).unwrap_err();
        assert!(error.error.contains("staged"), "{}", error.error);
    }
}
