//! Loading kernel modules from the initramfs, in the order that the host wrote into their
//! file names.

use std::fs::{self, File};
use std::path::PathBuf;

use rustix::io::Errno;

use super::fault::Fault;

/// Loads every module in `directory`; none if it does not exist.
pub(super) fn load(directory: &str) -> Result<(), Fault> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(());
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        let opened = File::open(&file)
            .map_err(|error| Fault::kernel(format!("opening {}: {error}", file.display())))?;
        match rustix::system::finit_module(&opened, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => {
                return Err(Fault::kernel(format!(
                    "loading {}: {errno}",
                    file.display()
                )));
            }
        }
    }
    Ok(())
}
