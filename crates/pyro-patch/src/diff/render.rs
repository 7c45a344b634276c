//! The text of a file's patch, byte by byte as git prints it.

use std::io::Write as _;

use crate::binary::Delta;
use crate::blob;
use crate::limits::MAX_CONTENT;
use crate::quote::quote;

use super::text::{self, Changed};
use super::{BinaryFiles, Content, Detail, Omitted, Options, Side};

/// Bytes at the beginning of a content that tell whether it is text, as to git.
const LOOKED_AT: usize = 8000;

/// Digits of a shortened id.
const SHORT: usize = 7;

/// What was printed.
#[derive(Default)]
pub(super) struct Printed {
    pub(super) patch: Vec<u8>,
    pub(super) added_lines: usize,
    pub(super) deleted_lines: usize,
    /// Whether something of it is no text.
    pub(super) has_other: bool,
    pub(super) omitted: Option<Omitted>,
}

/// A name, and what has it.
type Named<'a> = (&'a [u8], Option<&'a Side>);

/// How the contents of two sides are told.
enum Told<'a> {
    Same,
    Text(Changed<'a>),
    Binary(&'a [u8], &'a [u8]),
    TooLarge,
}

/// Prints how `old` becomes `new`: two sides of one kind, or one side.
pub(super) fn print(old: Named<'_>, new: Named<'_>, options: &Options, printed: &mut Printed) {
    let told = told(old.1, new.1, options);
    match &told {
        Told::Same => {}
        Told::Text(changed) => {
            printed.added_lines += changed.added();
            printed.deleted_lines += changed.deleted();
        }
        Told::Binary(..) | Told::TooLarge => printed.has_other = true,
    }
    match options.detail {
        Detail::Lines => {}
        Detail::Patch => {
            header(old, new, &told, options, &mut printed.patch);
            body(old, new, &told, options, printed);
        }
    }
}

fn told<'a>(old: Option<&'a Side>, new: Option<&'a Side>, options: &Options) -> Told<'a> {
    let max = options.max_content.min(MAX_CONTENT);
    let bytes = |side: Option<&'a Side>| match side.map(|side| &side.content) {
        None => Some(&b""[..]),
        Some(Content::Bytes(bytes)) if bytes.len() <= max => Some(&bytes[..]),
        Some(Content::Bytes(_) | Content::TooLarge { .. }) => None,
    };
    if let (Some(old), Some(new)) = (old, new)
        && old.content == new.content
    {
        return match bytes(Some(new)) {
            Some(bytes) if is_text(bytes) => Told::Same,
            Some(bytes) => Told::Binary(bytes, bytes),
            None => Told::TooLarge,
        };
    }
    let (Some(old), Some(new)) = (bytes(old), bytes(new)) else {
        return Told::TooLarge;
    };
    if is_text(old) && is_text(new) {
        Told::Text(Changed::new(old, new))
    } else {
        Told::Binary(old, new)
    }
}

fn is_text(content: &[u8]) -> bool {
    !content[..content.len().min(LOOKED_AT)].contains(&0)
}

fn is_same(old: Option<&Side>, new: Option<&Side>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => old.content == new.content,
        (None | Some(_), None) | (None, Some(_)) => false,
    }
}

fn header(old: Named<'_>, new: Named<'_>, told: &Told<'_>, options: &Options, patch: &mut Vec<u8>) {
    let (old_name, new_name) = (
        quote(&prefixed(b"a/", old.0)),
        quote(&prefixed(b"b/", new.0)),
    );
    line(patch, &[b"diff --git ", &old_name, b" ", &new_name]);
    match (old.1, new.1) {
        (None, Some(new)) => line(patch, &[format!("new file mode {}", new.mode).as_bytes()]),
        (Some(old), None) => line(
            patch,
            &[format!("deleted file mode {}", old.mode).as_bytes()],
        ),
        (Some(old), Some(new)) if old.mode != new.mode => {
            line(patch, &[format!("old mode {}", old.mode).as_bytes()]);
            line(patch, &[format!("new mode {}", new.mode).as_bytes()]);
        }
        (None, None) | (Some(_), Some(_)) => {}
    }
    if old.0 != new.0 {
        let similarity = if is_same(old.1, new.1) {
            100
        } else {
            match told {
                Told::Text(changed) => changed.similarity(),
                Told::Same | Told::Binary(..) | Told::TooLarge => 0,
            }
        };
        line(
            patch,
            &[format!("similarity index {similarity}%").as_bytes()],
        );
        line(patch, &[b"rename from ", &quote(old.0)]);
        line(patch, &[b"rename to ", &quote(new.0)]);
    }
    if !is_same(old.1, new.1)
        && let (Some(old_id), Some(new_id)) = (id(old.1), id(new.1))
    {
        let is_whole = matches!(told, Told::Binary(..)) && options.binary == BinaryFiles::Whole;
        let digits = if is_whole { old_id.len() } else { SHORT };
        let mut text = format!("index {}..{}", &old_id[..digits], &new_id[..digits]);
        if let (Some(old), Some(new)) = (old.1, new.1)
            && old.mode == new.mode
        {
            text.push(' ');
            text.push_str(&new.mode.to_string());
        }
        line(patch, &[text.as_bytes()]);
    }
}

fn body(old: Named<'_>, new: Named<'_>, told: &Told<'_>, options: &Options, printed: &mut Printed) {
    if is_same(old.1, new.1) {
        return;
    }
    let patch = &mut printed.patch;
    match told {
        Told::Same => {}
        Told::Text(changed) => {
            if changed.is_empty() {
                return;
            }
            line(patch, &[b"--- ", &label(b"a/", old)]);
            line(patch, &[b"+++ ", &label(b"b/", new)]);
            text::print(changed, options.context, patch);
        }
        Told::Binary(before, after) if options.binary == BinaryFiles::Whole => {
            line(patch, &[b"GIT binary patch"]);
            Delta::literal(after).print(patch);
            Delta::literal(before).print(patch);
        }
        Told::Binary(..) | Told::TooLarge => {
            let name = |prefix: &[u8], named: Named<'_>| match named.1 {
                Some(_) => quote(&prefixed(prefix, named.0)),
                None => b"/dev/null".to_vec(),
            };
            let (old, new) = (name(b"a/", old), name(b"b/", new));
            line(patch, &[b"Binary files ", &old, b" and ", &new, b" differ"]);
            printed.omitted = Some(match told {
                Told::TooLarge => Omitted::TooLarge,
                Told::Same | Told::Text(_) | Told::Binary(..) => Omitted::Binary,
            });
        }
    }
}

/// The id of a side, unless it is too large to be here.
fn id(side: Option<&Side>) -> Option<String> {
    match side.map(|side| &side.content) {
        None => Some(blob::NOTHING.to_owned()),
        Some(Content::Bytes(bytes)) => Some(blob::id(bytes)),
        Some(Content::TooLarge { .. }) => None,
    }
}

/// The label of a side. A tab tells where a name with spaces ends.
fn label(prefix: &[u8], named: Named<'_>) -> Vec<u8> {
    if named.1.is_none() {
        return b"/dev/null".to_vec();
    }
    let mut label = quote(&prefixed(prefix, named.0));
    if !label.starts_with(b"\"") && label.contains(&b' ') {
        label.push(b'\t');
    }
    label
}

fn prefixed(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    [prefix, name].concat()
}

fn line(patch: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        patch.extend_from_slice(part);
    }
    writeln!(patch).expect("memory takes everything");
}
