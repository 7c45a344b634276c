//! The rules under which the engine opens files, connects and signals.
//!
//! Owns the Landlock ruleset: everything is forbidden that the kernel knows how to forbid, then the view and the inherited
//! files are allowed. Never applies it: that happens in [`super::enter`], after the last mount.

use super::view::{Entry, View};
use crate::spec::Network;
use ::landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use std::fs;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// The newest kernel interface whose rights are handled. On an older kernel those that it does not know are left out.
const NEWEST: ABI = ABI::V10;

/// The ruleset, or nothing where the kernel has no Landlock.
pub(super) fn ruleset(
    view: &View,
    inherit: &[RawFd],
    network: Network,
) -> Result<Option<OwnedFd>, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?;
    if network == Network::Off {
        ruleset = ruleset.handle_access(AccessNet::from_all(NEWEST))?;
    }
    let mut ruleset = ruleset.create()?;
    for entry in &view.entries {
        match entry {
            Entry::Tree(path) => allow(
                &mut ruleset,
                path,
                AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute,
            ),
            Entry::File { from, .. } => {
                allow(&mut ruleset, from, AccessFs::ReadFile | AccessFs::Execute);
            }
            Entry::Device { path, writable } => allow(&mut ruleset, path, device(*writable)),
            Entry::Link { .. } => {}
            Entry::Workplace(path) => allow(
                &mut ruleset,
                path,
                AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeSock,
            ),
        }
    }
    for &descriptor in inherit {
        allow_inherited(&mut ruleset, descriptor);
    }
    Ok(ruleset.into())
}

/// What cannot be allowed stays forbidden: the engine then says which file it misses, and its words are told.
fn allow(ruleset: &mut RulesetCreated, path: &Path, access: BitFlags<AccessFs>) {
    if let Ok(file) = PathFd::new(path) {
        let _ = ruleset.add_rule(PathBeneath::new(file, access));
    }
}

/// Lets the engine open an inherited file anew through `/proc/self/fd`, in the mode in which it has it: such an opening is
/// checked like one by name. Files without a name on any file system, such as those of `memfd_create`, need no rule and take
/// none; sockets and pipes cannot be opened.
fn allow_inherited(ruleset: &mut RulesetCreated, descriptor: RawFd) {
    let link = format!("/proc/self/fd/{descriptor}");
    let (Ok(itself), Ok(target)) = (fs::symlink_metadata(&link), fs::metadata(&link)) else {
        return;
    };
    // The link's own permissions are the mode of the descriptor.
    let writable = itself.mode() & 0o200 != 0;
    let kind = target.file_type();
    if kind.is_file() {
        let write = AccessFs::WriteFile | AccessFs::Truncate;
        let read = BitFlags::from(AccessFs::ReadFile);
        allow(
            ruleset,
            Path::new(&link),
            if writable { read | write } else { read },
        );
    } else if kind.is_block_device() || kind.is_char_device() {
        allow(ruleset, Path::new(&link), device(writable));
    }
}

fn device(writable: bool) -> BitFlags<AccessFs> {
    if writable {
        AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev
    } else {
        AccessFs::ReadFile.into()
    }
}
