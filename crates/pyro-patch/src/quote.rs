//! Names in quotes, as git writes those that would not survive a line of text.

/// A name in quotes that is not well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// The line ends before the closing quote.
    #[error("the name has no closing quote")]
    Open,
    /// A backslash is followed by something that has no meaning.
    #[error("the name has an escape that means nothing; a backslash is written `\\\\`")]
    Escape,
}

/// `name` as git prints it: in quotes if it holds a control character, a quote or a backslash,
/// or is not UTF-8. Text that is UTF-8 stays as it is (git's `core.quotePath=false`).
pub fn quote(name: &[u8]) -> Vec<u8> {
    let utf8 = std::str::from_utf8(name).is_ok();
    let is_plain = |byte: u8| {
        !byte.is_ascii_control() && byte != b'"' && byte != b'\\' && (byte.is_ascii() || utf8)
    };
    if name.iter().all(|byte| is_plain(*byte)) {
        return name.to_vec();
    }
    let mut quoted = vec![b'"'];
    for &byte in name {
        let letter = match byte {
            0x07 => b'a',
            0x08 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            0x0b => b'v',
            0x0c => b'f',
            b'\r' => b'r',
            b'"' | b'\\' => byte,
            _ if is_plain(byte) => {
                quoted.push(byte);
                continue;
            }
            _ => {
                let digits = [byte >> 6, byte >> 3 & 7, byte & 7];
                quoted.push(b'\\');
                quoted.extend(digits.map(|digit| b'0' + digit));
                continue;
            }
        };
        quoted.extend([b'\\', letter]);
    }
    quoted.push(b'"');
    quoted
}

/// `name` for people: quoted as git does, so that it stays on one line.
pub fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(&quote(name)).into_owned()
}

/// The name whose quoted form `text` begins with, and what follows the closing quote.
pub fn unquote(text: &[u8]) -> Result<(Vec<u8>, &[u8]), QuoteError> {
    let mut rest = text.strip_prefix(b"\"").ok_or(QuoteError::Open)?;
    let mut name = Vec::new();
    loop {
        let (&byte, after) = rest.split_first().ok_or(QuoteError::Open)?;
        rest = after;
        match byte {
            b'"' => return Ok((name, rest)),
            b'\n' => return Err(QuoteError::Open),
            b'\\' => {}
            _ => {
                name.push(byte);
                continue;
            }
        }
        let (&letter, after) = rest.split_first().ok_or(QuoteError::Open)?;
        rest = after;
        name.push(match letter {
            b'a' => 0x07,
            b'b' => 0x08,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 0x0b,
            b'f' => 0x0c,
            b'r' => b'\r',
            b'"' | b'\\' => letter,
            b'0'..=b'3' => {
                let (digits, after) = rest.split_first_chunk().ok_or(QuoteError::Escape)?;
                let [middle, last]: [u8; 2] = *digits;
                let is_octal = |digit: u8| (b'0'..=b'7').contains(&digit);
                if !is_octal(middle) || !is_octal(last) {
                    return Err(QuoteError::Escape);
                }
                rest = after;
                (letter - b'0') << 6 | (middle - b'0') << 3 | (last - b'0')
            }
            _ => return Err(QuoteError::Escape),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_git_does() {
        for (name, quoted) in [
            (&b"plain name"[..], &b"plain name"[..]),
            ("gr\u{fc}n".as_bytes(), "gr\u{fc}n".as_bytes()),
            (b"tab\there", b"\"tab\\there\""),
            (b"a\"b\\c", b"\"a\\\"b\\\\c\""),
            (b"\xff\x01", b"\"\\377\\001\""),
            (b"\x7f", b"\"\\177\""),
        ] {
            assert_eq!(quote(name), quoted);
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let name: Vec<u8> = (1..=255).collect();
        let mut text = quote(&name);
        text.extend(b" rest");
        assert_eq!(unquote(&text), Ok((name, &b" rest"[..])));
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for text in [&b"\"open"[..], b"\"open\\", b"\"line\n\"", b"bare"] {
            assert_eq!(unquote(text), Err(QuoteError::Open));
        }
        for text in [&b"\"\\x\""[..], b"\"\\08\"", b"\"\\1\"", b"\"\\400\""] {
            assert_eq!(unquote(text), Err(QuoteError::Escape));
        }
    }
}
