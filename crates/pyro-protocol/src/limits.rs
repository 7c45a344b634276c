//! Every bound of the wire, in one place. Decoders refuse what exceeds them.

/// Longest request line, in bytes without the newline. Large enough for the original's
/// 1 MiB `write_workspace_file` text after JSON escaping of ordinary text.
pub const MAX_REQUEST_LINE: usize = 2 * 1024 * 1024;

/// Longest request line that is read without asking for memory first. Longer ones share the
/// agent's budget.
pub const SMALL_REQUEST_LINE: usize = 64 * 1024;

/// Most memory in bytes that all peers together make the agent hold beyond what each stream
/// has: long requests, collected output, shells.
pub const MAX_BUDGET: usize = 96 * 1024 * 1024;

/// That memory in the smallest machine.
pub const MIN_BUDGET: usize = 32 * 1024 * 1024;

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

/// Most bytes of a file that one line carries, either way: the original's bound.
pub const MAX_FILE_INLINE: u64 = 1024 * 1024;

/// Entries of one page of a listing that names no number.
pub const DEFAULT_PAGE: usize = 200;

/// Most entries of one page of a listing.
pub const MAX_PAGE: usize = 1000;

/// Bytes of paths and link targets after which a page of a listing ends early.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// Most entries of the original's listing, which knows no pages.
pub const MAX_LEGACY_ENTRIES: usize = 50_000;

/// Most bytes of paths and link targets in the original's listing.
pub const MAX_LEGACY_BYTES: usize = 8 * 1024 * 1024;

/// Deepest tree that is listed, searched, copied or removed: each level holds a handle.
pub const MAX_TREE_DEPTH: usize = 200;

/// Names of one directory that a removal holds at a time, so that its memory is bounded
/// however large the directory is.
pub const WALK_BATCH: usize = 4096;

/// Bytes of names that a walk holds at a time in all the directories that it is in.
pub const WALK_NAMES: usize = 2 * 1024 * 1024;

/// Names of one directory that a walk holds even beyond [`WALK_NAMES`], so that it comes on.
/// [`MAX_TREE_DEPTH`] times so many of the longest names are 4 MiB.
pub const WALK_LEAST: usize = 64;

/// Most entries that one search looks at.
pub const MAX_WALK_ENTRIES: u64 = 2_000_000;

/// Most hard-linked files of one copied tree that stay linked; further ones are copied.
pub const MAX_COPY_LINKS: usize = 16_384;

/// File actions that work at the same time; more wait. Each holds a thread.
pub const MAX_FILE_WORK: usize = 16;

/// Most patterns in one list of a request.
pub const MAX_GLOBS: usize = 100;

/// Longest pattern, in bytes.
pub const MAX_PATTERN: usize = 4096;

/// Most patterns that the alternatives (`{a,b}`) in one list of patterns stand for.
pub const MAX_ALTERNATIVES: usize = 1000;

/// Largest compiled form of a request's regular expression, in bytes.
pub const MAX_PATTERN_PROGRAM: usize = 2 * 1024 * 1024;

/// Longest `.gitignore` or `.ignore` that is honoured, in bytes; the rest is left out.
pub const MAX_IGNORE_FILE: u64 = 64 * 1024;

/// Bytes of such files, from a directory up to the root, that are honoured together; those
/// of directories further down are left out.
pub const MAX_IGNORE_TEXT: usize = 1024 * 1024;

/// Matching lines of a search that names no number.
pub const DEFAULT_GREP_MATCHES: usize = 200;

/// Most matching lines of one search.
pub const MAX_GREP_MATCHES: usize = 10_000;

/// Bytes told of each line of a search that names no number.
pub const DEFAULT_GREP_LINE: usize = 512;

/// Most bytes told of each line of a search.
pub const MAX_GREP_LINE: usize = 16 * 1024;

/// Most lines before and after each match of a search.
pub const MAX_GREP_CONTEXT: usize = 20;

/// Bytes of lines and paths after which a search ends.
pub const MAX_GREP_BYTES: usize = 4 * 1024 * 1024;

/// Longest line that a search reads; a file with a longer one is left out.
pub const MAX_SEARCHED_LINE: usize = 1024 * 1024;

/// Longest wait that a request about the machine itself may ask for: ten minutes.
pub const MAX_MACHINE_WAIT_MS: u64 = 10 * 60 * 1000;

/// Longest time that file systems stay frozen: what writes waits so long, and no signal ends
/// it meanwhile. A machine that is stopped for its snapshot does not count the time.
pub const MAX_FREEZE_MS: u64 = 60 * 1000;

/// Fewest bytes of a seed: one key of the kernel's generator.
pub const MIN_SEED: usize = 32;

/// Most bytes of a seed.
pub const MAX_SEED: usize = 512;

/// Longest host name, in bytes (the kernel's `HOST_NAME_MAX`).
pub const MAX_HOSTNAME: usize = 64;

/// Most shells that are open at once, those that ended included. One costs at most
/// [`SHELL_OUTPUT`] + [`SHELL_INPUT`] + five times its secrets ([`MAX_REDACT_BYTES`]).
pub const MAX_SHELLS: usize = 64;

/// Longest name of a shell, in bytes.
pub const MAX_SHELL_ID: usize = 64;

/// Last bytes of a shell's output that are kept.
pub const SHELL_OUTPUT: usize = 1024 * 1024;

/// Bytes of input that may wait for a shell that does not read.
pub const SHELL_INPUT: usize = 256 * 1024;

/// Most characters in one reply with a shell's output: all that is kept.
pub const MAX_SHELL_READ: usize = SHELL_OUTPUT;

/// Longest wait for a shell: a caller that is gone must not leave it behind for ever.
pub const MAX_SHELL_WAIT_MS: u64 = 10 * 60 * 1000;

/// Longest pattern that a shell's output is waited for, in bytes.
pub const MAX_SHELL_PATTERN: usize = 1024;

/// Largest compiled form of that pattern, and of its cache, in bytes each.
pub const SHELL_PATTERN_PROGRAM: usize = 512 * 1024;

/// Most values that one stream of output hides.
pub const MAX_REDACT_VALUES: usize = 256;

/// Most bytes of those values in all: four of the largest secrets.
pub const MAX_REDACT_BYTES: usize = 256 * 1024;

/// Longest token of an exec, in bytes.
pub const MAX_TOKEN: usize = 128;

/// Tokens of execs without a job that are remembered; the oldest are forgotten first.
pub const MAX_TOKENS: usize = 1024;

/// Most jobs that are remembered, running or ended.
pub const MAX_JOBS: usize = 256;

/// Last bytes of each output that a job keeps.
pub const JOB_RING_BYTES: u64 = 8 * 1024 * 1024;

/// Most bytes that one `job_read` answers.
pub const MAX_JOB_READ: usize = 1024 * 1024;

/// Longest wait of one request about a job, in milliseconds.
pub const MAX_JOB_WAIT_MS: u64 = 10 * 60 * 1000;

/// Longest name of a user with a group, in bytes.
pub const MAX_USER: usize = 128;

/// Most services that are remembered, running or ended. One costs at most
/// [`MAX_SERVICE_ORDER`] and ten times its secrets ([`MAX_REDACT_BYTES`]) of memory, and two
/// rings of [`MAX_SERVICE_LOG`] of the machine's disk.
pub const MAX_SERVICES: usize = 64;

/// Longest name of a service, in bytes.
pub const MAX_SERVICE_NAME: usize = 64;

/// Most bytes of a service's command, variables and readiness together: they are kept as
/// long as the service is.
pub const MAX_SERVICE_ORDER: usize = 256 * 1024;

/// Longest time that a service may be given to become ready.
pub const MAX_SERVICE_READY_MS: u64 = 60 * 60 * 1000;

/// Longest wait for a service: a caller that is gone must not leave it behind for ever.
pub const MAX_SERVICE_WAIT_MS: u64 = 10 * 60 * 1000;

/// Longest pause between two looks at a service's readiness.
pub const MAX_SERVICE_INTERVAL_MS: u64 = 60 * 1000;

/// Longest time that a service may be given between TERM and KILL.
pub const MAX_SERVICE_STOP_MS: u64 = 5 * 60 * 1000;

/// Most automatic restarts in a row that a service may be given.
pub const MAX_SERVICE_RESTARTS: u32 = 1_000_000;

/// Longest pause before an automatic restart; doubling ends here.
pub const MAX_SERVICE_RESTART_DELAY_MS: u64 = 60 * 1000;

/// Last bytes of each output that a service keeps unless it was given another number.
pub const DEFAULT_SERVICE_LOG: u64 = 8 * 1024 * 1024;

/// Fewest bytes of each output that a service can be told to keep: a few screens.
pub const MIN_SERVICE_LOG: u64 = 4096;

/// Most bytes of each output that a service can be told to keep.
pub const MAX_SERVICE_LOG: u64 = 64 * 1024 * 1024;

/// Most bytes of each output that one `logs_service` answers.
pub const MAX_SERVICE_LOG_READ: usize = 1024 * 1024;

/// Longest URL that a readiness may name, in bytes.
pub const MAX_SERVICE_URL: usize = 2048;
/// Most paths that one export names: each costs one of the 1024 handles that a guest has at once, and a look before the first
/// byte.
pub const MAX_EXPORT_PATHS: usize = 256;

/// Exports that are under way at the same time; more are refused. Each costs about a mebibyte
/// and the handles of [`MAX_TREE_DEPTH`] levels, for as long as its peer takes.
pub const MAX_EXPORTS: usize = 32;
/// Longest path in a manifest of a tree, in bytes: [`MAX_TREE_DEPTH`] names of 255 bytes, each
/// with a separator.
pub const MAX_TREE_PATH: usize = MAX_TREE_DEPTH * 256;

/// Longest line of a reply about a tree, in bytes: a path of which JSON may escape each byte to
/// six, the same in base64, and two link targets likewise.
pub const MAX_TREE_LINE: usize = 8 * MAX_TREE_PATH + 16 * (MAX_PATH + 1) + 4096;

/// Most bytes of patterns in one list of a request about a tree: they are kept with it.
pub const MAX_TREE_PATTERNS: usize = 64 * 1024;

/// Longest name of a baseline, in bytes.
pub const MAX_BASELINE_NAME: usize = 64;

/// Most baselines of one machine.
pub const MAX_BASELINES: usize = 64;

/// Most manifests that are kept for the next walk; the one that was used least lately goes.
pub const MAX_TREE_INDEXES: usize = 16;

/// Walks for manifests at the same time; more wait. Each reads a disk as fast as it can.
pub const MAX_TREE_WALKS: usize = 2;
/// Archives that are taken at the same time; more wait. Each holds a thread, and a zstd
/// window of 8 MiB if it is compressed so.
pub const MAX_IMPORTS: usize = 4;

/// Most members of one import: no guest's disk has room for more inodes.
pub const MAX_IMPORT_ENTRIES: u64 = 4_000_000;

/// Most bytes of a list of what goes with an import: millions of names of usual length.
pub const MAX_IMPORT_EDITS: u64 = 1024 * 1024 * 1024;

/// Longest archive of secrets, in bytes: a thousand small ones, or 256 of the largest. They
/// are kept in the guest's memory.
pub const MAX_SECRETS_BODY: u64 = 16 * 1024 * 1024;

/// Most bytes of all secrets, whatever their archive was compressed to.
pub const MAX_SECRETS_BYTES: u64 = MAX_SECRETS_BODY;

/// Most members of an archive of secrets.
pub const MAX_SECRETS: u64 = 4096;
