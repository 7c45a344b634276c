//! A host of the original's generation, in another language and written from the protocol
//! alone, drives every action of 2.6.0 and 3.11.

use std::path::Path;
use std::process::Command;

use super::legacy::machine;
use super::world;

#[test]
fn a_host_of_the_originals_generation_can_drive_the_agent() {
    let world = world();
    let (_running, socket) = machine(&world);
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/original_host.py");
    let output = Command::new("python3")
        .arg("-B")
        .arg(&host)
        .arg(&socket)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let text = std::fs::read_to_string(&host).unwrap();
    let all = text.matches("    def test_").count();
    assert!(told.contains(&format!("Ran {all} tests")), "{told}");
}
