//! Whole trees: listing against `find`, copying against `cp -a`, removing.

use serde_json::{Value, json};

use crate::files::{Bench, with_workspace};

/// A tree with everything that a tree may hold.
const TREE: &str = "mkdir -p t/a/b t/a-b t/c/d/e t/empty && cd t && echo one > a/x && echo two > a/b/y \
    && printf 'z' > a-b/z && ln -s ../a c/up && ln -s /nowhere c/d/broken && ln a/x c/hard \
    && mkfifo c/pipe && chmod 6755 a-b/z && chmod 1777 empty && touch -d 2001-02-03T04:05:06.789 a/b a/x \
    && truncate -s 10M c/d/e/sparse && echo end >> c/d/e/sparse && mkdir a.d && touch a.d/q 'a b' && cd ..";

async fn list_all(bench: &Bench, path: &str, limit: usize) -> Vec<Value> {
    let mut entries = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let request = json!({"action": "file_list", "path": path, "recursive": true,
            "limit": limit, "cursor": cursor});
        let page = bench.done(request).await;
        let told = page["entries"].as_array().unwrap();
        assert!(told.len() <= limit);
        entries.extend(told.iter().cloned());
        match page.get("next_cursor") {
            Some(next) => cursor = next.clone(),
            None => return entries,
        }
    }
}

#[test]
fn a_listing_is_what_find_finds() {
    with_workspace(async |bench| {
        bench.shell(TREE).await;
        let found = bench
            .shell("find t -mindepth 1 -printf '%p|%y|%m|%T@|%l|%s\\n' | LC_ALL=C sort -t'|' -k1,1")
            .await;
        for limit in [1, 2, 3, 1000] {
            let told: Vec<String> = list_all(&bench, "t", limit)
                .await
                .iter()
                .map(line)
                .collect();
            let expected: Vec<String> = found.lines().map(from_find).collect();
            assert_eq!(told, expected, "pages of {limit}");
        }
        let shallow = bench
            .done(json!({"action": "file_list", "path": "t", "recursive": true, "max_depth": 2}))
            .await;
        let count = bench.shell("find t -mindepth 1 -maxdepth 2 | wc -l").await;
        assert_eq!(
            shallow["entries"].as_array().unwrap().len().to_string(),
            count.trim()
        );
    });
}

fn line(entry: &Value) -> String {
    let path = entry["path"]
        .as_str()
        .unwrap()
        .strip_prefix("/workspace/")
        .unwrap();
    format!(
        "{path} {} {:o} {} {} {}",
        entry["artifact_type"].as_str().unwrap(),
        entry["mode"].as_u64().unwrap(),
        entry["mtime_ns"],
        entry["link_target"].as_str().unwrap_or(""),
        entry["size_bytes"]
    )
}

fn from_find(line: &str) -> String {
    let fields: Vec<&str> = line.split('|').collect();
    let (kind, sized) = match fields[1] {
        "f" => ("file", true),
        "d" => ("directory", false),
        "l" => ("symlink", true),
        "p" => ("fifo", false),
        other => panic!("{other}"),
    };
    let (seconds, fraction) = fields[3].split_once('.').unwrap();
    let size = if sized { fields[5] } else { "0" };
    format!(
        "{} {kind} {} {seconds}{} {} {size}",
        fields[0],
        fields[2],
        &fields[3][seconds.len() + 1..][..fraction.len().min(9)],
        fields[4]
    )
}

#[test]
fn pages_are_complete_and_tell_nothing_twice() {
    with_workspace(async |bench| {
        bench.shell("mkdir many && cd many && seq 1 9000 | xargs touch && mkdir 77-d 77d && touch 77-d/x 77d/y").await;
        let told: Vec<String> = list_all(&bench, "many", 700)
            .await
            .iter()
            .map(|entry| entry["path"].as_str().unwrap().to_owned())
            .collect();
        let found = bench
            .shell("find /$PWD/many -mindepth 1 | sed 's|.*/many|/workspace/many|' | LC_ALL=C sort")
            .await;
        assert!(
            told.iter().map(String::as_str).eq(found.lines()),
            "{} told",
            told.len()
        );
    });
}

#[test]
fn a_copy_is_what_cp_makes() {
    with_workspace(async |bench| {
        bench.shell(TREE).await;
        bench.shell("cp -a t expected").await;
        let copied = bench.done(json!({"action": "file_copy", "path": "t", "to": "deep/copy", "create_parents": true})).await;
        assert_eq!(copied["path"], "/workspace/deep/copy");
        let count = bench.shell("find t | wc -l").await;
        assert_eq!(copied["entries"].to_string(), count.trim());
        let tell = "find . -printf '%p|%y|%m|%U|%G|%l|%n|%T@\\n' | LC_ALL=C sort";
        assert_eq!(
            bench.shell(&format!("cd deep/copy && {tell}")).await,
            bench.shell(&format!("cd expected && {tell}")).await
        );
        bench.shell("rm deep/copy/c/pipe expected/c/pipe && diff -r --no-dereference deep/copy expected").await;
        let blocks = bench.shell("stat -c %b deep/copy/c/d/e/sparse").await;
        assert!(
            blocks.trim().parse::<u64>().unwrap() < 100,
            "a hole stays one"
        );
        let again = json!({"action": "file_copy", "path": "t", "to": "deep/copy"});
        bench.refused(again, "already_exists", "deep/copy").await;
        let within = json!({"action": "file_copy", "path": "deep", "to": "deep/copy/a/self"});
        bench
            .refused(within, "invalid_argument", "deep/copy/a/self")
            .await;
        bench
            .done(json!({"action": "file_copy", "path": "t/a/x", "to": "t/a/b/y", "replace": true}))
            .await;
        assert_eq!(std::fs::read(bench.path("t/a/b/y")).unwrap(), b"one\n");
        let removed = bench
            .done(json!({"action": "file_remove", "path": "t", "recursive": true}))
            .await;
        assert_eq!(removed["entries"].to_string(), count.trim());
        assert!(!bench.path("t").exists());
        bench.assert_tidy().await;
    });
}
