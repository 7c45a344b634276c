//! Renames found among files that are gone and files that are new.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::{Digest as _, Sha256};

use super::{Content, FileChange, Side};

/// How much of a file must be in another for it to count as renamed and changed, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Similarity(usize);

impl Similarity {
    /// What git asks for.
    pub const HALF: Self = Self(50);

    /// `percent` of the larger file; `None` unless it is between 1 and 100.
    pub fn new(percent: u8) -> Option<Self> {
        (1..=100)
            .contains(&percent)
            .then_some(Self(usize::from(percent)))
    }
}

/// Largest file that is compared with others, in bytes.
const MAX_COMPARED: usize = 256 * 1024;

/// Most files of either side that are compared with each other: each is compared with all. If
/// there are more, only equal ones are paired.
const MAX_CANDIDATES: usize = 200;

/// Turns files of `changes` that are gone here and new there into renamed ones: those with equal
/// contents, and with `similarity` also regular files that are alike. Empty files are no
/// renames. The order stays; what is renamed is where the new file was.
pub fn pair_renames(
    mut changes: Vec<FileChange>,
    similarity: Option<Similarity>,
) -> Vec<FileChange> {
    let mut pairs = BTreeMap::new();
    let mut gone = pick(&changes, is_deleted);
    let mut new = pick(&changes, is_added);
    let made: BTreeSet<&[u8]> = new.iter().map(|at| &changes[*at].path[..]).collect();
    gone.retain(|at| !is_link_in_the_way(&changes[*at], &made));
    pair_equal(&changes, &mut gone, &mut new, &mut pairs);
    if let Some(Similarity(percent)) = similarity {
        pair_alike(&changes, &gone, &new, percent, &mut pairs);
    }
    for (new, gone) in &pairs {
        let old = changes[*gone].old.take();
        let path = changes[*gone].path.clone();
        let change = &mut changes[*new];
        change.old = old;
        change.old_path = Some(path);
    }
    changes.retain(|change| change.old.is_some() || change.new.is_some());
    changes
}

/// Pairs of new files with those that they were.
type Pairs = BTreeMap<usize, usize>;

fn is_deleted(change: &FileChange) -> bool {
    change.old.is_some() && change.new.is_none()
}

fn is_added(change: &FileChange) -> bool {
    change.old.is_none() && change.new.is_some()
}

/// Whether `change` removes a symlink where a directory is made. Git takes only its deletion for
/// that: of what is renamed without another change, it does not know that it was a symlink.
fn is_link_in_the_way(change: &FileChange, made: &BTreeSet<&[u8]>) -> bool {
    let old = change.old.as_ref();
    let below = [&change.path[..], b"/"].concat();
    let next = made.range(&below[..]..).next();
    old.is_some_and(|old| old.mode.is_symlink())
        && next.is_some_and(|path| path.starts_with(&below))
}

fn pick(changes: &[FileChange], is_wanted: fn(&FileChange) -> bool) -> Vec<usize> {
    let all = changes.iter().enumerate();
    all.filter(|(_, change)| is_wanted(change))
        .map(|(at, _)| at)
        .collect()
}

fn pair_equal(
    changes: &[FileChange],
    gone: &mut Vec<usize>,
    new: &mut Vec<usize>,
    pairs: &mut Pairs,
) {
    let mut by_content: HashMap<_, Vec<usize>> = HashMap::new();
    for &at in gone.iter() {
        if let Some(key) = changes[at].old.as_ref().and_then(key) {
            by_content.entry(key).or_default().push(at);
        }
    }
    // A file that keeps its own name is the likelier one.
    for keeps_name in [true, false] {
        new.retain(|&at| {
            let key = changes[at].new.as_ref().and_then(key);
            let Some(equal) = key.and_then(|key| by_content.get_mut(&key)) else {
                return true;
            };
            let name = name(&changes[at].path);
            let found = equal
                .iter()
                .position(|gone| !keeps_name || self::name(&changes[*gone].path) == name);
            if let Some(found) = found {
                pairs.insert(at, equal.remove(found));
            }
            found.is_none()
        });
    }
    let paired: BTreeSet<usize> = pairs.values().copied().collect();
    gone.retain(|at| !paired.contains(at));
}

/// What equal files share. Nothing for empty ones.
fn key(side: &Side) -> Option<(bool, [u8; 32])> {
    let digest = match &side.content {
        Content::Bytes(bytes) if bytes.is_empty() => return None,
        Content::Bytes(bytes) => Sha256::digest(bytes).into(),
        Content::TooLarge { sha256, .. } => *sha256,
    };
    Some((side.mode.is_symlink(), digest))
}

fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

fn pair_alike(
    changes: &[FileChange],
    gone: &[usize],
    new: &[usize],
    percent: usize,
    pairs: &mut Pairs,
) {
    let lines = |at: &usize, side: Option<&'_ Side>| {
        let bytes = comparable(side)?.to_vec();
        Some((*at, bytes))
    };
    let gone: Vec<_> = gone
        .iter()
        .filter_map(|at| lines(at, changes[*at].old.as_ref()))
        .collect();
    let new: Vec<_> = new
        .iter()
        .filter_map(|at| lines(at, changes[*at].new.as_ref()))
        .collect();
    if gone.len() > MAX_CANDIDATES || new.len() > MAX_CANDIDATES {
        return;
    }
    let counted: Vec<_> = gone
        .iter()
        .map(|(at, bytes)| (at, bytes, count(bytes)))
        .collect();
    let mut alike = Vec::new();
    for (new_at, bytes) in &new {
        let lines = count(bytes);
        for (gone_at, other, other_lines) in &counted {
            let larger = bytes.len().max(other.len());
            let smaller = bytes.len().min(other.len());
            if smaller * 100 < percent * larger {
                continue;
            }
            let common: usize = lines
                .iter()
                .map(|(line, times)| {
                    let there = other_lines.get(line).copied().unwrap_or(0);
                    line.len() * there.min(*times)
                })
                .sum();
            let score = common * 100 / larger;
            if score >= percent {
                alike.push((score, *new_at, **gone_at));
            }
        }
    }
    // The most alike first, and then in the order in which they were given.
    alike.sort_by_key(|(score, new, gone)| (usize::MAX - score, *new, *gone));
    for (_, new, gone) in alike {
        let is_free = !pairs.contains_key(&new) && !pairs.values().any(|paired| *paired == gone);
        if is_free {
            pairs.insert(new, gone);
        }
    }
}

/// The content of a small regular file that is text and not empty.
fn comparable(side: Option<&Side>) -> Option<&[u8]> {
    let side = side.filter(|side| !side.mode.is_symlink())?;
    match &side.content {
        Content::Bytes(bytes)
            if !bytes.is_empty() && bytes.len() <= MAX_COMPARED && !bytes.contains(&0) =>
        {
            Some(bytes)
        }
        Content::Bytes(_) | Content::TooLarge { .. } => None,
    }
}

/// How often each line occurs.
fn count(bytes: &[u8]) -> HashMap<&[u8], usize> {
    let mut lines = HashMap::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        *lines.entry(line).or_insert(0) += 1;
    }
    lines
}
