//! An archive into a file, going on where an earlier attempt broke off.
//!
//! Owns the requests and the patience. Never judges the content: whoever unpacks it compares digests.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};

use super::error::RuntimeError;
use crate::disk::DiskError;
use crate::oci::http::{Answer, Http, HttpError};
use crate::oci::retry::{Fault, Retry};
use crate::oci::{OciError, RegistrySettings};
use crate::progress::{self, ProgressSink};

/// The largest archive. Firecracker's has about 30 MB.
const MAX_BYTES: u64 = 512 * 1024 * 1024;

/// What is fetched, in messages.
const WHAT: &str = "the archive of the engine";

/// How often progress is told.
const PERIOD: Duration = Duration::from_millis(100);

/// Fetches `url` into `to`. Tells whether a part was there before.
pub(super) async fn fetch(
    url: &str,
    to: &Path,
    network: &RegistrySettings,
    progress: &ProgressSink,
) -> Result<bool, RuntimeError> {
    let http = Http::new(network)?;
    let url = usable(url, &http)?;
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(to)
        .map_err(|source| DiskError::new("open", to, source))?;
    let offset = file
        .seek(SeekFrom::End(0))
        .map_err(|source| DiskError::new("read", to, source))?;
    let mut download = Download {
        http: &http,
        url: &url,
        origin: url.host_str().unwrap_or_default().to_owned(),
        file,
        path: to,
        offset,
        progress,
    };
    let mut retry = Retry::new(network.retry, WHAT, progress);
    loop {
        let before = download.offset;
        match download.attempt().await {
            Ok(()) => return Ok(offset > 0),
            Err(Stop::Fault(fault)) => retry.after(fault, download.offset > before).await?,
            Err(Stop::Disk(error)) => return Err(error.into()),
        }
    }
}

fn usable(url: &str, http: &Http) -> Result<Url, RuntimeError> {
    let refused = |reason| RuntimeError::Address {
        url: url
            .rsplit_once('@')
            .map_or(url, |(_, rest)| rest)
            .to_owned(),
        reason,
    };
    let url: Url = url.parse().map_err(|_| refused("it is no address"))?;
    if http.allows(&url) {
        Ok(url)
    } else {
        Err(refused("it is not protected by TLS"))
    }
}

enum Stop {
    Fault(Fault),
    Disk(DiskError),
}

struct Download<'a> {
    http: &'a Http,
    url: &'a Url,
    origin: String,
    file: File,
    path: &'a Path,
    offset: u64,
    progress: &'a ProgressSink,
}

impl Download<'_> {
    async fn attempt(&mut self) -> Result<(), Stop> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if self.offset > 0 {
            let range = format!("bytes={}-", self.offset);
            headers.insert(
                RANGE,
                HeaderValue::try_from(range).expect("digits make a header"),
            );
        }
        let answer = self.http.get(self.url, &headers, None).await;
        let mut answer = answer.map_err(|error| self.http_fault(error))?;
        match answer.status() {
            206 if continues(&answer, self.offset) => {}
            206 => return Err(self.refused("it sends another range than was asked for")),
            // It knows no ranges.
            200 => self.restart()?,
            416 if self.offset > 0 => {
                // Either all is there already, or it is of something else.
                if is_whole(&answer, self.offset) {
                    return Ok(());
                }
                self.restart()?;
                return Err(self.network("it refuses to go on where it broke off"));
            }
            status @ (408 | 429 | 500..) => {
                return Err(Stop::Fault(Fault::Busy {
                    origin: self.origin.clone(),
                    status,
                    message: String::new(),
                    retry_after: retry_after(&answer),
                }));
            }
            404 | 410 => {
                return Err(Stop::Fault(Fault::Final(OciError::NotFound {
                    origin: self.origin.clone(),
                    what: WHAT.to_owned(),
                })));
            }
            status => {
                return Err(Stop::Fault(Fault::Final(OciError::Status {
                    origin: self.origin.clone(),
                    what: WHAT.to_owned(),
                    status,
                    message: String::new(),
                })));
            }
        }
        let total = answer
            .response
            .content_length()
            .map(|left| self.offset.saturating_add(left));
        if total.is_some_and(|total| total > MAX_BYTES) {
            return Err(self.too_large());
        }
        let mut told = Instant::now();
        loop {
            let chunk = answer.response.chunk().await;
            let chunk = chunk.map_err(|error| self.http_fault(HttpError::of(error)))?;
            let Some(chunk) = chunk else { break };
            if self.offset + chunk.len() as u64 > MAX_BYTES {
                return Err(self.too_large());
            }
            self.file
                .write_all(&chunk)
                .map_err(|source| Stop::Disk(DiskError::new("write", self.path, source)))?;
            self.offset += chunk.len() as u64;
            if told.elapsed() >= PERIOD || total == Some(self.offset) {
                told = Instant::now();
                progress::bytes(self.progress, "runtime", self.offset, total);
            }
        }
        match total {
            Some(total) if self.offset < total => Err(self.network("it broke off")),
            _ => Ok(()),
        }
    }

    fn restart(&mut self) -> Result<(), Stop> {
        self.offset = 0;
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(|source| Stop::Disk(DiskError::new("write", self.path, source)))
    }

    fn http_fault(&self, error: HttpError) -> Stop {
        let origin = self.origin.clone();
        Stop::Fault(match error {
            HttpError::Network(source) => Fault::Network {
                origin,
                source: Box::new(source),
            },
            HttpError::Trust(source) => Fault::Final(OciError::Unreachable {
                origin,
                what: WHAT.to_owned(),
                attempts: 1,
                source: Box::new(source),
            }),
            HttpError::Silent(silence) => Fault::Network {
                origin,
                source: format!("silent for {} s", silence.as_secs()).into(),
            },
            HttpError::Rule(reason) => Fault::Final(OciError::Protocol {
                origin,
                what: WHAT.to_owned(),
                reason,
            }),
        })
    }

    fn network(&self, text: &str) -> Stop {
        Stop::Fault(Fault::Network {
            origin: self.origin.clone(),
            source: text.into(),
        })
    }

    fn refused(&self, reason: &str) -> Stop {
        Stop::Fault(Fault::Final(OciError::Protocol {
            origin: self.origin.clone(),
            what: WHAT.to_owned(),
            reason: reason.to_owned(),
        }))
    }

    fn too_large(&self) -> Stop {
        Stop::Fault(Fault::Final(OciError::TooLarge {
            origin: self.origin.clone(),
            what: WHAT.to_owned(),
            limit: MAX_BYTES,
        }))
    }
}

/// Whether the answer begins at `offset`.
fn continues(answer: &Answer, offset: u64) -> bool {
    offset > 0
        && answer
            .header(CONTENT_RANGE.as_str())
            .and_then(|range| range.strip_prefix("bytes "))
            .and_then(|range| range.split('-').next())
            .is_some_and(|first| first.parse() == Ok(offset))
}

/// Whether a refusal says that there are `offset` bytes in all.
fn is_whole(answer: &Answer, offset: u64) -> bool {
    answer
        .header(CONTENT_RANGE.as_str())
        .and_then(|range| range.strip_prefix("bytes */"))
        .is_some_and(|total| total.parse() == Ok(offset))
}

fn retry_after(answer: &Answer) -> Option<Duration> {
    let seconds = answer.header("retry-after")?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
