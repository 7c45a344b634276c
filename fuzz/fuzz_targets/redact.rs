//! Hiding secrets in output: the same whatever the chunking, and no secret is left.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyro_protocol::redact::Redactor;

fuzz_target!(|bytes: &[u8]| {
    // The first line holds the secrets, the second byte after it the chunk size.
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let Ok(secrets) = std::str::from_utf8(&bytes[..end]) else {
        return;
    };
    let secrets: Vec<String> = secrets
        .split(',')
        .filter(|s| !s.is_empty())
        .map(String::from)
        .collect();
    let Some((size, output)) = bytes[end + 1..].split_first() else {
        return;
    };
    let whole = redacted(&secrets, std::iter::once(output));
    let pieces = redacted(&secrets, output.chunks(usize::from(*size).max(1)));
    assert_eq!(whole, pieces);
    let marker = b"[REDACTED]";
    let apart: Vec<&[u8]> = split(&whole, marker);
    for secret in &secrets {
        for part in &apart {
            assert!(
                !part
                    .windows(secret.len())
                    .any(|window| window == secret.as_bytes())
            );
        }
    }
});

fn redacted<'a>(secrets: &[String], chunks: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut redactor = Redactor::new(secrets);
    let mut out = Vec::new();
    for chunk in chunks {
        redactor.push(chunk, &mut out);
    }
    redactor.flush(&mut out);
    out
}

fn split<'a>(bytes: &'a [u8], marker: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at + marker.len() <= bytes.len() {
        if &bytes[at..at + marker.len()] == marker {
            parts.push(&bytes[start..at]);
            at += marker.len();
            start = at;
        } else {
            at += 1;
        }
    }
    parts.push(&bytes[start..]);
    parts
}
