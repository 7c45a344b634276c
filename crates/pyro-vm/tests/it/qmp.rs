//! The control protocol against a real QEMU.

use crate::guest::{DEADLINE, qemu};
use pyro_vm::qemu::qmp::{Qmp, QmpError};
use std::process::Stdio;

#[tokio::test]
async fn speaks_to_a_machine_that_is_none() {
    let mut child = tokio::process::Command::new(qemu().program())
        .args([
            "-machine",
            "none",
            "-nodefaults",
            "-display",
            "none",
            "-qmp",
            "stdio",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let stream = tokio::io::join(child.stdout.take().unwrap(), child.stdin.take().unwrap());
    let mut qmp = Qmp::connect(stream, DEADLINE).await.unwrap();
    assert_eq!(qmp.query_status(DEADLINE).await.unwrap(), "running");
    qmp.execute("stop", None, DEADLINE).await.unwrap();
    assert_eq!(qmp.query_status(DEADLINE).await.unwrap(), "paused");
    assert_eq!(qmp.take_events(), ["STOP"]);
    let error = qmp
        .execute("no-such-command", None, DEADLINE)
        .await
        .unwrap_err();
    assert!(matches!(error, QmpError::Refused { .. }), "{error}");
    qmp.quit(DEADLINE).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    assert!(matches!(
        qmp.query_status(DEADLINE).await,
        Err(QmpError::Closed)
    ));
}

#[tokio::test]
async fn tells_its_version() {
    assert!(
        qemu()
            .version()
            .await
            .unwrap()
            .starts_with("QEMU emulator version")
    );
}
