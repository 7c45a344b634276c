//! Numbers as headers tell them: octal text, or binary with the first bit set.

/// Reads a field that holds a number; `None` if it does not. A field of blanks and NULs is 0,
/// as archivers leave what does not matter.
pub(super) fn field(bytes: &[u8]) -> Option<i128> {
    match bytes.first()? {
        0x80 | 0xff => binary(bytes),
        _ => octal(bytes),
    }
}

/// A field that holds no negative number.
pub(super) fn unsigned(bytes: &[u8]) -> Option<u64> {
    u64::try_from(field(bytes)?).ok()
}

/// Decimal digits and nothing else, as extended headers have them.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

fn octal(bytes: &[u8]) -> Option<i128> {
    let is_blank = |byte: &u8| *byte == b' ';
    let start = bytes.iter().position(|byte| !is_blank(byte));
    let digits = &bytes[start.unwrap_or(bytes.len())..];
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' '));
    let digits = &digits[..end.unwrap_or(digits.len())];
    digits.iter().try_fold(0_i128, |value, digit| {
        // A field has at most 12 digits.
        matches!(digit, b'0'..=b'7').then(|| value * 8 + i128::from(digit - b'0'))
    })
}

/// Two's complement, its first bit taken for the mark and the next for the sign.
fn binary(bytes: &[u8]) -> Option<i128> {
    let (first, rest) = bytes.split_first()?;
    let negative = *first == 0xff;
    let mut value: i128 = if negative { -1 } else { 0 };
    for byte in rest {
        value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
    }
    // What fits into no kernel's number is no number.
    i64::try_from(value).ok().map(i128::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_fields() {
        for (text, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"\0\0\0\0", Some(0)),
            (b"    ", Some(0)),
            (b"644\0zzz", Some(0o644)),
            (b"0x10\0", None),
            (b"-1\0", None),
            (b"8\0", None),
        ] {
            assert_eq!(field(text), value, "{text:?}");
        }
    }

    #[test]
    fn binary_fields() {
        let field_of = |value: i128| {
            let mut bytes = value.to_be_bytes()[4..].to_vec();
            bytes[0] = if value < 0 { 0xff } else { 0x80 };
            bytes
        };
        for value in [
            0,
            1,
            1 << 40,
            i128::from(i64::MAX),
            -1,
            i128::from(i64::MIN),
        ] {
            assert_eq!(field(&field_of(value)), Some(value));
        }
        assert_eq!(field(&field_of(1 << 64)), None);
        assert_eq!(unsigned(&field_of(-1)), None);
        assert_eq!(unsigned(b"\x80\0\0\0\0\0\0\x07"), Some(7));
    }

    #[test]
    fn decimals() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for no in [
            &b""[..],
            b"18446744073709551616",
            b"-1",
            b"+1",
            b" 1",
            b"1a",
        ] {
            assert_eq!(decimal(no), None, "{no:?}");
        }
    }
}
