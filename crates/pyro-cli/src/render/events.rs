//! Progress for programs: one JSON object on each line of stderr.
//!
//! ```text
//! {"event":"phase","phase":"image-pull","detail":"docker.io/library/alpine:3"}
//! {"event":"bytes","what":"total","done":1048576,"total":3597651}
//! {"event":"step","text":"…"}
//! {"event":"waiting","what":"…","seconds":3}
//! ```

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::to_stderr;

/// Time between two lines about the same bytes; the first and the last always come.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Default)]
pub(super) struct Events {
    told: Mutex<HashMap<String, Instant>>,
}

impl Events {
    pub(super) fn show(&self, event: &pyro::Progress) {
        if let Some(object) = self.object(event) {
            to_stderr(&format!("{object}\n"));
        }
    }

    fn object(&self, event: &pyro::Progress) -> Option<Value> {
        Some(match event {
            pyro::Progress::Phase { phase, detail } => {
                json!({"event": "phase", "phase": phase, "detail": detail})
            }
            pyro::Progress::Step { text } => json!({"event": "step", "text": text}),
            pyro::Progress::Bytes { what, done, total } => {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                let last = told.get(what.as_ref());
                if *total != Some(*done) && last.is_some_and(|last| last.elapsed() < PAUSE) {
                    return None;
                }
                told.insert(what.to_string(), Instant::now());
                json!({"event": "bytes", "what": what, "done": done, "total": total})
            }
            pyro::Progress::Waiting { what, seconds } => {
                json!({"event": "waiting", "what": what, "seconds": seconds})
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_at_first_at_last_and_not_too_often() {
        let events = Events::default();
        let bytes = |done| {
            events.object(&pyro::Progress::Bytes {
                what: "total".into(),
                done,
                total: Some(3),
            })
        };
        assert_eq!(bytes(1).unwrap()["done"], 1);
        assert_eq!(bytes(2), None);
        assert_eq!(
            bytes(3).unwrap(),
            json!({"event": "bytes", "what": "total", "done": 3, "total": 3})
        );
    }
}
