//! The error codes that every face of the product shares, and the error a guest replies.

use serde::{Deserialize, Serialize};

/// Stable, machine-readable class of a failure. The same word in CLI JSON, MCP and SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The caller's input is malformed or out of range.
    InvalidArgument,
    /// What was named does not exist.
    NotFound,
    /// What was to be made exists.
    AlreadyExists,
    /// The object is in a state that does not allow the operation.
    FailedPrecondition,
    /// The machine's time to live has passed.
    Expired,
    /// A configured limit was reached.
    LimitExceeded,
    /// This engine or build cannot do it.
    Unsupported,
    /// The host lacks something that machines need.
    HostUnavailable,
    /// The host's permissions forbid it.
    PermissionDenied,
    /// The guest does not answer.
    GuestUnreachable,
    /// The guest answered with an error or could not start.
    GuestError,
    /// A deadline passed.
    Timeout,
    /// The caller gave up.
    Cancelled,
    /// The network failed.
    NetworkError,
    /// Credentials were refused.
    AuthFailed,
    /// Content does not match its digest.
    DigestMismatch,
    /// A signature is missing or wrong.
    SignatureInvalid,
    /// A disk is full.
    NoSpace,
    /// Somebody else holds or changed it.
    Conflict,
    /// A fault of ours.
    Internal,
}

impl ErrorCode {
    /// The code as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::FailedPrecondition => "failed_precondition",
            Self::Expired => "expired",
            Self::LimitExceeded => "limit_exceeded",
            Self::Unsupported => "unsupported",
            Self::HostUnavailable => "host_unavailable",
            Self::PermissionDenied => "permission_denied",
            Self::GuestUnreachable => "guest_unreachable",
            Self::GuestError => "guest_error",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::NetworkError => "network_error",
            Self::AuthFailed => "auth_failed",
            Self::DigestMismatch => "digest_mismatch",
            Self::SignatureInvalid => "signature_invalid",
            Self::NoSpace => "no_space",
            Self::Conflict => "conflict",
            Self::Internal => "internal",
        }
    }

    /// Whether the same call may succeed when it is made again unchanged.
    pub fn retryable(self) -> bool {
        match self {
            Self::GuestUnreachable | Self::Timeout | Self::NetworkError | Self::Conflict => true,
            Self::InvalidArgument
            | Self::NotFound
            | Self::AlreadyExists
            | Self::FailedPrecondition
            | Self::Expired
            | Self::LimitExceeded
            | Self::Unsupported
            | Self::HostUnavailable
            | Self::PermissionDenied
            | Self::GuestError
            | Self::Cancelled
            | Self::AuthFailed
            | Self::DigestMismatch
            | Self::SignatureInvalid
            | Self::NoSpace
            | Self::Internal => false,
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the agent replies when a request fails: the original's `{"error": text}` and,
/// beside it, our code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// One sentence for a person.
    pub error: String,
    /// Class of the failure. Absent when an agent of generation 0 replies.
    #[serde(default = "unclassified")]
    pub code: ErrorCode,
}

impl ErrorReply {
    /// An error reply of `code` with the text `error`.
    pub fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            code,
        }
    }
}

/// An error with its sources on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let told = inner.to_string();
        // A transparent error repeats its source's text.
        if !text.ends_with(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        source = inner.source();
    }
    text
}

fn unclassified() -> ErrorCode {
    ErrorCode::GuestError
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_word_and_as_str_are_one() {
        for code in [
            ErrorCode::InvalidArgument,
            ErrorCode::GuestUnreachable,
            ErrorCode::DigestMismatch,
            ErrorCode::NoSpace,
        ] {
            let json = serde_json::to_value(code).unwrap();
            assert_eq!(json, code.as_str());
        }
    }

    #[test]
    fn an_error_of_generation_zero_is_a_guest_error() {
        let reply: ErrorReply = serde_json::from_str(r#"{"error": "boom"}"#).unwrap();
        assert_eq!(reply, ErrorReply::new(ErrorCode::GuestError, "boom"));
    }
}
