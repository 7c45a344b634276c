//! Sending something to one repository: who we are, where it may go, what the answers mean.
//!
//! An upload goes where the registry says, which may be another host. Such a host gets the bytes,
//! over TLS, and never a credential.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Url};

use crate::digest::Sha256Digest;
use crate::oci::auth::{self, Access, Demand};
use crate::oci::challenge;
use crate::oci::error::OciError;
use crate::oci::http::{Answer, Sending};
use crate::oci::registry::Registry;
use crate::oci::retry::Fault;

/// How long a registry may take to check and file what has come: it may have to copy it.
pub(super) const FILING: Duration = Duration::from_mins(10);

/// A request with what it carries.
pub(super) struct Message<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Arc<Vec<u8>>,
    /// How long the other end may be silent.
    pub(super) patience: Duration,
}

impl<'a> Message<'a> {
    /// One that carries nothing.
    pub(super) fn empty(method: Method, url: &'a Url, patience: Duration) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Arc::default(),
            patience,
        }
    }
}

impl Registry<'_> {
    /// Sends a message, proving who we are if that is demanded.
    pub(super) async fn send(
        &self,
        message: &Message<'_>,
        demand: Demand<'_>,
        mut taken: impl FnMut(u64) + Send,
    ) -> Result<Answer, Fault> {
        let client = self.client;
        let base = client.base(self.host, demand).await?;
        let ours = message.url.origin() == base.origin();
        let mut proof = client.auth.remembered(demand).filter(|_| ours);
        let mut demanded = false;
        loop {
            let sending = Sending {
                method: message.method.clone(),
                url: message.url,
                headers: message.headers.clone(),
                authorization: proof.as_ref(),
                body: Arc::clone(&message.body),
                patience: message.patience,
            };
            let answer = client.http.send(sending, &mut taken).await;
            let answer = answer.map_err(|error| self.fault(error, demand))?;
            // What another host demands is not ours to give.
            if answer.status() != 401 || !ours || demanded {
                return Ok(answer);
            }
            demanded = true;
            proof = Some(self.prove(&answer, demand).await?);
        }
    }

    /// Meets what an answer demands.
    pub(super) async fn prove(
        &self,
        answer: &Answer,
        demand: Demand<'_>,
    ) -> Result<HeaderValue, Fault> {
        let challenges = answer.response.headers().get_all("www-authenticate");
        let best = challenge::best(challenges.iter().filter_map(|value| value.to_str().ok()));
        let client = self.client;
        client.auth.meet(&client.http, demand, best).await
    }

    /// The answer, if it is one of the wanted ones.
    pub(super) async fn taken(
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
        if auth::is_busy(status) {
            return Err(auth::busy(answer, &origin).await);
        }
        let what = demand.what.to_owned();
        let message = auth::message(answer).await;
        let error = match status {
            401 | 403 => OciError::PushDenied {
                known: self.client.auth.knows(self.host, self.repository).await,
                origin,
                what,
                message,
            },
            404 => OciError::NotFound {
                origin,
                what: format!("repository `{}`", self.repository.as_str()),
            },
            405 => OciError::ReadOnly {
                origin,
                what,
                message,
            },
            413 => OciError::RefusedAsTooLarge {
                origin,
                what,
                message,
            },
            status => OciError::Status {
                origin,
                what,
                status,
                message,
            },
        };
        Err(error.into())
    }

    /// Where an answer says to go on.
    pub(super) fn location(
        &self,
        answer: &Answer,
        asked: &Url,
        demand: Demand<'_>,
    ) -> Result<Url, Fault> {
        let url = answer
            .header("location")
            .and_then(|text| asked.join(text).ok())
            .ok_or_else(|| demand.broken("it does not say where to send the blob"))?;
        // The bytes are no secret, but who changes them on their way costs another upload.
        if !self.client.http.allows(&url) {
            let reason = format!(
                "it wants the blob sent to `{}` on `{}`, which is not protected by TLS",
                url.scheme(),
                url.host_str().unwrap_or_default()
            );
            return Err(demand.broken(&reason).into());
        }
        Ok(url)
    }

    /// The address of something in the repository.
    pub(super) async fn address(&self, path: &str, demand: Demand<'_>) -> Result<Url, Fault> {
        let base = self.client.base(self.host, demand).await?;
        let path = format!("{}/{path}", self.repository.as_str());
        Ok(base
            .join(&path)
            .expect("a repository's name and a digest or tag make a path"))
    }

    /// What is demanded of who writes.
    pub(super) fn push_demand<'b>(&'b self, what: &'b str) -> Demand<'b> {
        Demand {
            host: self.host,
            repository: self.repository,
            access: Access::Push,
            what,
        }
    }
}

/// Whether an answer names the digest of what was sent, if it names one.
pub(super) fn agrees(
    answer: &Answer,
    expected: Sha256Digest,
    demand: Demand<'_>,
) -> Result<(), Fault> {
    let named = answer.header("docker-content-digest");
    match named.and_then(|text| text.parse::<Sha256Digest>().ok()) {
        Some(found) if found != expected => {
            let reason = format!("it filed {expected} as {found}");
            Err(demand.broken(&reason).into())
        }
        _ => Ok(()),
    }
}
