//! One repository of one registry: documents and blobs, verified, with patience.

use reqwest::Url;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue, RANGE};

use crate::blobs::{BlobError, Download};
use crate::digest::Sha256Digest;
use crate::oci::auth::{self, Access, Demand};
use crate::oci::client::Client;
use crate::oci::document::MAX_DOCUMENT;
use crate::oci::error::{OciError, shown};
use crate::oci::http::{Answer, HttpError};
use crate::oci::meter::Meter;
use crate::oci::reference::{RegistryHost, Repository, Tag};
use crate::oci::retry::{Fault, Retry};
use crate::oci::settings::RetryPolicy;
use crate::oci::{challenge, media};
use crate::progress::ProgressSink;

/// A repository.
pub(super) struct Registry<'a> {
    pub(super) client: &'a Client,
    pub(super) host: &'a RegistryHost,
    pub(super) repository: &'a Repository,
    pub(super) policy: RetryPolicy,
    pub(super) progress: &'a ProgressSink,
}

/// An index or a manifest as it was sent.
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    pub(super) content_type: Option<String>,
}

/// By what a document is asked for.
#[derive(Clone, Copy)]
pub(super) enum Name<'a> {
    Tag(&'a Tag),
    Digest(Sha256Digest),
}

impl Registry<'_> {
    /// An index or a manifest. One that was asked for by digest has it.
    pub(super) async fn document(&self, name: Name<'_>, what: &str) -> Result<Fetched, OciError> {
        let mut retry = Retry::new(self.policy, what, self.progress);
        loop {
            match self.try_document(name, what).await {
                Ok(fetched) => return Ok(fetched),
                Err(fault) => retry.after(fault, false).await?,
            }
        }
    }

    /// Fetches what is missing of a blob. Nothing but the whole blob makes it a success.
    pub(super) async fn blob(
        &self,
        download: &mut Download,
        what: &str,
        meter: &mut Meter<'_>,
    ) -> Result<(), OciError> {
        let mut retry = Retry::new(self.policy, what, self.progress);
        let mut resumed = download.offset() > 0;
        loop {
            let before = download.offset();
            let fault = match self.try_blob(download, what, meter).await {
                Ok(()) => match download.finish().await {
                    Ok(_) => return Ok(()),
                    // The part from an earlier time may be to blame.
                    Err(BlobError::WrongDigest { .. }) if resumed => {
                        resumed = false;
                        self.discard(download, what).await?;
                        continue;
                    }
                    Err(error) => {
                        self.discard(download, what).await?;
                        return Err(self.store_error(error, what));
                    }
                },
                Err(fault) => fault,
            };
            match &fault {
                Fault::Final(OciError::WrongSize { .. }) => self.discard(download, what).await?,
                Fault::Final(_) | Fault::Network { .. } | Fault::Busy { .. } => {
                    let flushed = download.flush().await;
                    flushed.map_err(|error| self.store_error(error, what))?;
                }
            }
            let advanced = download.offset() > before;
            retry.after(fault, advanced).await?;
        }
    }

    async fn discard(&self, download: &mut Download, what: &str) -> Result<(), OciError> {
        let restarted = download.restart().await;
        restarted.map_err(|error| self.store_error(error, what))
    }

    fn store_error(&self, error: BlobError, what: &str) -> OciError {
        OciError::of_blob(error, self.host.as_str(), what)
    }

    async fn try_document(&self, name: Name<'_>, what: &str) -> Result<Fetched, Fault> {
        let text = match name {
            Name::Tag(tag) => tag.as_str().to_owned(),
            Name::Digest(digest) => digest.to_string(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(media::ACCEPT));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let demand = self.demand(what);
        let answer = self
            .get(&format!("manifests/{text}"), headers, demand)
            .await?;
        let answer = self.expect(answer, &[200], demand).await?;
        let content_type = answer.header("content-type").map(str::to_owned);
        let announced = answer.header("docker-content-digest").map(str::to_owned);
        let body = answer.body(MAX_DOCUMENT).await;
        let bytes = body
            .map_err(|error| self.fault(error, demand))?
            .ok_or_else(|| OciError::TooLarge {
                origin: self.host.to_string(),
                what: what.to_owned(),
                limit: MAX_DOCUMENT,
            })?;
        let digest = Sha256Digest::of(&bytes);
        let expected = match name {
            Name::Digest(digest) => Some(digest),
            // Only a promise of the same server, but one that shows a body cut on its way.
            Name::Tag(_) => announced.and_then(|text| text.parse().ok()),
        };
        match expected {
            Some(expected) if expected != digest => Err(OciError::WrongDigest {
                origin: self.host.to_string(),
                what: what.to_owned(),
                expected,
                found: digest,
            }
            .into()),
            _ => Ok(Fetched {
                bytes,
                content_type,
            }),
        }
    }

    async fn try_blob(
        &self,
        download: &mut Download,
        what: &str,
        meter: &mut Meter<'_>,
    ) -> Result<(), Fault> {
        meter.reached(download.offset());
        if download.offset() == download.size() && download.size() > 0 {
            return Ok(());
        }
        let demand = self.demand(what);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if download.offset() > 0 {
            let range = format!("bytes={}-", download.offset());
            let range = HeaderValue::try_from(range).expect("digits make a header");
            headers.insert(RANGE, range);
        }
        let answer = self
            .get(&format!("blobs/{}", download.digest()), headers, demand)
            .await?;
        let mut answer = self.expect(answer, &[200, 206, 416], demand).await?;
        match answer.status() {
            206 if download.offset() > 0 => {
                if !continues(&answer, download.offset()) {
                    return Err(demand
                        .broken("it sends another range than was asked for")
                        .into());
                }
            }
            206 => {
                return Err(demand
                    .broken("it sends a range that was not asked for")
                    .into());
            }
            200 => {
                // It knows no ranges.
                self.discard(download, what).await?;
            }
            _ if download.offset() > 0 => {
                self.discard(download, what).await?;
                return Err(self.network("it refuses to go on where it broke off"));
            }
            _ => {
                return Err(demand
                    .broken("it refuses a range that was not asked for")
                    .into());
            }
        }
        if answer
            .header("content-encoding")
            .is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"))
        {
            return Err(demand
                .broken("it sends another encoding than was asked for")
                .into());
        }
        let left = download.size() - download.offset();
        if let Some(length) = answer.response.content_length()
            && length != left
        {
            return Err(OciError::WrongSize {
                origin: self.host.to_string(),
                what: what.to_owned(),
                expected: download.size(),
                found: (download.offset() + length).to_string(),
            }
            .into());
        }
        loop {
            let chunk = answer.response.chunk().await;
            match chunk.map_err(|error| self.fault(HttpError::of(error), demand))? {
                Some(chunk) => {
                    let taken = download.append(&chunk).await;
                    taken.map_err(|error| self.store_error(error, what))?;
                    meter.reached(download.offset());
                }
                None if download.offset() < download.size() => {
                    return Err(self.network("it broke off"));
                }
                None => return Ok(()),
            }
        }
    }

    /// Asks for something of the repository, proving who we are if that is demanded.
    async fn get(
        &self,
        path: &str,
        headers: HeaderMap,
        demand: Demand<'_>,
    ) -> Result<Answer, Fault> {
        let base = self.client.base(self.host, demand).await?;
        let path = format!("{}/{path}", self.repository.as_str());
        let url: Url = base
            .join(&path)
            .expect("a repository's name and a digest or tag make a path");
        let client = self.client;
        let mut proof = client.auth.remembered(demand);
        let mut demanded = false;
        loop {
            let answer = client.http.get(&url, &headers, proof.as_ref()).await;
            let answer = answer.map_err(|error| self.fault(error, demand))?;
            // What another host demands is not ours to give.
            if answer.status() != 401 || answer.strayed || demanded {
                return Ok(answer);
            }
            demanded = true;
            let challenges = answer.response.headers().get_all("www-authenticate");
            let best = challenge::best(challenges.iter().filter_map(|value| value.to_str().ok()));
            proof = Some(client.auth.meet(&client.http, demand, best).await?);
        }
    }

    async fn expect(
        &self,
        answer: Answer,
        wanted: &[u16],
        demand: Demand<'_>,
    ) -> Result<Answer, Fault> {
        let status = answer.status();
        if wanted.contains(&status) {
            return Ok(answer);
        }
        let origin = self.host.to_string();
        let what = demand.what.to_owned();
        Err(match status {
            404 => OciError::NotFound { origin, what }.into(),
            401 | 403 => {
                let known = self.client.auth.knows(self.host, self.repository).await;
                demand
                    .unauthorized(known, auth::message(answer).await)
                    .into()
            }
            busy if auth::is_busy(busy) => auth::busy(answer, &origin).await,
            status => OciError::Status {
                origin,
                what,
                status,
                message: auth::message(answer).await,
            }
            .into(),
        })
    }

    fn demand<'b>(&'b self, what: &'b str) -> Demand<'b> {
        Demand {
            host: self.host,
            repository: self.repository,
            access: Access::Pull,
            what,
        }
    }

    pub(super) fn fault(&self, error: HttpError, demand: Demand<'_>) -> Fault {
        auth::fault(error, self.host.as_str(), demand)
    }

    pub(super) fn network(&self, reason: &str) -> Fault {
        Fault::Network {
            origin: self.host.to_string(),
            source: shown(reason).into(),
        }
    }
}

/// Whether an answer goes on at this offset.
fn continues(answer: &Answer, offset: u64) -> bool {
    answer
        .header("content-range")
        .and_then(|text| text.strip_prefix("bytes "))
        .and_then(|text| text.split_once('-'))
        .is_some_and(|(begin, _)| begin.trim().parse() == Ok(offset))
}
