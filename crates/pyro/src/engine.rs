//! Which engine would run a machine here, judged from what a probe found.
//!
//! Pure, and by the rules of the supervisor, who decides when a machine starts. Never tries anything.

use std::path::Path;

use pyro_protocol::supervise::{EngineChoice, EngineFinding, ProbeReport};

/// Why no engine would run a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoEngine {
    pub(crate) reason: String,
    pub(crate) hint: String,
}

/// The engine that runs a machine, with a network or without, where `asked` is asked for. Never
/// [`EngineChoice::Auto`].
pub(crate) fn expected(
    asked: EngineChoice,
    network: bool,
    probe: &ProbeReport,
) -> Result<EngineChoice, NoEngine> {
    match asked {
        EngineChoice::Auto if network => probe
            .engines
            .iter()
            .find(|found| found.usable && has_network(found.engine))
            .map(|found| found.engine)
            .ok_or_else(|| none(probe, network)),
        EngineChoice::Auto => probe.chosen.ok_or_else(|| none(probe, network)),
        asked if network && !has_network(asked) => Err(NoEngine {
            reason: format!("the engine `{}` has no network", asked.as_str()),
            hint: CHOOSE.into(),
        }),
        asked => match probe.engines.iter().find(|found| found.engine == asked) {
            Some(found) if found.usable => Ok(asked),
            Some(found) => Err(NoEngine {
                reason: format!(
                    "the engine `{}` does not run guests here: {}",
                    asked.as_str(),
                    found.reason
                ),
                hint: found.hint.clone().unwrap_or_else(|| CHOOSE.into()),
            }),
            None => Err(none(probe, network)),
        },
    }
}

/// The program of an engine, and what it says of its version.
pub(crate) fn program(engine: EngineChoice, probe: &ProbeReport) -> (Option<&Path>, Option<&str>) {
    let (program, version) = match engine {
        EngineChoice::Firecracker => (&probe.firecracker, &probe.firecracker_version),
        EngineChoice::QemuKvm | EngineChoice::QemuTcg | EngineChoice::Auto => {
            (&probe.qemu, &probe.qemu_version)
        }
    };
    (program.as_deref(), version.as_deref())
}

/// The remedy where an engine was named that will not do.
const CHOOSE: &str = "let the engine be chosen with `--engine auto`";

fn has_network(engine: EngineChoice) -> bool {
    engine != EngineChoice::Firecracker
}

/// Of the last engine, which works everywhere; but one that works and was not asked for is a
/// remedy as well.
fn none(probe: &ProbeReport, network: bool) -> NoEngine {
    let works = |found: &&EngineFinding| found.usable && (!network || has_network(found.engine));
    let named = probe.engines.iter().find(works);
    let hint = match named {
        Some(found) => Some(format!("take it with `--engine {}`", found.engine.as_str())),
        None => probe.engines.iter().rev().find_map(|one| one.hint.clone()),
    };
    NoEngine {
        reason: match (named, probe.engines.last()) {
            (Some(found), _) => format!(
                "only the engine `{}` runs guests here, which is not taken unasked",
                found.engine.as_str()
            ),
            (None, Some(found)) => format!("no engine runs guests here: {}", found.reason),
            (None, None) => "no engine runs guests here".into(),
        },
        hint: hint.unwrap_or_else(|| "install QEMU with `apt-get install qemu-system-x86`".into()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A host on which these engines work; Firecracker is taken first if it does.
    pub(crate) fn host(usable: &[EngineChoice]) -> ProbeReport {
        let all = [
            EngineChoice::Firecracker,
            EngineChoice::QemuKvm,
            EngineChoice::QemuTcg,
        ];
        let has_qemu = usable.iter().any(|one| *one != EngineChoice::Firecracker);
        let has_firecracker = usable.contains(&EngineChoice::Firecracker);
        ProbeReport {
            chosen: all.into_iter().find(|one| usable.contains(one)),
            qemu: has_qemu.then(|| "/usr/bin/qemu".into()),
            qemu_version: has_qemu.then(|| "QEMU 7.2".into()),
            firecracker: has_firecracker.then(|| "/opt/firecracker".into()),
            firecracker_version: has_firecracker.then(|| "1.12.1".into()),
            engines: all
                .map(|engine| finding(engine, usable.contains(&engine)))
                .into(),
            jail: Vec::new(),
        }
    }

    fn finding(engine: EngineChoice, usable: bool) -> EngineFinding {
        EngineFinding {
            engine,
            usable,
            reason: format!("{} was tried", engine.as_str()),
            hint: (!usable).then(|| format!("mend {}", engine.as_str())),
            elapsed_ms: 1,
        }
    }

    #[test]
    fn firecracker_runs_what_has_no_network_and_qemu_the_rest() {
        let probe = host(&[EngineChoice::Firecracker, EngineChoice::QemuTcg]);
        let auto = |network| expected(EngineChoice::Auto, network, &probe);
        assert_eq!(auto(false), Ok(EngineChoice::Firecracker));
        assert_eq!(auto(true), Ok(EngineChoice::QemuTcg));
        let refused = expected(EngineChoice::Firecracker, true, &probe).unwrap_err();
        assert!(refused.reason.contains("no network"), "{refused:?}");
    }

    #[test]
    fn a_host_without_qemu_has_an_engine_and_no_network() {
        let probe = host(&[EngineChoice::Firecracker]);
        assert_eq!(
            expected(EngineChoice::Auto, false, &probe),
            Ok(EngineChoice::Firecracker)
        );
        let refused = expected(EngineChoice::Auto, true, &probe).unwrap_err();
        assert!(
            refused.reason.ends_with("qemu-tcg was tried"),
            "{refused:?}"
        );
        assert_eq!(refused.hint, "mend qemu-tcg");
    }

    #[test]
    fn what_is_asked_for_is_judged_and_not_what_would_be_chosen() {
        // Found in the search path alone, it is not taken unasked.
        let probe = ProbeReport {
            chosen: None,
            ..host(&[EngineChoice::Firecracker])
        };
        let asked = expected(EngineChoice::Firecracker, false, &probe);
        assert_eq!(asked, Ok(EngineChoice::Firecracker));
        let refused = expected(EngineChoice::Auto, false, &probe).unwrap_err();
        assert!(refused.hint.contains("--engine firecracker"), "{refused:?}");
        let refused = expected(EngineChoice::QemuKvm, false, &probe).unwrap_err();
        assert!(refused.reason.contains("`qemu-kvm`"), "{refused:?}");
        assert_eq!(refused.hint, "mend qemu-kvm");
    }

    #[test]
    fn each_engine_has_its_program() {
        let probe = host(&[EngineChoice::Firecracker, EngineChoice::QemuTcg]);
        let told = |engine| program(engine, &probe);
        assert_eq!(
            told(EngineChoice::Firecracker),
            (Some(Path::new("/opt/firecracker")), Some("1.12.1"))
        );
        assert_eq!(
            told(EngineChoice::QemuTcg),
            (Some(Path::new("/usr/bin/qemu")), Some("QEMU 7.2"))
        );
    }
}
