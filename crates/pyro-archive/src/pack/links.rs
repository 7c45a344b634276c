//! Files with several names, each of which is packed once.

use std::collections::HashMap;

use rustix::fs::Stat;

/// Bytes that the table may take. A name that finds no room is packed as a file of its own.
const ROOM: usize = 1024 * 1024;

/// What an entry costs besides its path.
const OVERHEAD: usize = 96;

/// The first names of files with several, until the last of them was packed.
#[derive(Debug, Default)]
pub(super) struct Links {
    first: HashMap<(u64, u64), First>,
    taken: usize,
}

#[derive(Debug)]
struct First {
    path: Vec<u8>,
    /// Names of the file that have not come yet.
    left: u64,
}

impl Links {
    /// The path under which the file of `stat` was packed before.
    pub(super) fn take(&mut self, stat: &Stat) -> Option<Vec<u8>> {
        if stat.st_nlink < 2 {
            return None;
        }
        let id = (stat.st_dev, stat.st_ino);
        let first = self.first.get_mut(&id)?;
        first.left -= 1;
        if first.left > 0 {
            return Some(first.path.clone());
        }
        let last = self.first.remove(&id)?;
        self.taken -= last.path.len() + OVERHEAD;
        Some(last.path)
    }

    /// The file of `stat` was packed as `path`.
    pub(super) fn remember(&mut self, stat: &Stat, path: &[u8]) {
        let taken = self.taken + path.len() + OVERHEAD;
        if stat.st_nlink < 2 || taken > ROOM {
            return;
        }
        self.taken = taken;
        let first = First {
            path: path.to_vec(),
            left: stat.st_nlink - 1,
        };
        if let Some(before) = self.first.insert((stat.st_dev, stat.st_ino), first) {
            self.taken -= before.path.len() + OVERHEAD;
        }
    }
}
