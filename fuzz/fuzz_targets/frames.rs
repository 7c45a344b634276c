//! A stream of frames: no header promises more than the limit, and what is read is what was meant.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyro_protocol::frame::{HEADER_LEN, encode, parse_header};
use pyro_protocol::limits::MAX_FRAME_PAYLOAD;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_first_chunk::<HEADER_LEN>() {
        let Ok((kind, length)) = parse_header(*head) else {
            return;
        };
        assert!(length <= MAX_FRAME_PAYLOAD);
        let Some(payload) = after.get(..length) else {
            return;
        };
        assert_eq!(encode(kind, payload), &rest[..HEADER_LEN + length]);
        rest = &after[length..];
    }
});
