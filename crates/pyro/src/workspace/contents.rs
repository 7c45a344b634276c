//! The contents of files: of the seed, from its tar on the host; of a guest, from an export.
//!
//! What a guest sends is bounded by what was asked for, and never touches a file of the host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use pyro_archive::tar::Kind;
use pyro_archive::tar::read::Reader;
use pyro_image::blocking::blocking;
use pyro_protocol::archive::export::{Exported, TreeExport};
use pyro_protocol::limits::MAX_EXPORT_PATHS;

use super::Workspace;
use super::changes::Held;
use crate::error::Error;
use crate::transfer;
use crate::tree::TreeError;

/// Contents by path below the workspace.
pub(super) type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// Paths that are links: what they lead to, and what it was wanted for.
type Links = Vec<(Vec<u8>, Vec<u8>)>;

/// Bytes of tar around one member, with long names.
const MEMBER_BYTES: u64 = 64 * 1024;

/// Reads the files `wanted` of a tar of ours, each at most `most` bytes. Hard links are read where they lead.
pub(super) async fn of_tar(
    tar: std::path::PathBuf,
    wanted: Vec<Vec<u8>>,
    most: u64,
) -> Result<Contents, Error> {
    blocking(move || {
        let mut contents = Contents::new();
        let mut missing: Links = wanted
            .into_iter()
            .map(|path| (path.clone(), path))
            .collect();
        // A link leads to a member before it; more steps than members are no archive of ours.
        for _ in 0..4 {
            let names: BTreeMap<Vec<u8>, Vec<Vec<u8>>> =
                missing
                    .drain(..)
                    .fold(BTreeMap::new(), |mut names, (name, for_path)| {
                        names.entry(name).or_insert_with(Vec::new).push(for_path);
                        names
                    });
            if names.is_empty() {
                break;
            }
            missing = pass(&tar, &names, most, &mut contents)?;
        }
        Ok(contents)
    })
    .await
}

/// One pass over the tar; what turned out to be links is left for the next.
fn pass(
    tar: &Path,
    names: &BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    most: u64,
    contents: &mut Contents,
) -> Result<Links, Error> {
    let file = File::open(tar).map_err(|source| Error::Io {
        action: "open",
        path: tar.to_owned(),
        source,
    })?;
    let damaged = |source| TreeError::Archive {
        path: tar.to_owned(),
        source,
    };
    let mut reader = Reader::seekable(BufReader::new(file));
    let mut links = Vec::new();
    while let Some(member) = reader.next_member().map_err(damaged)? {
        let Some(wanting) = names.get(&member.path) else {
            continue;
        };
        match &member.kind {
            Kind::File { size } if *size <= most => {
                let mut bytes = Vec::new();
                reader
                    .content()
                    .read_to_end(&mut bytes)
                    .map_err(|error| damaged(pyro_archive::tar::read::unwrapped(error)))?;
                for path in wanting {
                    contents.insert(path.clone(), bytes.clone());
                }
            }
            Kind::Sparse { size, segments } if *size <= most => {
                let bytes = filled(&mut reader, *size, segments)
                    .map_err(|error| damaged(pyro_archive::tar::read::unwrapped(error)))?;
                for path in wanting {
                    contents.insert(path.clone(), bytes.clone());
                }
            }
            Kind::HardLink(target) => {
                links.extend(wanting.iter().map(|path| (target.clone(), path.clone())));
            }
            Kind::File { .. }
            | Kind::Sparse { .. }
            | Kind::Directory
            | Kind::Symlink(_)
            | Kind::Fifo
            | Kind::CharDevice(_)
            | Kind::BlockDevice(_) => {}
        }
    }
    Ok(links)
}

fn filled<R: Read>(
    reader: &mut Reader<R>,
    size: u64,
    segments: &[pyro_archive::tar::Segment],
) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).map_err(std::io::Error::other)?];
    for segment in segments {
        let from = usize::try_from(segment.offset).map_err(std::io::Error::other)?;
        let length = usize::try_from(segment.length).map_err(std::io::Error::other)?;
        let place = from
            .checked_add(length)
            .and_then(|to| bytes.get_mut(from..to))
            .ok_or_else(|| std::io::Error::other("a segment beyond the file"))?;
        reader.content().read_exact(place)?;
    }
    Ok(bytes)
}

impl Workspace {
    /// Reads the files `wanted` of a guest: paths below the workspace with the sizes that the guest told.
    pub(super) async fn contents_of(
        &self,
        held: &mut Held,
        wanted: &[(Vec<u8>, u64)],
        most: u64,
    ) -> Result<Contents, Error> {
        let mut contents = Contents::new();
        for some in wanted.chunks(MAX_EXPORT_PATHS) {
            let mut request = TreeExport::workspace(Vec::new());
            request.what = Exported::Several(some.iter().map(|(path, _)| path.clone()).collect());
            let told: u64 = some.iter().map(|(_, size)| size).sum();
            // A file may grow meanwhile; much more than was told is not taken.
            let limit = 2 * told + MEMBER_BYTES * (some.len() as u64 + 16);
            let mut archive = Vec::new();
            let received = match held.call(&transfer::action("tree_export", &request)?).await {
                Ok(mut call) => transfer::receive(&mut call, &mut archive, limit).await,
                Err(error) => Err(error),
            };
            self.explained_of(held, received).await?;
            let names = some
                .iter()
                .map(|(path, _)| (path.clone(), vec![path.clone()]))
                .collect();
            read_members(&archive, &names, most, &mut contents)?;
        }
        Ok(contents)
    }
}

/// Takes the wanted members out of an archive that a guest sent.
fn read_members(
    archive: &[u8],
    names: &BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    most: u64,
    contents: &mut Contents,
) -> Result<(), Error> {
    let broken = |error: &dyn std::fmt::Display| Error::Unreachable {
        reason: format!("its archive cannot be read: {error}"),
    };
    let mut reader = Reader::new(archive);
    let mut links: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    while let Some(member) = reader.next_member().map_err(|error| broken(&error))? {
        if !names.contains_key(&member.path) {
            continue;
        }
        match &member.kind {
            Kind::File { size } if *size <= most => {
                let mut bytes = Vec::new();
                reader
                    .content()
                    .read_to_end(&mut bytes)
                    .map_err(|error| broken(&error))?;
                contents.insert(member.path.clone(), bytes);
            }
            Kind::Sparse { size, segments } if *size <= most => {
                let bytes = filled(&mut reader, *size, segments).map_err(|error| broken(&error))?;
                contents.insert(member.path.clone(), bytes);
            }
            Kind::HardLink(target) => links.push((member.path.clone(), target.clone())),
            Kind::File { .. }
            | Kind::Sparse { .. }
            | Kind::Directory
            | Kind::Symlink(_)
            | Kind::Fifo
            | Kind::CharDevice(_)
            | Kind::BlockDevice(_) => {}
        }
    }
    for (path, target) in links {
        if let Some(bytes) = contents.get(&target).cloned() {
            contents.insert(path, bytes);
        }
    }
    Ok(())
}
