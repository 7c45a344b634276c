//! A bounded window on an endless stream of bytes, addressed by absolute positions.

use std::collections::VecDeque;

/// The last bytes of a stream. A position counts every byte that ever came, so that it
/// means the same byte for ever, whether that byte is still kept or not.
#[derive(Debug)]
pub struct Ring {
    kept: VecDeque<u8>,
    start: u64,
    limit: usize,
}

impl Ring {
    /// An empty ring that keeps up to `limit` bytes and takes memory only as they come.
    pub fn new(limit: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            start: 0,
            limit,
        }
    }

    /// Appends `bytes`; what exceeds the limit is dropped from the front.
    pub fn push(&mut self, bytes: &[u8]) {
        let fitting = &bytes[bytes.len().saturating_sub(self.limit)..];
        let room = self.limit - fitting.len();
        let excess = self.kept.len().saturating_sub(room);
        // Before the new ones come in: the buffer never grows beyond the limit.
        self.kept.drain(..excess);
        let length = self.kept.len() + fitting.len();
        if length > self.kept.capacity() {
            let capacity = length.next_power_of_two().min(self.limit);
            self.kept.reserve_exact(capacity - self.kept.len());
        }
        self.kept.extend(fitting);
        self.start += (excess + bytes.len() - fitting.len()) as u64;
    }

    /// Position of the oldest byte that is kept: how many bytes have been dropped.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Position behind the newest byte.
    pub fn end(&self) -> u64 {
        self.start + self.kept.len() as u64
    }

    /// The position that is kept and nearest to `cursor`.
    pub fn clamp(&self, cursor: u64) -> u64 {
        cursor.clamp(self.start, self.end())
    }

    /// Up to `most` bytes from `cursor` on, which is brought into the window first.
    pub fn read(&self, cursor: u64, most: usize) -> Vec<u8> {
        let skip = usize::try_from(self.clamp(cursor) - self.start)
            .expect("within the window, which is in memory");
        let until = self.kept.len().min(skip.saturating_add(most));
        let (front, back) = self.kept.as_slices();
        let cut = front.len();
        let mut bytes = Vec::with_capacity(until - skip);
        bytes.extend_from_slice(&front[skip.min(cut)..until.min(cut)]);
        bytes.extend_from_slice(&back[skip.max(cut) - cut..until.max(cut) - cut]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn memory_comes_with_the_bytes_and_stays_within_the_limit() {
        let mut ring = Ring::new(1024);
        assert_eq!(ring.kept.capacity(), 0);
        for _ in 0..100 {
            ring.push(&[7; 300]);
        }
        assert_eq!(ring.kept.capacity(), 1024);
        assert_eq!((ring.start(), ring.end()), (30_000 - 1024, 30_000));
    }

    proptest! {
        #[test]
        fn it_is_the_end_of_the_stream(
            limit in 1_usize..40,
            chunks in vec(vec(any::<u8>(), 0..60), 0..12),
            cursor in 0_u64..300,
            most in 0_usize..60,
        ) {
            let mut ring = Ring::new(limit);
            let mut all = Vec::new();
            for chunk in &chunks {
                ring.push(chunk);
                all.extend_from_slice(chunk);
            }
            let start = all.len().saturating_sub(limit);
            prop_assert_eq!(ring.start(), start as u64);
            prop_assert_eq!(ring.end(), all.len() as u64);
            let from = usize::try_from(cursor).unwrap().clamp(start, all.len());
            prop_assert_eq!(ring.clamp(cursor), from as u64);
            prop_assert_eq!(ring.read(cursor, most), &all[from..all.len().min(from + most)]);
        }
    }
}
