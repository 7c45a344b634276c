//! A fault of the boot and how the host learns of it: one line on the console, because at
//! that point there is nothing else to talk over.

/// What the host looks for on the console. The host's copy stands in `pyro-supervisor`.
const MARK: &str = "pyro-agent: fatal:";

/// The machine cannot go on.
#[derive(Debug)]
pub(crate) struct Fault {
    cause: &'static str,
    message: String,
}

impl Fault {
    /// A fault of the agent or of the guest around it.
    pub(crate) fn agent(message: impl Into<String>) -> Self {
        Self {
            cause: "agent",
            message: message.into(),
        }
    }

    /// A kernel that lacks what the boot needs.
    pub(crate) fn kernel(message: impl Into<String>) -> Self {
        Self {
            cause: "kernel",
            message: message.into(),
        }
    }

    /// An image or disk that cannot be used.
    pub(crate) fn image(message: impl Into<String>) -> Self {
        Self {
            cause: "image",
            message: message.into(),
        }
    }

    /// Writes the fault to the console.
    #[expect(
        clippy::print_stderr,
        reason = "the console is the only way out of a failed boot"
    )]
    pub(crate) fn report(&self) {
        eprintln!("{MARK} cause={} {}", self.cause, self.message);
    }
}
