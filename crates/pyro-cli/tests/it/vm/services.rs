//! Services where only a real machine shows it: what leaves its session is still the
//! service's, and the end of the machine is the end of all of them.

use serde_json::{Value, json};

use super::legacy::{ask, machine};
use super::world;

#[test]
fn what_a_service_started_ends_with_it_wherever_it_went() {
    let world = world();
    let (running, socket) = machine(&world);
    let command = "setsid sh -c 'trap \"\" TERM; echo $$ > /run/strayed; while :; do sleep 1; done' & \
                   exec sleep 1000";
    let start = json!({
        "action": "start_service", "service_name": "strays", "command": command, "cwd": "/", "restart": "always",
        "readiness": {"type": "command", "command": "test -s /run/strayed"}, "stop_timeout_ms": 500,
    });
    let started = ask(&socket, &start);
    assert_eq!(started["state"], "running", "{started}");
    let strayed = ask(&socket, &json!({"command": "kill -0 $(cat /run/strayed)"}));
    assert_eq!(strayed["exit_code"], 0, "{strayed}");
    let stop = json!({"action": "stop_service", "service_name": "strays"});
    let stopped = ask(&socket, &stop);
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    let gone = ask(&socket, &json!({"command": "kill -0 $(cat /run/strayed)"}));
    assert_ne!(gone["exit_code"], 0, "{gone}");
    // One that would come back for ever does not hold up the end of the machine.
    let again = ask(&socket, &start);
    assert_eq!(again["state"], "running", "{again}");
    let off = ask(&socket, &json!({"action": "power_off"}));
    assert_eq!(off["ok"], Value::Bool(true), "{off}");
    running.finish();
}
