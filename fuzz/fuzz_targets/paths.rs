//! Names from archives, patches and peers: none leads out of the root that it is read beneath.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyro_archive::beneath::Relative;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut path) = Relative::parse(bytes) else {
        assert!(
            bytes.contains(&0) || bytes.split(|byte| *byte == b'/').any(|part| part == b".."),
            "refused without a reason"
        );
        return;
    };
    while let Some((parents, name)) = path.split() {
        let name = name.as_encoded_bytes();
        assert!(!name.is_empty() && name != b"." && name != b"..");
        assert!(!name.contains(&b'/') && !name.contains(&0));
        path = parents;
    }
});
