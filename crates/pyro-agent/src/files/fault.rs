//! What went wrong with a path, as the reply that the peer gets.

use pyro_protocol::code::{ErrorCode, ErrorReply};
use rustix::io::Errno;

/// The result of work on files.
pub(crate) type Outcome<T> = Result<T, ErrorReply>;

/// A fault of `code` at `path`: "`path` `text`".
pub(crate) fn fault(code: ErrorCode, path: &[u8], text: &str) -> ErrorReply {
    ErrorReply::new(code, format!("`{}` {text}", String::from_utf8_lossy(path)))
}

/// Turns what the kernel says about `path` into a fault.
pub(crate) fn at(path: &[u8]) -> impl Fn(Errno) -> ErrorReply + '_ {
    move |errno| {
        let (code, text) = match errno {
            Errno::NOENT => (ErrorCode::NotFound, "does not exist"),
            Errno::EXIST => (ErrorCode::AlreadyExists, "exists"),
            Errno::NOTDIR => (
                ErrorCode::FailedPrecondition,
                "is not a directory, or lies below something that is none",
            ),
            Errno::ISDIR => (ErrorCode::FailedPrecondition, "is a directory"),
            Errno::NOTEMPTY => (
                ErrorCode::FailedPrecondition,
                "is a directory that is not empty",
            ),
            Errno::LOOP => (
                ErrorCode::FailedPrecondition,
                "is a symbolic link, or leads through too many of them",
            ),
            Errno::XDEV => (ErrorCode::FailedPrecondition, "lies on another file system"),
            Errno::ROFS => (
                ErrorCode::FailedPrecondition,
                "lies on a read-only file system",
            ),
            Errno::NOSPC | Errno::DQUOT => (
                ErrorCode::NoSpace,
                "cannot be written: the guest's disk is full",
            ),
            Errno::FBIG => (ErrorCode::LimitExceeded, "is larger than a file can be"),
            Errno::NAMETOOLONG => (ErrorCode::InvalidArgument, "has a name that is too long"),
            Errno::ACCESS | Errno::PERM => (ErrorCode::PermissionDenied, "is not permitted"),
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => (
                ErrorCode::LimitExceeded,
                "cannot be opened: the guest is out of handles or memory",
            ),
            // `openat2` gives up when directories move under it.
            Errno::AGAIN | Errno::BUSY | Errno::STALE => {
                (ErrorCode::Conflict, "is being changed by somebody else")
            }
            other => {
                let shown = String::from_utf8_lossy(path);
                return ErrorReply::new(ErrorCode::GuestError, format!("`{shown}`: {other}"));
            }
        };
        fault(code, path, text)
    }
}

/// As [`at`], for what the standard library tells.
pub(crate) fn io_at(path: &[u8]) -> impl Fn(std::io::Error) -> ErrorReply + '_ {
    move |error| match Errno::from_io_error(&error) {
        Some(errno) => at(path)(errno),
        None if error.kind() == std::io::ErrorKind::StorageFull => at(path)(Errno::NOSPC),
        None => ErrorReply::new(
            ErrorCode::GuestError,
            format!("`{}`: {error}", String::from_utf8_lossy(path)),
        ),
    }
}
