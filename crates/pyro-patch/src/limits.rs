//! Every bound of what a patch may ask for, in one place. A patch is hostile: what exceeds a
//! bound is refused by name.

/// Largest patch that is read, in bytes.
pub const MAX_PATCH: usize = 16 * 1024 * 1024;

/// Most files in one patch.
pub const MAX_FILES: usize = 10_000;

/// Most hunks of one file.
pub const MAX_HUNKS: usize = 10_000;

/// Longest path, in bytes: the kernel's `PATH_MAX`.
pub const MAX_PATH: usize = 4096;

/// Largest line number and line count in a hunk's header: more lines than any file has that
/// is small enough to be patched.
pub const MAX_LINES: usize = 1 << 30;

/// Largest file that is patched, before or after, in bytes, unless less is asked for. Offsets
/// of lines are kept as 32 bits.
pub const MAX_CONTENT: usize = 64 * 1024 * 1024;

/// Most bytes of changed files that one plan holds, unless less is asked for.
pub const MAX_PLAN: usize = 512 * 1024 * 1024;

/// Longest text of a symlink, in bytes: the kernel's `PATH_MAX` without its NUL.
pub const MAX_TARGET: usize = 4095;

/// Lines of each side of a hunk that a report shows.
pub const SHOWN_LINES: usize = 20;

/// Bytes of each such line that a report shows.
pub const SHOWN_BYTES: usize = 400;

/// Failed hunks of one plan that are reported with their lines. Those behind are told without.
pub const SHOWN_HUNKS: usize = 200;

/// Work of one plan that goes into looking for places of hunks, in lines compared: a second or
/// two. Without a bound, a small patch could keep a processor busy for hours.
pub const SEARCH_BUDGET: u64 = 200_000_000;

/// Work of one hunk that goes into looking for the place that is most like it, in lines
/// compared.
pub const LIKENESS_BUDGET: u64 = 1_000_000;
