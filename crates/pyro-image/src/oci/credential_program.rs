//! Programs that keep credentials: `docker-credential-NAME get`, the host on its input.
//!
//! A program is started with our environment, because keychains and cloud tools need theirs. It
//! is killed at its deadline, when it says too much, and when its future is dropped.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::oci::credentials::Credentials;
use crate::oci::error::{Cause, shown};

/// It may ask a cloud for a token, but nobody waits longer for a prompt that cannot be seen.
const DEADLINE: Duration = Duration::from_secs(30);
/// An answer holds one secret; tokens have some kilobytes.
const MAX_ANSWER: u64 = 64 * 1024;
/// The name that says that the secret is a token.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks a program for the credentials of a registry. `None` if it has none.
pub(super) async fn get(
    name: &str,
    directories: &[PathBuf],
    address: &str,
) -> Result<Option<Credentials>, Cause> {
    let path = locate(name, directories)?;
    match tokio::time::timeout(DEADLINE, run(&path, address)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "`{}` did not answer within {} seconds",
            path.display(),
            DEADLINE.as_secs()
        )
        .into()),
    }
}

fn locate(name: &str, directories: &[PathBuf]) -> Result<PathBuf, Cause> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(format!("`{}` is no name of a credential program", shown(name)).into());
    }
    let name = format!("docker-credential-{name}");
    directories
        .iter()
        .map(|directory| directory.join(&name))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("the program `{name}` is not installed").into())
}

async fn run(path: &Path, address: &str) -> Result<Option<Credentials>, Cause> {
    let mut child = Command::new(path)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot run `{}`: {error}", path.display()))?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let stdout = child.stdout.take().expect("stdout is piped");
    // A program that does not read its input has its reasons; what it answers counts.
    let _ = stdin.write_all(format!("{address}\n").as_bytes()).await;
    drop(stdin);
    let mut answer = Vec::new();
    stdout.take(MAX_ANSWER + 1).read_to_end(&mut answer).await?;
    if answer.len() as u64 > MAX_ANSWER {
        return Err(format!("`{}` said more than {MAX_ANSWER} bytes", path.display()).into());
    }
    let status = child.wait().await?;
    if !status.success() {
        let said = shown(&String::from_utf8_lossy(&answer));
        // The protocol has this sentence and no status of its own.
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(format!("`{}` failed ({status}): {said}", path.display()).into());
    }
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| {
        format!(
            "`{}` answered with something else than JSON",
            path.display()
        )
    })?;
    Ok(Some(if answer.username == TOKEN_USER {
        Credentials::Identity {
            token: answer.secret,
        }
    } else {
        Credentials::Password {
            user: answer.username,
            secret: answer.secret,
        }
    }))
}
