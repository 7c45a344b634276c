//! Several changes in a guest that count together: what one of them fails at is taken back.
//!
//! Files that go are moved aside first, into a hidden directory of the workspace, and removed when all is done.

use pyro_archive::tar::header::{Kind, Member, Time};
use pyro_archive::tar::write::Writer;
use pyro_protocol::archive::import::TreeImport;
use serde_json::{Value, json};

use super::Workspace;
use super::jobs::ask;
use super::live::Live;
use crate::error::Error;
use crate::machine::new_id;
use crate::transfer;

/// Something to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// A file with its permission bits.
    File { content: Vec<u8>, mode: u32 },
    /// A symbolic link.
    Symlink(Vec<u8>),
}

/// Changes that are being made.
pub(super) struct GuestEdit<'a> {
    workspace: &'a Workspace,
    live: &'a Live,
    aside: String,
    has_aside: bool,
    moved: Vec<(Vec<u8>, Vec<u8>)>,
    puts: Vec<(Vec<u8>, Put)>,
}

impl<'a> GuestEdit<'a> {
    pub(super) fn new(workspace: &'a Workspace, live: &'a Live) -> Self {
        Self {
            workspace,
            live,
            aside: format!(".pyro-aside-{}", new_id()),
            has_aside: false,
            moved: Vec::new(),
            puts: Vec::new(),
        }
    }

    /// Writes something, with those that are put next to it at once.
    pub(super) fn put(&mut self, path: Vec<u8>, put: Put) {
        self.puts.push((path, put));
    }

    /// Removes what is at a path.
    pub(super) async fn remove(&mut self, path: &[u8]) -> Result<(), Error> {
        self.flush().await?;
        if !self.has_aside {
            let made = json!({"action": "file_mkdir", "path": self.aside});
            self.ask(&made).await?;
            self.has_aside = true;
        }
        let to = format!("{}/{}", self.aside, self.moved.len()).into_bytes();
        self.rename_now(path.to_vec(), to).await
    }

    /// Gives what is at a path another one, where nothing is. Directories above it are made.
    pub(super) async fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), Error> {
        self.flush().await?;
        self.rename_now(from.to_vec(), to.to_vec()).await
    }

    async fn rename_now(&mut self, from: Vec<u8>, to: Vec<u8>) -> Result<(), Error> {
        let mut request = json!({"action": "file_rename", "create_parents": true});
        named(&mut request, "path", &from);
        named(&mut request, "to", &to);
        self.ask(&request).await?;
        self.moved.push((from, to));
        Ok(())
    }

    /// Writes what was put. It counts as a whole or not at all.
    async fn flush(&mut self) -> Result<(), Error> {
        if self.puts.is_empty() {
            return Ok(());
        }
        let archive = archive(&std::mem::take(&mut self.puts));
        let request = transfer::action("tree_import", &TreeImport::workspace())?;
        let sent = match self.live.call(&request).await {
            Ok(mut call) => transfer::send(&mut call, archive.as_slice(), |_| {}).await,
            Err(error) => Err(error),
        };
        self.workspace.explained(self.live, sent).await.map(drop)
    }

    /// Makes all of it count.
    pub(super) async fn commit(mut self) -> Result<(), Error> {
        if let Err(error) = self.flush().await {
            self.undo().await;
            return Err(error);
        }
        if self.has_aside {
            let gone = json!({"action": "file_remove", "path": self.aside, "recursive": true});
            self.ask(&gone).await?;
        }
        self.workspace.sync(self.live).await
    }

    /// Puts back what was moved. What was written before stays written: callers write last.
    pub(super) async fn undo(mut self) {
        while let Some((from, to)) = self.moved.pop() {
            let mut request = json!({"action": "file_rename", "create_parents": true});
            named(&mut request, "path", &to);
            named(&mut request, "to", &from);
            // The one before can be put back even if this one cannot.
            let _ = self.ask(&request).await;
        }
        if self.has_aside {
            let gone = json!({"action": "file_remove", "path": self.aside, "recursive": true});
            let _ = self.ask(&gone).await;
        }
    }

    async fn ask(&self, request: &Value) -> Result<Value, Error> {
        let answered = ask::<Value>(self.live, request).await;
        self.workspace.explained(self.live, answered).await
    }
}

/// Puts a path into a request: as text, or in base64 if it is none.
pub(super) fn named(request: &mut Value, name: &str, path: &[u8]) {
    use base64::Engine as _;
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
