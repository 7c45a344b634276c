//! What an export packs, and what is told of it.

use pyro_archive::pack::{Admits, Listed, PackError, Start};
use pyro_protocol::archive::export::{Exported, PathList, TreeExport};
use pyro_protocol::code::{ErrorCode, ErrorReply, chain};
use pyro_protocol::files::ArtifactType;
use std::os::unix::ffi::OsStrExt;

use crate::files::fault::{Outcome, at, fault, io_at};
use crate::files::pattern::Patterns;
use crate::files::place::Place;
use crate::files::{Files, entry};

/// What is packed: the place that names it, what that is, and where the walk starts.
pub(super) struct Source {
    pub(super) place: Place,
    pub(super) artifact_type: ArtifactType,
    pub(super) starts: Vec<Start>,
}

impl Source {
    /// What `request` names, all of which must be there.
    pub(super) fn of(files: &Files, request: &TreeExport) -> Outcome<Self> {
        let places: Vec<Place> = request
            .targets()
            .iter()
            .map(|target| files.at(target))
            .collect::<Outcome<_>>()?;
        match &request.what {
            Exported::One(_) => {
                let place = places.into_iter().next().ok_or_else(nothing)?;
                Self::one(place, request.special)
            }
            Exported::Several(_) => Self::several(&places, request.special),
        }
    }

    /// The entries of a directory, or something else under its own name.
    pub(super) fn one(place: Place, special: bool) -> Outcome<Self> {
        let artifact_type = kind(&place, special)?;
        let name = match artifact_type {
            ArtifactType::Directory => Vec::new(),
            ArtifactType::File
            | ArtifactType::Symlink
            | ArtifactType::Fifo
            | ArtifactType::Socket
            | ArtifactType::CharDevice
            | ArtifactType::BlockDevice => place.name()?.as_bytes().to_vec(),
        };
        let starts = vec![Start {
            place: place.relative().clone(),
            name,
        }];
        Ok(Self {
            place,
            artifact_type,
            starts,
        })
    }

    /// Each under its path below the root, in order, none twice.
    fn several(places: &[Place], special: bool) -> Outcome<Self> {
        let mut starts: Vec<Start> = Vec::new();
        for place in places {
            kind(place, special)?;
            starts.push(Start {
                place: place.relative().clone(),
                name: place.below_root(),
            });
        }
        // A path comes directly before those below it.
        starts.sort_by_cached_key(|start| [&start.name[..], b"/"].concat());
        starts.dedup_by(|later, kept| lies_in(&later.name, &kept.name));
        let root = places.first().ok_or_else(nothing)?.root_itself();
        Ok(Self {
            place: root,
            artifact_type: ArtifactType::Directory,
            starts,
        })
    }
}

/// A filter of names for the patterns of a request.
pub(super) fn admits(exclude: Option<Patterns>) -> Admits {
    match exclude {
        None => Box::new(|_, _| true),
        Some(exclude) => Box::new(move |path, _| !exclude.is_match(path)),
    }
}

/// What a peer is told about members.
pub(super) fn told(listed: &Listed) -> PathList {
    let text = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
    PathList {
        count: listed.count,
        paths: listed.paths.iter().map(text).collect(),
    }
}

/// Why packing `shown` ended early, as its peer is told.
pub(super) fn refusal(shown: &[u8], error: PackError) -> ErrorReply {
    match error {
        PackError::Start { path, source } => at(&path)(source),
        PackError::Special { path } => special_file(&path),
        PackError::TooDeep { .. }
        | PackError::TooManyEntries { .. }
        | PackError::TooManyBytes { .. } => ErrorReply::new(
            ErrorCode::LimitExceeded,
            format!("`{}`: {}", String::from_utf8_lossy(shown), chain(&error)),
        ),
        PackError::Output(error) => io_at(shown)(error),
    }
}

fn kind(place: &Place, special: bool) -> Outcome<ArtifactType> {
    let kind = entry::artifact_type(&place.stat(false)?);
    let packs = match kind {
        ArtifactType::File | ArtifactType::Directory | ArtifactType::Symlink => true,
        ArtifactType::Fifo | ArtifactType::CharDevice | ArtifactType::BlockDevice => special,
        ArtifactType::Socket => false,
    };
    if packs {
        Ok(kind)
    } else {
        Err(special_file(&place.shown()))
    }
}

fn special_file(path: &[u8]) -> ErrorReply {
    fault(
        ErrorCode::FailedPrecondition,
        path,
        "is no file, directory or symbolic link",
    )
}

fn lies_in(path: &[u8], directory: &[u8]) -> bool {
    match path.strip_prefix(directory) {
        Some(rest) => rest.is_empty() || directory.is_empty() || rest.starts_with(b"/"),
        None => false,
    }
}

fn nothing() -> ErrorReply {
    ErrorReply::new(ErrorCode::InvalidArgument, "nothing is named")
}
