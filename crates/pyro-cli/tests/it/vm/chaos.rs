//! SIGKILL at random moments of everything that a machine goes through, of the client, of a
//! supervisor, of a VMM: nothing is left, what lives works, what died says why, and what was
//! finished is whole.
//!
//! `PYRO_CHAOS_ROUNDS` says how many kills there are, `PYRO_CHAOS_SEED` repeats the moments of
//! another run.

mod client;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pyro::{MachineOptions, Pyro, StartKind, TemplatePruneOptions};
use pyro_testing::{World, traces};
use rustix::process::{Pid, Signal, kill_process};

use super::lifecycle::client as sdk;
use super::sdk::output;
use client::{Client, Operation, Report};

/// Kills of an ordinary run of the suite.
const ROUNDS: usize = 12;

/// Time between two looks for somebody to kill.
const LOOK: Duration = Duration::from_millis(1);

/// Moments go a little beyond the operation's usual end: it may take longer this time.
const BEYOND: f64 = 1.1;

#[derive(Clone, Copy, Debug)]
enum Victim {
    Client,
    Supervisor,
    Vmm,
}

const VICTIMS: [Victim; 3] = [Victim::Client, Victim::Supervisor, Victim::Vmm];

/// Where the test is: its own templates, its own snapshots.
struct Scene {
    world: World,
    pyro: Pyro,
    snapshots: PathBuf,
    /// A snapshot that no round touches.
    kept: PathBuf,
    /// The ids of all machines that were seen, for what has their names.
    seen: BTreeSet<String>,
}

#[tokio::test]
async fn whoever_is_killed_whenever_nothing_is_left() {
    if client::run(sdk_at).await {
        return;
    }
    let rounds = number("PYRO_CHAOS_ROUNDS").map_or(ROUNDS, |rounds| {
        usize::try_from(rounds).expect("a number of rounds")
    });
    let seed = number("PYRO_CHAOS_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(since.subsec_nanos())
    });
    tell(format_args!("PYRO_CHAOS_SEED={seed}"));
    let mut random = Random(seed);
    let mut scene = Scene::new();
    let mut usual = Vec::new();
    for operation in Operation::ALL {
        usual.push(scene.undisturbed(operation).await);
    }
    tell(format_args!("usual: {usual:?}"));
    let first = random.below(Operation::ALL.len() * VICTIMS.len());
    let offset = random.fraction();
    for round in 0..rounds {
        // 5 has no divisor in common with the number of pairs, so that all have their turn.
        let pair = (first + round * 5) % (Operation::ALL.len() * VICTIMS.len());
        let operation = pair % Operation::ALL.len();
        let victim = VICTIMS[pair / Operation::ALL.len()];
        // Multiples of the golden ratio spread evenly, however many there are.
        let turn = f64::from(u32::try_from(round).expect("not so many rounds"));
        let part = (offset + turn * 0.618_034).fract();
        let moment = usual[operation].mul_f64(part * BEYOND);
        let story = format!(
            "round {round}: {:?}, {victim:?} killed after {moment:?}",
            Operation::ALL[operation]
        );
        tell(format_args!("{story}"));
        scene
            .round(
                round,
                Operation::ALL[operation],
                victim,
                moment,
                &mut random,
            )
            .await;
    }
    scene.everything_finished_is_usable().await;
    traces::assert_none(&scene.world);
}

impl Scene {
    fn new() -> Self {
        let world = World::with_own_templates(env!("CARGO_BIN_EXE_pyro"));
        let snapshots = world.home().join("snapshots");
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&snapshots)
            .unwrap();
        Self {
            pyro: sdk(&world),
            kept: snapshots.join("kept"),
            snapshots,
            world,
            seen: BTreeSet::new(),
        }
    }

    /// Prepares what `operation` needs, outside the process that does it.
    async fn prepare(&self, operation: Operation) {
        if operation == Operation::Make {
            let all = TemplatePruneOptions {
                all: true,
                ..TemplatePruneOptions::default()
            };
            self.pyro.prune_templates(all).await.unwrap();
            assert!(self.pyro.list_templates().await.unwrap().is_empty());
        }
        if operation == Operation::Restore && !self.kept.exists() {
            let mut source = super::lifecycle::started(&self.pyro, &options()).await;
            source.snapshot(&self.kept).await.unwrap();
            source.stop(false).await.unwrap();
        }
    }

    /// How long `operation` takes when nobody is killed.
    async fn undisturbed(&self, operation: Operation) -> Duration {
        self.prepare(operation).await;
        let target = self.snapshots.join("undisturbed");
        let mut client = Client::start(&self.world, operation, &target, &self.kept);
        let begun = client.go();
        let done = client.report();
        let took = begun.elapsed();
        assert!(matches!(done, Report::Done), "{operation:?}: {done:?}");
        for report in client.check() {
            assert!(matches!(report, Report::Works), "{operation:?}: {report:?}");
        }
        client.finish();
        traces::assert_none(&self.world);
        took
    }

    async fn round(
        &mut self,
        round: usize,
        operation: Operation,
        victim: Victim,
        moment: Duration,
        random: &mut Random,
    ) {
        self.prepare(operation).await;
        let target = self.snapshots.join(round.to_string());
        let mut client = Client::start(&self.world, operation, &target, &self.kept);
        let begun = client.go();
        std::thread::sleep(moment.saturating_sub(begun.elapsed()));
        let mut done = None;
        let killed = loop {
            self.note_machines();
            let there = match victim {
                Victim::Client => vec![client.pid()],
                Victim::Supervisor => traces::supervisors(&self.world),
                Victim::Vmm => traces::vmms(&self.world),
            };
            if !there.is_empty() {
                break kill(there[random.below(there.len())]);
            }
            // Nobody to kill yet, or not any more.
            done = client.said();
            if done.is_some() {
                break false;
            }
            std::thread::sleep(LOOK);
        };
        if matches!(victim, Victim::Client) {
            client.gone();
        } else {
            let done = done.unwrap_or_else(|| client.report());
            let mut told = vec![done];
            told.extend(client.check());
            tell(format_args!("  {told:?}"));
            for report in told {
                match report {
                    Report::Done | Report::Works => {}
                    Report::Failed(why) | Report::Dead(why) => {
                        assert!(killed, "nobody was killed, and yet: {why}");
                        assert!(says_why(victim, &why), "killed {victim:?}, told: {why}");
                    }
                }
            }
            client.finish();
        }
        self.note_machines();
        if matches!(victim, Victim::Supervisor) {
            // Nobody else is left to clear: the next command does.
            self.world.pyro(&["gc", "--json"]).run().json();
        }
        traces::assert_none(&self.world);
        self.assert_no_remains();
    }

    /// What lies outside the machines' own directories.
    fn assert_no_remains(&self) {
        traces::wait_until(
            || self.remains().is_empty(),
            || format!("left behind: {:#?}", self.remains()),
        );
    }

    fn remains(&self) -> Vec<PathBuf> {
        let unfinished = [self.world.cache().join("templates"), self.snapshots.clone()];
        let mut found: Vec<PathBuf> = unfinished
            .iter()
            .flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten())
            .filter(|entry| entry.file_name().to_string_lossy().starts_with('.'))
            .map(|entry| entry.path())
            .collect();
        found.extend(traces::cgroups(&self.seen));
        found.extend(traces::mounts(self.world.home()));
        found
    }

    fn note_machines(&mut self) {
        let machines = fs::read_dir(self.world.state().join("machines"));
        let names = machines.into_iter().flatten().flatten();
        self.seen
            .extend(names.filter_map(|entry| entry.file_name().into_string().ok()));
    }

    async fn everything_finished_is_usable(&self) {
        let mut count = 0;
        for entry in fs::read_dir(&self.snapshots).unwrap().flatten() {
            let path = entry.path();
            let (options, quiet) = (options(), pyro::progress::ignore());
            let machine = self
                .pyro
                .restore_machine("debian:12", &path, false, &options, &quiet);
            let mut machine = machine.await.unwrap();
            let ready = machine.wait_ready(|_| {}).await;
            assert!(ready.is_ok(), "{}: {ready:?}", path.display());
            assert_eq!(output(&mut machine, "echo alive").await.0, "alive\n");
            machine.stop(false).await.unwrap();
            count += 1;
        }
        tell(format_args!("{count} snapshots are whole"));
        for template in self.pyro.list_templates().await.unwrap() {
            assert_eq!(template.reason, None, "{template:?}");
        }
        // The first makes one if the last round left none.
        for _ in 0..2 {
            let mut machine = super::lifecycle::started(&self.pyro, &options()).await;
            assert_eq!(output(&mut machine, "echo alive").await.0, "alive\n");
            let began = machine.ready().unwrap().started;
            let warm = matches!(began, StartKind::Warm | StartKind::Made);
            assert!(warm, "{began:?}");
            machine.stop(false).await.unwrap();
        }
    }
}

fn options() -> MachineOptions {
    MachineOptions {
        mem_mib: 256,
        ..MachineOptions::default()
    }
}

/// Kills a process at once; `false` if it was gone already.
fn kill(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::KILL).is_ok()
}

fn says_why(victim: Victim, why: &str) -> bool {
    match victim {
        Victim::Client => false,
        Victim::Supervisor => why.contains("supervisor"),
        Victim::Vmm => why.contains("VMM") || why.contains("signal 9"),
    }
}

/// Says what a failed run is repeated with; the runner shows it then.
#[expect(
    clippy::print_stdout,
    reason = "the runner keeps what a test says for its failure"
)]
fn tell(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().expect("a number"))
}

/// Numbers that a seed repeats: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn fraction(&mut self) -> f64 {
        let high = u32::try_from(self.next() >> 32).expect("half of it");
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }
}

fn sdk_at(home: &Path) -> Pyro {
    let mut settings = pyro::Settings::new(
        pyro::Home::new(home.join("cache"), home.join("state"), home.join("run")),
        env!("CARGO_BIN_EXE_pyro").into(),
        std::env::var("PATH").unwrap(),
    );
    settings.engine = super::lifecycle::engine();
    Pyro::new(settings)
}
