//! Pulls from and pushes to a real registry, and from servers that misbehave before it.

mod faults;
mod front;
mod local;
mod login;
mod policy;
mod processes;
mod pulls;
mod pushes;
mod refusals;
mod signatures;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyro_image::blobs::BlobStore;
use pyro_image::oci::{
    Client, OciError, PullOptions, PullPolicy, PulledImage, RegistrySettings, RetryPolicy,
};
use pyro_image::progress::{self, Progress};
use pyro_testing::{registry, wire};

/// Settings with pauses for tests.
fn settings() -> RegistrySettings {
    RegistrySettings {
        retry: RetryPolicy {
            attempts: 3,
            first_pause: Duration::from_millis(5),
            longest_pause: Duration::from_secs(2),
            silence: Duration::from_mins(1),
        },
        ..RegistrySettings::default()
    }
}

fn options(policy: PullPolicy) -> PullOptions {
    PullOptions {
        policy,
        lock_wait: Duration::from_mins(1),
        ..PullOptions::default()
    }
}

async fn pull_with(
    settings: RegistrySettings,
    store: &BlobStore,
    name: &str,
    policy: PullPolicy,
) -> Result<PulledImage, OciError> {
    let client = Client::new(settings)?;
    let reference = name.parse()?;
    client
        .pull(&reference, store, &options(policy), &progress::ignore())
        .await
}

async fn pull(store: &BlobStore, name: &str, policy: PullPolicy) -> Result<PulledImage, OciError> {
    pull_with(settings(), store, name, policy).await
}

/// Nothing is installed but what its name says, and every layer is.
fn assert_whole(store: &BlobStore, image: &PulledImage) {
    use pyro_image::blobs::BlobState;
    for layer in &image.layers {
        let size = layer.size;
        assert_eq!(
            store.verify(layer.digest).unwrap(),
            BlobState::Valid { size }
        );
        assert_eq!(store.path(layer.digest), layer.path);
    }
}

/// A sink that keeps what it is told.
fn kept() -> (pyro_image::ProgressSink, Arc<Mutex<Vec<Progress>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    (
        Arc::new(move |event| sink.lock().unwrap().push(event)),
        events,
    )
}
