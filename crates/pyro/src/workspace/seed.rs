//! What a workspace begins with: packed on the host, kept as a tar, put into the guest, and made its baseline.

use std::path::PathBuf;

use pyro_protocol::archive::import::TreeImport;
use pyro_protocol::index::TreeEnd;
use serde_json::{Value, json};

use super::payload::{WORKSPACE_PATH, WorkspaceSeed};
use super::settle::remove_file;
use super::{BASELINE, Workspace};
use crate::error::Error;
use crate::exec::Call;
use crate::machine::Machine;
use crate::{ProgressSink, Pyro, trees};

/// A seed on the host.
#[derive(Clone, Debug)]
pub(super) struct PackedSeed {
    /// The tar.
    pub(super) tar: PathBuf,
    /// Its SHA-256, which names it.
    pub(super) digest: String,
    /// What is told of it.
    pub(super) seed: WorkspaceSeed,
}

/// What a workspace begins with.
#[derive(Clone, Debug, Default)]
pub struct SeedOptions {}

impl Pyro {
    pub(super) async fn check_seed(&self, _options: &SeedOptions) -> Result<(), Error> {
        Ok(())
    }

    pub(super) async fn pack_seed(
        &self,
        _source: (),
        _progress: &ProgressSink,
    ) -> Result<Option<PackedSeed>, Error> {
        Ok(None)
    }

    /// Removes a seed that no workspace began with any more.
    pub(super) async fn release_seed(&self, digest: &str) -> Result<(), Error> {
        let wanted = digest.to_owned();
        if self.db(move |store| store.seed_is_used(&wanted)).await? {
            return Ok(());
        }
        remove_file(&self.seed_tar(digest))
    }

    /// Where a seed lies.
    pub(super) fn seed_tar(&self, digest: &str) -> PathBuf {
        self.settings().home.seeds().join(format!("{digest}.tar"))
    }
}

impl Workspace {
    /// Puts a seed into a guest whose workspace is empty, and keeps the tree as the guest's baseline.
    pub(super) async fn fill(
        &self,
        machine: &mut Machine,
        packed: Option<&PackedSeed>,
        progress: &ProgressSink,
    ) -> Result<TreeEnd, Error> {
        machine.ask(&make_directory()).await?;
        if let Some(packed) = packed {
            let file = tokio::fs::File::open(&packed.tar)
                .await
                .map_err(|source| Error::Io {
                    action: "open",
                    path: packed.tar.clone(),
                    source,
                })?;
            let import = TreeImport {
                // Nothing is there that could be lost.
                staged: false,
                ..TreeImport::workspace()
            };
            let told = progress.clone();
            machine
                .import(&import, file, move |done| {
                    told(crate::Progress::Bytes {
                        what: "seed".into(),
                        done: done.bytes,
                        total: None,
                    });
                })
                .await?;
        }
        let call = machine.call(&keep_tree(BASELINE)).await?;
        follow(call).await
    }
}

/// The request that makes the workspace's directory.
pub(super) fn make_directory() -> Value {
    json!({"action": "file_mkdir", "root": "/", "path": WORKSPACE_PATH, "parents": true})
}

/// The request that keeps the tree as it is under a name.
pub(super) fn keep_tree(name: &str) -> Value {
    json!({"action": "tree_baseline", "name": name, "path": WORKSPACE_PATH})
}

/// The end of a request about a tree whose lines do not matter.
pub(super) async fn follow(call: Call) -> Result<TreeEnd, Error> {
    trees::follow(call, |_| Ok(()), |_| {}).await
}
