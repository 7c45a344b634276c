//! Random edits between walks: what is kept is what a first walk would find, and what is told
//! as changed is what differs.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Where edits happen: few places, so that they meet.
const PLACES: &[&str] = &["a", "a/x", "a-b", "a/x/y", "b", "b/x", "c"];

#[derive(Clone, Copy, Debug)]
enum Edit {
    Write(usize, u8),
    Append(usize),
    Remove(usize),
    Directory(usize),
    Link(usize, u8),
    Mode(usize, u32),
    Rename(usize, usize),
    Touch(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = 0..PLACES.len();
    prop_oneof![
        3 => (place.clone(), 0..3_u8).prop_map(|(at, what)| Edit::Write(at, what)),
        1 => place.clone().prop_map(Edit::Append),
        2 => place.clone().prop_map(Edit::Remove),
        2 => place.clone().prop_map(Edit::Directory),
        1 => (place.clone(), 0..2_u8).prop_map(|(at, what)| Edit::Link(at, what)),
        1 => (place.clone(), 0o600..0o602_u32).prop_map(|(at, mode)| Edit::Mode(at, mode)),
        2 => (place.clone(), place.clone()).prop_map(|(from, to)| Edit::Rename(from, to)),
        1 => place.prop_map(Edit::Touch),
    ]
}

impl Edit {
    /// Does it, if it can be done: an edit of what is not there is none.
    fn apply(self, bench: &Bench) {
        let at = |place: usize| bench.path(PLACES[place]);
        let _ = match self {
            Self::Write(place, what) => std::fs::write(at(place), [what; 5]),
            Self::Append(place) => std::fs::File::options()
                .append(true)
                .open(at(place))
                .and_then(|mut file| std::io::Write::write_all(&mut file, b"more")),
            Self::Remove(place) => {
                std::fs::remove_file(at(place)).or_else(|_| std::fs::remove_dir_all(at(place)))
            }
            Self::Directory(place) => std::fs::create_dir(at(place)),
            Self::Link(place, what) => symlink(format!("nowhere-{what}"), at(place)),
            Self::Mode(place, mode) if !at(place).is_symlink() => {
                std::fs::set_permissions(at(place), PermissionsExt::from_mode(mode))
            }
            Self::Mode(..) => Ok(()),
            Self::Rename(from, to) => std::fs::rename(at(from), at(to)),
            Self::Touch(place) => std::fs::File::options()
                .write(true)
                .open(at(place))
                .and_then(|file| file.set_modified(std::time::SystemTime::UNIX_EPOCH)),
        };
    }
}

/// What counts of a path, as another program finds it.
#[derive(Clone, Debug, PartialEq)]
struct Fact {
    kind: std::fs::FileType,
    mode: u32,
    content: Vec<u8>,
}

fn facts(bench: &Bench) -> BTreeMap<String, Fact> {
    let mut facts = BTreeMap::new();
    let mut left = vec![bench.tree.path().to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_dir() {
                left.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                std::fs::read_link(&path)
                    .unwrap()
                    .as_os_str()
                    .as_bytes()
                    .to_vec()
            } else {
                std::fs::read(&path).unwrap()
            };
            let below = path.strip_prefix(bench.tree.path()).unwrap();
            let fact = Fact {
                kind: metadata.file_type(),
                mode: metadata.mode() & 0o7777,
                content,
            };
            facts.insert(below.to_str().unwrap().to_owned(), fact);
        }
    }
    facts
}

/// What differs, path by path.
fn difference(
    old: &BTreeMap<String, Fact>,
    new: &BTreeMap<String, Fact>,
) -> Vec<(String, ChangeStatus)> {
    let mut paths: Vec<_> = old.keys().chain(new.keys()).collect();
    paths.sort();
    paths.dedup();
    let status = |path: &String| match (old.get(path), new.get(path)) {
        (None, _) => Some(ChangeStatus::Added),
        (_, None) => Some(ChangeStatus::Deleted),
        (Some(old), Some(new)) if old.kind != new.kind => Some(ChangeStatus::TypeChanged),
        (Some(old), Some(new)) if old.content != new.content => Some(ChangeStatus::Modified),
        (Some(old), Some(new)) if old.mode != new.mode => Some(ChangeStatus::ModeChanged),
        (Some(_), Some(_)) => None,
    };
    paths
        .into_iter()
        .filter_map(|path| Some((path.clone(), status(path)?)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_is_edited_is_found(
        before in prop::collection::vec(edit(), 0..15),
        rounds in prop::collection::vec(prop::collection::vec(edit(), 0..6), 1..5),
    ) {
        let bench = Bench::new();
        for edit in before {
            edit.apply(&bench);
        }
        bench.keep("start");
        let start = facts(&bench);
        for round in rounds {
            for edit in round {
                edit.apply(&bench);
            }
            let now = facts(&bench);
            prop_assert_eq!(records(bench.walk().walked), bench.fresh());
            prop_assert_eq!(bench.changes("start"), difference(&start, &now));
        }
    }
}
