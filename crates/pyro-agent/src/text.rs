//! Output as text.

/// Text out of the middle of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// The characters; what is no UTF-8 is replaced.
    pub(crate) text: String,
    /// How many bytes they were.
    pub(crate) length: usize,
    /// What follows is the beginning of a character and nothing more.
    pub(crate) at_half: bool,
}

/// Up to `most` characters of `bytes`. A character that is cut at the end is left for later
/// unless `ended` says that the rest never comes.
pub(crate) fn decode(bytes: &[u8], most: usize, ended: bool) -> Decoded {
    let mut decoded = Decoded {
        text: String::new(),
        length: 0,
        at_half: false,
    };
    let mut left = most;
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid();
        let cut = valid
            .char_indices()
            .nth(left)
            .map_or(valid.len(), |(index, _)| index);
        decoded.text.push_str(&valid[..cut]);
        decoded.length += cut;
        if cut < valid.len() {
            return decoded;
        }
        left -= valid.chars().count();
        let invalid = chunk.invalid();
        if invalid.is_empty() {
            return decoded;
        }
        if !ended && decoded.length + invalid.len() == bytes.len() && is_half(invalid) {
            decoded.at_half = true;
            return decoded;
        }
        if left == 0 {
            return decoded;
        }
        left -= 1;
        decoded.text.push(char::REPLACEMENT_CHARACTER);
        decoded.length += invalid.len();
    }
    decoded
}

/// How many bytes at the beginning are the end of a character whose beginning is missing.
pub(crate) fn rest_of_character(bytes: &[u8]) -> usize {
    let most = &bytes[..bytes.len().min(3)];
    most.iter().take_while(|byte| **byte & 0xC0 == 0x80).count()
}

fn is_half(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8], most: usize, ended: bool) -> (String, usize, bool) {
        let decoded = decode(bytes, most, ended);
        (decoded.text, decoded.length, decoded.at_half)
    }

    #[test]
    fn cut_at_characters() {
        let text = "aé€".as_bytes();
        assert_eq!(told(text, 9, false), ("aé€".into(), 6, false));
        assert_eq!(told(text, 2, false), ("aé".into(), 3, false));
        assert_eq!(told(text, 3, false), ("aé€".into(), 6, false));
        assert_eq!(told(&text[..5], 9, false), ("aé".into(), 3, true));
        assert_eq!(told(&text[..5], 9, true), ("aé\u{fffd}".into(), 5, false));
        assert_eq!(
            told(b"\xffa\xff", 9, false),
            ("\u{fffd}a\u{fffd}".into(), 3, false)
        );
        assert_eq!(told(b"\xffa", 1, false), ("\u{fffd}".into(), 1, false));
        assert_eq!(told(b"a\xff", 1, false), ("a".into(), 1, false));
        assert_eq!(told(b"", 1, false), (String::new(), 0, false));
        assert_eq!(rest_of_character(&text[2..]), 1);
        assert_eq!(rest_of_character(text), 0);
    }
}
