//! Proving an environment before it is needed: one throw-away machine is created, runs a command
//! and is discarded, and what was proven is recorded.
//!
//! Owns the proof here, the record (`record`), the look at what is here now (`present`) and the
//! pure comparison of the two (`readiness`). A record is evidence, never a permission: no run
//! reads it, and losing it costs one preparation.
//!
//! ```text
//! environment ready ─▶ record removed ─▶ machine ready ─▶ command ─▶ machine gone ─▶ recorded
//! ```
//!
//! The machine is ordered as a run orders its own, so that it leaves the template that runs of its
//! size begin from. The record names it, and without it nothing is warm.

mod present;
mod readiness;
mod record;

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use pyro_image::catalog::PLATFORM;
use pyro_image::oci::PullPolicy;
use pyro_protocol::guest::Metrics;
use pyro_protocol::supervise::{EngineChoice, ProbeReport, Ready};
use serde::Serialize;
use serde_json::json;

pub use present::Readiness;
pub(crate) use readiness::Wanted;
pub use readiness::{ReadinessCode, ReadinessReason, ReadinessStatus};
pub(crate) use record::PreparedRecords;
pub use record::{
    PrepareTimings, PreparedArtifacts, PreparedEngine, PreparedRecord, PreparedTemplate,
};

use crate::environment::{EnvironmentOptions, ReadyEnvironment};
use crate::error::Error;
use crate::exec::{ExecOptions, ExecOutput, Program};
use crate::machine::{Machine, MachineOptions};
use crate::{Progress, ProgressSink, Pyro, supervisor};

/// The environment that is prepared when none is named.
pub const DEFAULT_ENVIRONMENT: &str = "debian:12";

/// The command of the proof. The agent's own program is the only one that every machine has,
/// also one whose image has no shell; it is reached through the process that becomes it, and
/// tells its build.
const PROOF: [&str; 2] = ["/proc/self/exe", "--version"];

/// Bytes kept of what the command of the proof writes: more than its answer.
const MAX_ANSWER: usize = 256;

/// The interface that a machine without a network has as well.
const LOOPBACK: &str = "lo";

/// What to prepare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrepareOptions {
    /// The environment's name.
    pub environment: String,
    /// When the environment's image is looked up, if it is one.
    pub pull: PullPolicy,
    /// Whether the machine has a user-mode network card, and must show it.
    pub network: bool,
    /// Virtual processors of the machine, and of those that its template is for, 1 to 8.
    pub vcpu_count: u8,
    /// Memory in MiB, 256 to 32768.
    pub mem_mib: u32,
    /// Prove again what is recorded and still holds, with a template that is made anew.
    pub force: bool,
}

impl Default for PrepareOptions {
    fn default() -> Self {
        let machine = MachineOptions::default();
        Self {
            vcpu_count: machine.vcpu_count,
            mem_mib: machine.mem_mib,
            environment: DEFAULT_ENVIRONMENT.into(),
            pull: PullPolicy::default(),
            network: false,
            force: false,
        }
    }
}

impl PrepareOptions {
    fn machine(&self) -> MachineOptions {
        MachineOptions {
            vcpu_count: self.vcpu_count,
            mem_mib: self.mem_mib,
            network: self.network,
            ..MachineOptions::default()
        }
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            network: self.network,
            size: Some((self.vcpu_count, self.mem_mib)),
        }
    }
}

/// What a preparation came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrepareReport {
    /// Whether what was recorded still held, so that no machine was started.
    pub reused: bool,
    /// What holds now.
    #[serde(flatten)]
    pub readiness: Readiness,
}

impl Pyro {
    /// Makes an environment ready, proves it with one throw-away machine and records that. Does
    /// nothing but look if what is recorded still holds, unless forced.
    ///
    /// A proof that fails leaves no record, also not the one before. Whatever the outcome,
    /// nothing is left of the machine.
    pub async fn prepare(
        &self,
        options: PrepareOptions,
        progress: &ProgressSink,
    ) -> Result<PrepareReport, Error> {
        options.machine().check()?;
        self.reconcile().await;
        let entry = self.entry(&options.environment)?;
        let records = self.prepared_records();
        phase(progress, "environment", entry.name.clone());
        let begun = Instant::now();
        let pull = EnvironmentOptions {
            pull: options.pull,
            force: false,
        };
        // Its hold keeps everybody from removing it until the record is written.
        let environment = self.ready_environment(&entry.name, pull, progress).await?;
        let pulled = begun.elapsed();
        if !options.force {
            // As it is remembered: an engine that has changed since is found out.
            let probe = supervisor::probe(self.settings(), false).await?;
            let mut readiness = self
                .readiness_on(&entry.name, options.wanted(), &probe)
                .await;
            if let (ReadinessStatus::Warm, Some(record)) =
                (readiness.status, &mut readiness.prepared)
            {
                record.last_verified_at = now();
                records.write(&entry, record)?;
                return Ok(PrepareReport {
                    reused: true,
                    readiness,
                });
            }
        }
        let earlier = records.read(&entry).filter(|_| !options.force);
        records.remove(&entry)?;
        let proof = self.prove(&environment, &options, progress).await?;
        let probe = supervisor::probe(self.settings(), false).await?;
        let mut record = recorded(&environment, proof, &probe, pulled, &options);
        if let Some(earlier) = earlier {
            record.carry_over(earlier);
        }
        records.write(&entry, &record)?;
        let readiness = self
            .readiness_on(&entry.name, options.wanted(), &probe)
            .await;
        Ok(PrepareReport {
            reused: false,
            readiness,
        })
    }

    /// Creates a machine, runs a command in it and discards it.
    async fn prove(
        &self,
        environment: &ReadyEnvironment,
        options: &PrepareOptions,
        progress: &ProgressSink,
    ) -> Result<Proof, Error> {
        let start = self.warm(environment, options.force);
        let network = options.network;
        let ordered = Instant::now();
        let mut machine = Machine::begin(self, environment, start, &options.machine())?;
        phase(progress, "create", format!("vm_id={}", machine.id()));
        let proven = prove_in(&mut machine, ordered, network, progress).await;
        phase(progress, "delete", format!("vm_id={}", machine.id()));
        let ending = Instant::now();
        // Nothing in a machine that is thrown away is worth an orderly end.
        let ended = machine.stop(false).await;
        let mut proof = proven?;
        ended?;
        proof.timings.delete = millis(ending.elapsed());
        Ok(proof)
    }

    pub(crate) fn prepared_records(&self) -> PreparedRecords {
        PreparedRecords::of(&self.store())
    }
}

/// What a machine has shown.
struct Proof {
    ready: Ready,
    timings: PrepareTimings,
}

async fn prove_in(
    machine: &mut Machine,
    ordered: Instant,
    network: bool,
    progress: &ProgressSink,
) -> Result<Proof, Error> {
    let vm_id = format!("vm_id={}", machine.id());
    let ready = machine
        .wait_ready(|stage| {
            if let "template" | "boot" | "restore" = stage {
                phase(progress, stage.to_owned(), vm_id.clone());
            }
        })
        .await?
        .clone();
    let boot = ready.boot_ms;
    let create = millis(ordered.elapsed()).saturating_sub(boot);
    phase(progress, "exec", vm_id.clone());
    let begun = Instant::now();
    run_proof(machine).await?;
    let exec = millis(begun.elapsed());
    if network {
        phase(progress, "network", vm_id);
        find_card(machine).await?;
    }
    Ok(Proof {
        ready,
        timings: PrepareTimings {
            create,
            boot,
            exec,
            ..PrepareTimings::default()
        },
    })
}

/// Runs the command of the proof as the environment's image says that commands are run.
async fn run_proof(machine: &mut Machine) -> Result<(), Error> {
    let mut exec = machine
        .exec(&ExecOptions::new(Program::argv(PROOF)))
        .await?;
    let mut answer = Vec::new();
    let end = loop {
        match exec.next().await {
            Ok(ExecOutput::Stdout(bytes)) => {
                let room = MAX_ANSWER.saturating_sub(answer.len());
                answer.extend(bytes.into_iter().take(room));
            }
            Ok(ExecOutput::Stderr(_)) => {}
            Ok(ExecOutput::End(end)) => break end,
            Err(error) => return Err(machine.why_ended(error).await),
        }
    };
    if let Some(reply) = end.error {
        return Err(Error::Guest(reply));
    }
    if end.exit_code != 0 || answer.trim_ascii_end() != pyro_guest::AGENT_BUILD_ID.as_bytes() {
        return Err(Error::Unreachable {
            reason: format!(
                "its own program ended with {} and told the build {:?}",
                end.exit_code,
                String::from_utf8_lossy(&answer)
            ),
        });
    }
    Ok(())
}

/// The agent configures the card before it says hello, or fails; here it is seen.
async fn find_card(machine: &mut Machine) -> Result<(), Error> {
    let reply = machine.ask(&json!({"action": "metrics"})).await?;
    let metrics: Metrics =
        serde_json::from_value(reply).map_err(|error| Error::unreachable(&error))?;
    if metrics.network.iter().all(|card| card.name == LOOPBACK) {
        return Err(Error::Unreachable {
            reason: "it has no network card, although one was asked for".into(),
        });
    }
    Ok(())
}

fn recorded(
    environment: &ReadyEnvironment,
    proof: Proof,
    probe: &ProbeReport,
    pulled: Duration,
    options: &PrepareOptions,
) -> PreparedRecord {
    let now = now();
    let Proof { ready, timings } = proof;
    let engine = PreparedEngine::of(ready.engine, probe);
    let template = ready.template.as_ref().map(|key| PreparedTemplate {
        engine: engine.clone(),
        key: key.clone(),
        network: options.network,
        vcpu_count: options.vcpu_count,
        mem_mib: options.mem_mib,
    });
    PreparedRecord {
        schema: record::SCHEMA,
        environment: environment.name.clone(),
        environment_version: environment.version.clone(),
        platform: PLATFORM.into(),
        artifacts: PreparedArtifacts {
            rootfs: environment.root_digest,
            kernel: environment.boot.kernel_digest,
            agent: pyro_guest::AGENT_BUILD_ID.into(),
        },
        product_version: env!("CARGO_PKG_VERSION").into(),
        firecracker_version: match engine.name {
            EngineChoice::Firecracker => engine.version.clone(),
            EngineChoice::QemuKvm | EngineChoice::QemuTcg | EngineChoice::Auto => None,
        },
        engine,
        network_prepared: options.network,
        started: ready.started,
        template: ready.template,
        not_warm: ready.not_warm,
        templates: template.into_iter().collect(),
        prepared_at: now,
        last_verified_at: now,
        timings_ms: PrepareTimings {
            pull: millis(pulled),
            ..timings
        },
    }
}

fn phase(progress: &ProgressSink, phase: impl Into<Cow<'static, str>>, detail: String) {
    progress(Progress::Phase {
        phase: phase.into(),
        detail,
    });
}

/// Seconds since the epoch.
fn now() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
