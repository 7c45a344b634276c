//! What is kept between pulls: connections, tokens, and who speaks TLS.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use reqwest::Url;
use reqwest::header::HeaderMap;

use crate::oci::auth::{self, Auth, Demand};
use crate::oci::credentials::CredentialSource;
use crate::oci::error::OciError;
use crate::oci::http::{Http, HttpError};
use crate::oci::reference::RegistryHost;
use crate::oci::retry::Fault;
use crate::oci::settings::RegistrySettings;

/// Pulls images. Cheap to use for many pulls, also at once: they share connections and tokens.
#[derive(Debug)]
pub struct Client {
    pub(super) http: Http,
    pub(super) auth: Auth,
    pub(super) settings: RegistrySettings,
    bases: Mutex<HashMap<RegistryHost, Url>>,
}

impl Client {
    /// A client with these settings. Reads the certificates and Docker's `config.json`, blocking
    /// for a moment.
    pub fn new(settings: RegistrySettings) -> Result<Self, OciError> {
        let credentials = CredentialSource::read(
            settings.docker_config.as_deref(),
            settings.credential_program_dirs.clone(),
        )?;
        Ok(Self {
            http: Http::new(&settings)?,
            auth: Auth::new(credentials),
            settings,
            bases: Mutex::default(),
        })
    }

    /// The address below which a registry's repositories are.
    ///
    /// A host that may be spoken to without TLS is asked with TLS first, once. Only an answer
    /// that is no TLS at all makes the difference: a certificate that does not fit does not.
    pub(super) async fn base(&self, host: &RegistryHost, demand: Demand<'_>) -> Result<Url, Fault> {
        let known = {
            let bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
            bases.get(host).cloned()
        };
        if let Some(base) = known {
            return Ok(base);
        }
        let address = |scheme: &str| {
            let text = format!("{scheme}://{}/v2/", host.api());
            Url::parse(&text).map_err(|_| demand.broken("its name makes no address"))
        };
        let mut base = address("https")?;
        if self.http.allows_plain(host) {
            match self.http.get(&base, &HeaderMap::new(), None).await {
                Ok(_) | Err(HttpError::Rule(_)) => {}
                Err(error) if error.is_no_tls() => base = address("http")?,
                Err(error) => return Err(auth::fault(error, host.as_str(), demand)),
            }
        }
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        bases.insert(host.clone(), base.clone());
        Ok(base)
    }
}
