//! Hiding secret values in a stream of bytes.
//!
//! Every byte that belongs to an occurrence of a value is hidden, however the stream was cut
//! into chunks; a run of overlapping occurrences becomes one [`MARKER`]. What may yet turn
//! out to be the beginning of a value is held back until it is decided, or until
//! [`Redactor::flush`] says that nobody can wait longer. A flushed beginning is shown only if
//! it is short ([`shown_of`]); otherwise the marker stands for it. Either way the rest of the
//! value, should it still come, is hidden.

use std::collections::VecDeque;

/// What stands in place of a hidden value.
pub const MARKER: &str = "[REDACTED]";

/// Most bytes at the beginning of a value that a flush shows.
const SHOWN_PREFIX: usize = 8;

/// How many bytes at the beginning of a value of `length` bytes a flush may show: a prompt
/// that happens to end like a value begins must appear, a value that paused must not.
pub fn shown_of(length: usize) -> usize {
    (length / 4).min(SHOWN_PREFIX)
}

/// Hides values in one stream. All positions count the bytes that came in.
#[derive(Debug)]
pub struct Redactor {
    values: Vec<Value>,
    /// Which values begin with a byte.
    by_first: Vec<Vec<usize>>,
    /// Values of which the end of the stream is a beginning.
    active: Vec<usize>,
    /// What came and was not given out yet, shown or hidden.
    held: VecDeque<u8>,
    /// Position of the first held byte.
    given: u64,
    /// What is hidden, in order, without overlaps; only what still matters.
    runs: VecDeque<Run>,
    /// The last thing given out was a marker.
    after_marker: bool,
}

/// A value and the automaton of Knuth, Morris and Pratt that finds it: linear whatever the
/// value and the stream are.
#[derive(Debug)]
struct Value {
    bytes: Vec<u8>,
    /// For each length of a matched beginning, the longest shorter beginning that ends it.
    borders: Vec<u32>,
    /// Bytes of the beginning that the stream ends with now.
    matched: usize,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    start: u64,
    end: u64,
    /// Its marker has been given out.
    marked: bool,
}

impl Redactor {
    /// A redactor of `values`; empty ones are ignored.
    ///
    /// A terminal tells a newline as carriage return and newline, therefore a value with
    /// newlines is sought in that form too.
    pub fn new(values: &[String]) -> Self {
        let mut wanted: Vec<Vec<u8>> = Vec::new();
        for value in values.iter().filter(|value| !value.is_empty()) {
            wanted.push(value.clone().into_bytes());
            if value.contains('\n') {
                wanted.push(value.replace("\r\n", "\n").replace('\n', "\r\n").into());
            }
        }
        wanted.sort();
        wanted.dedup();
        let mut by_first = vec![Vec::new(); 256];
        for (index, value) in wanted.iter().enumerate() {
            by_first[usize::from(value[0])].push(index);
        }
        Self {
            values: wanted.into_iter().map(Value::new).collect(),
            by_first,
            active: Vec::new(),
            held: VecDeque::new(),
            given: 0,
            runs: VecDeque::new(),
            after_marker: false,
        }
    }

    /// Takes the next bytes of the stream and appends to `out` what is decided.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.values.is_empty() {
            out.extend_from_slice(bytes);
            return;
        }
        let mut position = self.given + self.held.len() as u64;
        self.held.extend(bytes);
        for byte in bytes {
            position += 1;
            self.step(*byte, position);
        }
        self.give(position - self.undecided(), out);
    }

    /// Whether something is held back.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Appends to `out` what is held back, the beginnings of values hidden unless short.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        let end = self.given + self.held.len() as u64;
        let telling = self
            .active
            .iter()
            .map(|index| &self.values[*index])
            .filter(|value| value.matched > shown_of(value.bytes.len()))
            .map(|value| value.matched as u64)
            .max();
        if let Some(length) = telling {
            self.hide(end - length, end);
        }
        self.give(end, out);
    }

    /// Lets every value look at the byte before `position`.
    fn step(&mut self, byte: u8, position: u64) {
        let mut found = None;
        let values = &mut self.values;
        self.active.retain(|index| {
            let value = &mut values[*index];
            if value.step(byte) {
                found = found.max(Some(value.bytes.len()));
            }
            value.matched > 0
        });
        for index in &self.by_first[usize::from(byte)] {
            let value = &mut self.values[*index];
            if value.matched == 0 {
                if value.step(byte) {
                    found = found.max(Some(value.bytes.len()));
                }
                if value.matched > 0 {
                    self.active.push(*index);
                }
            }
        }
        if let Some(length) = found {
            self.hide(position - length as u64, position);
        }
    }

    /// How many bytes at the end of the stream may belong to a value that is not whole yet.
    fn undecided(&self) -> u64 {
        let matched = self.active.iter().map(|index| self.values[*index].matched);
        matched.max().unwrap_or(0) as u64
    }

    /// Hides what comes between two positions, as far as it was not shown already.
    fn hide(&mut self, start: u64, end: u64) {
        let mut run = Run {
            start,
            end,
            marked: false,
        };
        while let Some(last) = self.runs.back().copied()
            && last.end > run.start
        {
            run.start = run.start.min(last.start);
            run.end = run.end.max(last.end);
            run.marked |= last.marked;
            self.runs.pop_back();
        }
        self.runs.push_back(run);
    }

    /// Gives out everything before `until`. Nothing before it can be hidden any more.
    fn give(&mut self, until: u64, out: &mut Vec<u8>) {
        let mut index = 0;
        while self.given < until {
            let Some(run) = self.runs.get_mut(index).filter(|run| run.start < until) else {
                self.show(until, out);
                break;
            };
            let Run { start, end, .. } = *run;
            if end <= self.given {
                index += 1;
                continue;
            }
            if start > self.given {
                self.show(start, out);
                continue;
            }
            // A run whose beginning was shown, or behind which something was shown before it
            // turned out to be longer, gets a marker for the rest.
            if !run.marked || !self.after_marker {
                run.marked = true;
                self.after_marker = true;
                out.extend_from_slice(MARKER.as_bytes());
            }
            self.skip(end.min(until));
        }
        let open = self.given + self.held.len() as u64 - self.undecided();
        while let Some(run) = self.runs.front()
            && run.end <= self.given.min(open)
        {
            self.runs.pop_front();
        }
    }

    fn show(&mut self, until: u64, out: &mut Vec<u8>) {
        let count = self.count(until);
        out.extend(self.held.drain(..count));
        self.given = until;
        self.after_marker = false;
    }

    fn skip(&mut self, until: u64) {
        let count = self.count(until);
        self.held.drain(..count);
        self.given = until;
    }

    fn count(&self, until: u64) -> usize {
        usize::try_from(until - self.given).expect("what is held is in memory")
    }
}

impl Value {
    fn new(bytes: Vec<u8>) -> Self {
        let mut borders = vec![0_u32; bytes.len() + 1];
        let mut length = 0;
        for index in 1..bytes.len() {
            while length > 0 && bytes[length] != bytes[index] {
                length = borders[length] as usize;
            }
            length += usize::from(bytes[length] == bytes[index]);
            borders[index + 1] = u32::try_from(length).expect("values are shorter than 4 GiB");
        }
        Self {
            bytes,
            borders,
            matched: 0,
        }
    }

    /// Looks at the next byte; whether it completes the value.
    fn step(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.borders[self.matched] as usize;
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        let whole = self.matched == self.bytes.len();
        if whole {
            self.matched = self.borders[self.matched] as usize;
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn strings(values: &[&str]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }

    /// Redacts chunks, with a flush after each that says so and at the end.
    fn redact<'a>(
        values: &[String],
        chunks: impl IntoIterator<Item = (&'a [u8], bool)>,
    ) -> Vec<u8> {
        let mut redactor = Redactor::new(values);
        let mut out = Vec::new();
        for (chunk, pause) in chunks {
            redactor.push(chunk, &mut out);
            if pause {
                redactor.flush(&mut out);
                assert!(!redactor.holds());
            }
        }
        redactor.flush(&mut out);
        assert!(!redactor.holds());
        out
    }

    fn whole(values: &[&str], text: &str) -> String {
        let out = redact(&strings(values), [(text.as_bytes(), false)]);
        String::from_utf8(out).unwrap()
    }

    /// The definition, on a whole text: an interval for each occurrence and for the telling
    /// beginning at the end, overlapping ones joined, each replaced.
    fn by_definition(values: &[String], text: &[u8]) -> Vec<u8> {
        let mut hidden = Vec::new();
        for value in values.iter().map(String::as_bytes) {
            for start in 0..text.len() {
                let rest = &text[start..];
                let beginning = rest.len() < value.len()
                    && value.starts_with(rest)
                    && rest.len() > shown_of(value.len());
                if rest.starts_with(value) || beginning {
                    hidden.push((start, text.len().min(start + value.len())));
                }
            }
        }
        hidden.sort_unstable();
        let mut joined: Vec<(usize, usize)> = Vec::new();
        for (start, end) in hidden {
            match joined.last_mut() {
                Some(last) if start < last.1 => last.1 = last.1.max(end),
                _ => joined.push((start, end)),
            }
        }
        let mut out = Vec::new();
        let mut shown = 0;
        for (start, end) in joined {
            out.extend_from_slice(&text[shown..start]);
            out.extend_from_slice(MARKER.as_bytes());
            shown = end;
        }
        out.extend_from_slice(&text[shown..]);
        out
    }

    fn contains(text: &[u8], part: &[u8]) -> bool {
        text.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn what_the_original_replaces_is_replaced_alike() {
        assert_eq!(whole(&["s3cret"], "a s3cret b"), "a [REDACTED] b");
        assert_eq!(
            whole(&["s3", "s3cret"], "s3cret s3"),
            "[REDACTED] [REDACTED]"
        );
        assert_eq!(whole(&["ab"], "abab"), "[REDACTED][REDACTED]");
        assert_eq!(whole(&[""], "text"), "text");
        assert_eq!(whole(&["a\nb"], "a\r\nb a\nb"), "[REDACTED] [REDACTED]");
    }

    #[test]
    fn overlapping_values_leave_nothing_over() {
        assert_eq!(whole(&["xab", "abcd"], "xabcd"), "[REDACTED]");
    }

    #[test]
    fn a_pause_shows_a_short_beginning_and_hides_a_long_one() {
        let values = strings(&["0123456789ab"]);
        let pieces = |parts: &[&'static str]| {
            let chunks = parts.iter().map(|part| (part.as_bytes(), true));
            String::from_utf8(redact(&values, chunks.collect::<Vec<_>>())).unwrap()
        };
        assert_eq!(pieces(&["> 012", " on"]), "> 012 on");
        assert_eq!(pieces(&["> 0123", " on"]), "> [REDACTED] on");
        assert_eq!(pieces(&["> 012", "3456789ab."]), "> 012[REDACTED].");
        assert_eq!(pieces(&["> 01234", "56789ab."]), "> [REDACTED].");
        assert_eq!(pieces(&["0", "1", "2", "3", "4"]), "012[REDACTED]");
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same(
            values in vec("[ab]{1,9}", 0..5),
            text in "[abc]{0,120}",
            cuts in vec(1_usize..9, 1..40),
        ) {
            let mut chunks = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (chunk, behind) = rest.split_at(cut.min(rest.len()));
                chunks.push((chunk, false));
                rest = behind;
            }
            chunks.push((rest, false));
            let out = redact(&values, chunks);
            prop_assert_eq!(
                String::from_utf8(out).unwrap(),
                String::from_utf8(by_definition(&values, text.as_bytes())).unwrap()
            );
        }

        #[test]
        fn no_value_appears_wherever_it_pauses(
            values in vec("[ab]{1,14}", 1..4),
            chunks in vec(("[abc]{0,12}", any::<bool>()), 0..14),
        ) {
            let pieces = chunks.iter().map(|(chunk, pause)| (chunk.as_bytes(), *pause));
            let out = redact(&values, pieces.collect::<Vec<_>>());
            for value in &values {
                prop_assert!(!contains(&out, value.as_bytes()));
            }
        }

        #[test]
        fn what_holds_no_value_comes_through(
            chunks in vec(("[abc]{0,12}", any::<bool>()), 0..14),
        ) {
            let pieces = chunks.iter().map(|(chunk, pause)| (chunk.as_bytes(), *pause));
            let out = redact(&strings(&["x1", "yy"]), pieces.collect::<Vec<_>>());
            let text: String = chunks.iter().map(|(chunk, _)| chunk.as_str()).collect();
            prop_assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
