//! What the machine's root has that its image has not, read off the overlay's own layers.
//!
//! Whatever was changed below the root lies in the upper layer: files that were written, with
//! all of their content; whiteouts in the place of what is gone; directories that are *opaque*,
//! which hide what the image has there. So the upper layer is walked whole, and of the image
//! only the directories that it touches. Both walks leave manifests like any other, the second
//! of only those paths that are hidden or stand in both; what differs between the two is what
//! was changed.
//!
//! The overlay is mounted without redirections and without copies of metadata alone, the only
//! other things that an upper layer can say.

use std::io::Write;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use pyro_protocol::files::{ArtifactType, Target};
use pyro_protocol::index::TreeScope;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::home::Key;
use super::manifest::{Damage, Reader, Record, Totals};
use super::order::{Tools, Walked};
use super::scan::{Scan, Tally, walk};
use super::tell::damaged;
use crate::files::fault::{Outcome, at};
use crate::files::walk::{Found, Visitor};
use pyro_archive::beneath::DIRECTORY;

/// What the kernel writes on an opaque directory.
const OPAQUE: &str = "trusted.overlay.opaque";

/// The layers of the overlay that is the machine's root.
#[derive(Debug)]
pub struct Layers {
    /// What was written. Nobody writes to it but through the overlay.
    pub upper: OwnedFd,
    /// The image.
    pub lower: OwnedFd,
}

/// What the manifests of both layers are of.
pub(super) fn scope() -> TreeScope {
    TreeScope {
        target: Target {
            root: Some("/".into()),
            path: b".".to_vec(),
        },
        exclude: Vec::new(),
        hash: true,
    }
}

/// The turn of the comparison, and the name of the upper layer's manifest.
pub(super) fn key() -> Key {
    Key::of_layer(&scope(), "upper")
}

/// Walks both layers. The manifest is that of the upper one.
pub(super) fn compare(layers: &Layers, tools: Tools<'_>) -> Outcome<Walked> {
    let scope = scope();
    let (upper_key, lower_key) = (key(), Key::of_layer(&scope, "lower"));
    let known = tools.known(&upper_key, &scope)?;
    let upper = tools.write(&scope, known, |scan| {
        let layer = true;
        Scan { layer, ..scan }.run(&layers.upper)
    })?;
    let read = |file| Reader::new(file).map_err(|damage| damaged(&damage));
    let guide = read(upper.unfinished.open()?)?;
    let known = tools.known(&lower_key, &scope)?;
    let lower = tools.write(&scope, known, |scan| touched(scan, guide, &layers.lower))?;
    let manifest = read(upper.unfinished.open()?)?;
    let reference = read(lower.unfinished.open()?)?;
    upper.unfinished.keep(&upper_key)?;
    lower.unfinished.keep(&lower_key)?;
    Ok(Walked {
        manifest,
        reference: Some(reference),
        whiteouts: true,
        totals: upper.totals,
        tally: Tally {
            reused: upper.tally.reused + lower.tally.reused,
            unreadable: upper.tally.unreadable + lower.tally.unreadable,
            unsettled: upper.tally.unsettled + lower.tally.unsettled,
        },
    })
}

/// Completes the record of a directory of an upper layer.
pub(super) fn directory(found: &Found<'_>, mut record: Record) -> Outcome<Record> {
    let flags = DIRECTORY | OFlags::NOFOLLOW;
    let opened = rustix::fs::openat(found.directory, found.name, flags, Mode::empty());
    let mut value = [0; 1];
    let told = opened.and_then(|opened| rustix::fs::fgetxattr(&opened, OPAQUE, &mut value));
    record.opaque = match told {
        Ok(_) => value == *b"y",
        // It is not marked, or was replaced since.
        Err(Errno::NODATA | Errno::RANGE | Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => false,
        Err(errno) => return Err(at(found.path)(errno)),
    };
    Ok(record)
}

/// How an entry of the image stands below the upper layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing of it was changed.
    Untouched,
    /// The upper layer has a directory there, and what both have is seen.
    Merged,
    /// It is not seen any more, nor is anything in it.
    Hidden,
}

/// A walk over those parts of the image that the upper layer touches.
struct Touched<'a, W> {
    scan: Scan<'a, W>,
    upper: Reader,
    /// The directories that the walk is in.
    within: Vec<Standing>,
    /// Directories that were visited and not entered yet. Only names that begin with a
    /// directory's name come before what is in it, so each path here begins the next one.
    ahead: Vec<(Vec<u8>, Standing)>,
    /// Of the directory that is entered next.
    next: Standing,
}

fn touched<W: Write>(
    scan: Scan<'_, W>,
    upper: Reader,
    image: &OwnedFd,
) -> Outcome<(Totals, Tally)> {
    let cancel = scan.hasher.cancel;
    let mut touched = Touched {
        scan,
        upper,
        within: Vec::new(),
        ahead: Vec::new(),
        next: Standing::Merged,
    };
    walk(image, cancel, &mut touched)?;
    touched.scan.finish()
}

impl<W: Write> Touched<'_, W> {
    /// How the image's entry `path` stands. What is untouched need not be looked at.
    fn standing(&mut self, path: &[u8]) -> Result<Standing, Damage> {
        if self.within.last() == Some(&Standing::Hidden) {
            return Ok(Standing::Hidden);
        }
        Ok(match self.upper.find(path)? {
            None => Standing::Untouched,
            Some(upper) if upper.kind == ArtifactType::Directory && !upper.opaque => {
                Standing::Merged
            }
            Some(_) => Standing::Hidden,
        })
    }
}

impl<W: Write> Visitor for Touched<'_, W> {
    fn visit(&mut self, found: &Found<'_>) -> Outcome<ControlFlow<()>> {
        let standing = self
            .standing(found.path)
            .map_err(|damage| damaged(&damage))?;
        if found.is_directory {
            while let Some((path, _)) = self.ahead.last()
                && !found.path.starts_with(path)
            {
                self.ahead.pop();
            }
            self.ahead.push((found.path.to_vec(), standing));
        }
        if standing != Standing::Untouched {
            self.scan.add(found)?;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn descends(&mut self, path: &[u8]) -> bool {
        while let Some((ahead, standing)) = self.ahead.pop() {
            if ahead == path {
                self.next = standing;
                return standing != Standing::Untouched;
            }
        }
        false
    }

    fn enter(&mut self, _directory: &OwnedFd, _prefix: &[u8]) {
        self.within.push(self.next);
    }

    fn leave(&mut self) {
        self.within.pop();
    }

    fn closed(&mut self, _path: &[u8], errno: Errno) -> Outcome<()> {
        if errno != Errno::XDEV {
            self.scan.tally.unreadable += 1;
        }
        Ok(())
    }
}
