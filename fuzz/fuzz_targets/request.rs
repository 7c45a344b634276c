//! A request line: it is refused with words or becomes a request, and an action that nobody
//! knows never becomes a command.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyro_protocol::request::{Request, actions};

fuzz_target!(|line: &[u8]| {
    match Request::parse(line) {
        Err(refused) => assert!(!refused.error.is_empty()),
        Ok(request) => {
            let fields: serde_json::Value = serde_json::from_slice(line).expect("it was parsed");
            match fields.get("action") {
                None | Some(serde_json::Value::Null) => {
                    assert!(matches!(request, Request::Exec(_)));
                }
                Some(action) => {
                    let name = action.as_str().expect("a name");
                    assert!(actions().any(|known| known == name));
                }
            }
        }
    }
});
