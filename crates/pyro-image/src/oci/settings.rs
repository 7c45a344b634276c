//! What the caller decides about registries: addresses, trust, credentials, patience.
//!
//! Plain values: nothing here reads the environment or a file.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::oci::platform::Platform;
use crate::oci::reference::RegistryHost;
use crate::policy::Policy;

/// How registries are reached. The default asks them directly, over TLS, without credentials.
#[derive(Debug, Clone, Default)]
pub struct RegistrySettings {
    /// Docker's `config.json`. A missing file holds nothing.
    pub docker_config: Option<PathBuf>,
    /// Directories in which `docker-credential-NAME` is looked for, in this order.
    pub credential_program_dirs: Vec<PathBuf>,
    /// Files in PEM form with certificates to trust beside the system's.
    pub extra_ca_files: Vec<PathBuf>,
    /// Hosts that may be spoken to without TLS, besides this host itself. TLS is tried first.
    pub plain_http_hosts: Vec<RegistryHost>,
    /// Registries to ask before the one that is named. The original is asked last.
    pub mirrors: Vec<Mirror>,
    /// Proxies.
    pub proxies: Proxies,
    /// Patience.
    pub retry: RetryPolicy,
}

/// A registry that has what another one has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The registry that is named in references.
    pub of: RegistryHost,
    /// The registry to ask instead.
    pub host: RegistryHost,
}

/// Proxies by the scheme of what is fetched. This host itself is never reached through one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For plain HTTP, such as `http://proxy.example:3128`.
    pub http: Option<String>,
    /// For HTTPS.
    pub https: Option<String>,
    /// Hosts, domains and networks that are reached directly, separated by commas.
    pub no_proxy: Option<String>,
}

/// When to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often something is tried in a row without a byte of progress; at least once.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles from then on.
    pub first_pause: Duration,
    /// The longest pause, also if the host asks for a longer one: then it counts as busy.
    pub longest_pause: Duration,
    /// How long a connection may take to come up, and how long it may stay silent.
    pub silence: Duration,
}

/// When a tag is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Each time. What is in the store is not fetched again.
    Always,
    /// If the image is not in the store as a whole.
    #[default]
    Missing,
    /// Never; nothing is fetched. Also what an offline mode means.
    Never,
}

/// One pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// When to look up a tag.
    pub policy: PullPolicy,
    /// Which images may be used at all.
    pub image_policy: Arc<Policy>,
    /// What the image has to be made for.
    pub platform: Platform,
    /// How many blobs are fetched at once.
    pub parallel: NonZeroUsize,
    /// The most bytes of all layers together, as they are sent.
    pub max_bytes: u64,
    /// How long to wait for another process that fetches the same blob.
    pub lock_wait: Duration,
}

/// More than what any image in use has, and less than what fills a disk unnoticed.
const MAX_BYTES: u64 = 64 * 1024 * 1024 * 1024;

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_mins(1),
            silence: Duration::from_secs(30),
        }
    }
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            policy: PullPolicy::default(),
            image_policy: Arc::default(),
            platform: Platform::linux_amd64(),
            parallel: const { NonZeroUsize::new(3).expect("three is not zero") },
            max_bytes: MAX_BYTES,
            lock_wait: Duration::from_hours(1),
        }
    }
}
