//! The last lines of a stream, made fit for a terminal.
//!
//! Owns the cutting into lines, the bounds and the escaping. Pure: no I/O, no clock.

use super::{MAX_LINE_BYTES, MAX_LINES};
use std::collections::VecDeque;
use std::fmt::Write;

/// The last lines of what was pushed.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: VecDeque<Vec<u8>>,
    /// The line that has no end yet.
    open: Vec<u8>,
    /// Whether bytes of the open line were left out.
    cut: bool,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        if let Some(first) = parts.next() {
            self.extend(first);
        }
        for part in parts {
            self.close();
            self.extend(part);
        }
    }

    pub(super) fn last(&self, count: usize) -> Vec<String> {
        let open = (!self.open.is_empty()).then_some(&self.open);
        let all = self.lines.iter().chain(open);
        let total = self.lines.len() + usize::from(open.is_some());
        all.skip(total.saturating_sub(count.min(MAX_LINES)))
            .map(|line| readable(line))
            .collect()
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = MAX_LINE_BYTES - self.open.len();
        self.open.extend_from_slice(&bytes[..room.min(bytes.len())]);
        self.cut |= bytes.len() > room;
    }

    fn close(&mut self) {
        if !self.cut && self.open.last() == Some(&b'\r') {
            self.open.pop();
        }
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(std::mem::take(&mut self.open));
        self.cut = false;
    }
}

/// Text in which no byte of the guest can move the cursor, change colours or hide something.
fn readable(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut text = String::with_capacity(line.len());
    for character in String::from_utf8_lossy(line).chars() {
        match character {
            '\t' => text.push(' '),
            // The bidirectional controls turn the order of what is shown.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                write!(text, "\\u{{{:x}}}", u32::from(character))
                    .expect("writing to a string cannot fail");
            }
            _ if character.is_control() => {
                write!(text, "\\x{:02x}", u32::from(character))
                    .expect("writing to a string cannot fail");
            }
            _ => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_the_bytes_are_cut() {
        let bytes = b"a\r\n\nlong line\r\nb\rc\nopen";
        let mut whole = Tail::default();
        whole.push(bytes);
        let mut single = Tail::default();
        for byte in bytes {
            single.push(&[*byte]);
        }
        assert_eq!(whole.last(9), single.last(9));
        assert_eq!(whole.last(9), ["a", "", "long line", "b\\x0dc", "open"]);
    }

    #[test]
    fn keeps_only_the_last_lines_and_the_start_of_each() {
        let mut tail = Tail::default();
        for number in 0..MAX_LINES + 7 {
            tail.push(format!("{number} {}\n", "x".repeat(3 * MAX_LINE_BYTES)).as_bytes());
        }
        let lines = tail.last(usize::MAX);
        assert_eq!(lines.len(), MAX_LINES);
        assert!(lines[0].starts_with("7 x"));
        assert!(lines.iter().all(|line| line.len() == MAX_LINE_BYTES));
        assert_eq!(tail.last(0), [""; 0]);
    }

    #[test]
    fn control_characters_become_visible() {
        let mut tail = Tail::default();
        tail.push(b"\x00\x1b]0;title\x07\x7f\xc2\x9b\xff\ttab \xe2\x80\xaeflip\n");
        assert_eq!(
            tail.last(1),
            ["\\x00\\x1b]0;title\\x07\\x7f\\x9b\u{fffd} tab \\u{202e}flip"]
        );
    }
}
