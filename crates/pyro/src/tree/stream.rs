//! Trees for tasks: the work is done on threads beside them.
//!
//! A future that is dropped ends what it waits for: the thread finds its stream closed.

use std::path::PathBuf;
use std::sync::Arc;

use pyro_image::ProgressSink;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::pipe::{self, joined};
use super::seed::{OpenSeed, SeedLimits};
use super::unfinished::Unfinished;
use super::unpack::{UnpackOptions, Unpacked, unpack_single, unpack_tree};
use super::{PackLimits, SeedSummary, TreeError, pack_paths};

pub use super::pipe::Sink;

/// Work on a thread, to be waited for when its stream is at its end.
#[derive(Debug)]
pub struct Work<T>(JoinHandle<Result<T, TreeError>>);

impl<T> Work<T> {
    /// What it came to.
    ///
    /// # Errors
    /// What the work comes to.
    pub async fn done(self) -> Result<T, TreeError> {
        joined(self.0).await
    }
}

/// Does what blocks on a thread: opening and previewing a seed, listing a directory, applying a
/// patch.
pub async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    pyro_image::blocking::blocking(work).await
}

/// Packs a seed: its tar as a stream, which counts only when the work is done without an error.
///
/// # Errors
/// [`TreeError::Stream`] if no stream can be made.
pub fn pack_seed(
    seed: Arc<OpenSeed>,
    limits: SeedLimits,
    progress: ProgressSink,
) -> Result<(UnixStream, Work<SeedSummary>), TreeError> {
    let (stream, thread) = pipe::spawn(move |out| seed.pack(&limits, out, &progress))?;
    Ok((stream, Work(thread)))
}

/// Packs paths of a directory, as [`pack_paths`] does.
///
/// # Errors
/// [`TreeError::Stream`] if no stream can be made.
pub fn pack_some(
    root: PathBuf,
    paths: Vec<Box<[u8]>>,
    limits: PackLimits,
    progress: ProgressSink,
) -> Result<(UnixStream, Work<SeedSummary>), TreeError> {
    let (stream, thread) =
        pipe::spawn(move |out| pack_paths(&root, paths, limits, out, &progress))?;
    Ok((stream, Work(thread)))
}

/// Unpacks the tar that is written to the sink as a directory. Nothing of it counts before
/// [`Sink::finish`].
///
/// # Errors
/// [`TreeError::Stream`] if no stream can be made.
pub fn receive_tree(
    destination: PathBuf,
    options: UnpackOptions,
    unfinished: Unfinished,
) -> Result<(Sink, Work<Unpacked>), TreeError> {
    let (sink, thread) =
        pipe::receive(move |tar| unpack_tree(tar, &destination, &options, &unfinished))?;
    Ok((sink, Work(thread)))
}

/// Unpacks the tar that is written to the sink as one file or symbolic link. Nothing of it counts
/// before [`Sink::finish`].
///
/// # Errors
/// [`TreeError::Stream`] if no stream can be made.
pub fn receive_single(
    output: PathBuf,
    options: UnpackOptions,
    unfinished: Unfinished,
) -> Result<(Sink, Work<Unpacked>), TreeError> {
    let (sink, thread) =
        pipe::receive(move |tar| unpack_single(tar, &output, &options, &unfinished))?;
    Ok((sink, Work(thread)))
}

/// Writes what is written to the sink to a file, such as a tar or a patch, as
/// [`super::write_file_atomically`] does.
///
/// # Errors
/// [`TreeError::Stream`] if no stream can be made.
pub fn receive_file(
    path: PathBuf,
    overwrite: super::Overwrite,
    links: super::Links,
    unfinished: Unfinished,
) -> Result<(Sink, Work<u64>), TreeError> {
    let (sink, thread) = pipe::receive(move |bytes| {
        super::write_file_atomically(&path, bytes, overwrite, links, &unfinished)
    })?;
    Ok((sink, Work(thread)))
}
