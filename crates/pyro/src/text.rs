//! Bytes of a guest as JSON tells them: as text, and in base64 beside it where they are none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The bytes as text, invalid UTF-8 replaced; then in base64, too.
pub(crate) fn of_bytes(bytes: Vec<u8>) -> (String, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let bytes = error.into_bytes();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            (text, Some(STANDARD.encode(&bytes)))
        }
    }
}

/// The bytes that were told as `text`, and in base64 if they are none. What is no base64 counts as not told.
pub(crate) fn to_bytes(text: &str, encoded: Option<&str>) -> Vec<u8> {
    encoded
        .and_then(|encoded| STANDARD.decode(encoded).ok())
        .unwrap_or_else(|| text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_come_back() {
        for bytes in [&b"plain"[..], b"", b"\xff\x00", "\u{e4}".as_bytes()] {
            let (text, encoded) = of_bytes(bytes.to_vec());
            assert_eq!(encoded.is_none(), std::str::from_utf8(bytes).is_ok());
            assert_eq!(to_bytes(&text, encoded.as_deref()), bytes);
        }
    }
}
