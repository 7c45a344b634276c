//! Finding the artifacts in the layers and writing them, hashed and sparse.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pyro_archive::tar::read::Reader;
use pyro_archive::tar::{Kind, Member, Segment};

use super::{
    ArtifactError, ArtifactFile, ArtifactImage, ArtifactLimits, EnvironmentMetadata,
    ExtractedArtifacts, KERNEL, METADATA, ROOTFS,
};
use crate::blocking::blocking;
use crate::digest::Hasher;
use crate::disk::DiskError;
use crate::layers::LayerReader;
use crate::oci::{LayerBlob, PulledImage};
use crate::progress::{self, ProgressSink};
use crate::sparse::SparseFile;

/// Bytes moved at a time.
const CHUNK: usize = 256 * 1024;
/// Headers, padding and small files of a layer beside its artifacts, in bytes.
const BESIDE: u64 = 64 * 1024 * 1024;
/// The most members of one layer: artifact images have a handful.
const MAX_MEMBERS: u64 = 65_536;
/// How often progress is told.
const PERIOD: Duration = Duration::from_millis(100);

/// Writes the artifacts of an image into `into`, a directory of the caller's own without files of
/// their names. After an error, or if it is dropped, some of them may be there: the caller
/// removes the directory.
pub async fn extract(
    image: ArtifactImage<'_>,
    into: &Path,
    limits: ArtifactLimits,
    progress: &ProgressSink,
) -> Result<ExtractedArtifacts, ArtifactError> {
    let given_up = Arc::new(AtomicBool::new(false));
    let on_drop = GiveUp(Arc::clone(&given_up));
    let (image, into, progress) = (image.image.clone(), into.to_owned(), progress.clone());
    let work = move || {
        progress::phase(&progress, "image-extract", image.reference.to_string());
        let extraction = Extraction {
            image: &image,
            into: &into,
            limits,
            progress: &progress,
            given_up: &given_up,
        };
        extraction.run()
    };
    let done = blocking(work).await;
    drop(on_drop);
    done
}

/// Tells the thread that nobody waits for it any more.
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Extraction<'a> {
    image: &'a PulledImage,
    into: &'a Path,
    limits: ArtifactLimits,
    progress: &'a ProgressSink,
    given_up: &'a AtomicBool,
}

#[derive(Default)]
struct Found {
    kernel: Option<ArtifactFile>,
    rootfs: Option<ArtifactFile>,
    metadata: Option<ArtifactFile>,
}

impl Extraction<'_> {
    fn run(&self) -> Result<ExtractedArtifacts, ArtifactError> {
        let mut found = Found::default();
        let mut seen: Vec<&LayerBlob> = Vec::new();
        for layer in &self.image.layers {
            // A layer that is there twice has nothing new, but its second `diff_id` may lie.
            let same =
                |one: &&LayerBlob| (one.digest, one.diff_id) == (layer.digest, layer.diff_id);
            if !seen.iter().any(same) {
                self.layer(layer, &mut found)?;
                seen.push(layer);
            }
        }
        let missing = |name| ArtifactError::Missing {
            image: self.image.reference.to_string(),
            name,
        };
        Ok(ExtractedArtifacts {
            rootfs: found.rootfs.ok_or_else(|| missing(ROOTFS))?,
            kernel: found.kernel.ok_or_else(|| missing(KERNEL))?,
            metadata: match found.metadata {
                Some(file) => {
                    let metadata = self.metadata(&file)?;
                    Some((file, metadata))
                }
                None => None,
            },
        })
    }

    fn layer(&self, layer: &LayerBlob, found: &mut Found) -> Result<(), ArtifactError> {
        let of_archive = |error| ArtifactError::of_archive(error, layer.digest);
        let reader = LayerReader::open(layer, self.most()).map_err(ArtifactError::Layer)?;
        let mut buffered = BufReader::with_capacity(CHUNK, reader);
        let mut tar = Reader::new(&mut buffered);
        let mut members = 0;
        while let Some(member) = tar.next_member().map_err(of_archive)? {
            members += 1;
            if members > MAX_MEMBERS {
                return Err(ArtifactError::TooManyMembers {
                    layer: layer.digest,
                    limit: MAX_MEMBERS,
                });
            }
            let Some((name, limit, place)) = self.wanted(&member, found) else {
                continue;
            };
            let size = member.kind.size();
            if size > limit {
                return Err(ArtifactError::TooLarge {
                    layer: layer.digest,
                    name,
                    size,
                    limit,
                });
            }
            *place = Some(self.write(layer, name, &member.kind, &mut tar)?);
        }
        let finished = buffered.into_inner().finish();
        finished.map_err(ArtifactError::Layer)?;
        Ok(())
    }

    /// What a member is to become: its name, its limit and its place. Links, directories and
    /// second files of a name are nothing.
    fn wanted<'f>(
        &self,
        member: &Member,
        found: &'f mut Found,
    ) -> Option<(&'static str, u64, &'f mut Option<ArtifactFile>)> {
        if !matches!(member.kind, Kind::File { .. } | Kind::Sparse { .. }) {
            return None;
        }
        let last = member.path.rsplit(|byte| *byte == b'/').next()?;
        let (name, limit, place) = if last == KERNEL.as_bytes() {
            (KERNEL, self.limits.kernel, &mut found.kernel)
        } else if last == ROOTFS.as_bytes() {
            (ROOTFS, self.limits.rootfs, &mut found.rootfs)
        } else if last == METADATA.as_bytes() {
            (METADATA, self.limits.metadata, &mut found.metadata)
        } else {
            return None;
        };
        place.is_none().then_some((name, limit, place))
    }

    /// Writes the content of the member that `tar` stands at.
    fn write(
        &self,
        layer: &LayerBlob,
        name: &'static str,
        kind: &Kind,
        tar: &mut Reader<impl Read>,
    ) -> Result<ArtifactFile, ArtifactError> {
        let path = self.into.join(name);
        let mut copy = Copy::new(self, name, path.clone(), kind.size())?;
        let whole = [Segment {
            offset: 0,
            length: kind.size(),
        }];
        let segments = match kind {
            Kind::Sparse { segments, .. } => segments.as_slice(),
            _ => &whole,
        };
        let mut content = tar.content();
        let mut chunk = vec![0; CHUNK];
        for segment in segments {
            copy.zeros_up_to(segment.offset)?;
            let mut left = segment.length;
            while left > 0 {
                let most = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
                let count = match content.read(&mut chunk[..most]) {
                    Ok(count) => count,
                    Err(error) => return Err(ArtifactError::of_content(error, layer.digest)),
                };
                if count == 0 {
                    break;
                }
                left -= count as u64;
                copy.append(&chunk[..count])?;
            }
        }
        copy.zeros_up_to(kind.size())?;
        copy.finish()
    }

    fn metadata(&self, file: &ArtifactFile) -> Result<EnvironmentMetadata, ArtifactError> {
        let bytes =
            fs::read(&file.path).map_err(|source| DiskError::new("read", &file.path, source))?;
        serde_json::from_slice(&bytes).map_err(|source| ArtifactError::Metadata {
            image: self.image.reference.to_string(),
            source,
        })
    }

    /// What one layer may decode to.
    fn most(&self) -> u64 {
        let limits = self.limits;
        [limits.kernel, limits.rootfs, limits.metadata, BESIDE]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// One artifact being written.
struct Copy<'a> {
    extraction: &'a Extraction<'a>,
    name: &'static str,
    path: PathBuf,
    size: u64,
    file: SparseFile,
    hasher: Hasher,
    told: Option<Instant>,
}

impl<'a> Copy<'a> {
    fn new(
        extraction: &'a Extraction<'a>,
        name: &'static str,
        path: PathBuf,
        size: u64,
    ) -> Result<Self, ArtifactError> {
        let created = File::options().write(true).create_new(true).open(&path);
        let file = created.and_then(|file| {
            // Other users open artifacts through descriptors that they are handed.
            file.set_permissions(Permissions::from_mode(0o644))?;
            Ok(file)
        });
        let file = file.map_err(|source| DiskError::new("create", &path, source))?;
        Ok(Self {
            extraction,
            name,
            path,
            size,
            file: SparseFile::new(file),
            hasher: Hasher::new(),
            told: None,
        })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), ArtifactError> {
        if self.extraction.given_up.load(Ordering::Relaxed) {
            return Err(self.failed(io::Error::other("nobody waits for it")));
        }
        self.hasher.update(bytes);
        let appended = self.file.append(bytes);
        appended.map_err(|error| self.failed(error))?;
        let now = Instant::now();
        if self.told.is_none_or(|last| now - last >= PERIOD) || self.hasher.length() == self.size {
            self.told = Some(now);
            let done = self.hasher.length();
            progress::bytes(self.extraction.progress, self.name, done, Some(self.size));
        }
        Ok(())
    }

    fn zeros_up_to(&mut self, offset: u64) -> Result<(), ArtifactError> {
        let zeros = [0; 16 * 1024];
        while self.hasher.length() < offset {
            let left = offset - self.hasher.length();
            let most = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
            self.append(&zeros[..most])?;
        }
        Ok(())
    }

    fn finish(self) -> Result<ArtifactFile, ArtifactError> {
        let path = self.path;
        let finished = self.file.finish();
        finished.map_err(|source| DiskError::of_write(&path, self.size, source))?;
        Ok(ArtifactFile {
            path,
            sha256: self.hasher.finish(),
            size: self.hasher.length(),
        })
    }

    fn failed(&self, source: io::Error) -> ArtifactError {
        let left = self.size - self.hasher.length().min(self.size);
        DiskError::of_write(&self.path, left, source).into()
    }
}
