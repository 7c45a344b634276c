//! A content as lines, with four bytes for each.

/// The lines of a content.
pub(super) struct Text<'a> {
    bytes: &'a [u8],
    /// Where each line begins, and where the last ends.
    bounds: Vec<u32>,
}

/// One line.
#[derive(Clone, Copy)]
pub(super) struct FileLine<'a> {
    /// Without its newline.
    pub(super) text: &'a [u8],
    /// Whether it has one. Only the last may have none.
    pub(super) newline: bool,
}

impl<'a> Text<'a> {
    /// Splits `bytes`, of which there are at most [`MAX_CONTENT`](crate::limits::MAX_CONTENT).
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let mut bounds = vec![0];
        bounds.extend(ends.map(|(at, _)| bound(at + 1)));
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            bounds.push(bound(bytes.len()));
        }
        Self { bytes, bounds }
    }

    /// How many lines there are.
    pub(super) fn len(&self) -> usize {
        self.bounds.len() - 1
    }

    /// The line `at`, from zero.
    pub(super) fn line(&self, at: usize) -> Option<FileLine<'a>> {
        if at >= self.len() {
            return None;
        }
        let raw = self.raw(at, at + 1);
        let text = raw.strip_suffix(b"\n");
        Some(FileLine {
            text: text.unwrap_or(raw),
            newline: text.is_some(),
        })
    }

    /// The lines from `from` up to `to`, with their newlines.
    pub(super) fn raw(&self, from: usize, to: usize) -> &'a [u8] {
        &self.bytes[self.bounds[from] as usize..self.bounds[to] as usize]
    }
}

fn bound(at: usize) -> u32 {
    u32::try_from(at).expect("contents are smaller than MAX_CONTENT")
}
