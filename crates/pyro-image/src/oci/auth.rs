//! Proving who we are: what answers a registry's demand, and tokens for as long as they hold.
//!
//! Credentials go to the server that the registry names for tokens, and to the registry itself
//! if it asks for a password; both over TLS, or to a host that may be spoken to without. Tokens
//! are kept in memory only, one for each repository of each host and each access to it. What may
//! write is used for reading as well.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Deserialize;

use crate::oci::challenge::Challenge;
use crate::oci::credentials::{CredentialSource, Credentials};
use crate::oci::error::{OciError, shown};
use crate::oci::http::{Answer, Http, HttpError, host_of};
use crate::oci::reference::{RegistryHost, Repository};
use crate::oci::retry::Fault;

/// An answer with one token, and much that nobody reads.
const MAX_TOKEN_ANSWER: u64 = 256 * 1024;
/// How long a token holds that does not say so, as the specification has it.
const USUAL_LIFE: Duration = Duration::from_mins(1);
/// A token is given up this long before its end, because requests take time.
const MARGIN: Duration = Duration::from_secs(10);
/// Who we say that we are.
const CLIENT_ID: &str = "pyro";

/// Credentials, and the tokens that they were turned into.
#[derive(Debug)]
pub(super) struct Auth {
    credentials: CredentialSource,
    tokens: Mutex<HashMap<Key, Token>>,
}

/// A host, a repository of it, and what is done there.
type Key = (RegistryHost, Repository, Access);

/// What is done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Access {
    /// It is read.
    Pull,
    /// It is read and written.
    Push,
}

#[derive(Debug)]
struct Token {
    // Marked as sensitive: `Debug` hides it.
    header: HeaderValue,
    expires: Option<Instant>,
}

/// A request that needs an answer to a demand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand<'a> {
    pub(super) host: &'a RegistryHost,
    pub(super) repository: &'a Repository,
    pub(super) access: Access,
    pub(super) what: &'a str,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Auth {
    pub(super) fn new(credentials: CredentialSource) -> Self {
        Self {
            credentials,
            tokens: Mutex::default(),
        }
    }

    /// What was sent last time and still holds.
    pub(super) fn remembered(&self, demand: Demand<'_>) -> Option<HeaderValue> {
        let tokens = self.tokens();
        let now = Instant::now();
        let found = |access| {
            let token = tokens.get(&demand.key(access))?;
            let holds = token.expires.is_none_or(|end| now < end);
            holds.then(|| token.header.clone())
        };
        match demand.access {
            Access::Pull => found(Access::Pull).or_else(|| found(Access::Push)),
            Access::Push => found(Access::Push),
        }
    }

    /// Meets a demand, and remembers what with.
    pub(super) async fn meet(
        &self,
        http: &Http,
        demand: Demand<'_>,
        challenge: Option<Challenge>,
    ) -> Result<HeaderValue, Fault> {
        self.tokens().remove(&demand.key(demand.access));
        let credentials = self
            .credentials
            .find(demand.host, demand.repository)
            .await?;
        let token = match challenge {
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let own = format!("repository:{}:pull", demand.repository.as_str());
                let scope = match demand.access {
                    Access::Pull => scope.unwrap_or(own),
                    // A question about a blob is answered with the scope of a pull.
                    Access::Push => format!("{own},push"),
                };
                let realm = demand.realm(http, &realm)?;
                token(http, demand, credentials, realm, service, &scope).await?
            }
            Some(Challenge::Basic) => match credentials {
                Some(Credentials::Password { user, secret }) => Token {
                    header: basic(&user, &secret),
                    expires: None,
                },
                Some(Credentials::Identity { .. }) | None => {
                    return Err(demand.unauthorized(false, String::new()).into());
                }
            },
            None => {
                return Err(demand
                    .broken("it demands a log-in of no kind that is known")
                    .into());
            }
        };
        let header = token.header.clone();
        self.tokens().insert(demand.key(demand.access), token);
        Ok(header)
    }

    /// Whether there are credentials for a repository; for messages.
    pub(super) async fn knows(&self, host: &RegistryHost, repository: &Repository) -> bool {
        matches!(self.credentials.find(host, repository).await, Ok(Some(_)))
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<Key, Token>> {
        // Each change is one call; a panic elsewhere leaves nothing half done.
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Demand<'_> {
    fn key(self, access: Access) -> Key {
        (self.host.clone(), self.repository.clone(), access)
    }

    pub(super) fn unauthorized(self, known: bool, message: String) -> OciError {
        OciError::Unauthorized {
            origin: self.host.to_string(),
            what: self.what.to_owned(),
            known,
            message,
        }
    }

    pub(super) fn broken(self, reason: &str) -> OciError {
        OciError::Protocol {
            origin: self.host.to_string(),
            what: self.what.to_owned(),
            reason: shown(reason),
        }
    }

    fn realm(self, http: &Http, realm: &str) -> Result<Url, OciError> {
        let url = Url::parse(realm)
            .map_err(|_| self.broken(&format!("its token server `{realm}` is no address")))?;
        if !http.allows(&url) || host_of(&url).is_none() {
            return Err(self.broken(&format!(
                "its token server `{realm}` is not protected by TLS"
            )));
        }
        Ok(url)
    }
}

async fn token(
    http: &Http,
    demand: Demand<'_>,
    credentials: Option<Credentials>,
    mut realm: Url,
    service: Option<String>,
    scope: &str,
) -> Result<Token, Fault> {
    let known = credentials.is_some();
    let service = service.unwrap_or_default();
    let server = host_of(&realm).map_or_else(String::new, |host| host.to_string());
    let asked = Instant::now();
    let answer = if let Some(Credentials::Identity { token }) = &credentials {
        let fields = [
            ("grant_type", "refresh_token"),
            ("service", service.as_str()),
            ("client_id", CLIENT_ID),
            ("scope", scope),
            ("refresh_token", token.as_str()),
        ];
        http.post_form(&realm, &fields).await
    } else {
        let header = match &credentials {
            Some(Credentials::Password { user, secret }) => {
                realm.query_pairs_mut().append_pair("account", user);
                Some(basic(user, secret))
            }
            _ => None,
        };
        if !service.is_empty() {
            realm.query_pairs_mut().append_pair("service", &service);
        }
        realm.query_pairs_mut().append_pair("scope", scope);
        http.get(&realm, &HeaderMap::new(), header.as_ref()).await
    };
    let answer = answer.map_err(|error| fault(error, &server, demand))?;
    match answer.status() {
        200 => {}
        401 | 403 => {
            let message = message(answer).await;
            return Err(demand.unauthorized(known, message).into());
        }
        status if is_busy(status) => return Err(busy(answer, &server).await),
        status => {
            let reason = format!("its token server `{server}` answered with status {status}");
            return Err(demand.broken(&reason).into());
        }
    }
    let body = answer.body(MAX_TOKEN_ANSWER).await;
    let body = body
        .map_err(|error| fault(error, &server, demand))?
        .ok_or_else(|| demand.broken("its token server answered with too much"))?;
    // The parser's message may quote the token.
    let answer: TokenAnswer = serde_json::from_slice(&body)
        .map_err(|_| demand.broken("its token server answered with something else than JSON"))?;
    let token = answer
        .token
        .or(answer.access_token)
        .filter(|token| !token.is_empty())
        .ok_or_else(|| demand.broken("its token server gave no token"))?;
    let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| demand.broken("its token server gave a token that no header can hold"))?;
    header.set_sensitive(true);
    let life = answer.expires_in.map_or(USUAL_LIFE, Duration::from_secs);
    Ok(Token {
        header,
        expires: asked.checked_add(life.saturating_sub(MARGIN)),
    })
}

fn basic(user: &str, secret: &str) -> HeaderValue {
    let text = format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")));
    let mut header = HeaderValue::from_str(&text).expect("base64 is made of header characters");
    header.set_sensitive(true);
    header
}

/// Whether a status says that another moment may be better.
pub(super) fn is_busy(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

/// The fault of an answer that says so.
pub(super) async fn busy(answer: Answer, origin: &str) -> Fault {
    // The form with a date is used by nobody known; without it our own pauses count.
    let retry_after = answer
        .header("retry-after")
        .and_then(|text| text.trim().parse().ok())
        .map(Duration::from_secs);
    Fault::Busy {
        origin: origin.to_owned(),
        status: answer.status(),
        message: message(answer).await,
        retry_after,
    }
}

/// The fault of an exchange that came to no answer.
pub(super) fn fault(error: HttpError, origin: &str, demand: Demand<'_>) -> Fault {
    match error {
        HttpError::Network(source) => Fault::Network {
            origin: origin.to_owned(),
            source: Box::new(Chain(source)),
        },
        HttpError::Trust(source) => Fault::Final(OciError::Unreachable {
            origin: origin.to_owned(),
            what: demand.what.to_owned(),
            attempts: 1,
            source: Box::new(Chain(source)),
        }),
        HttpError::Silent(patience) => Fault::Network {
            origin: origin.to_owned(),
            source: format!("it was silent for {} seconds", patience.as_secs()).into(),
        },
        HttpError::Rule(reason) => Fault::Final(demand.broken(&reason)),
    }
}

/// What the other end says about a failure, in the form that the specification has.
pub(super) async fn message(answer: Answer) -> String {
    const LONGEST: u64 = 16 * 1024;
    const PATIENCE: Duration = Duration::from_secs(5);
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        message: Option<String>,
        code: Option<String>,
    }
    let body = tokio::time::timeout(PATIENCE, answer.body(LONGEST)).await;
    let body = body.ok().and_then(Result::ok).flatten();
    body.and_then(|body| serde_json::from_slice::<Errors>(&body).ok())
        .and_then(|errors| errors.errors.into_iter().next())
        .and_then(|one| one.message.or(one.code))
        .map_or_else(String::new, |text| shown(&text))
}

/// A network error told in one line: the client library hides the cause in its sources.
#[derive(Debug)]
struct Chain(reqwest::Error);

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut next = std::error::Error::source(&self.0);
        while let Some(source) = next {
            let text = source.to_string();
            if text != last {
                write!(f, ": {text}")?;
            }
            last = text;
            next = source.source();
        }
        Ok(())
    }
}

impl std::error::Error for Chain {}
