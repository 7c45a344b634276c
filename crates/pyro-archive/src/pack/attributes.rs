//! The extended attributes of an open file.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::notes::Summary;

/// The kernel's bound for the list of names, and for a value.
const MOST: usize = 64 * 1024;

/// Bytes of values that one member carries; a file with more is packed without them.
const ROOM: usize = 256 * 1024;

/// The attributes of the member that is next.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    names: Vec<u8>,
    found: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    pub(super) fn found(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.found
    }

    pub(super) fn clear(&mut self) {
        self.found.clear();
    }

    /// Reads those of `file`, which is packed as `path`.
    pub(super) fn read(&mut self, file: &OwnedFd, path: &[u8], summary: &mut Summary) {
        self.found.clear();
        self.names.resize(MOST, 0);
        match rustix::fs::flistxattr(file, &mut self.names[..]) {
            Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Ok(length) => {
                if self.values(file, length).is_err() {
                    self.found.clear();
                    summary.unreadable.add(path);
                }
            }
            Err(_) => summary.unreadable.add(path),
        }
    }

    fn values(&mut self, file: &OwnedFd, length: usize) -> rustix::io::Result<()> {
        let mut value = vec![0; MOST];
        let mut taken = 0;
        for name in self.names[..length].split(|byte| *byte == 0) {
            if name.is_empty() {
                continue;
            }
            let length = match rustix::fs::fgetxattr(file, name, &mut value[..]) {
                Ok(length) => length,
                Err(Errno::NODATA) => continue,
                Err(errno) => return Err(errno),
            };
            taken += length;
            if taken > ROOM {
                return Err(Errno::TOOBIG);
            }
            self.found.push((name.to_vec(), value[..length].to_vec()));
        }
        self.found.sort_unstable();
        Ok(())
    }
}
