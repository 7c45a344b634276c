//! Secrets: a directory in memory that is replaced as a whole.

use std::path::Path;

use pyro_archive::beneath::DIRECTORY;
use pyro_archive::codec::decode::Compression;
use pyro_archive::extract::options::{Attributes, Links, Modes, Options, Progress, Times};
use pyro_archive::extract::{ExtractError, Swap};
use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::limits::{MAX_SECRETS, MAX_SECRETS_BYTES};
use rustix::fs::Mode;

use super::fault;
use super::feed::Feed;
use super::import::{Unpacked, unpack};
use crate::files::fault::{Outcome, at};

/// What `statfs` says of the kernel's file system in memory.
const TMPFS: i64 = 0x0102_1994;

const SECRET_FILE: u32 = 0o600;
const SECRET_DIRECTORY: u32 = 0o700;

/// Puts the secrets that `feed` brings into `directory`, in the place of all that were there.
pub(super) fn install(directory: &Path, feed: Feed, progress: &Progress) -> Outcome<Unpacked> {
    let shown = directory.as_os_str().as_encoded_bytes();
    let (Some(above), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Err(at(shown)(rustix::io::Errno::INVAL));
    };
    let parent = rustix::fs::open(above, DIRECTORY, Mode::empty()).map_err(at(shown))?;
    let system = rustix::fs::fstatfs(&parent).map_err(at(shown))?;
    if system.f_type != TMPFS {
        return Err(ErrorReply::new(
            ErrorCode::FailedPrecondition,
            "secrets are kept in memory only, and their place is on a disk",
        ));
    }
    let options = Options {
        modes: Modes::Given {
            file: SECRET_FILE,
            directory: SECRET_DIRECTORY,
        },
        times: Times::Now,
        links: Links::Refused,
        attributes: Attributes::LeftOut,
        max_entries: MAX_SECRETS,
        max_bytes: MAX_SECRETS_BYTES,
        ..Options::import()
    };
    let swapped = || -> Result<_, ExtractError> {
        let swap = Swap::open(parent, name)?;
        let mut extractor = swap.extractor(options, progress)?;
        unpack(&mut extractor, Compression::Auto, feed)?;
        swap.commit(extractor)
    };
    let summary = swapped().map_err(|error| fault::reply(&error))?;
    Ok(Unpacked::new(shown, &summary))
}
