//! One walk for a manifest, from the request to the file that holds it.

use std::fs::File;
use std::io::BufWriter;
use std::os::fd::OwnedFd;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::index::{BaselineName, TreeDigest, TreeScope};

use super::clock::Clock;
use super::hash::{Counters, Hasher};
use super::home::{Home, Key};
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
    pub(super) totals: Totals,
    pub(super) tally: Tally,
}

impl Order {
    /// Walks, and keeps the manifest.
    pub(super) fn run(
        self,
        home: &Home,
        clock: Clock,
        cancel: &Cancel,
        counters: &Counters,
    ) -> Outcome<Walked> {
        let reference = self.reference(home)?;
        let began = clock.now();
        let known = if self.fresh {
            None
        } else {
            self.known(home)?
                .filter(|known| is_usable(known.head().began, began))
        };
        let head = Head {
            scope: self.scope.clone(),
            began,
        };
        let unfinished = home.begin()?;
        let scan = Scan {
            known,
            writer: Writer::new(BufWriter::new(unfinished.file()), &head)?,
            hash: self.scope.hash,
            exclude: anywhere(&self.scope.exclude)?,
            hasher: Hasher::new(clock, cancel, counters),
            tally: Tally::default(),
        };
        let (totals, tally) = scan.run(&self.directory)?;
        if let Some(name) = &self.name {
            unfinished.name(name)?;
        }
        let file = unfinished.keep(&self.key)?;
        Ok(Walked {
            manifest: Reader::new(file).map_err(|damage| damaged(&damage))?,
            reference,
            totals,
            tally,
        })
    }

    /// What was known before: the manifest of the walk before or, if that is gone, the baseline.
    /// One that is damaged or of something else is as good as none.
    fn known(&self, home: &Home) -> Outcome<Option<Reader>> {
        let usable = |file: File| {
            let reader = Reader::new(file).ok()?;
            (reader.head().scope == self.scope).then_some(reader)
        };
        if let Some(known) = home.walk(&self.key)?.and_then(usable) {
            return Ok(Some(known));
        }
        match &self.since {
            Since::Baseline(name) => Ok(home.baseline(name)?.and_then(usable)),
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
