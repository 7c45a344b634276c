//! Patches as git writes and takes them: made, read and applied in memory.
//!
//! Owns what the text of a patch means: reading it ([`parse`]), finding the place of every
//! hunk ([`apply`]), working out what becomes of a tree of files ([`plan`]), and making a
//! patch from two states of files ([`diff`]). It is pure: no I/O, no clock, no randomness. The
//! caller reads the tree and carries a plan out. A patch is hostile, so everything it asks for
//! is bounded ([`limits`]).
//!
//! # Example
//!
//! ```
//! use pyro_patch::apply::{Options, Search, hunks};
//! use pyro_patch::patch::Content;
//!
//! let text = b"--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n";
//! let patch = pyro_patch::parse::parse(text, &Default::default())?;
//! let Content::Hunks(changes) = &patch.files[0].content else { unreachable!() };
//! let applied = hunks(changes, b"one\ntwo\n", &Options::default(), &mut Search::default());
//! assert_eq!(applied.content.unwrap(), b"one\nthree\n");
//! # Ok::<(), pyro_patch::parse::ParseError>(())
//! ```

pub mod apply;
pub mod binary;
pub mod blob;
pub mod diff;
pub mod limits;
mod lines;
pub mod mode;
pub mod parse;
pub mod patch;
pub mod path;
pub mod plan;
pub mod quote;
