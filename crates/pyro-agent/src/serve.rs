//! Serving requests: one stream, one request, one task.
//!
//! Owns the dispatch from a request to the module that does the work. A stream that sends
//! garbage, stops halfway or disappears costs that stream only.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyro_protocol::GENERATION;
use pyro_protocol::archive::import::SECRETS;
use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::exec::ReplyForm;
use pyro_protocol::files::WORKSPACE;
use pyro_protocol::limits::FRAME_CHUNK;
use pyro_protocol::request::{BootTimes, Hello, Request, actions};
use serde_json::json;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use crate::archive::{Archives, Imports};
use crate::budget::Budget;
use crate::exec::Reaper;
use crate::files::Files;
pub use crate::index::Layers;
use crate::index::Trees;
use crate::jobs::{self, Jobs};
use crate::machine::{End, Machine, Settings, connect_tcp, elsewhere};
use crate::services::Services;
use crate::shells::Shells;
use crate::wire::{self, tell};
use crate::{BUILD_ID, exec, files, image};

/// How long a peer may take to send its request line.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// What the streams of one agent share.
#[derive(Clone, Debug)]
pub struct Agent {
    reaper: Reaper,
    budget: Budget,
    jobs: Jobs,
    shells: Shells,
    machine: Machine,
    boot: BootTimes,
    files: Files,
    services: Services,
    archives: Archives,
    trees: Trees,
    imports: Imports,
}

impl Agent {
    /// An agent that tells `boot` in its hello.
    ///
    /// Must be made inside the current-thread runtime with a `LocalSet` that will serve:
    /// it starts the task that reaps every child of this process.
    pub fn new(boot: BootTimes) -> std::io::Result<Self> {
        Self::with_workspace(boot, PathBuf::from(WORKSPACE))
    }

    /// As [`Agent::new`], with the directory `workspace` in the place of `/workspace`.
    pub fn with_workspace(boot: BootTimes, workspace: PathBuf) -> std::io::Result<Self> {
        Self::of(boot, workspace, elsewhere())
    }

    /// As [`Agent::new`], with the machine's settings behind `settings`. Without them there
    /// are none.
    pub fn with_settings(boot: BootTimes, settings: Arc<dyn Settings>) -> std::io::Result<Self> {
        Self::of(boot, PathBuf::from(WORKSPACE), settings)
    }

    fn of(
        boot: BootTimes,
        workspace: PathBuf,
        settings: Arc<dyn Settings>,
    ) -> std::io::Result<Self> {
        let reaper = Reaper::start()?;
        let budget = Budget::of_this_machine();
        let machine = Machine::with(settings);
        let files = Files::new(workspace.clone());
        Ok(Self {
            archives: Archives::new(files.clone()),
            imports: Imports::new(workspace, PathBuf::from(SECRETS)),
            trees: Trees::new(files.clone()),
            services: Services::new(reaper.clone(), files.clone(), machine.freezer()),
            shells: Shells::new(reaper.clone(), budget.clone(), machine.freezer()),
            budget,
            jobs: Jobs::new(machine.freezer()),
            files,
            reaper,
            machine,
            boot,
        })
    }

    /// The same, keeping manifests of trees in `directory`, which nobody else writes to and
    /// which lies in no tree that is indexed.
    #[must_use]
    pub fn keeping_trees(self, directory: OwnedFd) -> Self {
        Self {
            trees: self.trees.keeping(directory),
            ..self
        }
    }

    /// The same on a machine whose root is an overlay of `layers`.
    #[must_use]
    pub fn above_image(self, layers: Layers) -> Self {
        Self {
            trees: self.trees.above(layers),
            ..self
        }
    }

    /// The same on a machine whose disk may outlive it: staged imports are noted there.
    #[must_use]
    pub fn noting_imports(mut self) -> Self {
        self.imports.note_staged();
        self
    }

    /// The same, with secrets in the directory `secrets`.
    #[must_use]
    pub fn with_secrets(mut self, secrets: PathBuf) -> Self {
        self.imports.keep_secrets_in(secrets);
        self
    }

    /// Waits until a peer asked for power-off and has been answered.
    pub async fn power_off_requested(&self) -> End {
        self.machine.power_off_requested().await
    }

    /// Serves one stream to its end. Faults of the peer end here.
    pub async fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        self.serve_any(Box::new(stream)).await;
    }

    async fn serve_any(&self, stream: Box<dyn ByteStream>) {
        let _served = self.machine.serve();
        let (reader, mut writer) = tokio::io::split(stream);
        let mut reader = BufReader::with_capacity(FRAME_CHUNK, reader);
        let Ok(Ok(Some(line))) =
            timeout(REQUEST_DEADLINE, wire::read_line(&mut reader, &self.budget)).await
        else {
            return;
        };
        let served = match line.and_then(|line| Request::parse(&line)) {
            Ok(request) => match self.machine.admit(&request) {
                Ok(_working) => self.answer(request, reader, &mut writer).await,
                Err(error) => wire::write_line(&mut writer, &error).await,
            },
            Err(error) => wire::write_line(&mut writer, &error).await,
        };
        if served.is_ok() {
            // The peer may be gone by now; that is its right.
            let _ = writer.shutdown().await;
        }
    }

    async fn answer<R, W>(&self, request: Request, reader: R, writer: &mut W) -> std::io::Result<()>
    where
        R: AsyncBufRead + Unpin + 'static,
        W: AsyncWrite + Unpin,
    {
        let machine = &self.machine;
        match request {
            Request::Hello => wire::write_line(writer, &self.hello()).await,
            Request::Ping { reply_bytes } => {
                wire::write_line(writer, &json!({"ok": true, "reply_bytes": reply_bytes})).await?;
                write_zeros(writer, reply_bytes).await
            }
            Request::Exec(command) if self.jobs.ran_before(&command) => {
                let error = ErrorReply::new(
                    ErrorCode::AlreadyExists,
                    "a command with this token was run already",
                );
                wire::write_line(writer, &error).await
            }
            Request::Exec(command) => match command.reply {
                ReplyForm::Collected => {
                    machine.freezer().thawed().await;
                    exec::collected(&self.reaper, &self.budget, &command, writer).await
                }
                ReplyForm::Frames { stdin } => {
                    machine.freezer().thawed().await;
                    exec::streamed(&self.reaper, &command, stdin, reader, writer).await
                }
                ReplyForm::Detached { .. } => {
                    jobs::start(&self.jobs, &self.reaper, command, writer).await
                }
            },
            Request::Job(request) => jobs::answer(&self.jobs, request, reader, writer).await,
            Request::SetClock { unix_ns } => tell(writer, machine.set_clock(unix_ns)).await,
            Request::Files(request) => {
                if files::writes(&request) {
                    machine.freezer().thawed().await;
                }
                self.files.answer(*request, reader, writer).await
            }
            Request::TreeExport(request) => self.archives.export(*request, reader, writer).await,
            Request::ExportArchive(request) => self.archives.export_archive(request, writer).await,
            Request::Tree(request) => self.trees.answer(*request, reader, writer).await,
            Request::Import(request) => self.imports.answer(*request, reader, writer).await,
            Request::BuildRoot(order) => image::build_root(order, writer).await,
            Request::ConnectTcp(order) => connect_tcp(&order, reader, writer).await,
            Request::Metrics => tell(writer, machine.metrics().await).await,
            Request::ReseedEntropy(seed) => tell(writer, machine.reseed(seed).await).await,
            Request::SetIdentity(names) => tell(writer, machine.set_identity(names).await).await,
            Request::Sync(order) => tell(writer, machine.sync(order).await).await,
            Request::Quiesce(order) => {
                let running = || {
                    let services = self.services.running();
                    (self.jobs.running(), self.shells.running(), services)
                };
                tell(writer, machine.quiesce(order, running).await).await
            }
            Request::Freeze(order) => tell(writer, machine.freeze(order).await).await,
            Request::Thaw => tell(writer, machine.thaw().await).await,
            Request::Revive(order) => tell(writer, machine.revive(order).await).await,
            Request::Shell(order) => self.shells.answer(order, reader, writer).await,
            Request::Service(order) => self.services.answer(order, reader, writer).await,
            Request::PowerOff(order) => {
                // Before their processes are ended, which would have some started again.
                self.services.stop_all(order.term);
                machine.order_power_off(order);
                let answered = wire::write_line(writer, &json!({"ok": true})).await;
                let _ = writer.shutdown().await;
                // Also for a peer that did not wait for the answer.
                machine.tell_power_off();
                answered
            }
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            generation: GENERATION,
            version: env!("CARGO_PKG_VERSION").into(),
            build_id: BUILD_ID.into(),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            actions: actions().map(ToOwned::to_owned).collect(),
            boot: self.boot,
        }
    }
}

/// A stream of whatever carrier. All are served as this one type, because everything behind
/// it is compiled once for each: 0.4 MB of the agent.
trait ByteStream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> ByteStream for S {}

async fn write_zeros<W: AsyncWrite + Unpin>(writer: &mut W, mut count: u64) -> std::io::Result<()> {
    let zeros = vec![0; FRAME_CHUNK];
    while count > 0 {
        let piece = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(zeros.len());
        writer.write_all(&zeros[..piece]).await?;
        count -= piece as u64;
    }
    writer.flush().await
}
