//! Whether what a preparation proved still holds: what is recorded against what is there.
//!
//! Pure: looking is done elsewhere (`present`). A difference is told by a stable code and a
//! sentence.

use pyro_image::Sha256Digest;
use pyro_protocol::supervise::TemplateListing;
use serde::Serialize;

use super::record::{PreparedEngine, PreparedRecord, PreparedTemplate};

/// How ready an environment is for daily use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadinessStatus {
    /// It was never prepared.
    Cold,
    /// It was prepared, and nothing that matters has changed.
    Warm,
    /// It was prepared, and something has changed since.
    Stale,
    /// It cannot be prepared: the host runs no machines, or there is no such environment.
    Unavailable,
}

impl ReadinessStatus {
    /// The word as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Stale => "stale",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Why an environment is not warm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadinessReason {
    /// Stable class.
    pub code: ReadinessCode,
    /// One sentence.
    pub message: String,
}

impl ReadinessReason {
    pub(super) fn new(code: ReadinessCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// The classes of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadinessCode {
    /// Nothing is recorded.
    NotPrepared,
    /// The environment is gone.
    EnvironmentMissing,
    /// The environment's files are not what they should be.
    EnvironmentDamaged,
    /// What the environment is made of on this host has changed.
    SourceChanged,
    /// It is installed with another root image.
    RootImageChanged,
    /// The guest kernel is gone or cannot be used.
    KernelMissing,
    /// A machine would boot another guest kernel.
    KernelChanged,
    /// A machine would boot another build of the agent.
    AgentChanged,
    /// The program has another version.
    ProductChanged,
    /// Another engine would run the machine.
    EngineChanged,
    /// The engine's program is another one.
    EngineProgramChanged,
    /// It was prepared without the network that is asked for.
    NetworkNotPrepared,
    /// The template could not be kept when it was prepared.
    NotWarm,
    /// There is no template of machines like those asked about.
    TemplateMissing,
    /// The template is there and cannot be used.
    TemplateDamaged,
    /// The host cannot run machines.
    HostUnusable,
    /// There is no such environment, or it cannot be made again.
    EnvironmentUnknown,
}

impl ReadinessCode {
    /// The word as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotPrepared => "not_prepared",
            Self::EnvironmentMissing => "environment_missing",
            Self::EnvironmentDamaged => "environment_damaged",
            Self::SourceChanged => "source_changed",
            Self::RootImageChanged => "root_image_changed",
            Self::KernelMissing => "kernel_missing",
            Self::KernelChanged => "kernel_changed",
            Self::AgentChanged => "agent_changed",
            Self::ProductChanged => "product_changed",
            Self::EngineChanged => "engine_changed",
            Self::EngineProgramChanged => "engine_program_changed",
            Self::NetworkNotPrepared => "network_not_prepared",
            Self::NotWarm => "not_warm",
            Self::TemplateMissing => "template_missing",
            Self::TemplateDamaged => "template_damaged",
            Self::HostUnusable => "host_unusable",
            Self::EnvironmentUnknown => "environment_unknown",
        }
    }
}

/// What a machine of an environment would consist of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Present {
    pub(super) root: RootNow,
    pub(super) kernel: KernelNow,
    pub(super) agent: String,
    pub(super) product_version: String,
    /// The engine that would run them.
    pub(super) engine: PreparedEngine,
    /// What machines are asked about.
    pub(super) wanted: Wanted,
    /// The templates on this host; a reason tells which of them cannot be used.
    pub(super) templates: Vec<TemplateListing>,
}

/// Which machines an environment is to be ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// With a network.
    pub(crate) network: bool,
    /// With so many processors and so many MiB of memory; `None`: whatever was prepared.
    pub(crate) size: Option<(u8, u32)>,
}

impl Wanted {
    pub(crate) fn of_any_size(network: bool) -> Self {
        Self {
            network,
            size: None,
        }
    }
}

/// The environment as it is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RootNow {
    Absent,
    Damaged { reason: String },
    SourceChanged { reason: String },
    Installed { digest: Sha256Digest },
}

/// The kernel that would be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KernelNow {
    /// The environment's own, which is as missing as that.
    OfEnvironment,
    Missing {
        reason: String,
    },
    Found {
        digest: Sha256Digest,
    },
}

/// Compares. Every difference is told, the weightiest first.
pub(super) fn compare(
    recorded: Option<&PreparedRecord>,
    present: &Present,
) -> (ReadinessStatus, Vec<ReadinessReason>) {
    let Some(recorded) = recorded else {
        let reason = ReadinessReason::new(
            ReadinessCode::NotPrepared,
            "it was not prepared on this host",
        );
        return (ReadinessStatus::Cold, vec![reason]);
    };
    let reasons: Vec<_> = [
        root(recorded, &present.root),
        kernel(recorded, &present.kernel),
        agent(recorded, present),
        product(recorded, present),
        engine(recorded, present),
        network(recorded, present),
    ]
    .into_iter()
    .flatten()
    .collect();
    let reasons = if reasons.is_empty() {
        // Any other difference is one of the template's as well.
        template(recorded, present).into_iter().collect()
    } else {
        reasons
    };
    if reasons.is_empty() {
        (ReadinessStatus::Warm, reasons)
    } else {
        (ReadinessStatus::Stale, reasons)
    }
}

fn root(recorded: &PreparedRecord, now: &RootNow) -> Option<ReadinessReason> {
    let (code, message) = match now {
        RootNow::Absent => (
            ReadinessCode::EnvironmentMissing,
            "the environment is not installed any more".to_owned(),
        ),
        RootNow::Damaged { reason } => (
            ReadinessCode::EnvironmentDamaged,
            format!("the environment is damaged: {reason}"),
        ),
        RootNow::SourceChanged { reason } => (ReadinessCode::SourceChanged, reason.clone()),
        RootNow::Installed { digest } if *digest == recorded.artifacts.rootfs => return None,
        RootNow::Installed { digest } => (
            ReadinessCode::RootImageChanged,
            differs("the root image", digest, recorded.artifacts.rootfs),
        ),
    };
    Some(ReadinessReason::new(code, message))
}

fn kernel(recorded: &PreparedRecord, now: &KernelNow) -> Option<ReadinessReason> {
    let (code, message) = match now {
        KernelNow::OfEnvironment => return None,
        KernelNow::Missing { reason } => (
            ReadinessCode::KernelMissing,
            format!("the guest kernel cannot be used: {reason}"),
        ),
        KernelNow::Found { digest } if *digest == recorded.artifacts.kernel => return None,
        KernelNow::Found { digest } => (
            ReadinessCode::KernelChanged,
            differs("the guest kernel", digest, recorded.artifacts.kernel),
        ),
    };
    Some(ReadinessReason::new(code, message))
}

fn agent(recorded: &PreparedRecord, present: &Present) -> Option<ReadinessReason> {
    let (now, before) = (&present.agent, &recorded.artifacts.agent);
    (now != before).then(|| {
        ReadinessReason::new(
            ReadinessCode::AgentChanged,
            differs("the guest agent", now, before),
        )
    })
}

fn product(recorded: &PreparedRecord, present: &Present) -> Option<ReadinessReason> {
    let (now, before) = (&present.product_version, &recorded.product_version);
    (now != before)
        .then(|| ReadinessReason::new(ReadinessCode::ProductChanged, differs("pyro", now, before)))
}

/// The templates that were made for the machines that are asked about.
fn fitting<'a>(
    recorded: &'a PreparedRecord,
    present: &Present,
) -> impl Iterator<Item = &'a PreparedTemplate> {
    let Wanted { network, size } = present.wanted;
    recorded
        .templates
        .iter()
        .filter(move |one| one.network == network)
        .filter(move |one| size.is_none_or(|size| size == (one.vcpu_count, one.mem_mib)))
}

/// What differs of the engine, if no such machine was proven with the present one. Where none was
/// proven at all, that is told by others.
fn engine(recorded: &PreparedRecord, present: &Present) -> Option<ReadinessReason> {
    let mut changes = fitting(recorded, present).map(|one| changed(&one.engine, &present.engine));
    // The last proven comes first.
    let first = changes.next()?;
    if changes.any(|change| change.is_none()) {
        return None;
    }
    first
}

fn changed(before: &PreparedEngine, now: &PreparedEngine) -> Option<ReadinessReason> {
    let (code, message) = if now.name != before.name {
        (
            ReadinessCode::EngineChanged,
            differs("the engine", now.name.as_str(), before.name.as_str()),
        )
    } else if now.program != before.program {
        (
            ReadinessCode::EngineProgramChanged,
            differs("the engine's program", shown(now), shown(before)),
        )
    } else if let (Some(now), Some(before)) = (&now.version, &before.version)
        && now != before
    {
        (
            ReadinessCode::EngineProgramChanged,
            differs("the engine's program", now, before),
        )
    } else if now.mark != before.mark {
        (
            ReadinessCode::EngineProgramChanged,
            format!("`{}` is another file now", shown(now)),
        )
    } else {
        return None;
    };
    Some(ReadinessReason::new(code, message))
}

fn shown(engine: &PreparedEngine) -> String {
    let program = engine.program.as_deref();
    program.map_or_else(|| "unknown".into(), |path| path.display().to_string())
}

fn network(recorded: &PreparedRecord, present: &Present) -> Option<ReadinessReason> {
    (present.wanted.network && !recorded.network_prepared).then(|| {
        ReadinessReason::new(
            ReadinessCode::NetworkNotPrepared,
            "it was prepared without a network",
        )
    })
}

fn template(recorded: &PreparedRecord, present: &Present) -> Option<ReadinessReason> {
    let fitting: Vec<_> = fitting(recorded, present)
        .filter(|one| changed(&one.engine, &present.engine).is_none())
        .collect();
    if fitting.is_empty() {
        let (code, message) = match &recorded.not_warm {
            Some(why) => (
                ReadinessCode::NotWarm,
                format!("machines begin cold: {why}"),
            ),
            None => (
                ReadinessCode::TemplateMissing,
                "no template was made for machines of this size and network".to_owned(),
            ),
        };
        return Some(ReadinessReason::new(code, message));
    }
    let found: Vec<_> = present
        .templates
        .iter()
        .filter(|found| fitting.iter().any(|one| one.key == found.key))
        .collect();
    if found.iter().any(|found| found.reason.is_none()) {
        return None;
    }
    let (code, message) = match found.iter().find_map(|found| found.reason.as_ref()) {
        Some(reason) => (
            ReadinessCode::TemplateDamaged,
            format!("the template cannot be used: {reason}"),
        ),
        None => (
            ReadinessCode::TemplateMissing,
            "the template is gone".to_owned(),
        ),
    };
    Some(ReadinessReason::new(code, message))
}

fn differs(what: &str, now: impl std::fmt::Display, before: impl std::fmt::Display) -> String {
    format!("{what} is {now} now, and was {before}")
}

#[cfg(test)]
mod tests {
    use pyro_protocol::supervise::EngineChoice;

    use super::super::record::tests::{record, record_engine, record_template};
    use super::*;

    fn present() -> Present {
        Present {
            root: RootNow::Installed {
                digest: Sha256Digest::of(b"rootfs"),
            },
            kernel: KernelNow::Found {
                digest: Sha256Digest::of(b"kernel"),
            },
            agent: "agent".into(),
            product_version: "1".into(),
            engine: record_engine(),
            wanted: Wanted::of_any_size(false),
            templates: [false, true].map(listing).into(),
        }
    }

    fn listing(network: bool) -> TemplateListing {
        let template = record_template(network);
        TemplateListing {
            key: template.key,
            environment: Some("debian:12".into()),
            root_digest: None,
            kernel_digest: None,
            initramfs: None,
            network: Some(network),
            engine: Some("qemu-tcg".into()),
            vcpu_count: Some(template.vcpu_count),
            mem_mib: Some(template.mem_mib),
            bytes: 1,
            created_at: Some(1),
            used_at: 1,
            reason: None,
        }
    }

    /// The one reason for which what is recorded does not hold for `present`.
    fn reason(present: &Present) -> (ReadinessCode, String) {
        let (status, reasons) = compare(Some(&record()), present);
        assert_eq!(status, ReadinessStatus::Stale);
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        (reasons[0].code, reasons[0].message.clone())
    }

    #[test]
    fn without_a_record_it_is_cold() {
        let (status, reasons) = compare(None, &present());
        assert_eq!(status, ReadinessStatus::Cold);
        assert_eq!(reasons[0].code, ReadinessCode::NotPrepared);
    }

    #[test]
    fn what_holds_is_warm() {
        let warm = (ReadinessStatus::Warm, Vec::new());
        assert_eq!(compare(Some(&record()), &present()), warm);
        let mut silent = present();
        silent.engine.version = None;
        assert_eq!(compare(Some(&record()), &silent), warm);
        // A preparation with a network holds for machines without one if they have a template.
        let mut networked = PreparedRecord {
            network_prepared: true,
            ..record()
        };
        assert_eq!(compare(Some(&networked), &present()), warm);
        networked.templates = vec![record_template(true)];
        let (status, reasons) = compare(Some(&networked), &present());
        assert_eq!(status, ReadinessStatus::Stale);
        assert_eq!(reasons[0].code, ReadinessCode::TemplateMissing);
        let mut now = present();
        now.wanted.network = true;
        assert_eq!(compare(Some(&networked), &now), warm);
    }

    #[test]
    fn a_changed_root_is_told() {
        let mut now = present();
        now.root = RootNow::Absent;
        assert_eq!(reason(&now).0, ReadinessCode::EnvironmentMissing);
        now.root = RootNow::Damaged {
            reason: "too short".into(),
        };
        let (code, message) = reason(&now);
        assert_eq!(code, ReadinessCode::EnvironmentDamaged);
        assert!(message.contains("too short"), "{message}");
        now.root = RootNow::SourceChanged {
            reason: "the file is newer".into(),
        };
        let source = (ReadinessCode::SourceChanged, "the file is newer".into());
        assert_eq!(reason(&now), source);
        now.root = RootNow::Installed {
            digest: Sha256Digest::of(b"other"),
        };
        let (code, message) = reason(&now);
        assert_eq!(code, ReadinessCode::RootImageChanged);
        for digest in [Sha256Digest::of(b"other"), Sha256Digest::of(b"rootfs")] {
            assert!(message.contains(&digest.to_string()), "{message}");
        }
    }

    #[test]
    fn another_kernel_agent_or_version_is_told() {
        let mut now = present();
        now.kernel = KernelNow::Found {
            digest: Sha256Digest::of(b"other"),
        };
        assert_eq!(reason(&now).0, ReadinessCode::KernelChanged);
        now.kernel = KernelNow::Missing {
            reason: "no such file".into(),
        };
        assert_eq!(reason(&now).0, ReadinessCode::KernelMissing);
        let mut now = present();
        now.agent = "newer".into();
        assert_eq!(
            reason(&now),
            (
                ReadinessCode::AgentChanged,
                "the guest agent is newer now, and was agent".into()
            )
        );
        let mut now = present();
        now.product_version = "2".into();
        assert_eq!(reason(&now).0, ReadinessCode::ProductChanged);
    }

    #[test]
    fn another_engine_or_program_is_told() {
        let mut now = present();
        now.engine.name = EngineChoice::QemuKvm;
        assert_eq!(
            reason(&now),
            (
                ReadinessCode::EngineChanged,
                "the engine is qemu-kvm now, and was qemu-tcg".into()
            )
        );
        let changes: [fn(&mut PreparedEngine); 3] = [
            |engine| engine.program = Some("/opt/qemu".into()),
            |engine| engine.mark = Some("other".into()),
            |engine| engine.version = Some("QEMU 8".into()),
        ];
        for change in changes {
            let mut now = present();
            change(&mut now.engine);
            assert_eq!(reason(&now).0, ReadinessCode::EngineProgramChanged);
        }
    }

    #[test]
    fn each_kind_of_machine_is_judged_by_its_own_engine() {
        let firecracker = PreparedEngine {
            name: EngineChoice::Firecracker,
            program: Some("/opt/firecracker".into()),
            ..record_engine()
        };
        let mut both = PreparedRecord {
            network_prepared: true,
            templates: [false, true].map(record_template).into(),
            ..record()
        };
        both.templates[0].engine = firecracker.clone();
        let warm = (ReadinessStatus::Warm, Vec::new());
        let mut plain = present();
        plain.engine = firecracker.clone();
        assert_eq!(compare(Some(&both), &plain), warm);
        let mut networked = present();
        networked.wanted.network = true;
        assert_eq!(compare(Some(&both), &networked), warm);
        // The proof of a machine with a network tells nothing of the engine of those without.
        let mut only_networked = both.clone();
        only_networked.templates.remove(0);
        let (_, reasons) = compare(Some(&only_networked), &plain);
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert_eq!(reasons[0].code, ReadinessCode::TemplateMissing);
        // Where sizes were proven with several engines, the present one decides.
        let mut sizes = record();
        sizes.templates.push(PreparedTemplate {
            key: "other".into(),
            mem_mib: 512,
            engine: firecracker.clone(),
            ..record_template(false)
        });
        assert_eq!(compare(Some(&sizes), &present()), warm);
        let (_, reasons) = compare(Some(&sizes), &plain);
        assert_eq!(reasons[0].code, ReadinessCode::TemplateMissing);
    }

    #[test]
    fn a_template_that_is_missing_or_does_not_fit_is_told() {
        let mut now = present();
        now.wanted.size = Some((1, 1024));
        let warm = (ReadinessStatus::Warm, Vec::new());
        assert_eq!(compare(Some(&record()), &now), warm);
        now.wanted.size = Some((1, 2048));
        assert_eq!(reason(&now).0, ReadinessCode::TemplateMissing);
        let mut now = present();
        now.templates[0].reason = Some("`memory` is too short".into());
        let (code, message) = reason(&now);
        assert_eq!(code, ReadinessCode::TemplateDamaged);
        assert!(message.contains("too short"), "{message}");
        now.templates.clear();
        let gone = (
            ReadinessCode::TemplateMissing,
            "the template is gone".into(),
        );
        assert_eq!(reason(&now), gone);
        let unkept = PreparedRecord {
            template: None,
            templates: Vec::new(),
            not_warm: Some("the disk is full".into()),
            ..record()
        };
        let (_, reasons) = compare(Some(&unkept), &present());
        assert_eq!(reasons[0].code, ReadinessCode::NotWarm);
        assert!(reasons[0].message.contains("the disk is full"));
    }

    #[test]
    fn a_network_that_was_not_proven_is_told() {
        let mut now = present();
        now.wanted.network = true;
        assert_eq!(reason(&now).0, ReadinessCode::NetworkNotPrepared);
    }

    #[test]
    fn every_difference_is_told() {
        let mut now = present();
        now.root = RootNow::Absent;
        now.kernel = KernelNow::OfEnvironment;
        now.agent = "newer".into();
        now.wanted.network = true;
        let codes: Vec<_> = compare(Some(&record()), &now)
            .1
            .into_iter()
            .map(|reason| reason.code)
            .collect();
        assert_eq!(
            codes,
            [
                ReadinessCode::EnvironmentMissing,
                ReadinessCode::AgentChanged,
                ReadinessCode::NetworkNotPrepared
            ]
        );
    }

    #[test]
    fn words_and_json_agree() {
        for status in [
            ReadinessStatus::Cold,
            ReadinessStatus::Warm,
            ReadinessStatus::Stale,
            ReadinessStatus::Unavailable,
        ] {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        for code in [
            ReadinessCode::NotPrepared,
            ReadinessCode::EnvironmentMissing,
            ReadinessCode::EnvironmentDamaged,
            ReadinessCode::SourceChanged,
            ReadinessCode::RootImageChanged,
            ReadinessCode::KernelMissing,
            ReadinessCode::KernelChanged,
            ReadinessCode::AgentChanged,
            ReadinessCode::ProductChanged,
            ReadinessCode::EngineChanged,
            ReadinessCode::EngineProgramChanged,
            ReadinessCode::NetworkNotPrepared,
            ReadinessCode::NotWarm,
            ReadinessCode::TemplateMissing,
            ReadinessCode::TemplateDamaged,
            ReadinessCode::HostUnusable,
            ReadinessCode::EnvironmentUnknown,
        ] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
