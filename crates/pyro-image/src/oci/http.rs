//! Requests with the rules that no general client keeps: where credentials may go, where a
//! redirect may lead, and how much of an answer is read.
//!
//! It knows no registries. It never retries, and it reads no environment.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{future, stream};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Body, Client, ClientBuilder, Method, NoProxy, Proxy, Response, Url, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::oci::error::{Cause, OciError};
use crate::oci::reference::RegistryHost;
use crate::oci::settings::{Proxies, RegistrySettings};

/// Registries redirect once, to where their blobs lie; those perhaps once more.
const MAX_REDIRECTS: usize = 5;
/// Bytes of a body that are given to the connection at a time.
const PIECE: usize = 64 * 1024;
/// How often it is looked how far a body is.
const TICK: Duration = Duration::from_millis(250);
/// Where distributions keep the certificates that they trust; the first that exists is used.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What is never reached through a proxy.
const THIS_HOST: &str = "localhost,127.0.0.0/8,::1";

/// A client with its trust and its proxies.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client,
    /// For bodies of ours: while one is sent the other end is silent by right.
    sender: Client,
    plain_hosts: Vec<RegistryHost>,
}

/// The head of an answer, whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// Whether another host has answered than the one that was asked.
    pub(crate) strayed: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum HttpError {
    /// The network, or the other end, failed.
    Network(reqwest::Error),
    /// The other end cannot be trusted to be who it should be: trying again does not help.
    Trust(reqwest::Error),
    /// The other end has taken nothing and said nothing for so long.
    Silent(Duration),
    /// The answer broke a rule.
    Rule(String),
}

/// What is sent, to this address and no other.
pub(crate) struct Sending<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: HeaderMap,
    pub(crate) authorization: Option<&'a HeaderValue>,
    pub(crate) body: Arc<Vec<u8>>,
    /// How long the other end may take nothing and say nothing.
    pub(crate) patience: Duration,
}

impl Http {
    pub(crate) fn new(settings: &RegistrySettings) -> Result<Self, OciError> {
        Ok(Self {
            client: client(settings, |client| {
                client.read_timeout(settings.retry.silence)
            })?,
            sender: client(settings, |client| client)?,
            plain_hosts: settings.plain_http_hosts.clone(),
        })
    }

    /// Whether this host may be spoken to without TLS.
    pub(crate) fn allows_plain(&self, host: &RegistryHost) -> bool {
        host.is_loopback() || self.plain_hosts.contains(host)
    }

    /// Whether this address may be used at all.
    pub(crate) fn allows(&self, url: &Url) -> bool {
        match url.scheme() {
            "https" => true,
            "http" => host_of(url).is_some_and(|host| self.allows_plain(&host)),
            _ => false,
        }
    }

    /// Asks, following redirects. `authorization` goes to the asked host only: once a redirect
    /// leads elsewhere it is never sent again.
    pub(crate) async fn get(
        &self,
        url: &Url,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, HttpError> {
        self.ask(Method::GET, url, headers, authorization).await
    }

    /// Like [`Self::get`], for the head of an answer alone.
    pub(crate) async fn head(
        &self,
        url: &Url,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, HttpError> {
        self.ask(Method::HEAD, url, headers, authorization).await
    }

    async fn ask(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, HttpError> {
        let asked = url.origin();
        let mut url = url.clone();
        let mut strayed = false;
        for _ in 0..=MAX_REDIRECTS {
            let request = self.client.request(method.clone(), url.clone());
            let mut request = request.headers(headers.clone());
            if let (false, Some(value)) = (strayed, authorization) {
                request = request.header(AUTHORIZATION, value);
            }
            let response = request.send().await.map_err(HttpError::of)?;
            if !is_redirect(response.status().as_u16()) {
                return Ok(Answer { response, strayed });
            }
            let to = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .and_then(|text| url.join(text).ok())
                .ok_or_else(|| HttpError::Rule("it redirects to no address".to_owned()))?;
            if !self.allows(&to) {
                return Err(HttpError::Rule(format!(
                    "it redirects to `{}` on `{}`, which is not protected by TLS",
                    to.scheme(),
                    to.host_str().unwrap_or_default()
                )));
            }
            strayed |= to.origin() != asked;
            url = to;
        }
        Err(HttpError::Rule(format!(
            "it redirects more than {MAX_REDIRECTS} times"
        )))
    }

    /// Sends a body. `taken` is told now and then how many bytes of it are on their way.
    pub(crate) async fn send(
        &self,
        sending: Sending<'_>,
        mut taken: impl FnMut(u64) + Send,
    ) -> Result<Answer, HttpError> {
        let length = sending.body.len();
        let counter = Arc::new(AtomicUsize::new(0));
        let mut request = self
            .sender
            .request(sending.method, sending.url.clone())
            .headers(sending.headers)
            .header(CONTENT_LENGTH, length);
        if let Some(value) = sending.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        if length > 0 {
            request = request.body(pieces(sending.body, Arc::clone(&counter)));
        }
        let mut answer = pin!(request.send());
        let (mut before, mut since) = (0, Instant::now());
        loop {
            if let Ok(answer) = tokio::time::timeout(TICK, &mut answer).await {
                let response = answer.map_err(HttpError::of)?;
                if is_redirect(response.status().as_u16()) {
                    return Err(HttpError::Rule(
                        "it redirects what is sent to it".to_owned(),
                    ));
                }
                return Ok(Answer {
                    response,
                    strayed: false,
                });
            }
            let now = counter.load(Ordering::Relaxed);
            if now > before {
                (before, since) = (now, Instant::now());
                taken(now as u64);
            } else if since.elapsed() > sending.patience {
                return Err(HttpError::Silent(sending.patience));
            }
        }
    }

    /// Sends a form, to this address and no other.
    pub(crate) async fn post_form(
        &self,
        url: &Url,
        fields: &[(&str, &str)],
    ) -> Result<Answer, HttpError> {
        // The query of an address is encoded as a form is.
        let mut encoded = url.clone();
        encoded.query_pairs_mut().clear().extend_pairs(fields);
        let body = encoded.query().unwrap_or_default().to_owned();
        let response = self
            .client
            .post(url.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await
            .map_err(HttpError::of)?;
        if is_redirect(response.status().as_u16()) {
            return Err(HttpError::Rule("it redirects a log-in".to_owned()));
        }
        Ok(Answer {
            response,
            strayed: false,
        })
    }
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The whole body, if it has at most `limit` bytes.
    pub(crate) async fn body(mut self, limit: u64) -> Result<Option<Vec<u8>>, HttpError> {
        if self
            .response
            .content_length()
            .is_some_and(|length| length > limit)
        {
            return Ok(None);
        }
        let mut body = Vec::new();
        while let Some(chunk) = self.response.chunk().await.map_err(HttpError::of)? {
            if body.len() as u64 + chunk.len() as u64 > limit {
                return Ok(None);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(body))
    }
}

impl HttpError {
    pub(crate) fn of(error: reqwest::Error) -> Self {
        let certificate = tls_error(&error)
            .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
        // Addresses hold signatures of a moment that belong into no message.
        let error = error.without_url();
        if certificate {
            Self::Trust(error)
        } else {
            Self::Network(error)
        }
    }

    /// Whether the other end does not speak TLS at all.
    pub(crate) fn is_no_tls(&self) -> bool {
        match self {
            Self::Network(error) => {
                matches!(tls_error(error), Some(rustls::Error::InvalidMessage(_)))
            }
            Self::Trust(_) | Self::Silent(_) | Self::Rule(_) => false,
        }
    }
}

/// The host of an address with its port, as references write it.
pub(crate) fn host_of(url: &Url) -> Option<RegistryHost> {
    let host = url.host_str()?;
    let text = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    RegistryHost::parse(&text).ok()
}

/// A body in pieces, which are counted when they are taken.
fn pieces(body: Arc<Vec<u8>>, counter: Arc<AtomicUsize>) -> Body {
    Body::wrap_stream(stream::unfold(0, move |at| {
        let end = body.len().min(at + PIECE);
        let piece = (at < end).then(|| {
            counter.store(end, Ordering::Relaxed);
            (Ok::<_, Infallible>(body[at..end].to_vec()), end)
        });
        future::ready(piece)
    }))
}

fn client(
    settings: &RegistrySettings,
    patience: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<Client, OciError> {
    let client = Client::builder()
        .tls_backend_preconfigured(tls(&settings.extra_ca_files)?)
        .user_agent(concat!("pyro/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .http1_only()
        .no_proxy()
        .connect_timeout(settings.retry.silence);
    let client = with_proxies(patience(client), &settings.proxies)?;
    client.build().map_err(|error| OciError::Setting {
        what: "the network settings".to_owned(),
        source: Box::new(error),
    })
}

fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// What rustls said, however deep. An I/O error hides its inner error from its source.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn tls(extra: &[PathBuf]) -> Result<ClientConfig, OciError> {
    let mut roots = RootCertStore::empty();
    if let Some(system) = SYSTEM_ROOTS
        .iter()
        .map(Path::new)
        .find(|path| path.is_file())
    {
        // A system's bundle may hold some that rustls does not understand.
        if let Ok(certificates) = CertificateDer::pem_file_iter(system) {
            roots.add_parsable_certificates(certificates.flatten());
        }
    }
    for path in extra {
        add_certificates(&mut roots, path).map_err(|source| OciError::Setting {
            what: format!("the certificates in `{}`", path.display()),
            source,
        })?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of TLS 1.2 and 1.3");
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn add_certificates(roots: &mut RootCertStore, path: &Path) -> Result<(), Cause> {
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    if roots.len() == before {
        return Err("it holds no certificate".into());
    }
    Ok(())
}

fn with_proxies(mut client: ClientBuilder, proxies: &Proxies) -> Result<ClientBuilder, OciError> {
    let direct = match proxies.no_proxy.as_deref() {
        Some(more) => format!("{THIS_HOST},{more}"),
        None => THIS_HOST.to_owned(),
    };
    let failed = |address: &str| {
        let address = address.rsplit_once('@').map_or(address, |(_, host)| host);
        let what = format!("the proxy `{}`", super::error::shown(address));
        move |error: reqwest::Error| OciError::Setting {
            what,
            source: Box::new(error.without_url()),
        }
    };
    if let Some(address) = &proxies.http {
        let proxy = Proxy::http(address).map_err(failed(address))?;
        client = client.proxy(proxy.no_proxy(NoProxy::from_string(&direct)));
    }
    if let Some(address) = &proxies.https {
        let proxy = Proxy::https(address).map_err(failed(address))?;
        client = client.proxy(proxy.no_proxy(NoProxy::from_string(&direct)));
    }
    Ok(client)
}
