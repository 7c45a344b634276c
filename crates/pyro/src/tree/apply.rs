//! Changes that were made in a guest, as a patch on a checkout of the host.
//!
//! Git applies it: it keeps a patch within the working tree and out of `.git`. The patch was made
//! from files as they are in the working tree, so filters are switched off; neither they nor
//! hooks nor merge drivers are started, whatever the checkout's configuration names.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::TreeError;
use super::checkout::{checkout_above, is_git_checkout};
use super::git::{Call, Deadline, Ended, HostGit};

/// Longest that applying a patch may take.
const DEADLINE: Duration = Duration::from_mins(5);

/// Most bytes of answers of Git: a line for each file.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Names of drivers that a configuration may have.
const DRIVERS: &str =
    r"^(filter\..*\.(clean|smudge|process|required)|merge\..*\.driver|hook\..*\.command)$";

/// How to apply a patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplyMode {
    /// Only say what would happen.
    pub dry_run: bool,
    /// Merge with what changed in the checkout since, where Git knows both; what cannot be
    /// merged is left with markers. The result is in the index too.
    pub three_way: bool,
}

/// What became of a patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApplyReport {
    /// Whether every file is as the patch has it, or would be.
    pub clean: bool,
    /// Whether the checkout was changed. Without conflicts, all of the patch is applied or
    /// nothing.
    pub changed: bool,
    /// The files of the patch, in its order.
    pub files: Vec<FileReport>,
    /// What Git said about anything else.
    pub messages: Vec<String>,
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Its path; with replacement characters if it is no UTF-8.
    pub path: String,
    /// What became of it.
    pub outcome: FileOutcome,
    /// Why it could not be applied.
    pub reason: Option<String>,
}

/// What became of a file of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileOutcome {
    /// It is as the patch has it, or would be.
    Applied,
    /// It was merged and has conflicts, or would have.
    Conflicted,
    /// The patch does not fit it.
    Failed,
    /// The patch fits it, but was not applied because of others.
    NotApplied,
}

/// Applies `patch`, which Git or the guest's agent made, to the checkout `path`.
///
/// # Errors
/// [`TreeError::NotACheckout`] if `path` is not the top level of one, [`TreeError::Patch`] if
/// the patch cannot be read, and what starting Git comes to. A patch that does not fit is no
/// error: the report tells it.
pub fn apply_to_checkout(
    path: &Path,
    patch: &[u8],
    git: &HostGit,
    mode: ApplyMode,
) -> Result<ApplyReport, TreeError> {
    let top = is_git_checkout(path).ok_or_else(|| TreeError::NotACheckout {
        path: path.to_owned(),
        above: checkout_above(path),
    })?;
    if patch.is_empty() {
        return Ok(ApplyReport {
            clean: true,
            changed: false,
            files: Vec::new(),
            messages: Vec::new(),
        });
    }
    let deadline = Deadline::after(DEADLINE);
    let drivers = drivers(git, &top, deadline)?;
    let call = |doing| git.call(doing, deadline).checkout(&top);
    let paths = paths(call("reading the patch"), patch, &[])?;
    let before = self::paths(call("reading the patch"), patch, &["--reverse"])?;
    if let Some(report) = beyond_links(&top, &paths, &before) {
        return Ok(report);
    }
    let mut arguments = vec!["apply", "--verbose", "--binary", "--whitespace=nowarn"];
    if mode.three_way {
        arguments.push("--3way");
    }
    if mode.dry_run {
        arguments.push("--check");
    }
    arguments.push("-");
    let (ended, _) = call("applying the patch")
        .settings(drivers)
        .args(arguments)
        .input(patch)
        // Half of a patch is not to be read, nor is Git to die of telling nobody, in the midst of the files.
        .outliving_us()
        .output(MAX_ANSWER)?;
    Ok(report(&ended, &paths, mode))
}

/// Settings that put nothing in the place of every program that a configuration names for
/// content.
fn drivers(
    git: &HostGit,
    top: &Path,
    deadline: Deadline,
) -> Result<Vec<(OsString, OsString)>, TreeError> {
    let call = git
        .call("reading the configuration", deadline)
        .checkout(top);
    let call = call.args(["config", "--null", "--name-only", "--get-regexp", DRIVERS]);
    // It fails if there are none.
    let (_, names) = call.output(MAX_ANSWER)?;
    let names = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let off = names.map(|name| {
        let value = if name.ends_with(b".required") {
            "false"
        } else if name.ends_with(b".driver") {
            // A driver that fails has a conflict; one without a program would be a success.
            "exit 1"
        } else if name.ends_with(b".command") {
            // Hooks in the configuration, which later versions of Git have.
            "true"
        } else {
            ""
        };
        (OsString::from_vec(name.to_vec()), OsString::from(value))
    });
    Ok(off.collect())
}

/// The paths that a patch leads to, or with `--reverse` those that it comes from.
fn paths(call: Call<'_>, patch: &[u8], options: &[&str]) -> Result<Vec<Vec<u8>>, TreeError> {
    let call = call.args(["apply", "--numstat", "-z"]);
    let call = call.args(options).args(["-"]).input(patch);
    let (ended, output) = call.output(MAX_ANSWER)?;
    if !ended.is_success() {
        return Err(TreeError::Patch {
            last_lines: ended.last_lines(),
        });
    }
    let records = output.split(|byte| *byte == 0);
    // Lines added, lines deleted, path; a rename is told under its new name.
    let path = |record: &[u8]| {
        let path = record.splitn(3, |byte| *byte == b'\t').nth(2);
        path.map(<[u8]>::to_vec)
    };
    Ok(records.filter_map(path).collect())
}

/// The report about a patch with paths below symbolic links of the working tree. Git refuses
/// those that it tracks; it writes through others when it merges (seen with 2.47).
fn beyond_links(top: &Path, paths: &[Vec<u8>], before: &[Vec<u8>]) -> Option<ApplyReport> {
    let is_beyond = |path: &Vec<u8>| {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        (1..parts.len()).any(|count| {
            let above = parts[..count].join(&b'/');
            let above = top.join(OsStr::from_bytes(&above));
            above
                .symlink_metadata()
                .is_ok_and(|found| found.is_symlink())
        })
    };
    let beyond: Vec<_> = before
        .iter()
        .chain(paths)
        .filter(|path| is_beyond(path))
        .collect();
    if beyond.is_empty() {
        return None;
    }
    let mut report = ApplyReport::new(paths, FileOutcome::NotApplied);
    for path in beyond {
        let path = String::from_utf8_lossy(path);
        let reason = "it lies beyond a symbolic link";
        if !report.fail(&path, reason) {
            report.messages.push(format!("{path}: {reason}"));
        }
    }
    Some(report)
}

fn report(ended: &Ended, paths: &[Vec<u8>], mode: ApplyMode) -> ApplyReport {
    let mut report = ApplyReport::new(paths, FileOutcome::Applied);
    for line in &ended.lines {
        report.hear(line);
    }
    let is_failed = |file: &FileReport| file.outcome == FileOutcome::Failed;
    let conflicts = report
        .files
        .iter()
        .any(|file| file.outcome == FileOutcome::Conflicted);
    let failed = report.files.iter().any(is_failed) || !ended.is_success() && !conflicts;
    if failed {
        for file in &mut report.files {
            if !is_failed(file) {
                file.outcome = FileOutcome::NotApplied;
            }
        }
    }
    report.clean = !failed && !conflicts;
    report.changed = !failed && !mode.dry_run;
    report
}

impl ApplyReport {
    fn new(paths: &[Vec<u8>], outcome: FileOutcome) -> Self {
        let files = paths.iter().map(|path| FileReport {
            path: String::from_utf8_lossy(path).into_owned(),
            outcome,
            reason: None,
        });
        Self {
            clean: false,
            changed: false,
            files: files.collect(),
            messages: Vec::new(),
        }
    }

    /// Takes in a line of Git's.
    fn hear(&mut self, line: &str) {
        let conflict = line
            .strip_prefix("U ")
            .or_else(|| quoted(line, "Applied patch to '", "' with conflicts."));
        if let Some(path) = conflict {
            self.set(path, FileOutcome::Conflicted, None);
            return;
        }
        let talk = [
            "Checking patch ",
            "Applied patch ",
            "Hunk #",
            "Falling back to ",
            "Performing three-way merge",
            "Skipped patch ",
            "Applying patch ",
            "warning: ",
        ];
        if let Some(error) = line.strip_prefix("error: ") {
            // `patch failed: PATH:LINE`, `PATH: REASON` or something else.
            let failed = error
                .strip_prefix("patch failed: ")
                .and_then(|rest| rest.rsplit_once(':'));
            let is_told = match failed {
                Some((path, at)) => self.fail(path, &format!("it does not fit near line {at}")),
                None => error
                    .rsplit_once(": ")
                    .is_some_and(|(path, reason)| self.fail(path, reason)),
            };
            if is_told {
                return;
            }
        } else if talk.iter().any(|start| line.starts_with(start)) && !line.contains("error") {
            return;
        }
        self.messages.push(line.to_owned());
    }

    fn fail(&mut self, path: &str, reason: &str) -> bool {
        self.set(path, FileOutcome::Failed, Some(reason))
    }

    /// Whether the patch has such a file.
    fn set(&mut self, path: &str, outcome: FileOutcome, reason: Option<&str>) -> bool {
        let Some(file) = self.files.iter_mut().find(|file| file.path == path) else {
            return false;
        };
        file.outcome = outcome;
        if file.reason.is_none() {
            file.reason = reason.map(str::to_owned);
        }
        true
    }
}

fn quoted<'a>(line: &'a str, start: &str, end: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix(end)
}
