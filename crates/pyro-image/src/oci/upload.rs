//! Putting blobs into one repository, with patience.
//!
//! ```text
//! HEAD blob ─▶ POST uploads ─▶ PATCH, PATCH, … ─▶ PUT ?digest=
//!  └ is there      └ where to     └ broke off: GET how much has come, and on from there
//! ```

use std::sync::Arc;

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};

use crate::blocking::blocking;
use crate::digest::Sha256Digest;
use crate::oci::auth::Demand;
use crate::oci::delivery::{self, FILING, Message};
use crate::oci::error::OciError;
use crate::oci::http::Answer;
use crate::oci::meter::Meter;
use crate::oci::registry::Registry;
use crate::oci::retry::{Fault, Retry};
use crate::publish::TarLayer;

/// Bytes that are sent with one request, unless the registry wants more.
const CHUNK: u64 = 8 * 1024 * 1024;
/// The most bytes of one request that a registry gets us to hold in memory.
const MAX_CHUNK: u64 = 64 * 1024 * 1024;

/// A blob that is to be in a registry.
pub(super) enum Payload {
    /// In memory.
    Bytes {
        bytes: Vec<u8>,
        digest: Sha256Digest,
    },
    /// On a disk.
    Layer(Arc<TarLayer>),
}

/// How a blob came to be in a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// We sent it.
    Now,
    /// It was there.
    Before,
}

/// An upload that a registry has begun for us.
struct Upload {
    location: Url,
    /// Bytes that have come, as far as we know.
    offset: u64,
    /// Bytes to send at a time.
    chunk: u64,
    /// Whether the offset is what the registry said when it was asked.
    asked: bool,
    /// Whether we had to prove who we are.
    guarded: bool,
}

/// A part that was not taken.
struct Broken {
    fault: Fault,
    /// Whether the upload goes on, from where the registry says.
    goes_on: bool,
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            goes_on: true,
        }
    }
}

impl Payload {
    pub(super) fn digest(&self) -> Sha256Digest {
        match self {
            Self::Bytes { digest, .. } => *digest,
            Self::Layer(layer) => layer.digest(),
        }
    }

    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Bytes { bytes, .. } => bytes.len() as u64,
            Self::Layer(layer) => layer.size(),
        }
    }

    /// Up to `most` bytes from an offset on.
    async fn read(&self, offset: u64, most: u64) -> Result<Vec<u8>, OciError> {
        let count = most.min(self.size() - offset);
        let count = usize::try_from(count).expect("a chunk fits into memory");
        match self {
            Self::Bytes { bytes, .. } => {
                let at = usize::try_from(offset).expect("it is in memory");
                Ok(bytes[at..at + count].to_vec())
            }
            Self::Layer(layer) => {
                let layer = Arc::clone(layer);
                let read = move || {
                    let mut chunk = vec![0; count];
                    layer.read_at(offset, &mut chunk)?;
                    layer.check()?;
                    Ok(chunk)
                };
                blocking(read).await
            }
        }
    }
}

impl Registry<'_> {
    /// Makes a blob be in the repository.
    pub(super) async fn put_blob(
        &self,
        payload: &Payload,
        what: &str,
        meter: &mut Meter<'_>,
    ) -> Result<Sent, OciError> {
        let mut retry = Retry::new(self.policy, what, self.progress);
        let (mut upload, mut furthest) = (None, 0);
        loop {
            let fault = match self.try_put_blob(payload, what, &mut upload, meter).await {
                Ok(sent) => {
                    meter.reached(payload.size());
                    return Ok(sent);
                }
                Err(fault) => fault,
            };
            let reached = upload.as_ref().map_or(0, |upload| upload.offset);
            let advanced = reached > furthest;
            furthest = furthest.max(reached);
            retry.after(fault, advanced).await?;
        }
    }

    async fn try_put_blob(
        &self,
        payload: &Payload,
        what: &str,
        upload: &mut Option<Upload>,
        meter: &mut Meter<'_>,
    ) -> Result<Sent, Fault> {
        let demand = self.push_demand(what);
        if self.has(payload.digest(), demand).await? {
            // What broke off at its very end may have come after all.
            return Ok(match upload {
                Some(upload) if upload.offset == payload.size() => Sent::Now,
                _ => Sent::Before,
            });
        }
        if let Some(known) = upload
            && !self.catch_up(known, payload.size(), demand).await?
        {
            *upload = None;
        }
        let mut current = match upload.take() {
            Some(known) => known,
            None => self.begin(demand).await?,
        };
        meter.reached(current.offset);
        while current.offset < payload.size() {
            // A registry that refuses a body for want of a token may close before it was sent,
            // and nobody would see why. A question without a body gets the token.
            let expired = current.guarded && self.client.auth.remembered(demand).is_none();
            if expired && !self.catch_up(&mut current, payload.size(), demand).await? {
                return Err(self.network("it has given up the upload"));
            }
            if let Err(broken) = self.chunk(payload, &mut current, demand, meter).await {
                *upload = broken.goes_on.then_some(current);
                return Err(broken.fault);
            }
        }
        let filed = self.file(&current, payload.digest(), demand).await;
        *upload = Some(current);
        filed.map(|()| Sent::Now)
    }

    /// Whether the repository has a blob.
    async fn has(&self, digest: Sha256Digest, demand: Demand<'_>) -> Result<bool, Fault> {
        let url = self.address(&format!("blobs/{digest}"), demand).await?;
        let client = self.client;
        let mut proof = client.auth.remembered(demand);
        let mut demanded = false;
        loop {
            let headers = HeaderMap::new();
            let answer = client.http.head(&url, &headers, proof.as_ref()).await;
            let answer = answer.map_err(|error| self.fault(error, demand))?;
            match answer.status() {
                401 if !answer.strayed && !demanded => {
                    demanded = true;
                    proof = Some(self.prove(&answer, demand).await?);
                }
                404 => return Ok(false),
                // Addresses of stores are often signed for one kind of request only. What they
                // say of another tells nothing, and to send a blob twice does no harm.
                status if answer.strayed => return Ok(status == 200),
                _ => return self.taken(answer, &[200], demand).await.map(|_| true),
            }
        }
    }

    /// Begins an upload.
    async fn begin(&self, demand: Demand<'_>) -> Result<Upload, Fault> {
        let url = self.address("blobs/uploads/", demand).await?;
        let patience = self.policy.silence;
        let message = Message::empty(Method::POST, &url, patience);
        let answer = self.send(&message, demand, |_| {}).await?;
        let answer = self.taken(answer, &[202], demand).await?;
        let least = answer.header("oci-chunk-min-length");
        let least = least.and_then(|text| text.parse().ok()).unwrap_or(0);
        if least > MAX_CHUNK {
            let reason = format!("it wants pieces of {least} bytes, more than {MAX_CHUNK}");
            return Err(demand.broken(&reason).into());
        }
        Ok(Upload {
            location: self.location(&answer, &url, demand)?,
            offset: 0,
            chunk: CHUNK.max(least),
            asked: false,
            guarded: self.client.auth.remembered(demand).is_some(),
        })
    }

    /// Asks how much of an upload has come. False if the registry knows it no more.
    async fn catch_up(
        &self,
        upload: &mut Upload,
        size: u64,
        demand: Demand<'_>,
    ) -> Result<bool, Fault> {
        let message = Message::empty(Method::GET, &upload.location, self.policy.silence);
        let answer = self.send(&message, demand, |_| {}).await?;
        if answer.status() == 404 {
            return Ok(false);
        }
        let answer = self.taken(answer, &[200, 202, 204], demand).await?;
        let Some(offset) = offset(&answer).filter(|offset| *offset <= size) else {
            return Ok(false);
        };
        if answer.header("location").is_some() {
            upload.location = self.location(&answer, &upload.location, demand)?;
        }
        upload.offset = offset;
        upload.asked = true;
        Ok(true)
    }

    /// Sends the next part.
    async fn chunk(
        &self,
        payload: &Payload,
        upload: &mut Upload,
        demand: Demand<'_>,
        meter: &mut Meter<'_>,
    ) -> Result<(), Broken> {
        let chunk = payload.read(upload.offset, upload.chunk).await;
        let chunk = Arc::new(chunk.map_err(Fault::from)?);
        let (begin, count) = (upload.offset, chunk.len() as u64);
        let mut headers = HeaderMap::new();
        let range = format!("{begin}-{}", begin + count - 1);
        let range = HeaderValue::try_from(range).expect("digits make a header");
        headers.insert(CONTENT_RANGE, range);
        let octets = HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, octets);
        let message = Message {
            headers,
            body: chunk,
            ..Message::empty(Method::PATCH, &upload.location, self.policy.silence)
        };
        let answer = self
            .send(&message, demand, |taken| meter.reached(begin + taken))
            .await?;
        match answer.status() {
            404 => {
                return Err(Broken {
                    fault: self.network("it has given up the upload"),
                    goes_on: false,
                });
            }
            416 => {
                return Err(Broken {
                    fault: self.network("it wants another part of the upload"),
                    // What it said before was wrong, so it would be again.
                    goes_on: !upload.asked,
                });
            }
            _ => {}
        }
        let answer = self.taken(answer, &[201, 202, 204], demand).await?;
        let reached = offset(&answer).unwrap_or(begin + count);
        if reached <= begin || reached > begin + count {
            let reason = format!(
                "it has {reached} bytes after bytes {begin} to {}",
                begin + count
            );
            return Err(Fault::from(demand.broken(&reason)).into());
        }
        upload.location = self.location(&answer, &upload.location, demand)?;
        upload.offset = reached;
        upload.asked = false;
        meter.reached(reached);
        Ok(())
    }

    /// Ends an upload, which becomes the blob with this digest.
    async fn file(
        &self,
        upload: &Upload,
        digest: Sha256Digest,
        demand: Demand<'_>,
    ) -> Result<(), Fault> {
        let mut url = upload.location.clone();
        url.query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let patience = FILING.max(self.policy.silence);
        let message = Message::empty(Method::PUT, &url, patience);
        let answer = self.send(&message, demand, |_| {}).await?;
        if matches!(answer.status(), 404 | 416) {
            return Err(self.network("it has given up the upload"));
        }
        let answer = self.taken(answer, &[201, 204], demand).await?;
        delivery::agrees(&answer, digest, demand)
    }
}

/// How many bytes an answer says have come. `0-0` is what registries say of nothing, and of one
/// byte, which is never sent.
fn offset(answer: &Answer) -> Option<u64> {
    let range = answer.header("range")?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    match range.strip_prefix("0-")?.trim().parse::<u64>().ok()? {
        0 => Some(0),
        last => last.checked_add(1),
    }
}
