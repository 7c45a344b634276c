//! What workspaces, their labels and their snapshots are called, parsed once at the border.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The name of what a workspace began with, where a snapshot can be named.
pub const BASELINE: &str = "baseline";

/// Most characters of a workspace's name or of a label's value.
const MAX_TEXT: usize = 120;

/// Most labels of a workspace.
const MAX_LABELS: usize = 64;

/// Shortest time without use after which a workspace stops.
const MIN_TTL: Duration = Duration::from_mins(1);

/// Longest time without use after which a workspace stops.
const MAX_TTL: Duration = Duration::from_hours(7 * 24);

/// The labels of a workspace, sorted.
pub type Labels = BTreeMap<String, String>;

/// A workspace's name: 1 to 120 characters without control characters.
pub(crate) fn workspace_name(name: &str) -> Result<String, Error> {
    text(name).ok_or_else(|| {
        Error::invalid(
            format!("`{}` is no name of a workspace", name.escape_debug()),
            "give 1 to 120 characters on one line",
        )
    })
}

/// Checks the labels: keys like names of snapshots, values of 1 to 120 characters on one line.
pub(crate) fn labels(labels: &Labels) -> Result<Labels, Error> {
    if labels.len() > MAX_LABELS {
        return Err(Error::invalid(
            format!("{} labels are too many", labels.len()),
            format!("give at most {MAX_LABELS}"),
        ));
    }
    labels
        .iter()
        .map(|(key, value)| {
            label_key(key)?;
            let value = text(value).ok_or_else(|| {
                Error::invalid(
                    format!("the value of the label `{key}` is none"),
                    "give 1 to 120 characters on one line",
                )
            })?;
            Ok((key.clone(), value))
        })
        .collect()
}

/// Checks the key of a label.
pub(crate) fn label_key(key: &str) -> Result<(), Error> {
    if is_plain_name(key) {
        return Ok(());
    }
    Err(Error::invalid(
        format!("`{}` is no key of a label", key.escape_debug()),
        "give 1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit",
    ))
}

/// A snapshot's name: 1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SnapshotName(String);

impl SnapshotName {
    /// Checks a name. [`BASELINE`] is one.
    pub fn parse(name: &str) -> Result<Self, Error> {
        // The agent's baselines bear the same names, and `image` stands for something else there.
        if is_plain_name(name) && name != pyro_protocol::index::IMAGE {
            return Ok(Self(name.to_owned()));
        }
        Err(Error::invalid(
            format!("`{}` is no name of a snapshot", name.escape_debug()),
            "give 1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, and not `image`",
        ))
    }

    /// What the workspace began with.
    pub fn baseline() -> Self {
        Self(BASELINE.to_owned())
    }

    /// Whether it is that.
    pub fn is_baseline(&self) -> bool {
        self.0 == BASELINE
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// When a workspace that nobody uses stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// After this time without use: 1 minute to 7 days.
    Idle(Duration),
    /// Never.
    Never,
}

impl Ttl {
    /// The original's default: ten minutes.
    pub const DEFAULT: Self = Self::Idle(Duration::from_mins(10));

    /// So many seconds without use, 60 to 604800.
    pub fn idle_seconds(seconds: u64) -> Result<Self, Error> {
        let ttl = Duration::from_secs(seconds);
        if (MIN_TTL..=MAX_TTL).contains(&ttl) {
            return Ok(Self::Idle(ttl));
        }
        Err(Error::invalid(
            format!("{seconds} seconds are no time to live of a workspace"),
            "give 60 to 604800 seconds, or `never`",
        ))
    }

    /// The seconds; `None` for never.
    pub fn seconds(self) -> Option<u64> {
        match self {
            Self::Idle(ttl) => Some(ttl.as_secs()),
            Self::Never => None,
        }
    }

    pub(crate) fn of_seconds(seconds: Option<u64>) -> Self {
        seconds.map_or(Self::Never, |seconds| {
            Self::Idle(Duration::from_secs(seconds))
        })
    }
}

/// Whether `name` may name a snapshot, a service or a label.
fn is_plain_name(name: &str) -> bool {
    let starts = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    starts && name.len() <= 64 && name.bytes().all(allowed)
}

fn text(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = (1..=MAX_TEXT).contains(&text.chars().count());
    (fits && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_the_border() {
        assert_eq!(workspace_name("  fix 42  ").unwrap(), "fix 42");
        for wrong in ["", "  ", "a\nb", "a\u{1b}[0m", &"x".repeat(121)] {
            assert!(workspace_name(wrong).is_err(), "{wrong:?}");
        }
        for right in ["a", "before-rm", "v1.2_3", &"x".repeat(64)] {
            SnapshotName::parse(right).unwrap();
        }
        for wrong in ["", ".a", "-a", "a/b", "a b", "image", "..", &"x".repeat(65)] {
            assert!(SnapshotName::parse(wrong).is_err(), "{wrong:?}");
        }
        let of = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
        assert_eq!(labels(&of("task", " 7 ")).unwrap()["task"], "7");
        assert!(labels(&of("task", "a\rb")).is_err());
        assert!(labels(&of("no space", "x")).is_err());
    }

    #[test]
    fn a_time_to_live_has_bounds() {
        assert!(Ttl::idle_seconds(59).is_err());
        assert!(Ttl::idle_seconds(604_801).is_err());
        assert_eq!(Ttl::idle_seconds(600).unwrap(), Ttl::DEFAULT);
        assert_eq!(Ttl::of_seconds(None), Ttl::Never);
    }
}
