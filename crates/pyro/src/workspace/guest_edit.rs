//! Several changes in a guest that count together: one request carries all of them out, or none.

use base64::Engine as _;
use pyro_archive::extract::Edit;
use pyro_archive::tar::header::{Kind, Member, Time};
use pyro_archive::tar::write::Writer;
use pyro_protocol::archive::import::{ImportEnd, TreeImport};
use pyro_protocol::files::Target;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Workspace;
use super::live::Live;
use crate::error::Error;
use crate::transfer;
use crate::{Progress, ProgressSink};

/// Something to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// A file with its permission bits.
    File { content: Vec<u8>, mode: u32 },
    /// A symbolic link.
    Symlink(Vec<u8>),
}

/// Changes that are to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GuestEdit {
    edits: Vec<u8>,
    puts: Vec<(Vec<u8>, Put)>,
}

impl GuestEdit {
    /// Writes something. Directories above it are made.
    pub(super) fn put(&mut self, path: Vec<u8>, put: Put) {
        self.puts.push((path, put));
    }

    /// Removes what is at a path.
    pub(super) fn remove(&mut self, path: &[u8]) {
        let path = path.to_vec();
        Edit::Remove { path, prune: false }.write(&mut self.edits);
    }

    /// Removes what is at a path, and the directories above it that hold nothing then.
    pub(super) fn remove_and_prune(&mut self, path: &[u8]) {
        let path = path.to_vec();
        Edit::Remove { path, prune: true }.write(&mut self.edits);
    }

    /// Gives what is at a path another one, where nothing is, unless something is put there. The directories above its old one go as
    /// with a removal.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) {
        let (from, to) = (from.to_vec(), to.to_vec());
        Edit::Move { from, to }.write(&mut self.edits);
    }

    /// Makes all of it, in the workspace's directory.
    ///
    /// # Errors
    /// Nothing is changed if not all of it can be.
    pub(super) async fn commit(self, workspace: &Workspace, live: &Live) -> Result<(), Error> {
        if self == Self::default() {
            return Ok(());
        }
        let archive = archive(&self.puts);
        let target = TreeImport::workspace().destination;
        let quiet = crate::progress::ignore();
        let only = Self {
            edits: self.edits,
            puts: Vec::new(),
        };
        only.commit_with(workspace, live, target, archive.as_slice(), &quiet)
            .await
            .map(drop)
    }

    /// Makes all of it, with what an archive brings, in the directory `target`. Nothing may be put besides.
    pub(super) async fn commit_with(
        self,
        workspace: &Workspace,
        live: &Live,
        target: Target,
        archive: impl AsyncRead,
        progress: &ProgressSink,
    ) -> Result<ImportEnd, Error> {
        let import = TreeImport {
            destination: target,
            edits_bytes: self.edits.len() as u64,
            ..TreeImport::workspace()
        };
        let request = transfer::action("tree_import", &import)?;
        let told = progress.clone();
        let sent = match live.call(&request).await {
            Ok(mut call) => {
                transfer::send(&mut call, self.edits.chain(archive), move |done| {
                    told(Progress::Bytes {
                        what: "sync".into(),
                        done: done.bytes,
                        total: None,
                    });
                })
                .await
            }
            Err(error) => Err(error),
        };
        let end = workspace.explained(live, sent).await?;
        workspace.sync(live).await?;
        Ok(end)
    }
}

/// Puts a path into a request: as text, or in base64 if it is none.
pub(super) fn named(request: &mut Value, name: &str, path: &[u8]) {
    if let Ok(text) = std::str::from_utf8(path) {
        request[name] = text.into();
    } else {
        let encoded = base64::engine::general_purpose::STANDARD.encode(path);
        request[format!("{name}_b64")] = encoded.into();
    }
}

fn archive(puts: &[(Vec<u8>, Put)]) -> Vec<u8> {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let modified = Time {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: since.subsec_nanos(),
    };
    let mut writer = Writer::new(Vec::new());
    let infallible = "memory takes all that is written";
    for (path, put) in puts {
        let (kind, mode, content) = match put {
            Put::File { content, mode } => {
                (Kind::File(content.len() as u64), *mode, content.as_slice())
            }
            Put::Symlink(target) => (Kind::Symlink(target), 0o777, [].as_slice()),
        };
        let member = Member {
            path,
            kind,
            mode,
            uid: 0,
            gid: 0,
            modified,
            attributes: &[],
        };
        writer.member(&member).expect(infallible);
        if !content.is_empty() {
            writer.content(content).expect(infallible);
        }
    }
    writer.finish().expect(infallible);
    writer.into_inner()
}
