//! The end of what a builder says, in bounded memory and fit to be shown.

use std::collections::VecDeque;

/// Lines that are kept.
const LINES: usize = 20;

/// Bytes of a line that are kept.
const LINE: usize = 500;

/// The last lines of a stream of bytes.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
    open: Vec<u8>,
}

impl Tail {
    /// Takes in more of it.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if matches!(byte, b'\n' | b'\r') {
                self.close();
            } else if self.open.len() < LINE {
                self.open.push(*byte);
            }
        }
    }

    /// The lines, without empty ones and control characters.
    pub(super) fn into_lines(mut self) -> Vec<String> {
        self.close();
        self.lines.into()
    }

    fn close(&mut self) {
        let line = String::from_utf8_lossy(&self.open);
        let line: String = line.chars().filter(|letter| !letter.is_control()).collect();
        self.open.clear();
        if line.trim().is_empty() {
            return;
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_clean() {
        let mut tail = Tail::default();
        for number in 0..30 {
            tail.push(format!("\x1b[31mline {number}\n\n").as_bytes());
        }
        tail.push(b"in two ");
        tail.push(b"parts");
        tail.push(&[b'x'; 10_000]);
        let lines = tail.into_lines();
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[0], "[31mline 11");
        assert!(lines[LINES - 1].starts_with("in two partsxxx"));
        assert_eq!(lines[LINES - 1].len(), LINE);
    }
}
