//! What went wrong with a call, as the model that made it is told: a tool result with code, message, hint and whether it may be
//! tried again. What the client did wrong is a protocol error, made in [`crate::server`].

use pyro::{Error, ErrorCode};
use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::{Value, json};

use crate::cap;
use crate::confine::Refused;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The SDK refused or failed.
    #[error(transparent)]
    Sdk(#[from] Error),
    /// The arguments do not fit the tool.
    #[error("{message}")]
    Arguments {
        /// What is wrong with them.
        message: String,
        /// What would be right.
        hint: &'static str,
    },
    /// A path of this host that is not to be touched.
    #[error(transparent)]
    Path(#[from] Refused),
    /// The client gave up, or the server ends.
    #[error("the call was cancelled, and what it ran was ended")]
    Cancelled,
    /// Too many calls at once.
    #[error("{limit} calls are under way")]
    Busy {
        /// The most at once.
        limit: usize,
    },
    /// A result that cannot be told.
    #[error("the result cannot be told")]
    Encoding(#[from] serde_json::Error),
}

impl Failure {
    pub(crate) fn arguments(message: impl Into<String>, hint: &'static str) -> Self {
        Self::Arguments {
            message: message.into(),
            hint,
        }
    }

    /// Stable class of the failure.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Sdk(error) => error.code(),
            Self::Arguments { .. } => ErrorCode::InvalidArgument,
            Self::Path(refused) => refused.code(),
            Self::Cancelled => ErrorCode::Cancelled,
            Self::Busy { .. } => ErrorCode::LimitExceeded,
            Self::Encoding(_) => ErrorCode::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Sdk(error) => error.hint(),
            Self::Arguments { hint, .. } => Some((*hint).to_owned()),
            Self::Path(refused) => Some(refused.hint()),
            Self::Busy { .. } => Some("wait for some of them and call again".into()),
            Self::Cancelled | Self::Encoding(_) => None,
        }
    }

    fn details(&self) -> Option<Value> {
        match self {
            Self::Sdk(error) => error.details(),
            Self::Path(refused) => Some(refused.details()),
            Self::Arguments { .. } | Self::Cancelled | Self::Busy { .. } | Self::Encoding(_) => {
                None
            }
        }
    }

    /// The object that the model is given.
    pub(crate) fn to_json(&self) -> Value {
        let mut told = json!({
            "code": self.code(),
            "message": pyro::error::chain(self),
            "hint": self.hint(),
            "details": self.details(),
            "retryable": matches!(self, Self::Busy { .. }) || self.code().retryable(),
        });
        cap::values(&mut told);
        told
    }

    /// The result of the call.
    pub(crate) fn into_result(self) -> CallToolResult {
        let told = self.to_json();
        let mut text = format!("{}: {}", self.code(), pyro::error::chain(&self));
        if let Some(hint) = self.hint() {
            text.push_str("\nHint: ");
            text.push_str(&hint);
        }
        if !told["details"].is_null() {
            // Some hosts show the text alone.
            text.push_str("\nDetails: ");
            text.push_str(&told["details"].to_string());
        }
        let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
        result.structured_content = Some(told);
        result
    }
}
