//! What is taken away from a tree together with what comes into it: a list of names, which stands before an archive.
//!
//! ```text
//! -PATH\0        what is there goes
//! ~PATH\0        the same, and then the directories above it that hold nothing any more
//! >FROM\0TO\0    what is at FROM, which is no directory, comes to TO; then as with ~
//! ```
//!
//! Something that is gone already is as it should be. The list is as hostile as the archive.

use std::io::{BufRead, Read};

use super::ExtractError;
use crate::beneath::Relative;
use crate::bounds::{MAX_PARTS, MAX_PATH};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// What is there goes.
    Remove {
        /// Where.
        path: Vec<u8>,
        /// And the directories above it that hold nothing any more.
        prune: bool,
    },
    /// What is there gets another name; it is no directory. Directories above its old name go as they do with a removal.
    Move {
        /// Where it is.
        from: Vec<u8>,
        /// Where it comes to. Something of that name in the archive takes its place.
        to: Vec<u8>,
    },
}

impl Edit {
    /// Adds its text to a list.
    pub fn write(&self, list: &mut Vec<u8>) {
        let mut field = |tag: &[u8], path: &[u8]| {
            list.extend_from_slice(tag);
            list.extend_from_slice(path);
            list.push(0);
        };
        match self {
            Self::Remove { path, prune: false } => field(b"-", path),
            Self::Remove { path, prune: true } => field(b"~", path),
            Self::Move { from, to } => {
                field(b">", from);
                field(b"", to);
            }
        }
    }

    /// The next one of a list; none behind the last.
    pub(super) fn read(list: &mut impl BufRead) -> Result<Option<Self>, ExtractError> {
        let mut tag = [0];
        let failed = ExtractError::input_output(b"/", "reading the list of what goes");
        if list.read(&mut tag).map_err(failed)? == 0 {
            return Ok(None);
        }
        Ok(Some(match tag[0] {
            b'-' | b'~' => Self::Remove {
                path: path(list)?,
                prune: tag[0] == b'~',
            },
            b'>' => Self::Move {
                from: path(list)?,
                to: path(list)?,
            },
            _ => return Err(malformed(&tag)),
        }))
    }

    /// What goes from its name.
    pub(super) fn leaves(&self) -> &[u8] {
        match self {
            Self::Remove { path, .. } => path,
            Self::Move { from, .. } => from,
        }
    }

    pub(super) fn prunes(&self) -> bool {
        match self {
            Self::Remove { prune, .. } => *prune,
            Self::Move { .. } => true,
        }
    }
}

/// A name of the list, as it is resolved.
pub(super) fn relative(path: &[u8]) -> Result<Relative, ExtractError> {
    let relative = Relative::parse(path)
        .map_err(|_| ExtractError::name(path, "the name leads out of the root"))?;
    match relative.parts().len() {
        0 => Err(ExtractError::name(path, "the name is the root's")),
        1..=MAX_PARTS => Ok(relative),
        _ => Err(ExtractError::name(path, "the name has more than 200 parts")),
    }
}

fn path(list: &mut impl BufRead) -> Result<Vec<u8>, ExtractError> {
    let failed = ExtractError::input_output(b"/", "reading the list of what goes");
    let mut path = Vec::new();
    let most = MAX_PATH as u64 + 1;
    list.by_ref()
        .take(most)
        .read_until(0, &mut path)
        .map_err(failed)?;
    if path.pop() != Some(0) {
        return Err(malformed(&path));
    }
    relative(&path)?;
    Ok(path)
}

fn malformed(text: &[u8]) -> ExtractError {
    ExtractError::name(text, "the list of what goes is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut text: &[u8]) -> Result<Vec<Edit>, String> {
        let mut edits = Vec::new();
        while let Some(edit) = Edit::read(&mut text).map_err(|error| error.to_string())? {
            edits.push(edit);
        }
        Ok(edits)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let edits = [
            Edit::Remove {
                path: b"a\xff".into(),
                prune: false,
            },
            Edit::Remove {
                path: b"a/b".into(),
                prune: true,
            },
            Edit::Move {
                from: b"c\n".into(),
                to: b"d/e".into(),
            },
        ];
        let mut text = Vec::new();
        for edit in &edits {
            edit.write(&mut text);
        }
        assert_eq!(read(&text).unwrap(), edits);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (text, part) in [
            (&b"-"[..], "malformed"),
            (b"-a", "malformed"),
            (b"xa\0", "malformed"),
            (b">a\0", "malformed"),
            (b"-../a\0", "leads out"),
            (b"-\0", "the root's"),
            (b"~.\0", "the root's"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(part), "{told}");
        }
        let long = [&b"-"[..], &[b'a'; MAX_PATH + 1], b"\0"].concat();
        assert!(read(&long).unwrap_err().contains("malformed"));
    }
}
