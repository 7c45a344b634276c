//! Imports whose process is killed: what it left is brought to its end by another one, as a whole or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pyro_archive::beneath::{Relative, Root};
use pyro_archive::extract::ledger::Ledger;
use pyro_archive::extract::options::{Options, Progress};
use pyro_archive::extract::{Edit, ExtractError, Noting, Replacing, Stage, Survives, recover};
use pyro_testing::forge::{Entry, Forge};
use tempfile::TempDir;

use crate::world::reader;

/// Directories and files in each.
const DIRECTORIES: usize = 12;
const FILES: usize = 24;

/// Longest search for kills at every stage of an import.
const PATIENCE: Duration = Duration::from_mins(1);

type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// All that is below a directory.
fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let found = path.symlink_metadata().unwrap();
            let content = if found.is_dir() {
                open.push(path.clone());
                b"directory".to_vec()
            } else {
                fs::read(&path).unwrap()
            };
            let below = path.strip_prefix(root).unwrap().to_owned();
            tree.insert(below, (found.permissions().mode() & 0o7777, content));
        }
    }
    tree
}

fn old(root: &Path) {
    for directory in 0..DIRECTORIES {
        let directory = root.join(format!("d{directory}"));
        fs::create_dir_all(&directory).unwrap();
        for file in 0..FILES {
            fs::write(directory.join(format!("f{file}")), "old").unwrap();
        }
    }
}

/// An archive and a list of what goes that change something of every kind in each directory.
fn change() -> (Vec<u8>, Vec<u8>) {
    let (mut forge, mut edits) = (Forge::new(), Vec::new());
    for directory in 0..DIRECTORIES {
        let root = format!("d{directory}");
        let mode = Entry::new(b'5', format!("{root}/")).mode(0o711);
        forge = forge.entry(mode).file(&format!("{root}/new"), "new");
        for file in 0..FILES {
            let path = format!("{root}/f{file}");
            let edit = match file % 4 {
                0 => {
                    forge = forge.file(&path, "new");
                    continue;
                }
                1 => Edit::Remove {
                    path: path.into(),
                    prune: true,
                },
                2 => Edit::Move {
                    from: path.into(),
                    to: format!("moved/{directory}/{file}").into(),
                },
                _ => continue,
            };
            edit.write(&mut edits);
        }
    }
    // One that is left empty, and a file in its place.
    for file in 0..FILES {
        let path = format!("d0/f{file}").into_bytes();
        if file % 4 == 3 || file % 4 == 0 {
            Edit::Remove { path, prune: true }.write(&mut edits);
        }
    }
    (forge.finish(), edits)
}

/// What the same change makes in one process.
fn import(root: &Path, ledger: &Path, archive: &[u8], edits: &[u8]) -> Result<(), ExtractError> {
    let noting = Noting {
        ledger: Ledger::new(ledger.to_owned()),
        survives: Survives::Process,
    };
    let progress = Progress::default();
    let opened = Root::open(root).unwrap();
    let mut stage = Stage::open_noted(opened, Relative::root(), &noting)?;
    stage.take_edits(&mut &*edits, edits.len() as u64, 10_000)?;
    let mut extractor = stage.extractor(Options::import(), &progress)?;
    extractor.unpack(&mut reader(archive)?)?;
    stage.commit(extractor, Replacing::AllButDirectories)?;
    Ok(())
}

/// The hidden part that is killed.
#[test]
fn importing() {
    let Some(home) = std::env::var_os("PYRO_KILLED_HOME").map(PathBuf::from) else {
        return;
    };
    let (archive, edits) = change();
    println!("ready");
    std::io::stdout().flush().unwrap();
    import(&home.join("root"), &home.join("ledger"), &archive, &edits).unwrap();
}

#[test]
fn whenever_it_is_killed_all_of_it_counts_or_nothing() {
    let home = TempDir::new_in("/dev/shm").unwrap();
    let (root, ledger) = (home.path().join("root"), home.path().join("ledger"));
    old(&root);
    let before = tree(&root);
    let (archive, edits) = change();
    let begun = Instant::now();
    import(&root, &ledger, &archive, &edits).unwrap();
    let takes = begun.elapsed();
    let after = tree(&root);
    assert_eq!(after[Path::new("d1")].0, 0o711);
    assert!(after.contains_key(Path::new("moved/3/2")));
    assert!(!after.contains_key(Path::new("d1/f1")));
    assert_eq!(fs::read_dir(&ledger).unwrap().count(), 0);
    // Kills are spread over the whole of it until each of its states was met.
    let (mut nothing, mut all) = (0, 0);
    let mut met = BTreeMap::from([("removing", 0), ("merging", 0), ("fresh", 0)]);
    let until = Instant::now() + PATIENCE;
    for round in 0_u32.. {
        if round >= 60 && nothing > 0 && all > 0 && met.values().all(|times| *times > 0) {
            break;
        }
        assert!(Instant::now() < until, "{met:?}, {nothing}, {all}");
        fs::remove_dir_all(&root).unwrap();
        old(&root);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::importing", "--nocapture"])
            .env("PYRO_KILLED_HOME", home.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !lines.next().unwrap().unwrap().contains("ready") {}
        let moment = Instant::now() + takes * 2 * (round % 40) / 40;
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for entry in fs::read_dir(&root).unwrap() {
            let path = entry.unwrap().path();
            if path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(".pyro-")
            {
                let mark = ["removing", "merging"]
                    .into_iter()
                    .find(|mark| path.join(mark).exists());
                *met.get_mut(mark.unwrap_or("fresh")).unwrap() += 1;
            }
        }
        for recovered in recover(&Ledger::new(ledger.clone())) {
            recovered.outcome.unwrap();
        }
        assert_eq!(fs::read_dir(&ledger).unwrap().count(), 0, "round {round}");
        let now = tree(&root);
        if now == before {
            nothing += 1;
        } else {
            all += 1;
            assert_eq!(now, after, "round {round}: half of it counts");
        }
    }
}

#[test]
fn what_goes_is_put_back_when_what_comes_has_no_place() {
    let home = TempDir::new_in("/dev/shm").unwrap();
    let (root, ledger) = (home.path().join("root"), home.path().join("ledger"));
    old(&root);
    let before = tree(&root);
    let (_, edits) = change();
    // A directory stands there.
    let archive = Forge::new().file("a", "new").file("d2", "new").finish();
    let error = import(&root, &ledger, &archive, &edits).unwrap_err();
    assert!(
        error.to_string().contains("a directory stands there"),
        "{error}"
    );
    assert_eq!(tree(&root), before);
    let mut directory = Vec::new();
    Edit::Move {
        from: b"d2".into(),
        to: b"d99".into(),
    }
    .write(&mut directory);
    let archive = Forge::new().file("a", "new").finish();
    let error = import(&root, &ledger, &archive, &directory).unwrap_err();
    assert!(error.to_string().contains("it is a directory"), "{error}");
    assert_eq!(tree(&root), before);
    assert_eq!(fs::read_dir(&ledger).unwrap().count(), 0);
}

#[test]
fn a_file_takes_the_place_of_a_directory_that_it_leaves_empty() {
    let home = TempDir::new_in("/dev/shm").unwrap();
    let (root, ledger) = (home.path().join("root"), home.path().join("ledger"));
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::write(root.join("a/b/c/file"), "old").unwrap();
    let mut edits = Vec::new();
    for path in ["a/b/c/file", "not/there"] {
        Edit::Remove {
            path: path.into(),
            prune: true,
        }
        .write(&mut edits);
    }
    let archive = Forge::new().file("a", "new").finish();
    import(&root, &ledger, &archive, &edits).unwrap();
    assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "new");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
}
