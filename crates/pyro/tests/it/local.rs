//! What of a directory is synchronised, against Git's own reading of the same rules.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use pyro::progress;
use pyro::tree::{
    LocalKind, PackLimits, SeedLimits, SyncRules, TreeError, hash, local_manifest, pack_paths,
};
use sha2::{Digest, Sha256};

use crate::world::{World, files, git_output, project, survey, write};

fn rules(gitignore: bool) -> SyncRules {
    SyncRules {
        gitignore,
        patterns: Vec::new(),
    }
}

fn listed(root: &Path, rules: &SyncRules) -> BTreeSet<Vec<u8>> {
    let manifest = local_manifest(root, rules, &SeedLimits::default()).unwrap();
    let files = manifest.entries.into_iter();
    files
        .filter(|entry| entry.kind != LocalKind::Directory)
        .map(|entry| entry.path.into_vec())
        .collect()
}

#[test]
fn a_manifest_has_all_there_is_in_the_order_of_bytes() {
    let world = World::new();
    let root = world.directory("root");
    project(&root);
    write(root.join("bin-x"), "x");
    let manifest = local_manifest(&root, &rules(false), &SeedLimits::default()).unwrap();
    let paths: Vec<_> = manifest
        .entries
        .iter()
        .map(|entry| entry.path.to_vec())
        .collect();
    assert_eq!(paths, survey(&root).into_keys().collect::<Vec<_>>());
    let find = |path: &[u8]| {
        manifest
            .entries
            .iter()
            .find(|entry| *entry.path == *path)
            .unwrap()
    };
    let readme = find(b"README");
    assert_eq!(
        (readme.size, readme.mtime_ns),
        (7, 1_000_000_000_000_000_123)
    );
    assert_eq!(find(b"bin/run").mode, 0o755);
    assert_eq!(find(b"up").kind, LocalKind::Symlink((*b"../../..").into()));
    assert_eq!(find(b"up").size, 8);
    assert_eq!(
        (&find(b"empty").kind, find(b"empty").size),
        (&LocalKind::Directory, 0)
    );
    let few = SeedLimits {
        max_entries: 3,
        ..SeedLimits::default()
    };
    let error = local_manifest(&root, &rules(false), &few).unwrap_err();
    assert!(matches!(error, TreeError::TooLarge { .. }));
}

#[test]
fn gits_rules_mean_what_git_makes_of_them() {
    let world = World::new();
    let root = world.repository("root");
    write(
        root.join(".gitignore"),
        "# a comment\n*.log\n!keep.log\n/target/\nnode_modules\nbuild/*\n!build/kept\ndoc/**/*.pdf\n\
         trailing \\!x\n\\#hash\n[ab].c\nspace \\ \nno-dir/\n**/deep/here\na/**/z\n",
    );
    write(root.join("sub/.gitignore"), "!*.log\n/local\nother/\n");
    write(
        root.join("sub/deeper/.gitignore"),
        "*\n!.gitignore\n!seen\n",
    );
    for path in [
        "a.log",
        "keep.log",
        "sub/a.log",
        "target/x",
        "sub/target/x",
        "node_modules/m/x",
        "sub/node_modules/x",
        "build/gone",
        "build/kept",
        "build/dir/kept",
        "doc/a.pdf",
        "doc/x/y/a.pdf",
        "doc/x/a.txt",
        "#hash",
        "a.c",
        "c.c",
        "no-dir",
        "sub/no-dir/x",
        "x/deep/here",
        "deep/here/below",
        "a/z",
        "a/b/c/z",
        "a/b/c/y",
        "sub/local",
        "sub/x/local",
        "sub/other/x",
        "sub/deeper/seen",
        "sub/deeper/unseen",
        "sub/deeper/dir/seen",
        "A.LOG",
    ] {
        write(root.join(path), "x");
    }
    let args = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let expected: BTreeSet<Vec<u8>> = git_output(&root, &args)
        .stdout
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    assert!(expected.len() > 10);
    assert_eq!(listed(&root, &rules(true)), expected);
    // Without the option they are files like others.
    let all = listed(&root, &rules(false));
    assert!(all.contains(b"a.log".as_slice()) && all.contains(b".git/HEAD".as_slice()));
}

#[test]
fn our_own_rules_count_before_gits() {
    let world = World::new();
    let root = world.directory("root");
    write(root.join(".gitignore"), "*.env\n");
    write(root.join(".pyroignore"), "!dev.env\nsecrets/\n*.key\n");
    write(root.join("sub/.pyroignore"), "!ok.key\n");
    for path in [
        "dev.env",
        "prod.env",
        "secrets/x",
        "a.key",
        "sub/ok.key",
        "sub/a.key",
        "extra",
    ] {
        write(root.join(path), "x");
    }
    let names = |rules: &SyncRules| -> Vec<String> {
        let names = listed(&root, rules).into_iter();
        let names = names.map(|name| String::from_utf8(name).unwrap());
        names.filter(|name| !name.contains("ignore")).collect()
    };
    assert_eq!(names(&rules(true)), ["dev.env", "extra", "sub/ok.key"]);
    assert_eq!(
        names(&rules(false)),
        ["dev.env", "extra", "prod.env", "sub/ok.key"]
    );
    let with_patterns = SyncRules {
        gitignore: true,
        patterns: vec!["extra".into()],
    };
    assert_eq!(names(&with_patterns), ["dev.env", "sub/ok.key"]);
    // What is no pattern is told, and the rest counts.
    fs::write(root.join(".pyroignore"), b"*.key\n\xff\xfe\n").unwrap();
    let manifest = local_manifest(&root, &rules(false), &SeedLimits::default()).unwrap();
    assert_eq!(manifest.faulty_rules, [b"".to_vec()]);
    assert!(
        !manifest
            .entries
            .iter()
            .any(|entry| *entry.path == *b"a.key")
    );
}

#[test]
fn a_part_of_a_tree_is_packed_with_the_way_to_it() {
    let world = World::new();
    let root = world.directory("root");
    project(&root);
    let paths: [&[u8]; 5] = [
        b"node_modules/.bin/tool",
        b"second name",
        b"bin",
        b"gone",
        b"up",
    ];
    let mut tar = Vec::new();
    let limits = PackLimits {
        max_bytes: 1 << 20,
        max_entries: 100,
    };
    let paths = paths.map(Into::into).to_vec();
    let summary = pack_paths(&root, paths, limits, &mut tar, &progress::ignore()).unwrap();
    let to = world.untar(&tar, "to");
    let found: Vec<_> = survey(&to).into_keys().collect();
    let expected: [&[u8]; 6] = [
        b"bin",
        b"node_modules",
        b"node_modules/.bin",
        b"node_modules/.bin/tool",
        b"second name",
        b"up",
    ];
    assert_eq!(found, expected);
    assert_eq!(summary.entry_count, 6);
    assert_eq!(
        fs::read_to_string(to.join("second name")).unwrap(),
        "linked"
    );
    assert_eq!(files(&to).len(), 3);
}

#[test]
fn a_digest_is_that_of_the_file_and_of_nothing_behind_a_link() {
    let world = World::new();
    let root = world.directory("root");
    project(&root);
    let digest = hash(&root, b"bin/run").unwrap();
    assert_eq!(digest.0, <[u8; 32]>::from(Sha256::digest(b"#!/bin/sh\n")));
    std::os::unix::fs::symlink("bin", root.join("way")).unwrap();
    for path in [
        &b"absolute"[..],
        b"way/run",
        b"../staging",
        b"empty",
        b"none",
        b"",
    ] {
        assert!(hash(&root, path).is_err(), "{path:?}");
    }
}
