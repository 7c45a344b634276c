//! Inodes of the writable disk that only the boot uses.
//!
//! The kernel makes some files of its own when it mounts an overlay. A guest that has used all inodes for files of its own would
//! never come up again, and nobody could remove any. So a few empty files lie beside the overlay's layers, where the guest does
//! not see them, and make room for the moment of the mount.

use std::io;
use std::path::Path;

/// More than the kernel makes: a directory to work in, and what it tries renaming and attributes with.
const FILES: u32 = 16;

/// Makes room for what the kernel makes.
pub(super) fn give_up(directory: &Path) {
    for number in 0..FILES {
        // A disk that has none yet has room.
        let _ = std::fs::remove_file(directory.join(number.to_string()));
    }
}

/// Takes the room back. Where others were quicker there is less of it the next time.
pub(super) fn take(directory: &Path) -> io::Result<()> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for number in 0..FILES {
        std::fs::File::create(directory.join(number.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_taken_back() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("spare");
        give_up(&directory);
        let count = || std::fs::read_dir(&directory).unwrap().count();
        for _ in 0..2 {
            take(&directory).unwrap();
            assert_eq!(count(), 16);
        }
        give_up(&directory);
        assert_eq!(count(), 0);
    }
}
