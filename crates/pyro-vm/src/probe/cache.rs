//! What probes found, remembered until something changes that could change it.
//!
//! Owns one small JSON file. Never lets the file decide anything but time: a missing, old or broken one only means that the
//! probes run again.

use super::firecracker::probe_firecracker;
use super::{Finding, probe};
use crate::firecracker::Firecracker;
use crate::jail::MachineUid;
use crate::program::EngineIdentity;
use crate::qemu::{Accelerator, KvmDevice, Qemu};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Version of the file's format. Another version is no file.
const FORMAT: u32 = 1;

/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Most situations that are remembered; the oldest goes first.
const MAX_RECORDS: usize = 8;

/// A working KVM answers within a tenth of this.
const KVM_DEADLINE: Duration = Duration::from_secs(2);

/// On a host that is slow for the moment, or altogether, it gets no more than this.
const LONGEST_KVM_DEADLINE: Duration = Duration::from_secs(20);

/// What the probe of emulation takes at most on an idle host.
const USUAL_TCG: Duration = Duration::from_millis(500);

/// Emulation is the last resort, so a busy host gets time.
const TCG_DEADLINE: Duration = Duration::from_secs(10);

/// Which accelerator the caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    /// The first that works: KVM, then emulation.
    Auto,
    /// This one or none.
    Only(Accelerator),
}

/// An accelerator that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The accelerator.
    pub accelerator: Accelerator,
    /// What was found on the way, in the order of trying.
    pub findings: Vec<Finding>,
}

/// None of the wanted accelerators works.
#[derive(Debug, thiserror::Error)]
#[error("no accelerator runs guests on this host: {}", reasons(findings))]
pub struct NoAccelerator {
    /// What was found for each.
    pub findings: Vec<Finding>,
}

impl NoAccelerator {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self.findings.as_slice() {
            [
                Finding {
                    accelerator: Accelerator::Kvm,
                    ..
                },
            ] => Some("let the accelerator be chosen, or take `tcg`".into()),
            _ => None,
        }
    }
}

/// The remembered findings of this host.
#[derive(Debug, Clone)]
pub struct ProbeCache {
    path: PathBuf,
}

impl ProbeCache {
    /// Uses the file `path`, in a directory that exists.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// An accelerator that works for `uid`. Costs no process if all that could matter is as it was at the last probe.
    pub async fn choose(
        &self,
        qemu: &Qemu,
        preference: Preference,
        uid: Option<MachineUid>,
    ) -> Result<Choice, NoAccelerator> {
        let wanted: &[Accelerator] = match preference {
            Preference::Auto => &[Accelerator::Kvm, Accelerator::Tcg],
            Preference::Only(Accelerator::Kvm) => &[Accelerator::Kvm],
            Preference::Only(Accelerator::Tcg) => &[Accelerator::Tcg],
        };
        let situation = Situation::now(qemu.identity(), uid);
        let mut findings = Vec::new();
        for &accelerator in wanted {
            let finding = match self.remembered(&situation, accelerator) {
                Some(finding) => finding,
                None => self.find_out(qemu, accelerator, uid, &situation).await,
            };
            let usable = finding.usable;
            findings.push(finding);
            if usable {
                return Ok(Choice {
                    accelerator,
                    findings,
                });
            }
        }
        Err(NoAccelerator { findings })
    }

    /// Whether Firecracker runs guests here: it does where KVM does, which QEMU's probe finds out. Without a QEMU it boots a
    /// guest of its own, in the new directory `directory`, which it leaves behind.
    pub async fn firecracker(
        &self,
        firecracker: &Firecracker,
        qemu: Option<&Qemu>,
        uid: Option<MachineUid>,
        directory: &Path,
    ) -> Finding {
        let situation = Situation::now(firecracker.identity(), uid);
        if let Some(finding) = self.remembered(&situation, Accelerator::Kvm) {
            return finding;
        }
        if let Some(qemu) = qemu {
            let preference = Preference::Only(Accelerator::Kvm);
            let found = match self.choose(qemu, preference, uid).await {
                Ok(choice) => choice.findings,
                Err(none) => none.findings,
            };
            return found.into_iter().next().expect("one was asked for");
        }
        let finding = probe_firecracker(firecracker, KVM_DEADLINE, uid, directory).await;
        let _ = self.remember(&situation, finding.clone());
        finding
    }

    /// Marks `accelerator` as unusable by `engine` after a machine failed to boot with it, until something changes.
    pub fn forget(
        &self,
        engine: &EngineIdentity,
        accelerator: Accelerator,
        uid: Option<MachineUid>,
        reason: impl Into<String>,
    ) -> io::Result<()> {
        let finding = Finding {
            accelerator,
            usable: false,
            reason: reason.into(),
            elapsed_ms: 0,
        };
        self.remember(&Situation::now(engine, uid), finding)
    }

    /// Forgets everything, so that the next choice probes again.
    pub fn clear(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn find_out(
        &self,
        qemu: &Qemu,
        accelerator: Accelerator,
        uid: Option<MachineUid>,
        situation: &Situation,
    ) -> Finding {
        let finding = match accelerator {
            Accelerator::Tcg => probe(qemu, accelerator, TCG_DEADLINE, uid).await,
            Accelerator::Kvm => probe_kvm(qemu, uid).await,
        };
        // That emulation fails is either a passing state of the host or something that the user is about to mend.
        if finding.usable || accelerator == Accelerator::Kvm {
            // The file only saves time, so a full disk must not keep a machine from starting.
            let _ = self.remember(situation, finding.clone());
        }
        finding
    }

    fn remembered(&self, situation: &Situation, accelerator: Accelerator) -> Option<Finding> {
        let record = self
            .read()
            .records
            .into_iter()
            .find(|record| record.situation == *situation)?;
        record
            .findings
            .into_iter()
            .find(|finding| finding.accelerator == accelerator)
    }

    fn remember(&self, situation: &Situation, finding: Finding) -> io::Result<()> {
        let mut contents = self.read();
        contents
            .records
            .retain(|record| record.situation.boot == situation.boot);
        let place = contents
            .records
            .iter()
            .position(|record| record.situation == *situation);
        let mut record = match place {
            Some(place) => contents.records.remove(place),
            None => Record {
                situation: situation.clone(),
                findings: Vec::new(),
            },
        };
        record
            .findings
            .retain(|other| other.accelerator != finding.accelerator);
        record.findings.push(finding);
        contents.records.push(record);
        let surplus = contents.records.len().saturating_sub(MAX_RECORDS);
        contents.records.drain(..surplus);
        write_atomically(&self.path, &serde_json::to_vec_pretty(&contents)?)
    }

    fn read(&self) -> Contents {
        let read = || {
            let mut bytes = Vec::new();
            File::open(&self.path)
                .ok()?
                .take(MAX_FILE_BYTES)
                .read_to_end(&mut bytes)
                .ok()?;
            serde_json::from_slice::<Contents>(&bytes).ok()
        };
        read()
            .filter(|contents| contents.format == FORMAT)
            .unwrap_or_default()
    }
}

/// Probes KVM. One that was too slow gets another chance if the host is: if emulation takes longer than usual here and now,
/// KVM may take as many times longer.
async fn probe_kvm(qemu: &Qemu, uid: Option<MachineUid>) -> Finding {
    let finding = probe(qemu, Accelerator::Kvm, KVM_DEADLINE, uid).await;
    let in_time = u128::from(finding.elapsed_ms) < KVM_DEADLINE.as_millis();
    if finding.usable || in_time {
        return finding;
    }
    let emulation = probe(qemu, Accelerator::Tcg, TCG_DEADLINE, uid).await;
    match patience(&emulation) {
        Some(deadline) => probe(qemu, Accelerator::Kvm, deadline, uid).await,
        None => finding,
    }
}

/// How long KVM may take on a host where emulation took as long as in `emulation`, if that is more than usual.
fn patience(emulation: &Finding) -> Option<Duration> {
    let usual = u32::try_from(USUAL_TCG.as_millis()).expect("a small constant");
    let took = u32::try_from(emulation.elapsed_ms).ok()?;
    (took > usual).then(|| (KVM_DEADLINE * took / usual).min(LONGEST_KVM_DEADLINE))
}

#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    format: u32,
    records: Vec<Record>,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            format: FORMAT,
            records: Vec::new(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    situation: Situation,
    findings: Vec<Finding>,
}

/// All that a finding depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Situation {
    /// The host's boot id: modules and firmware settings change with a boot.
    boot: String,
    engine: EngineIdentity,
    user: UserClass,
    kvm: Option<KvmDevice>,
    /// Whether `/dev/kvm` can be opened now: joining its group changes nothing about the file.
    kvm_opens: bool,
}

impl Situation {
    fn now(engine: &EngineIdentity, uid: Option<MachineUid>) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let kvm = KvmDevice::find();
        Self {
            boot: boot.trim().to_owned(),
            engine: engine.clone(),
            user: uid.map_or(UserClass::User, |_| UserClass::Root),
            kvm,
            kvm_opens: kvm.is_some_and(|device| device.opens_for(uid)),
        }
    }
}

/// Who starts engines: root, as one user id for each machine, or an ordinary user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum UserClass {
    Root,
    User,
}

fn reasons(findings: &[Finding]) -> String {
    let each = findings
        .iter()
        .map(|finding| format!("{}: {}", finding.accelerator, finding.reason));
    each.collect::<Vec<_>>().join("; ")
}

fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.to_owned().into_os_string();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        std::fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // The first failure is the one to tell.
        let _ = std::fs::remove_file(&temporary);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that fails like a QEMU that cannot start, and counts how often it was run.
    /// An engine that fails, with other words each time. It can leave no other trace: it runs in the jail.
    fn broken_engine(directory: &Path) -> Qemu {
        let program = directory.join("qemu");
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(
            &program,
            "#!/bin/sh\necho broken at $(/usr/bin/date +%s.%N) >&2\nexit 1\n",
        )
        .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Qemu::locate(Some(&program), "".as_ref()).unwrap()
    }

    fn uid() -> Option<MachineUid> {
        rustix::process::geteuid()
            .is_root()
            .then(|| MachineUid::for_slot(3))
    }

    fn finding(accelerator: Accelerator, usable: bool) -> Finding {
        Finding {
            accelerator,
            usable,
            reason: "said so".into(),
            elapsed_ms: 7,
        }
    }

    #[test]
    fn a_slow_host_gets_time_for_kvm_and_a_quick_one_none() {
        let took = |elapsed_ms| {
            patience(&Finding {
                elapsed_ms,
                ..finding(Accelerator::Tcg, true)
            })
        };
        assert_eq!(took(300), None);
        assert_eq!(took(1_000), Some(Duration::from_secs(4)));
        assert_eq!(took(10_000), Some(LONGEST_KVM_DEADLINE));
    }

    #[tokio::test]
    async fn what_is_remembered_costs_no_process() {
        let directory = tempfile::tempdir().unwrap();
        let qemu = broken_engine(directory.path());
        let cache = ProbeCache::new(directory.path().join("probe.json"));
        let situation = Situation::now(qemu.identity(), uid());
        cache
            .remember(&situation, finding(Accelerator::Kvm, false))
            .unwrap();
        cache
            .remember(&situation, finding(Accelerator::Tcg, true))
            .unwrap();
        let choice = cache.choose(&qemu, Preference::Auto, uid()).await.unwrap();
        assert_eq!(choice.accelerator, Accelerator::Tcg);
        assert_eq!(
            choice.findings,
            [
                finding(Accelerator::Kvm, false),
                finding(Accelerator::Tcg, true)
            ],
            "the engine would have said something else"
        );
        assert_eq!(
            std::fs::metadata(&cache.path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            2,
            "no temporary file is left"
        );
    }

    #[tokio::test]
    async fn a_broken_engine_is_tried_again_and_its_words_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let qemu = broken_engine(directory.path());
        let cache = ProbeCache::new(directory.path().join("probe.json"));
        let mut told = Vec::new();
        for _ in 0..2 {
            let error = cache
                .choose(&qemu, Preference::Only(Accelerator::Tcg), uid())
                .await
                .unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("status 1 before the probe guest was done: `broken at "),
                "{error}"
            );
            told.push(error.to_string());
        }
        assert_ne!(told[0], told[1], "it ran twice");
    }

    #[tokio::test]
    async fn a_failed_boot_outweighs_the_probe() {
        let directory = tempfile::tempdir().unwrap();
        let qemu = broken_engine(directory.path());
        let cache = ProbeCache::new(directory.path().join("probe.json"));
        let situation = Situation::now(qemu.identity(), uid());
        cache
            .remember(&situation, finding(Accelerator::Kvm, true))
            .unwrap();
        cache
            .forget(qemu.identity(), Accelerator::Kvm, uid(), "the kernel hung")
            .unwrap();
        let error = cache
            .choose(&qemu, Preference::Only(Accelerator::Kvm), uid())
            .await
            .unwrap_err();
        assert_eq!(error.findings[0].reason, "the kernel hung");
        assert!(error.hint().unwrap().contains("`tcg`"));
        cache.clear().unwrap();
        cache.clear().unwrap();
        assert_eq!(cache.remembered(&situation, Accelerator::Kvm), None);
    }

    #[test]
    fn another_situation_remembers_nothing_and_another_boot_clears() {
        let directory = tempfile::tempdir().unwrap();
        let qemu = broken_engine(directory.path());
        let cache = ProbeCache::new(directory.path().join("probe.json"));
        let now = Situation::now(qemu.identity(), uid());
        cache
            .remember(&now, finding(Accelerator::Kvm, false))
            .unwrap();
        let mended = Situation {
            kvm_opens: !now.kvm_opens,
            ..now.clone()
        };
        let updated = Situation {
            engine: EngineIdentity {
                size: 1,
                ..now.engine.clone()
            },
            ..now.clone()
        };
        assert_eq!(cache.remembered(&mended, Accelerator::Kvm), None);
        assert_eq!(cache.remembered(&updated, Accelerator::Kvm), None);
        let rebooted = Situation {
            boot: "another".into(),
            ..now.clone()
        };
        cache
            .remember(&rebooted, finding(Accelerator::Tcg, true))
            .unwrap();
        assert_eq!(cache.remembered(&now, Accelerator::Kvm), None);
        for size in 0..20 {
            let engine = EngineIdentity {
                size,
                ..now.engine.clone()
            };
            cache
                .remember(
                    &Situation {
                        engine,
                        ..now.clone()
                    },
                    finding(Accelerator::Tcg, true),
                )
                .unwrap();
        }
        assert_eq!(cache.read().records.len(), MAX_RECORDS);
    }

    #[test]
    fn a_broken_file_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let qemu = broken_engine(directory.path());
        let cache = ProbeCache::new(directory.path().join("probe.json"));
        let situation = Situation::now(qemu.identity(), uid());
        for garbage in [
            "",
            "{",
            "[]",
            "{\"format\":1}",
            "{\"format\":2,\"records\":[]}",
            "\u{0}\u{1}",
        ] {
            std::fs::write(&cache.path, garbage).unwrap();
            assert_eq!(cache.remembered(&situation, Accelerator::Tcg), None);
        }
        cache
            .remember(&situation, finding(Accelerator::Tcg, true))
            .unwrap();
        assert_eq!(
            cache.remembered(&situation, Accelerator::Tcg),
            Some(finding(Accelerator::Tcg, true))
        );
    }
}
