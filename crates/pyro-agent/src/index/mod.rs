//! Manifests of trees, kept so that the next walk reads only what changed.
//!
//! ```text
//! request ─▶ place ─▶ turn ─▶ walk beside the manifest before ─▶ new manifest, renamed into place
//!                              └─ progress frames                  └─ told from the file ─▶ end
//! ```
//!
//! A manifest is a file on the machine's own disk, outside of what any request can name
//! ([`home`]); in memory there is one block of each that is read or written. A walk never waits
//! for its peer: entries are told only when it is over. What may be trusted of an older
//! manifest is decided in [`trust`] alone. See `docs/design/tree-index.md`.

mod clock;
mod compare;
mod hash;
mod home;
mod layers;
mod manifest;
mod order;
mod scan;
mod tell;
#[cfg(test)]
mod tests;
mod trust;
mod turns;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::files::Target;
use pyro_protocol::frame::Kind;
use pyro_protocol::index::{
    BaselineInfo, BaselineList, BaselineName, Reference, Told, TreeBaseline, TreeChanges, TreeEnd,
    TreeHeader, TreeIndex, TreeProgress, TreeRequest, TreeScope,
};
use pyro_protocol::limits::MAX_TREE_WALKS;
use rustix::fs::OFlags;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::interval;

use crate::files::Files;
use crate::files::entry;
use crate::files::fault::{Outcome, at};
use crate::files::work::{Slots, short};
use crate::wire::{self, tell};
use clock::Clock;
use compare::Changes;
use hash::Counters;
use home::{Home, Key};
pub use layers::Layers;
use manifest::{Totals, totals};
use order::{Order, Since, Tools, Walked, baseline};
use pyro_archive::beneath::DIRECTORY;
use scan::Tally;
use tell::{Broken, Filter, Source, Sum, Teller, damaged};
use turns::Turns;

/// Time between two progress frames.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// The manifests that an agent keeps.
#[derive(Clone, Debug)]
pub(crate) struct Trees {
    files: Files,
    home: Option<Arc<Home>>,
    layers: Option<Arc<Layers>>,
    slots: Slots,
    turns: Turns,
    clock: Clock,
}

impl Trees {
    /// Without a place to keep manifests, every request is refused.
    pub(crate) fn new(files: Files) -> Self {
        Self {
            files,
            home: None,
            layers: None,
            slots: Slots::of(MAX_TREE_WALKS),
            turns: Turns::default(),
            clock: Clock::of_this_machine(),
        }
    }

    /// The same, keeping manifests in `directory`.
    pub(crate) fn keeping(self, directory: OwnedFd) -> Self {
        Self {
            home: Some(Arc::new(Home::new(directory))),
            ..self
        }
    }

    /// The same, where the root is an overlay of `layers`.
    pub(crate) fn above(self, layers: Layers) -> Self {
        Self {
            layers: Some(Arc::new(layers)),
            ..self
        }
    }

    /// Does what `request` asks and answers.
    pub(crate) async fn answer<R, W>(
        &self,
        request: TreeRequest,
        reader: R,
        writer: &mut W,
    ) -> std::io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        match request {
            TreeRequest::Index(request) => self.index(request, reader, writer).await,
            TreeRequest::Changes(request) => self.changes(request, reader, writer).await,
            TreeRequest::Keep(request) => self.keep(request, reader, writer).await,
            TreeRequest::Baselines => {
                let listed = match self.home() {
                    Ok(home) => short(move || list(&home)).await,
                    Err(error) => Err(error),
                };
                tell(writer, listed).await
            }
            TreeRequest::Remove(name) => {
                let removed = match self.home() {
                    Ok(home) => short(move || home.remove_baseline(&name)).await,
                    Err(error) => Err(error),
                };
                tell(writer, removed.map(|()| json!({"ok": true}))).await
            }
        }
    }

    async fn index<R, W>(
        &self,
        request: TreeIndex,
        reader: R,
        writer: &mut W,
    ) -> std::io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let filter = match Filter::new(&request.include, &[]) {
            Ok(filter) => filter,
            Err(error) => return wire::write_line(writer, &error).await,
        };
        let since = match request.changed_since {
            Some(generation) => Since::Generation(generation),
            None => Since::Nothing,
        };
        let walk = self.ordered(request.scope, move |_home, order| {
            Ok(Order {
                fresh: request.fresh,
                since,
                ..order
            })
        });
        let lines = request.entries == Told::All;
        self.walk_and_tell(walk.await, filter, lines, reader, writer)
            .await
    }

    async fn keep<R, W>(
        &self,
        request: TreeBaseline,
        reader: R,
        writer: &mut W,
    ) -> std::io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let walk = self.ordered(request.scope, move |home, order| {
            home.room_for(&request.name)?;
            Ok(Order {
                name: Some(request.name),
                ..order
            })
        });
        self.walk_and_tell(walk.await, Filter::default(), false, reader, writer)
            .await
    }

    async fn changes<R, W>(
        &self,
        request: TreeChanges,
        reader: R,
        writer: &mut W,
    ) -> std::io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let filter = match Filter::new(&request.include, &request.exclude) {
            Ok(filter) => filter,
            Err(error) => return wire::write_line(writer, &error).await,
        };
        let lines = request.entries == Told::All;
        let name = match request.name {
            Reference::Baseline(name) => name,
            Reference::Image => return self.image(filter, lines, reader, writer).await,
        };
        if let Some(to) = request.to {
            return self.between(name, to, filter, lines, writer).await;
        }
        let scope = match self.home() {
            Ok(home) => {
                let name = name.clone();
                short(move || Ok(baseline(&home, &name)?.head().scope.clone())).await
            }
            Err(error) => Err(error),
        };
        let walk = match scope {
            Ok(scope) => {
                let since = Since::Baseline(name);
                self.ordered(scope, |_home, order| Ok(Order { since, ..order }))
                    .await
            }
            Err(error) => Err(error),
        };
        self.walk_and_tell(walk, filter, lines, reader, writer)
            .await
    }

    /// What differs from the image.
    async fn image<R, W>(
        &self,
        filter: Filter,
        lines: bool,
        reader: R,
        writer: &mut W,
    ) -> std::io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let walk = match self.layers.clone() {
            Some(layers) => Ok(Walk {
                scope: layers::scope(),
                key: layers::key(),
                work: move |tools: Tools<'_>| layers::compare(&layers, tools),
            }),
            None => Err(ErrorReply::new(
                ErrorCode::Unsupported,
                "this machine's root is not an overlay of the image",
            )),
        };
        self.walk_and_tell(walk, filter, lines, reader, writer)
            .await
    }

    /// What differs between two baselines.
    async fn between<W>(
        &self,
        name: BaselineName,
        to: BaselineName,
        filter: Filter,
        lines: bool,
        writer: &mut W,
    ) -> std::io::Result<()>
    where
        W: AsyncWrite + Unpin,
    {
        let started = Instant::now();
        let opened = match self.home() {
            Ok(home) => {
                short(move || {
                    let old = baseline(&home, &name)?;
                    let new = baseline(&home, &to)?;
                    if old.head().scope != new.head().scope {
                        return Err(ErrorReply::new(
                            ErrorCode::InvalidArgument,
                            "the baselines are of different scopes",
                        ));
                    }
                    let file = home.baseline(&to)?;
                    let file = file.ok_or_else(|| home::missing(&to))?;
                    Ok((old, new, totals(&file).map_err(|damage| damaged(&damage))?))
                })
                .await
            }
            Err(error) => Err(error),
        };
        let (old, new, totals) = match opened {
            Ok(opened) => opened,
            Err(error) => return wire::write_line(writer, &error).await,
        };
        wire::write_line(writer, &header(&new.head().scope)).await?;
        let changes = Changes {
            old,
            new,
            whiteouts: false,
        };
        let teller = Teller::new(Source::Changes(Box::new(changes)), filter, lines);
        let summary = Summary {
            started,
            totals,
            tally: Tally::default(),
            progress: TreeProgress::default(),
        };
        finish(teller, summary, writer).await
    }

    /// Resolves `scope`, and lets `complete` make an order of it.
    async fn ordered(
        &self,
        scope: TreeScope,
        complete: impl FnOnce(&Home, Order) -> Outcome<Order> + Send + 'static,
    ) -> Outcome<Walk<impl FnOnce(Tools<'_>) -> Outcome<Walked> + Send + 'static>> {
        let home = self.home()?;
        let files = self.files.clone();
        short(move || {
            let place = files.at(&scope.target)?;
            let directory = place
                .open_at(DIRECTORY | OFlags::NOFOLLOW)
                .map_err(at(&place.shown()))?;
            let mut path = place.below_root();
            if path.is_empty() {
                path.push(b'.');
            }
            let scope = TreeScope {
                target: Target {
                    root: Some(String::from_utf8_lossy(&place.show(b"")).into_owned()),
                    path,
                },
                ..scope
            };
            let order = Order {
                key: Key::of(&scope),
                scope,
                directory,
                fresh: false,
                since: Since::Nothing,
                name: None,
            };
            let order = complete(&home, order)?;
            Ok(Walk {
                scope: order.scope.clone(),
                key: order.key.clone(),
                work: move |tools: Tools<'_>| order.run(tools),
            })
        })
        .await
    }

    /// Walks, then tells what the request wants to know.
    async fn walk_and_tell<R, W>(
        &self,
        walk: Outcome<Walk<impl FnOnce(Tools<'_>) -> Outcome<Walked> + Send + 'static>>,
        filter: Filter,
        lines: bool,
        reader: R,
        writer: &mut W,
    ) -> std::io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let started = Instant::now();
        let (walk, home) = match walk.and_then(|walk| Ok((walk, self.home()?))) {
            Ok(both) => both,
            Err(error) => return wire::write_line(writer, &error).await,
        };
        wire::write_line(writer, &header(&walk.scope)).await?;
        let counters = Arc::new(Counters::default());
        let walked = self.walk(walk, home, &counters, reader, writer).await?;
        let walked = match walked {
            Ok(walked) => walked,
            Err(error) => return wire::write_end(writer, &error).await,
        };
        let source = match walked.reference {
            None => Source::Entries(Box::new(walked.manifest)),
            Some(old) => Source::Changes(Box::new(Changes {
                old,
                new: walked.manifest,
                whiteouts: walked.whiteouts,
            })),
        };
        let summary = Summary {
            started,
            totals: walked.totals,
            tally: walked.tally,
            progress: counters.read(),
        };
        finish(Teller::new(source, filter, lines), summary, writer).await
    }

    async fn walk<R, W>(
        &self,
        walk: Walk<impl FnOnce(Tools<'_>) -> Outcome<Walked> + Send + 'static>,
        home: Arc<Home>,
        counters: &Arc<Counters>,
        reader: R,
        writer: &mut W,
    ) -> std::io::Result<Outcome<Walked>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let turn = self.turns.of(&walk.key);
        let counted = Arc::clone(counters);
        let clock = self.clock;
        let work = async {
            let _turn = turn.acquire().await;
            let run = self.slots.run(reader, move |cancel| {
                let tools = Tools {
                    home: &home,
                    clock,
                    cancel,
                    counters: &counted,
                };
                (walk.work)(tools)
            });
            run.await
        };
        tokio::pin!(work);
        let mut tick = interval(PROGRESS_EVERY);
        tick.reset();
        loop {
            tokio::select! {
                walked = &mut work => return Ok(walked),
                _ = tick.tick() => {
                    let progress = serde_json::to_vec(&counters.read())?;
                    wire::write_frame(writer, Kind::Progress, &progress).await?;
                    writer.flush().await?;
                }
            }
        }
    }

    fn home(&self) -> Outcome<Arc<Home>> {
        self.home.clone().ok_or_else(|| {
            ErrorReply::new(
                ErrorCode::FailedPrecondition,
                "this machine has no disk to keep manifests on",
            )
        })
    }
}

/// A walk to be made by `work`, and what it is of.
struct Walk<F> {
    scope: TreeScope,
    key: Key,
    work: F,
}

/// What an end frame tells, but for the lines.
struct Summary {
    started: Instant,
    totals: Totals,
    tally: Tally,
    progress: TreeProgress,
}

impl Summary {
    fn end(&self, sum: &Sum) -> TreeEnd {
        TreeEnd {
            generation: self.totals.generation,
            entries: self.totals.entries,
            files: self.totals.files,
            bytes: self.totals.bytes,
            files_hashed: self.progress.files_hashed,
            bytes_hashed: self.progress.bytes_hashed,
            reused: self.tally.reused,
            unreadable: self.tally.unreadable,
            unsettled: self.tally.unsettled,
            lines: sum.lines,
            changes: sum.changes,
            elapsed_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

async fn finish<W>(teller: Teller, summary: Summary, writer: &mut W) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    match teller.stream(writer).await {
        Ok(sum) => wire::write_end(writer, &summary.end(&sum)).await,
        Err(Broken::Store(error)) => wire::write_end(writer, &error).await,
        Err(Broken::Peer(error)) => Err(error),
    }
}

fn header(scope: &TreeScope) -> TreeHeader {
    TreeHeader {
        frames: true,
        path: shown(scope),
    }
}

/// The directory of a resolved scope, as the guest knows it.
fn shown(scope: &TreeScope) -> String {
    let root = scope.target.root.as_deref().unwrap_or_default();
    let below = entry::text(&scope.target.path).0;
    match (root, below.as_str()) {
        (root, ".") => root.to_owned(),
        ("/", below) => format!("/{below}"),
        (root, below) => format!("{root}/{below}"),
    }
}

fn list(home: &Home) -> Outcome<BaselineList> {
    let mut list = BaselineList {
        baselines: Vec::new(),
        damaged: Vec::new(),
    };
    for name in home.baselines()? {
        let (Some(file), Ok(reader)) = (home.baseline(&name)?, baseline(home, &name)) else {
            list.damaged.push(name.into());
            continue;
        };
        let (Ok(totals), Ok(stat)) = (totals(&file), file.metadata()) else {
            list.damaged.push(name.into());
            continue;
        };
        list.baselines.push(BaselineInfo {
            name: name.into(),
            path: shown(&reader.head().scope),
            generation: totals.generation,
            entries: totals.entries,
            created_ns: reader.head().began.as_nanoseconds(),
            stored_bytes: stat.len(),
        });
    }
    Ok(list)
}
