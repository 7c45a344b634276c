//! Random sequences of operations on a workspace against a plain model in memory: trees, logs and states.
//!
//! `PYRO_MODEL_STEPS` and `PYRO_MODEL_SEED` set how many and from where the random numbers go on.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use pyro::tree::Overwrite;
use pyro::workspace::{
    CreateOptions, DiffOptions, DiffStatus, ExportOptions, FileEdit, PatchOptions, SnapshotName,
    SyncPushOptions, Workspace, WorkspaceState,
};
use pyro::{ExecOptions, Program, ProgressSink};
use pyro_testing::{World, traces};

use super::sdk::pyro;
use super::world;

/// Steps if nobody asks for more.
const STEPS: u64 = 40;

/// Files by their paths.
type Tree = BTreeMap<String, String>;

/// What a workspace should be.
#[derive(Clone, Debug, Default)]
struct Model {
    tree: Tree,
    snapshots: BTreeMap<String, Tree>,
    state: Option<WorkspaceState>,
    commands: u64,
    resets: u64,
}

/// Xorshift: the same numbers for the same seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }

    fn path(&mut self) -> String {
        const PATHS: [&str; 8] = [
            "a",
            "b",
            "dir/a",
            "dir/b",
            "dir/deep/c",
            "with space/d",
            "\u{e4}",
            "dir2/x'y\"z",
        ];
        PATHS[self.next(PATHS.len())].to_owned()
    }

    fn text(&mut self) -> String {
        let lines = self.next(5);
        let mut text = String::new();
        for at in 0..lines {
            writeln!(text, "line {at} {}", self.next(9)).unwrap();
        }
        if self.next(3) == 0 {
            text.push_str("no end");
        }
        text
    }
}

struct Run<'a> {
    world: &'a World,
    workspace: Workspace,
    model: Model,
    numbers: Numbers,
    step: u64,
}

fn quiet() -> ProgressSink {
    pyro::progress::ignore()
}

impl Run<'_> {
    async fn one(&mut self) -> String {
        let up = self.model.state == Some(WorkspaceState::Started);
        match self.numbers.next(12) {
            0 if self.model.state == Some(WorkspaceState::Stopped) => {
                self.workspace.start(&quiet()).await.unwrap();
                self.model.state = Some(WorkspaceState::Started);
                "start".into()
            }
            1 => {
                self.workspace.stop().await.unwrap();
                self.model.state = Some(WorkspaceState::Stopped);
                "stop".into()
            }
            2 => self.reset().await,
            3 if up => {
                self.workspace.pause().await.unwrap();
                self.workspace.resume().await.unwrap();
                "pause".into()
            }
            4 if up => {
                let name = format!("s{}", self.step);
                let snapshot = SnapshotName::parse(&name).unwrap();
                let with_memory = self.numbers.next(2) == 0;
                self.workspace
                    .create_snapshot(&snapshot, with_memory)
                    .await
                    .unwrap();
                self.model
                    .snapshots
                    .insert(name.clone(), self.model.tree.clone());
                format!("snapshot {name}")
            }
            5 if up => self.remove().await,
            6 if up => self.patch().await,
            7 if up => self.push().await,
            8 if up => self.edit().await,
            _ if up => {
                let (path, text) = (self.numbers.path(), self.numbers.text());
                self.workspace.write_file(&path, &text).await.unwrap();
                self.model.tree.insert(path.clone(), text);
                format!("write {path}")
            }
            _ => {
                let refused = self.workspace.write_file("a", "x").await.unwrap_err();
                assert_eq!(refused.code(), pyro::ErrorCode::FailedPrecondition);
                self.workspace.start(&quiet()).await.unwrap();
                self.model.state = Some(WorkspaceState::Started);
                "refused and started".into()
            }
        }
    }

    async fn reset(&mut self) -> String {
        let names: Vec<String> = self.model.snapshots.keys().cloned().collect();
        let name = names[self.numbers.next(names.len())].clone();
        let snapshot = SnapshotName::parse(&name).unwrap();
        self.workspace.reset(&snapshot, &quiet()).await.unwrap();
        self.model.tree = self.model.snapshots[&name].clone();
        self.model.state = Some(WorkspaceState::Started);
        self.model.commands = 0;
        self.model.resets += 1;
        format!("reset {name}")
    }

    async fn remove(&mut self) -> String {
        let path = self.numbers.path();
        let argv = Program::argv(["rm", "-f", "--", path.as_str()]);
        self.workspace
            .exec_to_end(&ExecOptions::new(argv))
            .await
            .unwrap();
        self.model.tree.remove(&path);
        self.model.commands += 1;
        format!("rm {path}")
    }

    async fn edit(&mut self) -> String {
        let path = self.numbers.path();
        let edit = FileEdit {
            old_text: "line 0".into(),
            new_text: "edited".into(),
            replace_all: false,
        };
        let done = self.workspace.edit_file(&path, &edit).await;
        match self.model.tree.get_mut(&path) {
            Some(text) if text.contains("line 0") => {
                done.unwrap();
                *text = text.replacen("line 0", "edited", 1);
            }
            _ => drop(done.unwrap_err()),
        }
        format!("edit {path}")
    }

    /// Makes the tree of a snapshot again by the patch that leads there.
    async fn patch(&mut self) -> String {
        let before = self.model.tree.clone();
        let (path, text) = (self.numbers.path(), self.numbers.text());
        let marker = SnapshotName::parse("before-patch").unwrap();
        // One of an earlier patch may be there.
        let _ = self.workspace.delete_snapshot(&marker).await;
        self.workspace
            .create_snapshot(&marker, false)
            .await
            .unwrap();
        self.workspace.write_file(&path, &text).await.unwrap();
        let options = DiffOptions {
            from: Some(marker.clone()),
            ..DiffOptions::default()
        };
        let diff = self.workspace.diff(&options).await.unwrap();
        self.workspace.reset(&marker, &quiet()).await.unwrap();
        self.model.commands = 0;
        self.model.resets += 1;
        self.workspace.delete_snapshot(&marker).await.unwrap();
        if before.get(&path) == Some(&text) {
            assert!(!diff.changed);
        } else {
            let applied = self
                .workspace
                .apply_patch(diff.patch.as_bytes(), &PatchOptions::default())
                .await
                .unwrap_or_else(|error| panic!("{:#?}\n{}", error.details(), diff.patch));
            assert!(applied.changed);
            self.model.tree.insert(path.clone(), text);
        }
        format!("patch {path}")
    }

    async fn push(&mut self) -> String {
        let source = self.world.home().join(format!("push-{}", self.step));
        let mut pushed = Tree::new();
        for _ in 0..self.numbers.next(4) {
            pushed.insert(self.numbers.path(), self.numbers.text());
        }
        for (path, text) in &pushed {
            let at = source.join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, text).unwrap();
        }
        fs::create_dir_all(&source).unwrap();
        let delete = self.numbers.next(2) == 0;
        let options = SyncPushOptions {
            delete,
            ..SyncPushOptions::default()
        };
        self.workspace
            .sync_push(&source, &options, &quiet())
            .await
            .unwrap();
        if delete {
            self.model.tree.clear();
        }
        self.model.tree.extend(pushed);
        format!("push, delete: {delete}")
    }

    /// Compares everything that can be seen.
    async fn compare(&self, story: &str) {
        let status = self.workspace.status().await.unwrap();
        assert_eq!(Some(status.state), self.model.state, "{story}");
        assert_eq!(status.command_count, self.model.commands, "{story}");
        assert_eq!(status.reset_count, self.model.resets, "{story}");
        let snapshots = self.workspace.list_snapshots().await.unwrap();
        assert_eq!(snapshots.count, self.model.snapshots.len(), "{story}");
        if status.state != WorkspaceState::Started {
            return;
        }
        let output = self.world.home().join("seen");
        let options = ExportOptions {
            overwrite: Overwrite::Replace,
            ..ExportOptions::default()
        };
        self.workspace
            .export(&["/workspace".into()], &output, &options, &quiet())
            .await
            .unwrap();
        let mut seen = Tree::new();
        read(&output, "", &mut seen);
        assert_eq!(seen, self.model.tree, "{story}");
        let diff = self.workspace.diff(&DiffOptions::default()).await.unwrap();
        let files = diff
            .entries
            .iter()
            .filter(|entry| entry.artifact_type == pyro_protocol::files::ArtifactType::File);
        let told: Vec<_> = files
            .map(|entry| (entry.path.clone(), entry.status))
            .collect();
        let model: Vec<_> = self
            .model
            .tree
            .keys()
            .map(|path| (path.clone(), DiffStatus::Added))
            .collect();
        assert_eq!(told, model, "{story}");
    }
}

fn read(at: &std::path::Path, below: &str, into: &mut Tree) {
    for entry in fs::read_dir(at).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read(&entry.path(), &format!("{name}/"), into);
        } else {
            into.insert(name, fs::read_to_string(entry.path()).unwrap());
        }
    }
}

#[tokio::test]
async fn random_operations_do_what_a_plain_model_does() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed: u64 = setting("PYRO_MODEL_SEED").unwrap_or(since.as_secs());
    let steps: u64 = setting("PYRO_MODEL_STEPS").unwrap_or(STEPS);
    let world = world();
    let entrance = pyro(&world);
    let made = entrance
        .create_workspace(CreateOptions::new("debian:12"), &quiet())
        .await
        .unwrap();
    let mut run = Run {
        world: &world,
        workspace: entrance.workspace(&made.workspace_id).await.unwrap(),
        model: Model {
            snapshots: BTreeMap::from([("baseline".to_owned(), Tree::new())]),
            state: Some(WorkspaceState::Started),
            ..Model::default()
        },
        numbers: Numbers(seed.max(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        step: 0,
    };
    let mut done = Vec::new();
    for step in 0..steps {
        run.step = step;
        let what = run.one().await;
        done.push(what);
        run.compare(&format!("seed {seed}: {}", done.join("; ")))
            .await;
    }
    run.workspace.delete().await.unwrap();
    traces::assert_none(&world);
}
