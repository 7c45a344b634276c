//! A bounded copy of an output stream: its head, its tail, and how much lies between.
//!
//! Owns no I/O. Used where output must be answered as one value instead of a stream.

use std::collections::VecDeque;

use crate::limits::{CAPTURE_HEAD, CAPTURE_TAIL};

/// The end of a stream that is kept even when there is no memory for more, in bytes.
const LEAST_TAIL: usize = 4096;

/// Keeps the first and the last bytes of a stream of any length.
#[derive(Clone, Debug)]
pub struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_limit: usize,
    tail_limit: usize,
    total: u64,
}

impl Default for Capture {
    fn default() -> Self {
        Self::with_limits(CAPTURE_HEAD, CAPTURE_TAIL)
    }
}

impl Capture {
    /// Keeps `head` bytes of the start and `tail` bytes of the end.
    pub fn with_limits(head: usize, tail: usize) -> Self {
        Self {
            head: Vec::new(),
            tail: VecDeque::new(),
            head_limit: head,
            tail_limit: tail,
            total: 0,
        }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = self.head_limit - self.head.len();
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(self.tail_limit)..];
        let surplus = (self.tail.len() + rest.len()).saturating_sub(self.tail_limit);
        self.tail.drain(..surplus);
        self.tail.extend(rest);
    }

    /// Bytes by which `bytes` would make the copy larger.
    pub fn growth(&self, bytes: usize) -> usize {
        let room = (self.head_limit - self.head.len()) + (self.tail_limit - self.tail.len());
        bytes.min(room)
    }

    /// Lets the copy grow no more, but keeps it able to show the end of the stream.
    pub fn stop_growing(&mut self) {
        self.head_limit = self.head.len();
        self.tail_limit = self.tail.len().max(LEAST_TAIL.min(self.tail_limit));
    }

    /// Bytes that the stream had in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether bytes between head and tail were dropped.
    pub fn truncated(&self) -> bool {
        self.total > (self.head.len() + self.tail.len()) as u64
    }

    /// What was kept; where bytes were dropped stands a line that says how many.
    pub fn into_bytes(self) -> Vec<u8> {
        let dropped = self.total - (self.head.len() + self.tail.len()) as u64;
        let mut bytes = self.head;
        if dropped > 0 {
            bytes.extend_from_slice(format!("\n[… {dropped} bytes dropped …]\n").as_bytes());
        }
        let (front, back) = self.tail.as_slices();
        bytes.extend_from_slice(front);
        bytes.extend_from_slice(back);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn says_how_much_it_dropped() {
        let mut capture = Capture::with_limits(2, 3);
        capture.push(b"abcdefghij");
        assert!(capture.truncated());
        assert_eq!(
            String::from_utf8(capture.into_bytes()).unwrap(),
            "ab\n[… 5 bytes dropped …]\nhij"
        );
    }

    #[test]
    fn a_copy_that_may_not_grow_still_shows_the_end() {
        let mut capture = Capture::with_limits(100, 10_000);
        capture.push(b"start");
        assert_eq!(capture.growth(20_000), 10_095);
        capture.stop_growing();
        assert_eq!(capture.growth(20_000), LEAST_TAIL);
        capture.push(&vec![b'x'; 20_000]);
        capture.push(b"end");
        assert_eq!(capture.growth(1), 0);
        assert_eq!(capture.total(), 20_008);
        let kept = capture.into_bytes();
        assert!(kept.starts_with(b"start\n[") && kept.ends_with(b"xxxend"));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same(chunks: Vec<Vec<u8>>, head in 0usize..40, tail in 0usize..40) {
            let whole: Vec<u8> = chunks.concat();
            let mut capture = Capture::with_limits(head, tail);
            for chunk in &chunks {
                capture.push(chunk);
            }
            prop_assert_eq!(capture.total(), whole.len() as u64);
            prop_assert_eq!(capture.truncated(), whole.len() > head + tail);
            let mut once = Capture::with_limits(head, tail);
            once.push(&whole);
            let kept = capture.into_bytes();
            prop_assert_eq!(&kept, &once.into_bytes());
            if whole.len() <= head + tail {
                prop_assert_eq!(kept, whole);
            }
        }
    }
}
