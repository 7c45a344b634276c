//! One walk for a manifest, from the request to the file that holds it.

use std::fs::File;
use std::io::BufWriter;
use std::os::fd::OwnedFd;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::index::{BaselineName, TreeDigest, TreeScope};

use super::clock::Clock;
use super::hash::{Counters, Hasher};
use super::home::{Home, Key, Sink, Unfinished};
use super::manifest::{Head, Reader, Totals, Writer, totals};
use super::scan::{Scan, Tally};
use super::tell::damaged;
use super::trust::is_usable;
use crate::files::fault::Outcome;
use crate::files::list::anywhere;
use crate::files::work::Cancel;

/// What the present is compared with.
pub(super) enum Since {
    /// With nothing.
    Nothing,
    /// With what was of this generation.
    Generation(TreeDigest),
    /// With this baseline.
    Baseline(BaselineName),
}

/// A walk to be made.
pub(super) struct Order {
    /// As the agent resolves it.
    pub(super) scope: TreeScope,
    pub(super) directory: OwnedFd,
    pub(super) key: Key,
    /// Trust nothing that is known.
    pub(super) fresh: bool,
    pub(super) since: Since,
    /// Name the manifest so.
    pub(super) name: Option<BaselineName>,
}

/// A walk that was made.
pub(super) struct Walked {
    pub(super) manifest: Reader,
    /// What the present is compared with.
    pub(super) reference: Option<Reader>,
    /// The manifest is of the upper layer of an overlay.
    pub(super) whiteouts: bool,
    pub(super) totals: Totals,
    pub(super) tally: Tally,
}

/// What a walk works with.
#[derive(Clone, Copy)]
pub(super) struct Tools<'a> {
    pub(super) home: &'a Home,
    pub(super) clock: Clock,
    pub(super) cancel: &'a Cancel,
    pub(super) counters: &'a Counters,
}

/// A manifest that is complete, and not kept yet.
pub(super) struct Written<'a> {
    pub(super) unfinished: Unfinished<'a>,
    pub(super) totals: Totals,
    pub(super) tally: Tally,
}

impl<'a> Tools<'a> {
    /// Writes a manifest of `scope` by what `walk` does with a scan beside `known`.
    pub(super) fn write(
        self,
        scope: &TreeScope,
        known: Option<Reader>,
        walk: impl FnOnce(Scan<'_, BufWriter<Sink<'_>>>) -> Outcome<(Totals, Tally)>,
    ) -> Outcome<Written<'a>> {
        let began = self.clock.now();
        let head = Head {
            scope: scope.clone(),
            began,
        };
        let unfinished = self.home.begin()?;
        let (totals, tally) = walk(Scan {
            known: known.filter(|known| is_usable(known.head().began, began)),
            writer: Writer::new(BufWriter::new(unfinished.sink()), &head)?,
            hash: scope.hash,
            layer: false,
            exclude: anywhere(&scope.exclude)?,
            hasher: Hasher::new(self.clock, self.cancel, self.counters),
            tally: Tally::default(),
        })?;
        Ok(Written {
            unfinished,
            totals,
            tally,
        })
    }

    /// The manifest of the walk before. One that is damaged or of something else is as good as
    /// none.
    pub(super) fn known(self, key: &Key, scope: &TreeScope) -> Outcome<Option<Reader>> {
        Ok(self.home.walk(key)?.and_then(|file| usable(file, scope)))
    }
}

fn usable(file: File, scope: &TreeScope) -> Option<Reader> {
    let reader = Reader::new(file).ok()?;
    (reader.head().scope == *scope).then_some(reader)
}

impl Order {
    /// Walks, and keeps the manifest.
    pub(super) fn run(self, tools: Tools<'_>) -> Outcome<Walked> {
        let reference = self.reference(tools.home)?;
        let known = self.known(tools)?;
        let written = tools.write(&self.scope, known, |scan| scan.run(&self.directory))?;
        if let Some(name) = &self.name {
            written.unfinished.name(name)?;
        }
        let file = written.unfinished.open()?;
        written.unfinished.keep(&self.key)?;
        Ok(Walked {
            manifest: Reader::new(file).map_err(|damage| damaged(&damage))?,
            reference,
            whiteouts: false,
            totals: written.totals,
            tally: written.tally,
        })
    }

    /// What was known before: the manifest of the walk before or, if that is gone, the baseline.
    fn known(&self, tools: Tools<'_>) -> Outcome<Option<Reader>> {
        if self.fresh {
            return Ok(None);
        }
        if let Some(known) = tools.known(&self.key, &self.scope)? {
            return Ok(Some(known));
        }
        match &self.since {
            Since::Baseline(name) => {
                let baseline = tools.home.baseline(name)?;
                Ok(baseline.and_then(|file| usable(file, &self.scope)))
            }
            Since::Nothing | Since::Generation(_) => Ok(None),
        }
    }

    fn reference(&self, home: &Home) -> Outcome<Option<Reader>> {
        match &self.since {
            Since::Nothing => Ok(None),
            Since::Baseline(name) => baseline(home, name).map(Some),
            Since::Generation(generation) => {
                let mut candidates = vec![home.walk(&self.key)?];
                for name in home.baselines()? {
                    candidates.push(home.baseline(&name)?);
                }
                for file in candidates.into_iter().flatten() {
                    if totals(&file).is_ok_and(|totals| totals.generation == *generation)
                        && let Ok(reader) = Reader::new(file)
                        && reader.head().scope == self.scope
                    {
                        return Ok(Some(reader));
                    }
                }
                Err(ErrorReply::new(
                    ErrorCode::FailedPrecondition,
                    format!(
                        "no manifest of generation {generation} is kept any more: ask for all entries"
                    ),
                ))
            }
        }
    }
}

/// Opens the baseline `name`.
pub(super) fn baseline(home: &Home, name: &BaselineName) -> Outcome<Reader> {
    let file = home
        .baseline(name)?
        .ok_or_else(|| super::home::missing(name))?;
    Reader::new(file).map_err(|damage| damaged(&damage))
}
