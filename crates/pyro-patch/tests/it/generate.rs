//! Trees of every kind, and what may happen to them.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::tree::{Files, Node};

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

fn path() -> impl Strategy<Value = Vec<u8>> {
    vec(select(&PARTS[..]), 1..4).prop_map(|parts| parts.join(&b'/'))
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

/// A tree.
pub(crate) fn files() -> impl Strategy<Value = Files> {
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
        }
    }
}

/// A tree, and what became of it.
pub(crate) fn change() -> impl Strategy<Value = (Files, Files)> {
    (files(), vec(event(), 1..9)).prop_map(|(old, events)| {
        let mut new = old.clone();
        for event in events {
            event.happen(&mut new);
        }
        (old, new)
    })
}
