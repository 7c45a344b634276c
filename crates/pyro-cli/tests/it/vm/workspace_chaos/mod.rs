//! `kill -9` of clients, MCP servers, supervisors and VMMs at random moments of everything that is done to workspaces.
//!
//! After each round: listing works, each workspace can be used or says why not, what was told as done is there, every tree in a guest
//! and on this host is as it was or as it should be, and nothing is left over. `PYRO_CHAOS_ROUNDS` and `PYRO_CHAOS_SEED` set how often
//! and from where the random numbers go on.

mod client;
mod survey;
mod trees;
mod work;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyro::Pyro;
use pyro::tree::SeedSource;
use pyro::workspace::{CreateOptions, SeedOptions, SeedOrigin};
use pyro_testing::{World, traces};

use self::client::{Client, kill};
use self::trees::Tree;
use self::work::{EDITED, HostPaths, Task, WORKS, Work};
use super::sdk::pyro;
use super::world;

/// Rounds if nobody asks for more.
const ROUNDS: u64 = 12;

/// How long an operation takes before one was seen.
const USUAL: Duration = Duration::from_millis(800);

/// Xorshift: the same numbers for the same seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.next(all.len() as u64)).unwrap()]
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Client,
    Server,
    Supervisor,
    Vmm,
}

const VICTIMS: [Victim; 4] = [
    Victim::Client,
    Victim::Server,
    Victim::Supervisor,
    Victim::Vmm,
];

/// What may be in one place when a round is over: what was there, and what the work makes of it.
#[derive(Debug)]
struct Change {
    before: Tree,
    after: Tree,
}

impl Change {
    fn of(before: Tree, after: impl FnOnce(&Tree) -> Tree) -> Self {
        let after = after(&before);
        Self { before, after }
    }

    /// What is finished is there.
    fn allowed(&self, done: bool) -> Vec<Tree> {
        if done {
            vec![self.after.clone()]
        } else {
            vec![self.before.clone(), self.after.clone()]
        }
    }
}

/// All that is known, from round to round.
struct Chaos {
    world: World,
    entrance: Pyro,
    paths: HostPaths,
    numbers: Numbers,
    /// The workspace that rounds begin with, which began with the project.
    main: Option<String>,
    /// What is in each workspace.
    trees: BTreeMap<String, Tree>,
    /// What all begin with but those that a round makes.
    baseline: Tree,
    /// How long each work takes that nobody disturbs, as far as it was seen.
    usual: BTreeMap<(Work, bool), Duration>,
    /// Works and victims that were met, and how many of them were finished all the same.
    met: BTreeMap<(Work, Victim), (u64, u64)>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let world = world();
        let paths = HostPaths::of(world.home().join("host"));
        fs::create_dir_all(paths.root().join("out")).unwrap();
        let mut baseline = trees::version(0);
        baseline.insert(EDITED.into(), "text".into());
        trees::commit(&paths.project(), &baseline);
        let (project, checkout) = (paths.project(), paths.checkout());
        let words = [
            "clone",
            "-q",
            project.to_str().unwrap(),
            checkout.to_str().unwrap(),
        ];
        trees::git(paths.root(), &words);
        Self {
            entrance: pyro(&world),
            world,
            paths,
            numbers: Numbers(seed.max(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            main: None,
            trees: BTreeMap::new(),
            baseline,
            usual: BTreeMap::new(),
            met: BTreeMap::new(),
        }
    }

    /// The one workspace that a round begins with. Others are deleted, so that rounds stay alike.
    async fn one(&mut self) -> String {
        let main = self.main.take().filter(|id| self.trees.contains_key(id));
        for extra in self.trees.keys().filter(|id| Some(*id) != main.as_ref()) {
            let extra = self.entrance.workspace(extra).await.unwrap();
            extra.delete().await.unwrap();
        }
        self.trees.retain(|id, _| Some(id) == main.as_ref());
        let id = if let Some(id) = main {
            id
        } else {
            self.created().await
        };
        self.main = Some(id.clone());
        id
    }

    /// A new workspace that begins with the project.
    async fn created(&mut self) -> String {
        let mut options = CreateOptions::new("debian:12");
        let source = SeedSource::GitCheckout {
            path: self.paths.project(),
            untracked: false,
        };
        options.seed = SeedOptions::new(source, SeedOrigin::ManualSeedPath);
        let quiet = pyro::progress::ignore();
        let made = self.entrance.create_workspace(options, &quiet).await;
        let id = made.unwrap().workspace_id;
        self.trees.insert(id.clone(), self.baseline.clone());
        id
    }

    async fn round(&mut self, round: usize, story: &str) {
        let id = self.one().await;
        let (work, victim) = (self.numbers.of(&WORKS), self.numbers.of(&VICTIMS));
        let before = self.trees[&id].clone();
        let next = trees::version(round + 1);
        let source = trees::merged(&next, &Tree::from([(EDITED.into(), format!("of {round}"))]));
        trees::write(&self.paths.source(), &source);
        let patch = trees::patch(&before, &trees::replaced(&before, &next));
        fs::write(self.paths.patch(), patch).unwrap();
        trees::git(&self.paths.checkout(), &["reset", "-q", "--hard"]);
        trees::git(&self.paths.checkout(), &["clean", "-fdxq"]);
        let task = Task {
            work,
            id: id.clone(),
            mark: format!("m{round}"),
            edited: before.get(EDITED).cloned().unwrap_or_default(),
            paths: self.paths.clone(),
        };
        // What the server has no tool for is killed as a client.
        let call = task.call().filter(|_| victim == Victim::Server);
        let by_server = call.is_some();
        if by_server {
            // Its tools replace nothing on this host.
            let _ = fs::remove_dir_all(self.paths.exported());
        }
        let guest = Change::of(before.clone(), |before| {
            self.after(&task, before, &next, &source, by_server)
        });
        let pulled = Change::of(trees::read(&self.paths.pulled()), |there| {
            if work == Work::Pull {
                trees::merged(there, &before)
            } else {
                there.clone()
            }
        });
        let exported = Change::of(trees::read(&self.paths.exported()), |there| {
            let is_new = work == Work::ExportTree;
            if is_new {
                before.clone()
            } else {
                there.clone()
            }
        });
        let archive = Change::of(trees::in_archive(&self.paths.archive()), |there| {
            let is_new = work == Work::ExportTar;
            if is_new {
                before.clone()
            } else {
                there.clone()
            }
        });
        let checkout = Change::of(trees::read(&self.paths.checkout()), |there| {
            let is_new = work == Work::ApplyToHost;
            if is_new {
                before.clone()
            } else {
                there.clone()
            }
        });

        let usual = self.usual.entry((work, by_server)).or_insert(USUAL);
        let longest = u64::try_from(usual.as_millis()).unwrap() * 5 / 4;
        let moment = Duration::from_millis(self.numbers.next(longest.max(20)));
        let story = format!("{story}: {work:?}, {victim:?} after {moment:?}");
        let mut client = match call {
            Some(call) => Client::of_server(&self.world, &task, call).await,
            None => Client::of_sdk(&self.world, &task).await,
        };
        let ended = if let Some(ended) = client.ends_within(moment).await {
            kill(&client.pid());
            ended
        } else {
            match victim {
                Victim::Client | Victim::Server => kill(&client.pid()),
                Victim::Supervisor => kill(&traces::supervisors(&self.world)),
                Victim::Vmm => kill(&traces::vmms(&self.world)),
            }
            client.ends(&story).await
        };
        let done = ended.done;
        if done {
            self.usual.insert((work, by_server), ended.took);
        }
        let met = self.met.entry((work, victim)).or_default();
        *met = (met.0 + 1, met.1 + u64::from(done));
        let story = format!("{story}, done: {done}, {}", ended.told);

        survey::git_ends(&self.paths.checkout());
        let allowed = BTreeMap::from([(id.clone(), guest.allowed(done))]);
        let others = match work {
            Work::CreateFromDirectory => vec![source],
            Work::CreateFromCheckout => vec![self.baseline.clone()],
            Work::Fork => vec![before.clone()],
            _ => Vec::new(),
        };
        self.trees = survey::workspaces(&self.entrance, &allowed, &others, &story).await;
        let kept = usize::from(!(work == Work::Delete && done));
        let made = match work {
            Work::CreateFromDirectory | Work::CreateFromCheckout => 1,
            Work::Fork => 2,
            _ => 0,
        };
        let count = self.trees.len();
        match (work, done) {
            (Work::Delete, false) => assert!(count <= 1, "{story}"),
            (_, true) => assert_eq!(count, kept + made, "{story}"),
            (_, false) => assert!((1..=1 + made).contains(&count), "{story}: {count}"),
        }
        for (what, change) in [
            (self.paths.pulled(), pulled),
            (self.paths.exported(), exported),
        ] {
            survey::host(&what, &change.allowed(done), trees::read, &story);
        }
        let what = self.paths.archive();
        survey::host(&what, &archive.allowed(done), trees::in_archive, &story);
        let what = self.paths.checkout();
        survey::host(&what, &checkout.allowed(done), trees::read, &story);
        survey::leftovers(&self.world, &self.entrance, &self.paths, &story).await;
    }

    /// What a work makes of the guest's tree.
    fn after(
        &self,
        task: &Task,
        before: &Tree,
        next: &Tree,
        source: &Tree,
        by_server: bool,
    ) -> Tree {
        let with = |path: &str| {
            let mark = task.mark.clone();
            trees::merged(before, &Tree::from([(path.to_owned(), mark)]))
        };
        match task.work {
            Work::Exec | Work::Job | Work::Write => with(&task.mark),
            Work::Edit => with(EDITED),
            Work::Push if by_server => trees::merged(before, source),
            Work::Push | Work::Patch => trees::replaced(before, next),
            Work::Reset => self.baseline.clone(),
            Work::CreateFromDirectory
            | Work::CreateFromCheckout
            | Work::Pull
            | Work::ExportTree
            | Work::ExportTar
            | Work::ApplyToHost
            | Work::Snapshot
            | Work::Fork
            | Work::StopStart
            | Work::Pause
            | Work::Delete => before.clone(),
        }
    }
}

#[tokio::test]
async fn nothing_finished_is_lost_and_nothing_is_left_whoever_is_killed() {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = setting("PYRO_CHAOS_SEED").unwrap_or(since.as_secs());
    let rounds = setting("PYRO_CHAOS_ROUNDS").unwrap_or(ROUNDS);
    let mut chaos = Chaos::new(seed);
    for round in 0..usize::try_from(rounds).unwrap() {
        let story = format!("seed {seed}, round {round}");
        chaos.round(round, &story).await;
    }
    let all = pyro::workspace::Labels::new();
    chaos.entrance.delete_workspaces(&all).await.unwrap();
    traces::assert_none(&chaos.world);
    for name in ["workspaces", "snapshots", "seeds"] {
        let left: Vec<_> = fs::read_dir(chaos.world.state().join(name))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        assert!(left.is_empty(), "seed {seed}: {left:?}");
    }
    println!(
        "seed {seed}, (work, victim): (rounds, finished): {:#?}",
        chaos.met
    );
}
