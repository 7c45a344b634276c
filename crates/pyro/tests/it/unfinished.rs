//! What a process that was killed left beside its destination: gone when the next one looks, and the destination as it was.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pyro::tree::{
    Links, Overwrite, Unfinished, UnpackOptions, unpack_single, unpack_tree, write_file_atomically,
};
use pyro_testing::forge::Forge;
use tempfile::TempDir;

/// An archive whose end never comes.
struct Endless {
    archive: Vec<u8>,
    at: usize,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = Read::read(&mut &self.archive[self.at..], buffer)?;
        self.at += count;
        if count == 0 {
            let mut stdout = std::io::stdout();
            writeln!(stdout, "ready")?;
            stdout.flush()?;
            loop {
                std::thread::park();
            }
        }
        Ok(count)
    }
}

const WORKS: [&str; 4] = ["tree", "merged", "single", "file"];

/// The hidden part that is killed.
#[test]
fn unpacking() {
    let Some(home) = std::env::var_os("PYRO_UNFINISHED_HOME").map(PathBuf::from) else {
        return;
    };
    let notes = Unfinished::noted_in(&home.join("notes"));
    let mut archive = Forge::new().file("file", "new").finish();
    // Without its end: that is what never comes.
    archive.truncate(1024);
    let mut archive = Endless { archive, at: 0 };
    let options = |overwrite| UnpackOptions {
        overwrite,
        links: Links::Follow,
        max_bytes: 1 << 20,
        max_entries: 1000,
    };
    let (replace, merge) = (options(Overwrite::Replace), options(Overwrite::Merge));
    match std::env::var("PYRO_UNFINISHED_WORK").unwrap().as_str() {
        "tree" => drop(unpack_tree(
            &mut archive,
            &home.join("there/old"),
            &replace,
            &notes,
        )),
        "merged" => drop(unpack_tree(
            &mut archive,
            &home.join("there/old"),
            &merge,
            &notes,
        )),
        "single" => drop(unpack_single(
            &mut archive,
            &home.join("a/b/one"),
            &replace,
            &notes,
        )),
        _ => {
            let to = home.join("there/old/file");
            drop(write_file_atomically(
                &to,
                &mut archive,
                Overwrite::Replace,
                Links::Follow,
                &notes,
            ));
        }
    }
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_a_killed_process_left_goes_and_the_destination_is_as_it_was() {
    for work in WORKS {
        let home = TempDir::new().unwrap();
        fs::create_dir_all(home.path().join("there/old")).unwrap();
        fs::write(home.path().join("there/old/file"), "old").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "unfinished::unpacking", "--nocapture"])
            .env("PYRO_UNFINISHED_HOME", home.path())
            .env("PYRO_UNFINISHED_WORK", work)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !lines.next().unwrap().unwrap().contains("ready") {}
        let notes = Unfinished::noted_in(&home.path().join("notes"));
        assert!(
            notes.left().is_empty() && notes.finish().is_empty(),
            "{work}: it lives"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        let left = notes.left();
        assert_eq!(left.len(), 1, "{work}");
        assert!(left[0].exists(), "{work}: {left:?}");
        assert_eq!(notes.finish(), left, "{work}");
        assert!(notes.left().is_empty(), "{work}");
        assert_eq!(names(home.path()), ["notes", "there"], "{work}");
        assert_eq!(names(&home.path().join("there")), ["old"], "{work}");
        assert_eq!(names(&home.path().join("there/old")), ["file"], "{work}");
        let content = fs::read_to_string(home.path().join("there/old/file"));
        assert_eq!(content.unwrap(), "old", "{work}");
    }
}
