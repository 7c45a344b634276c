//! What went wrong with an archive, as the reply that the peer gets.

use std::io;

use pyro_archive::codec::decode::DecodeError;
use pyro_archive::extract::ExtractError;
use pyro_archive::tar::read::ReadError;
use pyro_protocol::code::{ErrorCode, ErrorReply, chain};

use super::feed::FeedFault;
use crate::files::fault::at;

/// The reply for `error`, with its sources.
pub(crate) fn reply(error: &ExtractError) -> ErrorReply {
    let code = code(error);
    match error {
        // Which step met the full disk helps nobody.
        ExtractError::System { path, errno, .. } if code == ErrorCode::NoSpace => {
            let path = if path.is_empty() { "." } else { path };
            at(path.as_bytes())(*errno)
        }
        _ => ErrorReply::new(code, chain(error)),
    }
}

fn code(error: &ExtractError) -> ErrorCode {
    match error {
        ExtractError::Archive(error) => archive_code(error),
        ExtractError::Name { .. } => ErrorCode::InvalidArgument,
        ExtractError::Refused { .. } => ErrorCode::FailedPrecondition,
        ExtractError::System { errno, .. } => at(b"")(*errno).code,
        ExtractError::Limit { .. } => ErrorCode::LimitExceeded,
        ExtractError::Stopped => ErrorCode::Cancelled,
        ExtractError::LeftBehind { source, .. } => code(source),
    }
}

fn archive_code(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::Input { source } => input_code(source),
        ReadError::Truncated { .. } | ReadError::Damaged { .. } => ErrorCode::InvalidArgument,
        ReadError::TooLarge { .. } => ErrorCode::LimitExceeded,
        ReadError::Unsupported { .. } => ErrorCode::Unsupported,
    }
}

fn input_code(source: &io::Error) -> ErrorCode {
    let Some(inner) = source.get_ref() else {
        // The disk of a layer, or an end that a decoder noticed.
        return match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => ErrorCode::InvalidArgument,
            _ => ErrorCode::GuestError,
        };
    };
    if let Some(fault) = inner.downcast_ref::<FeedFault>() {
        return fault.code();
    }
    match inner.downcast_ref::<DecodeError>() {
        Some(DecodeError::Unsupported { .. }) => ErrorCode::Unsupported,
        Some(DecodeError::Window { .. }) => ErrorCode::LimitExceeded,
        Some(DecodeError::NotAsSaid { .. } | DecodeError::Zstd { .. }) | None => {
            ErrorCode::InvalidArgument
        }
    }
}
