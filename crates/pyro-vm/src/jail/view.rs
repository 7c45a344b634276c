//! What the engine may open by name.
//!
//! Owns the list of the host's paths that a confined engine sees: its program, the system's libraries and firmware, a few
//! devices. Never enforces it: [`super::namespaces`] makes a root file system of it and [`super::landlock`] rules.

use crate::spec::Network;
use std::fs;
use std::path::{Path, PathBuf};

/// Where systems keep programs, libraries and firmware, and nothing of a user. Those that are links are links in the view too.
const SYSTEM: [&str; 8] = [
    "/usr",
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/sbin",
    "/nix/store",
    "/gnu/store",
];

/// What the dynamic loader reads besides, and the links by which Debian chooses between libraries.
const LOADER: [&str; 3] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/alternatives",
];

/// The resolver's configuration: the engine's user-mode network passes the guest's questions on to the server named there.
const RESOLVER: &str = "/etc/resolv.conf";

/// What lies beside the directory of a program that was not installed by the system.
const BESIDE: [&str; 3] = ["lib", "lib64", "share/qemu"];

/// One path of the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A directory with everything below it, to be read and executed.
    Tree(PathBuf),
    /// A file to be read and executed: the file at `from`, seen at `at`.
    File { at: PathBuf, from: PathBuf },
    /// A character device.
    Device { path: PathBuf, writable: bool },
    /// A symbolic link.
    Link { at: PathBuf, to: PathBuf },
    /// The directory that the engine works in, seen at [`WORKPLACE`]: it may make sockets there, and write the files that it
    /// finds.
    Workplace(PathBuf),
}

/// Where the directory that the engine works in is seen.
pub(super) const WORKPLACE: &str = "/machine";

/// Everything that an engine sees.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) entries: Vec<Entry>,
}

impl View {
    /// The view of the engine at `program`. What is missing on the host is missing in the view.
    pub(super) fn of(
        program: &Path,
        devices: &[&Path],
        network: Network,
        workplace: Option<&Path>,
    ) -> Self {
        let mut view = Self::default();
        for path in SYSTEM.iter().chain(&LOADER).map(Path::new) {
            view.add(path);
        }
        view.add_program(program);
        if network == Network::User {
            view.add_file(Path::new(RESOLVER));
        }
        for (path, writable) in [("/dev/null", true), ("/dev/urandom", false)] {
            view.add_device(Path::new(path), writable);
        }
        for path in devices {
            view.add_device(path, true);
        }
        if let Some(path) = workplace {
            view.entries.push(Entry::Workplace(path.to_owned()));
        }
        view
    }

    fn add(&mut self, path: &Path) {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return;
        };
        if metadata.is_dir() {
            self.entries.push(Entry::Tree(path.to_owned()));
        } else if metadata.is_symlink() {
            if let Ok(to) = fs::read_link(path) {
                self.entries.push(Entry::Link {
                    at: path.to_owned(),
                    to,
                });
            }
        } else {
            self.add_file(path);
        }
    }

    /// A program outside of the system's directories is seen alone, with what belongs to it where installations have that.
    fn add_program(&mut self, program: &Path) {
        let Ok(program) = program.canonicalize() else {
            return;
        };
        if self.covers(&program) {
            return;
        }
        let prefix = program.parent().and_then(Path::parent);
        for name in BESIDE {
            let Some(Ok(beside)) = prefix.map(|prefix| prefix.join(name).canonicalize()) else {
                continue;
            };
            if beside.is_dir() && !self.covers(&beside) {
                self.entries.push(Entry::Tree(beside));
            }
        }
        if !self.covers(&program) {
            self.add_file(&program);
        }
    }

    /// A file, seen under the name that it is asked for by, wherever a link leads.
    fn add_file(&mut self, path: &Path) {
        if let Ok(from) = path.canonicalize()
            && from.is_file()
        {
            self.entries.push(Entry::File {
                at: path.to_owned(),
                from,
            });
        }
    }

    fn add_device(&mut self, path: &Path, writable: bool) {
        if path.exists() {
            self.entries.push(Entry::Device {
                path: path.to_owned(),
                writable,
            });
        }
    }

    fn covers(&self, path: &Path) -> bool {
        self.entries
            .iter()
            .any(|entry| matches!(entry, Entry::Tree(tree) if path.starts_with(tree)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(view: &View, wanted: &str) -> bool {
        view.entries.iter().any(|entry| match entry {
            Entry::Tree(path) | Entry::Device { path, .. } => path == Path::new(wanted),
            Entry::File { at, .. } | Entry::Link { at, .. } => at == Path::new(wanted),
            Entry::Workplace(_) => wanted == WORKPLACE,
        })
    }

    #[test]
    fn the_resolver_and_devices_are_seen_only_where_they_are_needed() {
        let program = Path::new("/usr/bin/env");
        let without = View::of(program, &[], Network::Off, None);
        let with = View::of(program, &[Path::new("/dev/zero")], Network::User, None);
        for view in [&without, &with] {
            assert!(seen(view, "/usr") && seen(view, "/dev/null"));
            assert!(!seen(view, "/etc/passwd") && !seen(view, "/root") && !seen(view, "/home"));
        }
        assert!(!seen(&without, "/dev/zero") && seen(&with, "/dev/zero"));
        assert!(!seen(&without, RESOLVER));
        assert_eq!(seen(&with, RESOLVER), Path::new(RESOLVER).exists());
    }

    #[test]
    fn a_program_of_a_user_shows_its_own_prefix_and_nothing_beside_it() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        for directory in ["bin", "lib", "share/qemu", "share/private"] {
            fs::create_dir_all(home.join(directory)).unwrap();
        }
        let program = home.join("bin/engine");
        fs::write(&program, "").unwrap();
        let view = View::of(&program, &[], Network::Off, None);
        let below: Vec<&Path> = view
            .entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Tree(path) | Entry::File { at: path, .. } => path.strip_prefix(&home).ok(),
                Entry::Device { .. } | Entry::Link { .. } | Entry::Workplace(_) => None,
            })
            .collect();
        assert_eq!(below, ["lib", "share/qemu", "bin/engine"].map(Path::new));
    }
}
