//! Trees of every kind, and what may happen to them, drawn by chance.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::{Files, Node};

/// Parts of names: such that git quotes, and such that look like its prefixes.
const PARTS: [&[u8]; 17] = [
    b"a",
    b"b",
    b"src",
    b"two words",
    b"x b",
    b"quo\"te",
    b"back\\slash",
    b"tab\there",
    b"new\nline",
    "gr\u{fc}n \u{1f525}".as_bytes(),
    b"\xff\xfe latin",
    b" lead",
    b"trail ",
    b"-dash",
    b"x\r",
    b"\"",
    b"dev",
];

/// Lines: few, so that they repeat, and some that look like lines of a patch.
const LINES: [&[u8]; 22] = [
    b"one",
    b"two",
    b"three",
    b"four",
    b"five",
    b"six",
    b"    indented {",
    b"    }",
    b"}",
    b"",
    b"",
    b" ",
    b"-- dashes",
    b"-- ",
    b"--- a/one",
    b"+++ b/one",
    b"@@ -1 +1 @@",
    b"\\ No newline at end of file",
    b"diff --git a/one b/one",
    b"GIT binary patch",
    b"latin \xe9\xff",
    b"\tindented by a tab",
];

/// A tree.
pub fn files() -> impl Strategy<Value = Files> {
    vec((path(), node()), 0..9).prop_map(|nodes| {
        let mut files = Files::default();
        for (path, node) in nodes {
            if files.has_room(&path) {
                files.0.insert(path, node);
            }
        }
        files
    })
}

/// A tree, and what became of it.
pub fn change() -> impl Strategy<Value = (Files, Files)> {
    (files(), events()).prop_map(|(old, events)| {
        let new = happened(&old, events);
        (old, new)
    })
}

/// Trees that a number alone decides, without proptest's own runs.
#[derive(Debug)]
pub struct Drawn(TestRunner);

impl Drawn {
    /// The same trees for the same number.
    pub fn new(number: u64) -> Self {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        let chance = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        Self(TestRunner::new_with_rng(Config::default(), chance))
    }

    /// A tree.
    pub fn files(&mut self) -> Files {
        self.draw(&files())
    }

    /// What may become of a tree.
    pub fn changed(&mut self, old: &Files) -> Files {
        happened(old, self.draw(&events()))
    }

    fn draw<S: Strategy>(&mut self, strategy: &S) -> S::Value {
        strategy.new_tree(&mut self.0).unwrap().current()
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    vec(event(), 1..9)
}

fn happened(old: &Files, events: Vec<Event>) -> Files {
    let mut new = old.clone();
    for event in events {
        event.happen(&mut new);
    }
    new
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let depth = prop_oneof![9 => 1..4_usize, 1 => 8..20_usize];
    let parts = depth.prop_flat_map(|depth| vec(select(&PARTS[..]), depth));
    parts.prop_map(|parts| parts.join(&b'/'))
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let known = (select(&LINES[..]), 0..6_u8).prop_map(|(text, end)| {
        let end: &[u8] = if end == 0 { b"\r\n" } else { b"\n" };
        [text, end].concat()
    });
    let own = (0..2000_u32).prop_map(|number| format!("line {number}\n").into_bytes());
    prop_oneof![2 => known, 3 => own]
}

fn text(lines: Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    (vec(line(), lines), 0..4_u8).prop_map(|(lines, end)| {
        let mut text = lines.concat();
        if end == 0 {
            text.truncate(text.len().saturating_sub(1));
        }
        text
    })
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => Just(Vec::new()),
        3 => text(1..6),
        4 => text(10..60),
        1 => vec(any::<u8>(), 1..40),
        2 => (vec(any::<u8>(), 0..300), text(0..30)).prop_map(|(noise, text)| {
            [&b"\0"[..], &noise, &text].concat()
        }),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        6 => (content(), any::<bool>()).prop_map(|(content, executable)| Node::File {
            content,
            executable,
        }),
        1 => path().prop_map(|target| Node::Link { target }),
    ]
}

/// What happens to a tree.
#[derive(Clone, Debug)]
enum Event {
    Add(Vec<u8>, Node),
    Remove(Index),
    Replace(Index, Node),
    /// Lines from somewhere are replaced.
    Edit(Index, Index, usize, Vec<u8>),
    Flip(Index),
    Rename(Index, Vec<u8>),
    Copy(Index, Vec<u8>),
    Swap(Index, Index),
    /// A file becomes a directory with the file in it.
    Descend(Index, Vec<u8>),
    /// A directory becomes a file.
    Collapse(Index, Node),
}

fn event() -> impl Strategy<Value = Event> {
    let at = any::<Index>;
    prop_oneof![
        2 => (path(), node()).prop_map(|(path, node)| Event::Add(path, node)),
        1 => at().prop_map(Event::Remove),
        1 => (at(), node()).prop_map(|(at, node)| Event::Replace(at, node)),
        8 => (at(), at(), 0..4_usize, text(0..4))
            .prop_map(|(at, line, count, text)| Event::Edit(at, line, count, text)),
        1 => at().prop_map(Event::Flip),
        2 => (at(), path()).prop_map(|(at, path)| Event::Rename(at, path)),
        1 => (at(), path()).prop_map(|(at, path)| Event::Copy(at, path)),
        1 => (at(), at()).prop_map(|(one, other)| Event::Swap(one, other)),
        1 => (at(), path()).prop_map(|(at, path)| Event::Descend(at, path)),
        1 => (at(), node()).prop_map(|(at, node)| Event::Collapse(at, node)),
    ]
}

impl Event {
    fn happen(self, files: &mut Files) {
        let nth = |files: &Files, at: &Index| {
            let paths: Vec<_> = files.0.keys().collect();
            (!paths.is_empty()).then(|| (*at.get(&paths)).clone())
        };
        match self {
            Self::Add(path, node) => {
                if files.has_room(&path) {
                    files.0.insert(path, node);
                }
            }
            Self::Remove(at) => {
                if let Some(path) = nth(files, &at) {
                    files.0.remove(&path);
                }
            }
            Self::Replace(at, node) => {
                if let Some(path) = nth(files, &at) {
                    files.0.insert(path, node);
                }
            }
            Self::Edit(at, line, count, text) => {
                if let Some(path) = nth(files, &at)
                    && let Some(Node::File { content, .. }) = files.0.get_mut(&path)
                {
                    let lines: Vec<&[u8]> = content.split_inclusive(|one| *one == b'\n').collect();
                    let from = line.index(lines.len() + 1);
                    let to = (from + count).min(lines.len());
                    let (kept, rest) = (lines[..from].concat(), lines[to..].concat());
                    *content = [&kept[..], &text, &rest].concat();
                }
            }
            Self::Flip(at) => {
                if let Some(path) = nth(files, &at)
                    && let Some(Node::File { executable, .. }) = files.0.get_mut(&path)
                {
                    *executable = !*executable;
                }
            }
            Self::Rename(at, to) => {
                if let Some(path) = nth(files, &at)
                    && files.has_room(&to)
                    && let Some(node) = files.0.remove(&path)
                {
                    files.0.insert(to, node);
                }
            }
            Self::Copy(at, to) => {
                if let Some(path) = nth(files, &at)
                    && files.has_room(&to)
                {
                    let node = files.0[&path].clone();
                    files.0.insert(to, node);
                }
            }
            Self::Swap(one, other) => {
                if let (Some(one), Some(other)) = (nth(files, &one), nth(files, &other))
                    && one != other
                {
                    let (first, second) = (files.0[&one].clone(), files.0[&other].clone());
                    files.0.insert(one, second);
                    files.0.insert(other, first);
                }
            }
            Self::Descend(at, below) => {
                if let Some(path) = nth(files, &at)
                    && let Some(node) = files.0.remove(&path)
                {
                    files.0.insert([&path[..], b"/", &below].concat(), node);
                }
            }
            Self::Collapse(at, node) => {
                let directory = nth(files, &at).and_then(|path| {
                    let slash = path.iter().rposition(|byte| *byte == b'/')?;
                    Some(path[..slash].to_vec())
                });
                if let Some(directory) = directory {
                    let below = [&directory[..], b"/"].concat();
                    files.0.retain(|path, _| !path.starts_with(&below));
                    files.0.insert(directory, node);
                }
            }
        }
    }
}
