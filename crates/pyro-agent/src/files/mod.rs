//! Files of the guest: looking at them, changing them, searching them.
//!
//! Every path is resolved beneath a root by directory handle ([`place`]), so that no name and
//! no race leads out of it. All work on disks is done away from the thread that serves
//! ([`work`]); what may take long ends when the peer does.

mod change;
mod content;
mod copy;
pub(crate) mod entry;
pub(crate) mod fault;
mod grep;
mod ignored;
mod legacy;
pub(crate) mod list;
pub(crate) mod pattern;
pub(crate) mod place;
mod read;
mod remove;
mod search;
pub(crate) mod walk;
pub(crate) mod work;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::files::{FileRead, FileRequest, FileWrite, FileWritten, Target};
use pyro_protocol::frame::Kind;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::wire::{self, tell};
use fault::Outcome;
use place::{Missing, Place};
use read::Reading;
use work::{Slots, short};
use write::{Manner, Writing};

/// How long content that nobody wants any more is read, so that its sender comes to the
/// reply that tells why.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// The files that an agent serves.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    workspace: Arc<Path>,
    slots: Slots,
}

impl Files {
    /// `workspace` is what requests call `/workspace`.
    pub(crate) fn new(workspace: PathBuf) -> Self {
        Self {
            workspace: workspace.into(),
            slots: Slots::new(),
        }
    }

    /// Does what `request` asks and answers.
    pub(crate) async fn answer<R, W>(
        &self,
        request: FileRequest,
        mut reader: R,
        writer: &mut W,
    ) -> std::io::Result<()>
    where
        R: AsyncRead + Unpin + 'static,
        W: AsyncWrite + Unpin,
    {
        let files = self.clone();
        match request {
            FileRequest::Stat(stat) => {
                let work = move || list::stat(&files.at(&stat.target)?, stat.follow);
                tell(writer, short(work).await).await
            }
            FileRequest::List(request) => {
                // One directory is short work, whoever waits for it.
                let peer: Box<dyn AsyncRead + Unpin> = if request.recursive {
                    Box::new(reader)
                } else {
                    Box::new(Never)
                };
                let page = self
                    .slots
                    .run(peer, move |cancel| {
                        list::list(&files.at(&request.target)?, &request, cancel)
                    })
                    .await;
                tell(writer, page).await
            }
            FileRequest::Read(request) => self.read(request, writer).await,
            FileRequest::Write(request) => self.write(request, &mut reader, writer).await,
            FileRequest::Mkdir(request) => {
                let made = short(move || {
                    let missing = if request.parents {
                        Missing::IsMade
                    } else {
                        Missing::Fails
                    };
                    let place = Place::open(&files.workspace, &request.target, missing)?;
                    let (entry, created) = change::mkdir(&place, &request)?;
                    Ok(json!({"path": entry.path, "mode": entry.mode, "created": created}))
                });
                tell(writer, made.await).await
            }
            FileRequest::Rename(request) => {
                let renamed = short(move || {
                    let place = files.at(&request.target)?;
                    change::rename(&place, &place.sibling(&request.to.0)?, &request)
                });
                tell(writer, renamed.await).await
            }
            FileRequest::Remove(request) => {
                let removed = self
                    .slots
                    .run(reader, move |cancel| {
                        remove::remove(&files.at(&request.target)?, &request, cancel)
                    })
                    .await;
                tell(writer, removed).await
            }
            FileRequest::Copy(request) => {
                let copied = self
                    .slots
                    .run(reader, move |cancel| {
                        let place = files.at(&request.target)?;
                        let to = place.sibling(&request.to.0)?;
                        copy::copy(&place, &to, &request, cancel)
                    })
                    .await;
                tell(writer, copied).await
            }
            FileRequest::Glob(request) => {
                let page = self
                    .slots
                    .run(reader, move |cancel| {
                        list::glob(&files.at(&request.target)?, &request, cancel)
                    })
                    .await;
                tell(writer, page).await
            }
            FileRequest::Grep(request) => {
                let found = self
                    .slots
                    .run(reader, move |cancel| {
                        grep::grep(&files.at(&request.target)?, &request, cancel)
                    })
                    .await;
                tell(writer, found).await
            }
            // The original's peers may end their direction after the request.
            FileRequest::LegacyList(request) => {
                let listed = self
                    .slots
                    .run(Never, move |cancel| {
                        legacy::list(&files.legacy(&request.path)?, request.recursive, cancel)
                    })
                    .await;
                tell(writer, listed).await
            }
            FileRequest::LegacyRead(request) => {
                let read = short(move || legacy::read(&files.legacy(&request.path)?, &request));
                tell(writer, read.await).await
            }
            FileRequest::LegacyWrite(request) => {
                let written =
                    short(move || legacy::write(&files.legacy(&request.path)?, &request.text));
                tell(writer, written.await).await
            }
            FileRequest::LegacyDelete(request) => {
                let deleted = short(move || legacy::delete(&files.legacy(&request.path)?));
                tell(writer, deleted.await).await
            }
        }
    }

    /// Whether something stands at `path` in the workspace. Symlinks are followed inside it.
    pub(crate) async fn exists(&self, path: &str) -> bool {
        let files = self.clone();
        let target = Target::workspace(path);
        short(move || files.at(&target)?.stat(true)).await.is_ok()
    }

    async fn read<W>(&self, request: FileRead, writer: &mut W) -> std::io::Result<()>
    where
        W: AsyncWrite + Unpin,
    {
        let files = self.clone();
        let target = request.target.clone();
        if request.text {
            let text = short(move || read::text(&files.at(&target)?, &request));
            return tell(writer, text.await).await;
        }
        match short(move || Reading::open(&files.at(&target)?, true)).await {
            Ok(reading) => read::stream(reading, &request, writer).await,
            Err(error) => wire::write_line(writer, &error).await,
        }
    }

    async fn write<R, W>(
        &self,
        request: FileWrite,
        reader: &mut R,
        writer: &mut W,
    ) -> std::io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let files = self.clone();
        let streamed = request.content.is_none() && request.content_b64.is_none();
        let begun = short(move || {
            let mut writing = files.begin(&request)?;
            if let Some(content) = request.inline()? {
                writing.put(&content)?;
                return writing.finish().map(Begun::Done);
            }
            Ok(Begun::Open(Box::new(writing)))
        });
        let written = match begun.await {
            Ok(Begun::Done(written)) => Ok(written),
            Ok(Begun::Open(writing)) => write::receive(*writing, reader).await,
            Err(error) => Err(error),
        };
        let failed = written.is_err();
        tell(writer, written).await?;
        if failed && streamed {
            let _ = timeout(DRAIN_DEADLINE, drain(reader)).await;
        }
        Ok(())
    }

    fn begin(&self, request: &FileWrite) -> Outcome<Writing> {
        let missing = if request.create_parents {
            Missing::IsMade
        } else {
            Missing::Fails
        };
        let place = Place::open(&self.workspace, &request.target, missing)?;
        if request.create_parents {
            place.parent_made()?;
        }
        let (parent, name) = if request.must_not_exist {
            // A link is something that exists.
            (place.parent()?, place.name()?.to_owned())
        } else {
            place.behind_links()?
        };
        Writing::begin(&place, parent, name, Manner::from(request))
    }

    /// The place that `target` names.
    pub(crate) fn at(&self, target: &Target) -> Outcome<Place> {
        Place::open(&self.workspace, target, Missing::Fails)
    }

    /// The room for long work.
    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The place of a path as the original has it.
    pub(crate) fn legacy(&self, path: &str) -> Outcome<Place> {
        let target = Target::workspace(path.trim());
        if target.path.is_empty() || target.path.contains(&0) {
            return Err(fault::fault(
                ErrorCode::InvalidArgument,
                &target.path,
                "is no path",
            ));
        }
        Place::open(&self.workspace, &target, Missing::IsMade)
    }
}

/// Whether a request is one that changes the disk. A thread that writes to a frozen one
/// could not be had back, so it has to wait before.
pub(crate) fn writes(request: &FileRequest) -> bool {
    match request {
        FileRequest::Write(_)
        | FileRequest::Mkdir(_)
        | FileRequest::Rename(_)
        | FileRequest::Remove(_)
        | FileRequest::Copy(_)
        | FileRequest::LegacyWrite(_)
        | FileRequest::LegacyDelete(_) => true,
        FileRequest::Stat(_)
        | FileRequest::List(_)
        | FileRequest::Read(_)
        | FileRequest::Glob(_)
        | FileRequest::Grep(_)
        | FileRequest::LegacyList(_)
        | FileRequest::LegacyRead(_) => false,
    }
}

enum Begun {
    Done(FileWritten),
    Open(Box<Writing>),
}

/// Reads what the peer still sends.
async fn drain<R: AsyncRead + Unpin>(reader: &mut R) {
    while let Ok(Some(frame)) = wire::read_frame(reader).await {
        if frame.kind == Kind::StdinEnd {
            return;
        }
    }
}

/// A peer that never ends its direction.
pub(crate) struct Never;

impl AsyncRead for Never {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Pending
    }
}
