//! Starting the `pyro` program under its hidden command, and its one-shot questions.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use pyro_protocol::supervise::{
    ProbeOrder, ProbeReport, SweepOrder, SweepReport, TemplatesOrder, TemplatesReport,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::error::Error;
use crate::settings::Settings;

/// The hidden command of the `pyro` program.
pub(crate) const COMMAND: &str = "supervise";

/// Longest time for a question: two probes and what surrounds them.
const ANSWER_DEADLINE: Duration = Duration::from_mins(1);

/// Starts a supervisor whose owner channel is `owner`.
pub(crate) fn start(settings: &Settings, owner: std::os::fd::OwnedFd) -> Result<Child, Error> {
    Command::new(&settings.program)
        .args([COMMAND, "machine"])
        .stdin(Stdio::from(owner))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(settings, &error))
}

/// Which engines run guests here. With `again`, nothing remembered is believed.
pub(crate) async fn probe(settings: &Settings, again: bool) -> Result<ProbeReport, Error> {
    let order = ProbeOrder {
        qemu: settings.qemu.clone(),
        firecracker: settings.firecracker.clone(),
        firecracker_installed: settings.home.installed_firecracker(),
        search_path: settings.search_path.clone(),
        probe_cache: settings.home.probe_cache(),
        again,
    };
    ask(settings, "probe", &order).await
}

/// Clears away machines whose supervisor died.
pub(crate) async fn sweep(settings: &Settings, dry_run: bool) -> Result<SweepReport, Error> {
    let order = SweepOrder {
        machines_dir: settings.home.machines(),
        templates_dir: settings.home.templates(),
        dry_run,
    };
    ask(settings, "sweep", &order).await
}

/// Lists templates, and removes some.
pub(crate) async fn templates(
    settings: &Settings,
    order: &TemplatesOrder,
) -> Result<TemplatesReport, Error> {
    ask(settings, "templates", order).await
}

async fn ask<T: DeserializeOwned>(
    settings: &Settings,
    question: &str,
    order: &impl Serialize,
) -> Result<T, Error> {
    let mut child = Command::new(&settings.program)
        .args([COMMAND, question])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(settings, &error))?;
    let mut stdin = child
        .stdin
        .take()
        .expect("standard input was asked to be a pipe");
    let line = serde_json::to_vec(order).map_err(|error| failed(settings, &error.into()))?;
    let answered = timeout(ANSWER_DEADLINE, async {
        stdin.write_all(&line).await?;
        drop(stdin);
        child.wait_with_output().await
    });
    let output = answered
        .await
        .map_err(|_| failed(settings, &io::ErrorKind::TimedOut.into()))?
        .map_err(|error| failed(settings, &error))?;
    serde_json::from_slice(&output.stdout).map_err(|error| Error::Supervisor {
        reason: format!(
            "`{question}` answered nothing usable ({}): {error}",
            output.status
        ),
    })
}

fn failed(settings: &Settings, error: &io::Error) -> Error {
    Error::Supervisor {
        reason: format!("running `{}`: {error}", settings.program.display()),
    }
}
