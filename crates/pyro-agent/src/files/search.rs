//! Searching one open file line by line, in bounded memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;

use pyro_protocol::files::GrepLine;
use pyro_protocol::limits::MAX_SEARCHED_LINE;
use regex::bytes::Regex;

/// Bytes read at a time.
const PIECE: usize = 64 * 1024;

/// What a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Searched to its end, or as far as was asked.
    Text,
    /// It holds a NUL.
    Binary,
    /// It has a line longer than [`MAX_SEARCHED_LINE`].
    LongLine,
}

/// What one file yields.
pub(super) struct Hits {
    pub(super) path: String,
    pub(super) path_b64: Option<String>,
    /// Matching lines wanted.
    pub(super) most: usize,
    /// Bytes told of each line.
    pub(super) max_line: usize,
    /// Bytes of lines and paths that there is room for.
    pub(super) bytes_left: usize,
    pub(super) bytes: usize,
    pub(super) lines: Vec<GrepLine>,
    pub(super) matches: usize,
    /// There were more than could be told.
    pub(super) cut: bool,
}

impl Hits {
    /// Takes a matching line; whether there is room for more.
    fn matched(&mut self, number: u64, line: &[u8]) -> bool {
        if self.matches == self.most || self.bytes >= self.bytes_left {
            self.cut = true;
            return false;
        }
        self.matches += 1;
        let line = self.line(number, line, false);
        self.push(line);
        true
    }

    fn push(&mut self, line: GrepLine) {
        self.bytes += line.line.len() + line.path.len();
        self.lines.push(line);
    }

    fn line(&self, line_number: u64, bytes: &[u8], context: bool) -> GrepLine {
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut end = line.len().min(self.max_line);
        // Not in the middle of a character.
        while end > 0 && end < line.len() && line[end] & 0xc0 == 0x80 {
            end -= 1;
        }
        GrepLine {
            path: self.path.clone(),
            path_b64: self.path_b64.clone(),
            line_number,
            line: String::from_utf8_lossy(&line[..end]).into_owned(),
            line_truncated: end < line.len(),
            context,
        }
    }
}

/// Searches `file` for lines that match `regex`, whose anchors are those of lines. `context`
/// lines before and after each are told too.
pub(super) fn search(
    mut file: &File,
    regex: &Regex,
    context: usize,
    hits: &mut Hits,
) -> std::io::Result<Verdict> {
    let mut buffer = Vec::new();
    let mut lines = Lines {
        regex,
        context,
        number: 0,
        before: VecDeque::new(),
        after: 0,
    };
    loop {
        let filled = buffer.len();
        if filled > MAX_SEARCHED_LINE {
            return Ok(Verdict::LongLine);
        }
        buffer.resize(filled + PIECE, 0);
        let count = loop {
            match file.read(&mut buffer[filled..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        buffer.truncate(filled + count);
        if buffer[filled..].contains(&0) {
            return Ok(Verdict::Binary);
        }
        let whole = if count == 0 {
            buffer.len()
        } else {
            let newline = buffer[filled..].iter().rposition(|byte| *byte == b'\n');
            newline.map_or(0, |newline| filled + newline + 1)
        };
        let on = if context == 0 {
            lines.quickly(&buffer[..whole], hits)
        } else {
            lines.one_by_one(&buffer[..whole], hits)
        };
        if !on || count == 0 {
            return Ok(Verdict::Text);
        }
        buffer.drain(..whole);
    }
}

struct Lines<'a> {
    regex: &'a Regex,
    context: usize,
    /// Lines that lie behind.
    number: u64,
    /// The last lines that were not told.
    before: VecDeque<GrepLine>,
    /// Lines to tell after the last match.
    after: usize,
}

impl Lines<'_> {
    /// Searches `text` as a whole; whether to go on. A match that goes over the end of a
    /// line is none: then the line itself decides.
    fn quickly(&mut self, text: &[u8], hits: &mut Hits) -> bool {
        let mut behind = 0;
        while behind < text.len() {
            let Some(found) = self.regex.find_at(text, behind) else {
                break;
            };
            let at = found.start();
            if at == text.len() && text.ends_with(b"\n") {
                // An empty match behind the last line.
                break;
            }
            let start = text[..at]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |newline| newline + 1);
            let end = text[at..]
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(text.len(), |newline| at + newline + 1);
            self.number += newlines(&text[behind..start]);
            let line = &text[start..end];
            self.number += 1;
            if self.regex.is_match(without_end(line)) && !hits.matched(self.number, line) {
                return false;
            }
            behind = end;
        }
        self.number += newlines(&text[behind..]);
        true
    }

    fn one_by_one(&mut self, text: &[u8], hits: &mut Hits) -> bool {
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            self.number += 1;
            if self.regex.is_match(without_end(line)) {
                if hits.matches < hits.most {
                    for before in self.before.drain(..) {
                        hits.push(before);
                    }
                }
                if !hits.matched(self.number, line) {
                    return false;
                }
                self.after = self.context;
                continue;
            }
            let told = hits.line(self.number, line, true);
            if self.after > 0 {
                self.after -= 1;
                hits.push(told);
            } else {
                if self.before.len() == self.context {
                    self.before.pop_front();
                }
                self.before.push_back(told);
            }
        }
        true
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

fn newlines(text: &[u8]) -> u64 {
    text.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}
