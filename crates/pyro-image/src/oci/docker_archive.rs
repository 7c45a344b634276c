//! Files that `docker save` wrote: a tar with `manifest.json`, a config and layers.
//!
//! The image gets a manifest of ours, the same for the same file, so that it is found and verified
//! like any other. Layers are copied from where they lie in the file; no member is ever unpacked
//! under its own name.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use pyro_archive::tar::Kind;
use pyro_archive::tar::read::Reader;
use serde::{Deserialize, Serialize};

use crate::blobs::{Begun, BlobStore};
use crate::blocking::blocking;
use crate::digest::Sha256Digest;
use crate::oci::document::{Descriptor, MAX_DOCUMENT, MAX_LAYERS, Provenance};
use crate::oci::error::OciError;
use crate::oci::local::File;
use crate::oci::media::{self, LayerMediaType};
use crate::oci::meter::Totals;
use crate::oci::settings::PullOptions;
use crate::progress::ProgressSink;

/// A saved image has a few members for each layer; several images are refused anyway.
const MAX_MEMBERS: usize = 16 * 1024;
/// Docker writes a layer that is there already as a link to it; links to links it does not.
const MAX_LINKS: usize = 4;
const MANIFEST: &str = "manifest.json";

/// Where the content of a member lies in the file.
#[derive(Debug, Clone, Copy)]
struct Place {
    begin: u64,
    size: u64,
}

/// The members of an archive by name.
#[derive(Debug, Default)]
struct Members {
    files: HashMap<String, Place>,
    links: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// What is known of a layer before it is copied.
#[derive(Debug, Clone, Copy)]
struct Layer {
    place: Place,
    digest: Sha256Digest,
    media_type: LayerMediaType,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewManifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Copies the image into the store and gives the digest of its manifest.
pub(super) async fn import(
    path: &Path,
    store: &BlobStore,
    options: &PullOptions,
    progress: &ProgressSink,
) -> Result<Sha256Digest, OciError> {
    let owned = path.to_owned();
    let image = blocking(move || Image::read(&owned)).await?;
    let origin = path.display().to_string();
    let mut different: BTreeMap<Sha256Digest, Layer> = BTreeMap::new();
    for layer in &image.layers {
        different.insert(layer.digest, *layer);
    }
    let total = different
        .values()
        .fold(0, |sum: u64, layer| sum.saturating_add(layer.place.size));
    if total > options.max_bytes {
        return Err(OciError::TooLarge {
            origin,
            what: "the layers together".to_owned(),
            limit: options.max_bytes,
        });
    }
    store.require_space(total)?;
    let totals = Totals::new(total, progress);
    for (digest, layer) in different {
        let what = format!("the layer {digest}");
        let begun = store
            .begin(digest, layer.place.size, options.lock_wait, progress)
            .await
            .map_err(|error| OciError::of_blob(error, &origin, &what))?;
        let mut meter = totals.blob(digest, layer.place.size);
        if let Begun::Download(mut download) = begun {
            let file = File {
                origin: &origin,
                path,
                what: &what,
            };
            file.copy(layer.place.begin, &mut download, &mut meter)
                .await?;
        }
        meter.reached(layer.place.size);
    }
    let config = store.install(&image.config)?;
    let manifest = NewManifest {
        schema_version: 2,
        media_type: media::OCI_MANIFEST,
        config: descriptor(media::OCI_CONFIG, config, image.config.len() as u64),
        layers: image
            .layers
            .iter()
            .map(|layer| descriptor(layer.media_type.as_str(), layer.digest, layer.place.size))
            .collect(),
    };
    let bytes = serde_json::to_vec(&manifest).expect("a manifest has string keys");
    Ok(store.install(&bytes)?)
}

/// A saved image, its layers still in the file.
struct Image {
    config: Vec<u8>,
    layers: Vec<Layer>,
}

impl Image {
    /// Reads the documents and hashes the layers. Blocking.
    fn read(path: &Path) -> Result<Self, OciError> {
        let origin = path.display().to_string();
        let from = Provenance {
            origin: &origin,
            what: "the archive",
        };
        let file = File {
            origin: &origin,
            path,
            what: "file",
        };
        let mut content = file.open()?;
        let members = Members::read(file, &content, from)?;
        let saved = members.document(MANIFEST, &mut content, file, from)?;
        let saved: Vec<Saved> = serde_json::from_slice(&saved)
            .map_err(|error| from.invalid(format!("`{MANIFEST}`: {error}")))?;
        let [saved] = saved.as_slice() else {
            return Err(from.invalid(format!(
                "it holds {} images: save one at a time",
                saved.len()
            )));
        };
        if saved.layers.is_empty() || saved.layers.len() > MAX_LAYERS {
            return Err(from.invalid(format!("it has {} layers", saved.layers.len())));
        }
        let config = members.document(&saved.config, &mut content, file, from)?;
        let layers = saved
            .layers
            .iter()
            .map(|name| {
                let place = members.find(name, from)?;
                layer(&mut content, place).map_err(|error| file.failed(error))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { config, layers })
    }
}

impl Members {
    fn read(
        file: File<'_>,
        content: &std::fs::File,
        from: Provenance<'_>,
    ) -> Result<Self, OciError> {
        let damaged = |error: pyro_archive::tar::read::ReadError| from.invalid(error.to_string());
        let mut reader = Reader::seekable(BufReader::new(content));
        let mut members = Self::default();
        while let Some(member) = reader.next_member().map_err(damaged)? {
            // A name that is no UTF-8 is none that `manifest.json` can name.
            let Ok(name) = String::from_utf8(member.path) else {
                continue;
            };
            let name = name.trim_start_matches("./").to_owned();
            match member.kind {
                Kind::File { size } => {
                    let buffered = reader.get_ref();
                    let mut at: &std::fs::File = buffered.get_ref();
                    let position = at.stream_position().map_err(|error| file.failed(error))?;
                    let begin = position - buffered.buffer().len() as u64;
                    members.files.insert(name, Place { begin, size });
                }
                Kind::Symlink(target) | Kind::HardLink(target) => {
                    if let Ok(target) = String::from_utf8(target) {
                        members.links.insert(name, target);
                    }
                }
                Kind::Directory
                | Kind::Sparse { .. }
                | Kind::Fifo
                | Kind::CharDevice(_)
                | Kind::BlockDevice(_) => {}
            }
            if members.files.len() + members.links.len() > MAX_MEMBERS {
                return Err(from.invalid(format!("it has more than {MAX_MEMBERS} members")));
            }
        }
        Ok(members)
    }

    fn find(&self, name: &str, from: Provenance<'_>) -> Result<Place, OciError> {
        let mut name = name.to_owned();
        for _ in 0..=MAX_LINKS {
            if let Some(place) = self.files.get(&name) {
                return Ok(*place);
            }
            match self.links.get(&name) {
                // Docker's links are `../<id>/layer.tar`, one level below the root.
                Some(target) => name = target.trim_start_matches("../").to_owned(),
                None => break,
            }
        }
        Err(from.invalid(format!(
            "it has no `{name}`: is it what `docker save` wrote?"
        )))
    }

    fn document(
        &self,
        name: &str,
        content: &mut std::fs::File,
        file: File<'_>,
        from: Provenance<'_>,
    ) -> Result<Vec<u8>, OciError> {
        let place = self.find(name, from)?;
        if place.size > MAX_DOCUMENT {
            return Err(OciError::TooLarge {
                origin: from.origin.to_owned(),
                what: "a document".to_owned(),
                limit: MAX_DOCUMENT,
            });
        }
        let mut bytes = Vec::new();
        content
            .seek(SeekFrom::Start(place.begin))
            .and_then(|_| content.take(place.size).read_to_end(&mut bytes))
            .map_err(|error| file.failed(error))?;
        Ok(bytes)
    }
}

/// Hashes a layer and looks how it is compressed.
fn layer(content: &mut std::fs::File, place: Place) -> std::io::Result<Layer> {
    content.seek(SeekFrom::Start(place.begin))?;
    let mut magic = Vec::with_capacity(4);
    content.take(place.size.min(4)).read_to_end(&mut magic)?;
    content.seek(SeekFrom::Start(place.begin))?;
    let (digest, size) = Sha256Digest::of_reader(&mut content.take(place.size))?;
    Ok(Layer {
        // A file that was cut has less than it promises; the digest is of what is there.
        place: Place { size, ..place },
        digest,
        media_type: match magic.as_slice() {
            [0x1f, 0x8b, ..] => LayerMediaType::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => LayerMediaType::Zstd,
            _ => LayerMediaType::Plain,
        },
    })
}

fn descriptor(media_type: &str, digest: Sha256Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        platform: None,
        annotations: BTreeMap::new(),
        urls: Vec::new(),
    }
}
