//! Searching: `file_grep` against GNU grep, `file_glob` against a shell.

use serde_json::{Value, json};

use crate::files::{Bench, with_workspace};

const TREE: &str = "mkdir -p src/deep .hidden target && printf 'alpha\\nbeta alpha\\ngamma\\n' > src/a.rs \
    && printf 'Alpha beta\\r\\nalphabet\\n' > src/deep/b.txt && printf 'alpha\\0alpha\\n' > src/binary \
    && echo alpha > .hidden/c && echo alpha > target/out && echo alpha > src/kept.log && echo alpha > src/lost.log \
    && printf 'target/\\n*.log\\n' > .gitignore && printf '!kept.log\\n' > src/.ignore && printf 'caf\\351 alpha' > src/latin";

async fn grep(bench: &Bench, options: Value) -> (Vec<String>, Value) {
    let mut request = options;
    request["action"] = "file_grep".into();
    if request.get("path").is_none() {
        request["path"] = ".".into();
    }
    let reply = bench.done(request).await;
    let lines = reply["lines"].as_array().unwrap().iter().map(|line| {
        let path = line["path"]
            .as_str()
            .unwrap()
            .strip_prefix("/workspace/")
            .unwrap();
        format!(
            "{path}:{}:{}",
            line["line_number"],
            line["line"].as_str().unwrap()
        )
    });
    (lines.collect(), reply)
}

#[test]
fn it_finds_what_gnu_grep_finds() {
    with_workspace(async |bench| {
        bench.shell(TREE).await;
        for (pattern, flags, options) in [
            ("alpha", "", json!({})),
            ("^alpha", "", json!({})),
            ("a(l|b)p[a-h]+", "-E", json!({})),
            ("ALPHA", "-i", json!({"ignore_case": true})),
            ("alpha", "-w", json!({"word": true})),
            ("a.", "-F", json!({"fixed": true})),
        ] {
            let mut options = options;
            for (name, value) in [
                ("pattern", json!(pattern)),
                ("hidden", true.into()),
                ("ignored", true.into()),
            ] {
                options[name] = value;
            }
            let (told, reply) = grep(&bench, options).await;
            let found = bench.shell(&format!("LC_ALL=C grep -rnI {flags} -e '{pattern}' . | tr -d '\\r' | sed 's|^\\./||' | LC_ALL=C sort -t: -k1,1 -k2,2n; true")).await;
            let found: Vec<&str> = found
                .lines()
                .filter(|line| !line.contains("latin"))
                .collect();
            let told: Vec<&str> = told
                .iter()
                .map(String::as_str)
                .filter(|line| !line.contains("latin"))
                .collect();
            assert_eq!(told, found, "{pattern}");
            assert_eq!(
                (&reply["binary_files"], &reply["truncated"]),
                (&json!(1), &json!(false))
            );
        }
        bench
            .refused(
                json!({"action": "file_grep", "path": ".", "pattern": "("}),
                "invalid_argument",
                "pattern",
            )
            .await;
        bench
            .refused(
                json!({"action": "file_grep", "path": ".", "pattern": "(\\w{500}){500}"}),
                "invalid_argument",
                "pattern",
            )
            .await;
    });
}

#[test]
fn ignored_and_hidden_files_are_left_out_unless_asked_for() {
    with_workspace(async |bench| {
        bench.shell(TREE).await;
        let files = |lines: &[String]| {
            let mut files: Vec<String> = lines
                .iter()
                .map(|line| line.split(':').next().unwrap().to_owned())
                .collect();
            files.dedup();
            files
        };
        let (lines, _) = grep(&bench, json!({"pattern": "alpha"})).await;
        assert_eq!(
            files(&lines),
            ["src/a.rs", "src/deep/b.txt", "src/kept.log", "src/latin"]
        );
        // The rules above the path hold as well.
        let (lines, _) = grep(
            &bench,
            json!({"pattern": "alpha", "path": "src", "include": ["*.log", "*.rs"]}),
        )
        .await;
        assert_eq!(files(&lines), ["src/a.rs", "src/kept.log"]);
        let (lines, _) = grep(
            &bench,
            json!({"pattern": "alpha", "exclude": ["deep", "*.log"]}),
        )
        .await;
        assert_eq!(files(&lines), ["src/a.rs", "src/latin"]);
        let (lines, _) = grep(&bench, json!({"pattern": "alpha", "path": "target/out"})).await;
        assert_eq!(files(&lines), ["target/out"]);
    });
}

#[test]
fn a_search_is_bounded() {
    with_workspace(async |bench| {
        bench.shell("for i in 1 2 3; do seq 1 50 | sed 's/^/line /' > f$i; done; head -c 3000000 /dev/zero | tr '\\0' x > long").await;
        let (lines, reply) = grep(&bench, json!({"pattern": "line", "max_matches": 70})).await;
        assert_eq!(
            (lines.len(), &reply["truncated"], &reply["matches"]),
            (70, &json!(true), &json!(70))
        );
        let (lines, reply) = grep(&bench, json!({"pattern": "line", "max_per_file": 2})).await;
        assert_eq!(
            (lines.len(), &reply["truncated"], &reply["unreadable_files"]),
            (6, &json!(false), &json!(1))
        );
        let (lines, reply) = grep(
            &bench,
            json!({"pattern": "line 50", "max_line_bytes": 4, "context": 1, "path": "f1"}),
        )
        .await;
        assert_eq!(lines, ["f1:49:line", "f1:50:line"]);
        assert_eq!(
            (
                &reply["lines"][0]["context"],
                &reply["lines"][1]["line_truncated"]
            ),
            (&json!(true), &json!(true))
        );
    });
}

#[test]
fn a_glob_finds_what_a_shell_finds() {
    with_workspace(async |bench| {
        bench.shell(TREE).await;
        for (pattern, shell) in [
            ("*", "*"),
            ("src/*.rs", "src/*.rs"),
            ("**/*.txt", "**/*.txt"),
            ("src/[ab]*", "src/[ab]*"),
            ("**", "**/*"),
        ] {
            let page = bench.done(json!({"action": "file_glob", "path": ".", "patterns": [pattern], "ignored": true})).await;
            let told: Vec<&str> = page["entries"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| {
                    entry["path"]
                        .as_str()
                        .unwrap()
                        .strip_prefix("/workspace/")
                        .unwrap()
                })
                .collect();
            let found = bench
                .shell(&format!(
                    "bash -O globstar -c 'printf \"%s\\n\" {shell}' | LC_ALL=C sort"
                ))
                .await;
            assert_eq!(told, found.lines().collect::<Vec<_>>(), "{pattern}");
        }
        let first = bench.done(json!({"action": "file_glob", "path": "src", "patterns": ["**/*.{rs,txt}"], "limit": 1})).await;
        assert_eq!(first["entries"][0]["path"], "/workspace/src/a.rs");
        let second = bench.done(json!({"action": "file_glob", "path": "src", "patterns": ["**/*.{rs,txt}"], "limit": 1, "cursor": first["next_cursor"]})).await;
        assert_eq!(second["entries"][0]["path"], "/workspace/src/deep/b.txt");
        assert!(second.get("next_cursor").is_none());
        bench
            .refused(
                json!({"action": "file_glob", "path": ".", "patterns": ["[a"]}),
                "invalid_argument",
                "pattern",
            )
            .await;
    });
}
