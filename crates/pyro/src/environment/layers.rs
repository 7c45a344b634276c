//! The layers of an image as plain tars, one behind the other in one file: the disk that a
//! builder machine reads them from.
//!
//! Decoding and hashing happen here on the host, because an emulated processor would need ten
//! times as long. No entry of a layer is looked at.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyro_image::blocking::blocking;
use pyro_image::layers::unpack_layer;
use pyro_image::oci::LayerBlob;
use pyro_image::{Progress, ProgressSink, Staging};

use crate::Pyro;
use crate::error::Error;

/// Layers begin at whole blocks.
const ALIGNMENT: u64 = 4096;
/// Bytes written at a time.
const CHUNK: usize = 1024 * 1024;
/// Bytes between two looks at progress.
const REPORT_BYTES: u64 = 8 * 1024 * 1024;

/// Plain tars in one file.
#[derive(Clone, Debug)]
pub(super) struct LayersFile {
    pub(super) path: PathBuf,
    /// The lowest first.
    pub(super) parts: Vec<Part>,
}

/// A tar in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl LayersFile {
    /// Bytes of all tars together.
    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.size).sum()
    }
}

impl Pyro {
    /// Decodes layers into the staging directory and compares each with its `diff_id`.
    pub(super) async fn decode_layers(
        &self,
        staging: &Staging,
        layers: &[LayerBlob],
        progress: &ProgressSink,
    ) -> Result<LayersFile, Error> {
        progress(Progress::Phase {
            phase: "layer-decode".into(),
            detail: format!("{} layers", layers.len()),
        });
        let path = staging.dir().join("layers.tar");
        let layers = layers.to_vec();
        let limit = self.settings().max_image_bytes;
        let wanted = Wanted::default();
        let output = Output {
            wanted: wanted.watch(),
            progress: Arc::clone(progress),
            written: 0,
            file: File::create_new(&path).map_err(|source| Error::Io {
                action: "make",
                path: path.clone(),
                source,
            })?,
        };
        blocking(move || decode(&path, &layers, output, limit)).await
    }
}

fn decode(
    path: &std::path::Path,
    layers: &[LayerBlob],
    output: Output,
    limit: u64,
) -> Result<LayersFile, Error> {
    let failed = |source| Error::Io {
        action: "write",
        path: path.to_owned(),
        source,
    };
    let mut output = BufWriter::with_capacity(CHUNK, output);
    let mut parts = Vec::with_capacity(layers.len());
    let mut end = 0_u64;
    let mut left = limit;
    for layer in layers {
        let offset = end.next_multiple_of(ALIGNMENT);
        output.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let size = unpack_layer(layer, &mut output, left)?;
        parts.push(Part { offset, size });
        end = offset.saturating_add(size);
        left = left.saturating_sub(size);
    }
    let output = output
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    // A disk has whole blocks.
    output
        .file
        .set_len(end.next_multiple_of(ALIGNMENT).max(ALIGNMENT))
        .map_err(failed)?;
    Ok(LayersFile {
        path: path.to_owned(),
        parts,
    })
}

/// Whether the result is still wanted: a blocking task does not end with its future.
#[derive(Default)]
pub(super) struct Wanted(Arc<AtomicBool>);

/// The task's view of [`Wanted`].
pub(super) struct Watch(Arc<AtomicBool>);

impl Wanted {
    pub(super) fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.0))
    }
}

impl Watch {
    pub(super) fn is_wanted(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The file, with what is told about it.
struct Output {
    wanted: Watch,
    progress: ProgressSink,
    written: u64,
    file: File,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.wanted.is_wanted() {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        let count = self.file.write(bytes)?;
        let before = self.written;
        self.written += count as u64;
        if before / REPORT_BYTES != self.written / REPORT_BYTES {
            (self.progress)(Progress::Bytes {
                what: "decoded".into(),
                done: self.written,
                total: None,
            });
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Output {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
