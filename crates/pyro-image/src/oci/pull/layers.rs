//! The layers of an image, and any other blob of it, into the store.

use std::path::PathBuf;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::blobs::Begun;
use crate::oci::document::Descriptor;
use crate::oci::error::OciError;
use crate::oci::meter::Totals;
use crate::oci::pull::{Head, Pull};
use crate::oci::source::Source;

impl Pull<'_> {
    /// Gets the layers, several at once, and gives them in the image's order.
    pub(super) async fn layers(
        &self,
        source: &Source<'_>,
        head: &Head,
    ) -> Result<Vec<PathBuf>, OciError> {
        let mut different: Vec<&Descriptor> = Vec::new();
        for (layer, _) in &head.manifest.layers {
            if !different.iter().any(|other| other.digest == layer.digest) {
                different.push(layer);
            }
        }
        let total = different
            .iter()
            .fold(0, |sum: u64, layer| sum.saturating_add(layer.size));
        if total > self.options.max_bytes {
            return Err(OciError::TooLarge {
                origin: source.origin(),
                what: "the layers together".to_owned(),
                limit: self.options.max_bytes,
            });
        }
        let mut needed = 0_u64;
        for layer in &different {
            if self.store.find(layer.digest, layer.size)?.is_none() {
                let left = layer
                    .size
                    .saturating_sub(self.store.partial_bytes(layer.digest));
                needed = needed.saturating_add(left);
            }
        }
        self.store.require_space(needed)?;
        let totals = Totals::new(total, self.progress);
        let mut work = Vec::with_capacity(different.len());
        for layer in &different {
            let what = format!("the layer {}", layer.digest);
            let totals = &totals;
            work.push(async move { self.blob(source, layer, &what, totals).await });
        }
        stream::iter(work)
            .buffered(self.options.parallel.get())
            .try_collect::<Vec<()>>()
            .await?;
        Ok(head
            .manifest
            .layers
            .iter()
            .map(|(layer, _)| self.store.path(layer.digest))
            .collect())
    }

    /// Makes one blob be in the store.
    pub(super) async fn blob(
        &self,
        source: &Source<'_>,
        blob: &Descriptor,
        what: &str,
        totals: &Totals<'_>,
    ) -> Result<(), OciError> {
        let mut meter = totals.blob(blob.digest, blob.size);
        let begun = self
            .store
            .begin(
                blob.digest,
                blob.size,
                self.options.lock_wait,
                self.progress,
            )
            .await
            .map_err(|error| OciError::of_blob(error, &source.origin(), what))?;
        match begun {
            Begun::Present(_) => {}
            Begun::Download(mut download) => source.blob(&mut download, what, &mut meter).await?,
        }
        meter.reached(blob.size);
        Ok(())
    }
}
