//! What each engine can do on this host.
//!
//! Pure: judged from what was found out about engines and the jail. Never tries anything.

use pyro_protocol::supervise::{EngineChoice, EngineFinding, JailLayer};
use serde::Serialize;

/// What one engine can do here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EngineAbilities {
    /// The engine.
    pub engine: EngineChoice,
    /// Each thing that an engine may be able to do. All engines have the same list.
    pub abilities: Vec<Ability>,
}

/// One thing that an engine can or cannot do here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ability {
    /// What.
    pub name: AbilityName,
    /// Whether it can.
    pub available: bool,
    /// How, or why not.
    pub reason: String,
}

/// The things that an engine may be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AbilityName {
    /// A guest gets a network.
    Network,
    /// A machine is captured with its memory, and others go on from there.
    Snapshots,
    /// A machine begins as a copy of one that has booted.
    WarmStart,
    /// Copies of a running machine are made.
    Fork,
    /// Memory that the guest frees goes back to the host.
    MemoryGivenBack,
    /// What a machine's VMM takes of memory and threads is bounded by a cgroup.
    ResourceLimits,
}

impl AbilityName {
    /// The word as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Snapshots => "snapshots",
            Self::WarmStart => "warm_start",
            Self::Fork => "fork",
            Self::MemoryGivenBack => "memory_given_back",
            Self::ResourceLimits => "resource_limits",
        }
    }
}

/// The abilities of the engines that were looked at.
pub(super) fn of(engines: &[EngineFinding], jail: &[JailLayer]) -> Vec<EngineAbilities> {
    engines
        .iter()
        .filter_map(|found| {
            let abilities = match found.engine {
                EngineChoice::QemuKvm | EngineChoice::QemuTcg => qemu(jail),
                EngineChoice::Firecracker => firecracker(jail),
                // Stands for engines that could not be looked at.
                EngineChoice::Auto => return None,
            };
            let abilities = abilities.into_iter().map(|ability| {
                if found.usable {
                    ability
                } else {
                    Ability {
                        available: false,
                        reason: format!("the engine does not work here: {}", found.reason),
                        ..ability
                    }
                }
            });
            Some(EngineAbilities {
                engine: found.engine,
                abilities: abilities.collect(),
            })
        })
        .collect()
}

fn qemu(jail: &[JailLayer]) -> Vec<Ability> {
    all(
        can(
            AbilityName::Network,
            "in user mode, without rights on the host",
        ),
        can(
            AbilityName::MemoryGivenBack,
            "by machines that are started cold; QEMU would punch holes into the template that others share",
        ),
        jail,
    )
}

fn firecracker(jail: &[JailLayer]) -> Vec<Ability> {
    all(
        cannot(
            AbilityName::Network,
            "it has no network without rights on the host",
        ),
        cannot(
            AbilityName::MemoryGivenBack,
            "its machines keep what their guests free: they have no balloon",
        ),
        jail,
    )
}

/// The whole list: what differs between engines, and what they have in common.
fn all(network: Ability, memory_given_back: Ability, jail: &[JailLayer]) -> Vec<Ability> {
    vec![
        network,
        can(
            AbilityName::Snapshots,
            "memory, devices and disk, of a machine that runs on",
        ),
        can(
            AbilityName::WarmStart,
            "copies share the template's memory until they write to it",
        ),
        can(
            AbilityName::Fork,
            "children share the memory of the capture until they write to it",
        ),
        memory_given_back,
        resource_limits(jail),
    ]
}

fn can(name: AbilityName, reason: &str) -> Ability {
    Ability {
        name,
        available: true,
        reason: reason.into(),
    }
}

fn cannot(name: AbilityName, reason: &str) -> Ability {
    Ability {
        available: false,
        ..can(name, reason)
    }
}

fn resource_limits(jail: &[JailLayer]) -> Ability {
    let cgroup = jail.iter().find(|layer| layer.name == CGROUP);
    Ability {
        name: AbilityName::ResourceLimits,
        available: cgroup.is_some_and(|layer| layer.on),
        reason: cgroup.map_or_else(
            || "whether a cgroup can be had is not known".into(),
            |layer| layer.reason.clone(),
        ),
    }
}

/// Name of the layer of the jail that bounds what a machine takes.
const CGROUP: &str = "cgroup";

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(engine: EngineChoice, usable: bool) -> EngineFinding {
        EngineFinding {
            engine,
            usable,
            reason: "it was tried".into(),
            hint: None,
            elapsed_ms: 1,
        }
    }

    #[test]
    fn an_engine_that_does_not_work_can_nothing() {
        let engines = [
            finding(EngineChoice::QemuKvm, false),
            finding(EngineChoice::QemuTcg, true),
            finding(EngineChoice::Firecracker, true),
        ];
        let found = of(&engines, &[]);
        assert_eq!(found.len(), 3);
        assert!(found[0].abilities.iter().all(|one| !one.available));
        assert!(found[0].abilities[0].reason.contains("it was tried"));
        let names = |index: usize| -> Vec<_> {
            let abilities: &EngineAbilities = &found[index];
            abilities.abilities.iter().map(|one| one.name).collect()
        };
        assert_eq!(names(0), names(1));
        assert_eq!(names(1), names(2));
        assert!(found[1].abilities[0].available);
        assert_eq!(of(&[finding(EngineChoice::Auto, false)], &[]), []);
    }

    #[test]
    fn limits_are_the_cgroups() {
        for on in [true, false] {
            let layer = JailLayer {
                name: CGROUP.into(),
                on,
                reason: "as it was found".into(),
                hint: None,
            };
            let found = of(&[finding(EngineChoice::QemuTcg, true)], &[layer]);
            let limits = found[0].abilities.last().unwrap();
            assert_eq!(limits.name, AbilityName::ResourceLimits);
            assert_eq!(
                (limits.available, limits.reason.as_str()),
                (on, "as it was found")
            );
        }
    }

    #[test]
    fn words_and_json_agree() {
        for one in qemu(&[]).into_iter().chain(firecracker(&[])) {
            assert_eq!(serde_json::to_value(one.name).unwrap(), one.name.as_str());
        }
    }
}
