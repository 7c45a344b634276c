//! The tree actions: manifests of directories, and what differs between two of them.
//!
//! A manifest tells each path below a directory with its type, mode, owner, size, time, link
//! target and the SHA-256 of its content. Its *generation* is a digest of all of that but the
//! times, so that two trees of one generation are alike. A *baseline* is a manifest that the
//! agent keeps under a name.

mod reply;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::code::{ErrorCode, ErrorReply};
use crate::files::Target;
use crate::limits::{MAX_BASELINE_NAME, MAX_GLOBS, MAX_PATTERN, MAX_TREE_PATTERNS};
use crate::request::invalid;

pub use reply::{
    BaselineInfo, BaselineList, ChangeCounts, ChangeStatus, TreeChange, TreeDigest, TreeEnd,
    TreeEntry, TreeHeader, TreeNode, TreeProgress,
};

/// The actions of this module.
pub const TREE_ACTIONS: &[&str] = &[
    "tree_index",
    "tree_changes",
    "tree_baseline",
    "tree_baselines",
    "tree_baseline_remove",
];

/// What stands for the machine's image where a baseline can be named.
pub const IMAGE: &str = "image";

/// A request about trees, checked.
#[derive(Clone, Debug, PartialEq)]
pub enum TreeRequest {
    /// The manifest of a directory, brought up to date.
    Index(TreeIndex),
    /// What differs from a baseline.
    Changes(TreeChanges),
    /// Keep the present manifest under a name.
    Keep(TreeBaseline),
    /// Which baselines are there?
    Baselines,
    /// Forget a baseline.
    Remove(BaselineName),
}

impl TreeRequest {
    /// Parses the request of `action`, which is one of [`TREE_ACTIONS`].
    pub(crate) fn parse(action: &str, value: Value) -> Result<Self, ErrorReply> {
        match action {
            "tree_index" => {
                let index: TreeIndex = decode(value)?;
                index.scope.check()?;
                check_patterns("include", &index.include)?;
                Ok(Self::Index(index))
            }
            "tree_changes" => decode::<TreeChanges>(value)?.check().map(Self::Changes),
            "tree_baseline" => {
                let keep: TreeBaseline = decode(value)?;
                keep.scope.check()?;
                Ok(Self::Keep(keep))
            }
            "tree_baselines" => Ok(Self::Baselines),
            "tree_baseline_remove" => {
                decode::<NameOnly>(value).map(|request| Self::Remove(request.name))
            }
            unknown => Err(ErrorReply::new(
                ErrorCode::Unsupported,
                format!("unknown tree action `{unknown}`"),
            )),
        }
    }
}

/// What a manifest is of. Manifests of one scope can be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeScope {
    /// The directory; a symbolic link at the end of its path is not followed.
    #[serde(flatten)]
    pub target: Target,
    /// No path that one of these matches, and nothing below it. `*` stays in one part of a
    /// path; a pattern without `/` matches at any depth.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Read files and tell the digest of their content.
    #[serde(default = "yes")]
    pub hash: bool,
}

impl TreeScope {
    fn check(&self) -> Result<(), ErrorReply> {
        check_patterns("exclude", &self.exclude)
    }
}

/// Whether entries are told one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// A line for each.
    #[default]
    All,
    /// Only the counts at the end.
    None,
}

/// `tree_index`. Answers [`TreeHeader`], frames with lines of [`TreeEntry`], or of
/// [`TreeChange`] with `changed_since`, and [`TreeEnd`] or an error in the end frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeIndex {
    /// Of what.
    #[serde(flatten)]
    pub scope: TreeScope,
    /// Lines only of paths that one of these matches, and of what is below them; patterns as in [`TreeScope::exclude`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Which lines are wanted.
    #[serde(default)]
    pub entries: Told,
    /// Only what differs from this generation of the same scope, which must still be there:
    /// that of the index before, or of a baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_since: Option<TreeDigest>,
    /// Read every file, whatever is remembered of it.
    #[serde(default)]
    pub fresh: bool,
}

/// What a directory is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Reference {
    /// The image below the machine's root, as it was when the machine was new.
    Image,
    /// A baseline.
    Baseline(BaselineName),
}

/// `tree_changes`. Answers [`TreeHeader`], frames with lines of [`TreeChange`], and
/// [`TreeEnd`] or an error in the end frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeChanges {
    /// The older side.
    pub name: Reference,
    /// The newer side; the directory as it is now if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<BaselineName>,
    /// Only paths that one of these matches, and what is below them; patterns as in
    /// [`TreeScope::exclude`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// No path that one of these matches, and nothing below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Which lines are wanted.
    #[serde(default)]
    pub entries: Told,
}

impl TreeChanges {
    fn check(self) -> Result<Self, ErrorReply> {
        check_patterns("include", &self.include)?;
        check_patterns("exclude", &self.exclude)?;
        if self.name == Reference::Image && self.to.is_some() {
            return Err(invalid("`image` is compared with the present only"));
        }
        Ok(self)
    }
}

/// `tree_baseline`. Answers [`TreeHeader`], frames, and [`TreeEnd`] or an error in the end
/// frame. A baseline never changes; a name that is taken is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeBaseline {
    /// Its name.
    pub name: BaselineName,
    /// Of what.
    #[serde(flatten)]
    pub scope: TreeScope,
}

/// The name of a baseline: a letter or digit, then letters, digits, `.`, `_` and `-`; at most
/// [`MAX_BASELINE_NAME`] bytes, and not [`IMAGE`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaselineName(String);

impl BaselineName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BaselineName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let starts = name.starts_with(|first: char| first.is_ascii_alphanumeric());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !starts || name.len() > MAX_BASELINE_NAME || !name.bytes().all(allowed) {
            return Err(format!(
                "`name` must have 1 to {MAX_BASELINE_NAME} letters, digits, `.`, `_` and `-`, and begin with a letter or digit"
            ));
        }
        if name == IMAGE {
            return Err(format!("the name `{IMAGE}` stands for the machine's image"));
        }
        Ok(Self(name))
    }
}

impl From<BaselineName> for String {
    fn from(name: BaselineName) -> Self {
        name.0
    }
}

impl TryFrom<String> for Reference {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if name == IMAGE {
            return Ok(Self::Image);
        }
        BaselineName::try_from(name).map(Self::Baseline)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        match reference {
            Reference::Image => IMAGE.into(),
            Reference::Baseline(name) => name.into(),
        }
    }
}

#[derive(Deserialize)]
struct NameOnly {
    name: BaselineName,
}

fn decode<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, ErrorReply> {
    serde_json::from_value(value).map_err(|error| invalid(format!("malformed request: {error}")))
}

fn check_patterns(name: &str, patterns: &[String]) -> Result<(), ErrorReply> {
    let bytes: usize = patterns.iter().map(String::len).sum();
    if patterns.len() > MAX_GLOBS || patterns.iter().any(|pattern| pattern.len() > MAX_PATTERN) {
        return Err(invalid(format!(
            "`{name}` must have at most {MAX_GLOBS} patterns of at most {MAX_PATTERN} bytes"
        )));
    }
    if bytes > MAX_TREE_PATTERNS {
        return Err(invalid(format!(
            "`{name}` exceeds {MAX_TREE_PATTERNS} bytes"
        )));
    }
    Ok(())
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests;
