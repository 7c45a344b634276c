//! A regular expression sought in output as it comes.

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::limits::{SHELL_OUTPUT, SHELL_PATTERN_PROGRAM};
use regex::bytes::{Regex, RegexBuilder};

use super::shell::Shell;

/// Bytes before new output that are searched again: the longest match that is found when it
/// comes in pieces.
const OVERLAP: usize = 16 * 1024;

/// A search that goes on.
#[derive(Debug)]
pub(super) struct Search {
    pattern: Regex,
    text: Vec<u8>,
    /// Position of the first byte of `text`.
    base: u64,
    /// `text` begins where the search began.
    from_origin: bool,
    looked: bool,
}

impl Search {
    /// A search for `pattern` from `cursor` on.
    ///
    /// Lines end with a newline or with the carriage return and newline of a terminal; `$`
    /// also stands for the end of the output so far. Classes and case are those of ASCII.
    pub(super) fn new(pattern: &str, cursor: u64) -> Result<Self, ErrorReply> {
        let pattern = RegexBuilder::new(pattern)
            .unicode(false)
            .multi_line(true)
            .crlf(true)
            .size_limit(SHELL_PATTERN_PROGRAM)
            .dfa_size_limit(SHELL_PATTERN_PROGRAM)
            .build()
            .map_err(|error| {
                ErrorReply::new(ErrorCode::InvalidArgument, format!("`pattern`: {error}"))
            })?;
        Ok(Self {
            pattern,
            text: Vec::new(),
            base: cursor,
            from_origin: true,
            looked: false,
        })
    }

    /// Takes what came; the positions of the first match in it.
    pub(super) fn look(&mut self, shell: &Shell) -> Option<(u64, u64)> {
        let next = self.base + self.text.len() as u64;
        let (start, bytes) = shell.bytes(next, SHELL_OUTPUT);
        if bytes.is_empty() && self.looked {
            return None;
        }
        self.looked = true;
        if start != next {
            // Output between was dropped, or has not come yet.
            self.text.clear();
            self.from_origin = start < next;
            self.base = start;
        }
        self.text.extend_from_slice(&bytes);
        // The byte before is context only: the text does not begin here.
        let context = usize::from(!self.from_origin).min(self.text.len());
        let found = self.pattern.find_at(&self.text, context);
        if let Some(found) = found {
            return Some((
                self.base + found.start() as u64,
                self.base + found.end() as u64,
            ));
        }
        let excess = self.text.len().saturating_sub(OVERLAP);
        if excess > 0 {
            self.text.drain(..excess);
            self.text.shrink_to(2 * OVERLAP);
            self.base += excess as u64;
            self.from_origin = false;
        }
        None
    }
}
