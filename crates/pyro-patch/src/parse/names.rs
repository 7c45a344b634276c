//! Names in the headers of files: quoted or not, with prefixes or without.

use crate::limits::MAX_PATH;
use crate::lines::split_once;
use crate::quote::{QuoteError, unquote};

use super::Options;

/// Bytes of the two names of a header. Quoted names may be longer, but then there is no doubt
/// where the first ends.
const MAX_UNQUOTED: usize = 2 * (MAX_PATH + 256);

/// Prefixes that git puts before names of its own accord, with and without
/// `diff.mnemonicPrefix`.
const PREFIXES: [&[u8]; 6] = [b"a", b"b", b"c", b"i", b"o", b"w"];

/// What stands behind `---` or `+++`.
pub(super) enum Label {
    /// `/dev/null`: no file.
    Nothing,
    /// A name, with its prefix.
    Name {
        name: Vec<u8>,
        /// Whether the time behind it is the beginning of all, by which GNU diff tells that
        /// there is no file.
        is_epoch: bool,
    },
}

/// Reads a label, without the time that may stand behind it.
pub(super) fn label(text: &[u8]) -> Result<Label, QuoteError> {
    let (name, rest) = if text.starts_with(b"\"") {
        unquote(text)?
    } else {
        let (name, time) = split_once(text, b'\t').unwrap_or((text, b""));
        (name.to_vec(), time)
    };
    if name == b"/dev/null" {
        return Ok(Label::Nothing);
    }
    let time = rest.trim_ascii_start();
    // West of Greenwich it is the evening before.
    let is_epoch = time.starts_with(b"1970-01-01 ") || time.starts_with(b"1969-12-31 ");
    Ok(Label::Name { name, is_epoch })
}

/// The name in a line of its own, such as behind `rename from`.
pub(super) fn bare(text: &[u8]) -> Result<Vec<u8>, QuoteError> {
    if text.starts_with(b"\"") {
        Ok(unquote(text)?.0)
    } else {
        Ok(text.to_vec())
    }
}

/// The name behind `diff --git`, if both sides have the same but for a prefix. Like git, takes
/// the first place where the line can be parted so.
pub(super) fn of_header(text: &[u8]) -> Result<Option<Vec<u8>>, QuoteError> {
    if text.starts_with(b"\"") {
        let (first, rest) = unquote(text)?;
        let Some(second) = rest.strip_prefix(b" ") else {
            return Ok(None);
        };
        let second = bare(second)?;
        return Ok(same(&first, &second).map(<[u8]>::to_vec));
    }
    if let Some(at) = text.windows(2).position(|pair| pair == b" \"") {
        let second = bare(&text[at + 1..])?;
        return Ok(same(&text[..at], &second).map(<[u8]>::to_vec));
    }
    Ok(parted(text).map(<[u8]>::to_vec))
}

fn parted(text: &[u8]) -> Option<&[u8]> {
    if text.len() > MAX_UNQUOTED {
        return None;
    }
    let first_slash = text.iter().position(|byte| *byte == b'/');
    let mut slash = 0;
    for (at, _) in text.iter().enumerate().filter(|(_, byte)| **byte == b' ') {
        let (first, second) = (&text[..at], &text[at + 1..]);
        if first.len() == second.len() && first == second {
            return Some(first);
        }
        // Lengths come first: a long line has many spaces.
        slash = slash.max(at + 1);
        while text.get(slash).is_some_and(|byte| *byte != b'/') {
            slash += 1;
        }
        let Some(first_slash) = first_slash.filter(|slash| *slash < at) else {
            continue;
        };
        if slash < text.len()
            && at - first_slash == text.len() - slash
            && let Some(name) = same(first, second)
        {
            return Some(name);
        }
    }
    None
}

/// The name that both have, if they are equal or differ in their first part alone.
fn same<'a>(first: &'a [u8], second: &[u8]) -> Option<&'a [u8]> {
    if first == second {
        return Some(first);
    }
    let (one, first) = split_once(first, b'/')?;
    let (other, second) = split_once(second, b'/')?;
    (!one.is_empty() && !other.is_empty() && first == second).then_some(first)
}

/// Whether a label names the file `name`, with a prefix or without.
pub(super) fn is_of(label: &[u8], name: &[u8]) -> bool {
    label == name || split_once(label, b'/').is_some_and(|(_, rest)| rest == name)
}

/// The name that both labels of a plain diff have, if it is one.
pub(super) fn of_labels(old: &[u8], new: &[u8], options: &Options) -> Option<Vec<u8>> {
    let (old, new) = (
        beneath(old, options).unwrap_or(old),
        beneath(new, options).unwrap_or(new),
    );
    if old == new {
        return Some(old.to_vec());
    }
    let (one, old) = split_once(old, b'/')?;
    let (other, new) = split_once(new, b'/')?;
    let are_prefixes = PREFIXES.contains(&one) && PREFIXES.contains(&other);
    (are_prefixes && old == new).then(|| old.to_vec())
}

/// The name of the only label of a plain diff.
pub(super) fn of_label(label: &[u8], options: &Options) -> Vec<u8> {
    beneath(label, options)
        .or_else(|| label.strip_prefix(b"a/"))
        .or_else(|| label.strip_prefix(b"b/"))
        .unwrap_or(label)
        .to_vec()
}

/// A label below the root that the caller has named.
fn beneath<'a>(label: &'a [u8], options: &Options) -> Option<&'a [u8]> {
    let root = options.root.as_deref()?;
    let root = root.strip_suffix(b"/").unwrap_or(root);
    label.strip_prefix(root)?.strip_prefix(b"/")
}
