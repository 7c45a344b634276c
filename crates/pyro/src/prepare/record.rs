//! What is remembered of a preparation, and where: one small file for each environment, beside
//! the environments.
//!
//! ```text
//! <environments>/<platform>/.prepared/debian_12-1.0.0.json
//! ```
//!
//! A hidden directory, which the store of environments leaves alone. A record that is missing, of
//! another schema or unreadable only costs a preparation. This module never judges what it reads.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use pyro_image::{CatalogEntry, EnvironmentStore, Sha256Digest};
use pyro_protocol::supervise::{EngineChoice, ProbeReport, StartKind};
use serde::{Deserialize, Serialize};

use crate::engine;
use crate::environment::ensure::file_mark;
use crate::error::Error;

/// Version of the record's format. Another one is no record.
pub(super) const SCHEMA: u32 = 3;

/// Name of the directory of records in that of the platform.
const DIRECTORY: &str = ".prepared";

/// How the files begin that are being written.
const PARTIAL: &str = ".partial-";

/// Most templates that are remembered, the last proven first.
const MAX_TEMPLATES: usize = 32;

/// Largest record that is read. One has a few kilobytes.
const MAX_BYTES: u64 = 64 * 1024;

/// What a preparation proved, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedRecord {
    /// Version of this format.
    pub schema: u32,
    /// The environment.
    pub environment: String,
    /// Its version.
    pub environment_version: String,
    /// Operating system and processor.
    pub platform: String,
    /// What the machine consisted of.
    pub artifacts: PreparedArtifacts,
    /// Version of the program.
    pub product_version: String,
    /// The engine that ran the machine that was proven last.
    pub engine: PreparedEngine,
    /// Version of Firecracker, where it is that engine.
    pub firecracker_version: Option<String>,
    /// Whether a machine with a network was proven.
    pub network_prepared: bool,
    /// How the machine began.
    pub started: StartKind,
    /// The template that it began from, which is there for others to begin from.
    pub template: Option<String>,
    /// Why there is none.
    pub not_warm: Option<String>,
    /// The templates of this and of earlier proofs that hold as well.
    pub templates: Vec<PreparedTemplate>,
    /// When the machine had done its work, seconds since the epoch.
    pub prepared_at: i64,
    /// When `prepare` last found that all of this still holds, seconds since the epoch.
    pub last_verified_at: i64,
    /// Where the time went.
    pub timings_ms: PrepareTimings,
}

/// A template, and the machines that begin from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedTemplate {
    /// Its name.
    pub key: String,
    /// Whether they have a network.
    pub network: bool,
    /// Their virtual processors.
    pub vcpu_count: u8,
    /// Their memory in MiB.
    pub mem_mib: u32,
    /// The engine that goes on from it.
    pub engine: PreparedEngine,
}

/// An engine as it was when a machine was proven with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedEngine {
    /// Its name, never `auto`.
    pub name: EngineChoice,
    /// Its program.
    pub program: Option<PathBuf>,
    /// What told that program's file from others.
    pub mark: Option<String>,
    /// What that program says of its version.
    pub version: Option<String>,
}

impl PreparedEngine {
    /// The engine `name` as a probe found it.
    pub(super) fn of(name: EngineChoice, probe: &ProbeReport) -> Self {
        let (program, version) = engine::program(name, probe);
        Self {
            name,
            program: program.map(Path::to_owned),
            mark: program.and_then(file_mark),
            version: version.map(str::to_owned),
        }
    }
}

impl PreparedRecord {
    /// Takes over what an earlier record tells of other machines, if it was proven with the same
    /// parts. Engines may differ, as that of machines with a network does: each template tells
    /// its own.
    pub(super) fn carry_over(&mut self, earlier: Self) {
        let same =
            earlier.artifacts == self.artifacts && earlier.product_version == self.product_version;
        if !same {
            return;
        }
        self.network_prepared |= earlier.network_prepared;
        for one in earlier.templates {
            let is_other = |had: &PreparedTemplate| {
                (had.network, had.vcpu_count, had.mem_mib)
                    != (one.network, one.vcpu_count, one.mem_mib)
            };
            if self.templates.len() < MAX_TEMPLATES && self.templates.iter().all(is_other) {
                self.templates.push(one);
            }
        }
    }
}

/// What a machine consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedArtifacts {
    /// Digest of the root image.
    pub rootfs: Sha256Digest,
    /// Identity of the guest kernel.
    pub kernel: Sha256Digest,
    /// Build of the guest agent.
    pub agent: String,
}

/// Where the wall time of a preparation went, in milliseconds on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareTimings {
    /// Making the environment ready; almost nothing if it was.
    pub pull: u64,
    /// From the order to the start of the machine's VMM: engine, disk, and the template if one
    /// was made, whose boot is most of it.
    pub create: u64,
    /// From that start until the agent was ready: a boot, or the little that going on from a
    /// template takes.
    pub boot: u64,
    /// The command, from the request to its end.
    pub exec: u64,
    /// Until nothing of the machine was left.
    pub delete: u64,
}

/// The records of one store of environments.
#[derive(Clone, Debug)]
pub(crate) struct PreparedRecords {
    /// Where the environments are installed.
    platform_dir: PathBuf,
}

impl PreparedRecords {
    pub(crate) fn of(store: &EnvironmentStore) -> Self {
        Self {
            platform_dir: store.platform_dir(),
        }
    }

    /// Where the record of an environment is or would be.
    pub(crate) fn path(&self, entry: &CatalogEntry) -> PathBuf {
        self.dir().join(format!("{}.json", entry.directory_name()))
    }

    /// The record of an environment, if there is one that can be read.
    pub(crate) fn read(&self, entry: &CatalogEntry) -> Option<PreparedRecord> {
        let mut bytes = Vec::new();
        File::open(self.path(entry))
            .ok()?
            .take(MAX_BYTES)
            .read_to_end(&mut bytes)
            .ok()?;
        let record: PreparedRecord = serde_json::from_slice(&bytes).ok()?;
        // A directory's name is made of a name; two names may give one.
        (record.schema == SCHEMA && record.environment == entry.name).then_some(record)
    }

    /// Writes the record of an environment, in place of the one before.
    pub(crate) fn write(&self, entry: &CatalogEntry, record: &PreparedRecord) -> Result<(), Error> {
        let path = self.path(entry);
        // Through `Value`, whose keys are sorted.
        let text = serde_json::to_value(record)
            .map(|value| format!("{value:#}\n"))
            .map_err(io::Error::from);
        text.and_then(|text| write_atomically(&self.dir(), &path, text.as_bytes()))
            .map_err(|source| Error::Io {
                action: "write",
                path,
                source,
            })
    }

    /// Removes the record of an environment, if there is one.
    pub(crate) fn remove(&self, entry: &CatalogEntry) -> Result<(), Error> {
        remove(&self.path(entry))
    }

    /// The records of environments that are not there any more; unless `dry_run`, they are
    /// removed.
    pub(crate) fn remove_orphans(&self, dry_run: bool) -> Result<Vec<PathBuf>, Error> {
        let Ok(entries) = fs::read_dir(self.dir()) else {
            return Ok(Vec::new());
        };
        let mut orphans: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                // A partial file belongs to a writer that may still be at it.
                !name.starts_with(PARTIAL)
                    && name
                        .strip_suffix(".json")
                        .is_none_or(|directory| !self.platform_dir.join(directory).is_dir())
            })
            .map(|entry| entry.path())
            .collect();
        orphans.sort();
        if !dry_run {
            for path in &orphans {
                remove(path)?;
            }
        }
        Ok(orphans)
    }

    fn dir(&self) -> PathBuf {
        self.platform_dir.join(DIRECTORY)
    }
}

/// A reader sees the old or the new content. A crash may keep either, or none: what is lost is
/// found out again.
fn write_atomically(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let mut file = tempfile::Builder::new()
        .prefix(PARTIAL)
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Io {
            action: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use pyro_image::Catalog;

    use super::*;

    /// A record of `debian:12`.
    pub(crate) fn record() -> PreparedRecord {
        PreparedRecord {
            schema: SCHEMA,
            environment: "debian:12".into(),
            environment_version: "1.0.0".into(),
            platform: "linux-x86_64".into(),
            artifacts: PreparedArtifacts {
                rootfs: Sha256Digest::of(b"rootfs"),
                kernel: Sha256Digest::of(b"kernel"),
                agent: "agent".into(),
            },
            product_version: "1".into(),
            engine: record_engine(),
            firecracker_version: None,
            network_prepared: false,
            started: StartKind::Made,
            template: Some(record_template(false).key),
            not_warm: None,
            templates: vec![record_template(false)],
            prepared_at: 5,
            last_verified_at: 6,
            timings_ms: PrepareTimings::default(),
        }
    }

    /// The engine of [`record`].
    pub(crate) fn record_engine() -> PreparedEngine {
        PreparedEngine {
            name: EngineChoice::QemuTcg,
            program: Some("/usr/bin/qemu".into()),
            mark: Some("mark".into()),
            version: Some("QEMU 7.2".into()),
        }
    }

    /// A template of its default machine.
    pub(crate) fn record_template(network: bool) -> PreparedTemplate {
        PreparedTemplate {
            key: if network { "net" } else { "off" }.into(),
            network,
            vcpu_count: 1,
            mem_mib: 1024,
            engine: record_engine(),
        }
    }

    #[test]
    fn templates_of_other_machines_are_kept_as_long_as_nothing_else_changed() {
        let networked = PreparedRecord {
            network_prepared: true,
            templates: vec![record_template(true), record_template(false)],
            ..record()
        };
        let mut new = record();
        new.templates[0].key = "new".into();
        let keys = |record: &PreparedRecord| -> Vec<String> {
            record.templates.iter().map(|one| one.key.clone()).collect()
        };
        let mut carried = new.clone();
        carried.carry_over(networked.clone());
        assert_eq!(keys(&carried), ["new", "net"]);
        assert!(carried.network_prepared);
        // Machines with a network may have another engine than those without.
        let mut moved = new.clone();
        moved.engine.name = EngineChoice::Firecracker;
        moved.templates[0].engine = moved.engine.clone();
        moved.carry_over(networked.clone());
        let engines: Vec<_> = moved.templates.iter().map(|one| one.engine.name).collect();
        assert_eq!(keys(&moved), ["new", "net"]);
        assert_eq!(engines, [EngineChoice::Firecracker, EngineChoice::QemuTcg]);
        let mut other = new.clone();
        other.artifacts.kernel = Sha256Digest::of(b"other");
        let before = other.clone();
        other.carry_over(networked);
        assert_eq!(other, before);
    }

    fn store(root: &Path) -> EnvironmentStore {
        EnvironmentStore::new(root, "linux-x86_64", Catalog::builtin())
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_anything_else_is_none() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let records = PreparedRecords::of(&store);
        let entry = store.entry("debian:12").unwrap();
        assert_eq!(records.read(&entry), None);
        records.write(&entry, &record()).unwrap();
        assert_eq!(records.read(&entry), Some(record()));
        let text = fs::read_to_string(records.path(&entry)).unwrap();
        assert!(text.contains("\"firecracker_version\": null"), "{text}");

        let other = PreparedRecord {
            schema: SCHEMA + 1,
            ..record()
        };
        records.write(&entry, &other).unwrap();
        assert_eq!(records.read(&entry), None);
        let other = PreparedRecord {
            environment: "debian:12-base".into(),
            ..record()
        };
        records.write(&entry, &other).unwrap();
        assert_eq!(records.read(&entry), None);
        fs::write(records.path(&entry), &text[..text.len() / 2]).unwrap();
        assert_eq!(records.read(&entry), None);
        records.remove(&entry).unwrap();
        records.remove(&entry).unwrap();
        assert!(!records.path(&entry).exists());
    }

    #[test]
    fn a_record_without_its_environment_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let records = PreparedRecords::of(&store);
        assert_eq!(
            records.remove_orphans(false).unwrap(),
            Vec::<PathBuf>::new()
        );
        let kept = store.entry("debian:12").unwrap();
        let gone = store.entry("debian:12-base").unwrap();
        for entry in [&kept, &gone] {
            records.write(entry, &record()).unwrap();
        }
        fs::create_dir(store.install_dir(&kept)).unwrap();
        let orphans = vec![records.path(&gone)];
        assert_eq!(records.remove_orphans(true).unwrap(), orphans);
        assert!(records.path(&gone).exists());
        assert_eq!(records.remove_orphans(false).unwrap(), orphans);
        assert!(!records.path(&gone).exists());
        assert!(records.path(&kept).exists());
        // The store takes the directory for nobody's environment and leaves it.
        fs::remove_dir(store.install_dir(&kept)).unwrap();
        let pruned = store.prune(pyro_image::store::PruneOptions::default());
        assert_eq!(pruned.unwrap().count, 0);
        assert!(records.path(&kept).exists());
    }
}
