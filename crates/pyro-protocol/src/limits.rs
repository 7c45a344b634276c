//! Every bound of the wire, in one place. Decoders refuse what exceeds them.

/// Longest request line, in bytes without the newline. Large enough for the original's
/// 1 MiB `write_workspace_file` text after JSON escaping of ordinary text.
pub const MAX_REQUEST_LINE: usize = 2 * 1024 * 1024;

/// Longest reply header or control line that a host accepts, in bytes. A collected exec
/// reply carries two captures of [`CAPTURE_HEAD`] + [`CAPTURE_TAIL`], each byte of which
/// JSON may escape to six.
pub const MAX_REPLY_LINE: usize = 64 * 1024 * 1024;

/// Longest payload of one frame, in bytes.
pub const MAX_FRAME_PAYLOAD: usize = 256 * 1024;

/// How much a sender puts into one frame, in bytes.
pub const FRAME_CHUNK: usize = 64 * 1024;

/// Stdin bytes that a host may send before the agent has said it consumed them.
pub const STDIN_WINDOW: usize = 256 * 1024;

/// Most arguments of one command.
pub const MAX_ARGS: usize = 4096;

/// Most environment variables of one command.
pub const MAX_ENV: usize = 1024;

/// Longest name of an environment variable, in bytes.
pub const MAX_ENV_NAME: usize = 64;

/// Longest path in a request, in bytes (the kernel's `PATH_MAX` without its NUL).
pub const MAX_PATH: usize = 4095;

/// First bytes of each output stream that a collected reply keeps.
pub const CAPTURE_HEAD: usize = 2 * 1024 * 1024;

/// Last bytes of each output stream that a collected reply keeps.
pub const CAPTURE_TAIL: usize = 2 * 1024 * 1024;

/// Most bytes that one `ping` may ask back: the self-test of the link.
pub const MAX_PING_BYTES: u64 = 1024 * 1024 * 1024;

/// Most layers that one `build_root` unpacks.
pub const MAX_LAYERS: usize = 128;

/// Longest timeout of a command: ten years, so that sums with it cannot overflow.
pub const MAX_TIMEOUT_MS: u64 = 10 * 365 * 24 * 3600 * 1000;
