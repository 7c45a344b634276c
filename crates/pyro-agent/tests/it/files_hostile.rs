//! Names and races that try to lead out of the root.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::files::with_workspace;

/// Every action that takes a path, with that path.
fn actions(path: &str) -> Vec<Value> {
    let mut actions: Vec<Value> = [
        json!({"action": "file_list"}),
        json!({"action": "file_read"}),
        json!({"action": "file_write", "content": "evil"}),
        json!({"action": "file_write", "content": "evil", "append": true}),
        json!({"action": "file_mkdir"}),
        json!({"action": "file_remove", "recursive": true}),
        json!({"action": "file_rename", "to": "stolen"}),
        json!({"action": "file_copy", "to": "stolen"}),
        json!({"action": "file_grep", "pattern": "."}),
        json!({"action": "file_glob", "patterns": ["**"]}),
        json!({"action": "read_workspace_file"}),
        json!({"action": "write_workspace_file", "text": "evil"}),
        json!({"action": "delete_workspace_path"}),
    ]
    .into();
    for action in &mut actions {
        action["path"] = path.into();
    }
    actions
}

#[test]
fn nothing_leads_out() {
    with_workspace(async |bench| {
        let outside = bench.outside().to_owned();
        std::fs::create_dir(outside.join("secret")).unwrap();
        std::fs::write(outside.join("secret/file"), "hidden").unwrap();
        symlink(outside.join("secret"), bench.path("absolute")).unwrap();
        symlink("../secret", bench.path("relative")).unwrap();
        symlink("loop", bench.path("loop")).unwrap();
        let real = outside.join("secret/file");
        for path in [
            "../secret/file",
            "absolute/file",
            "relative/file",
            "/workspace/../secret/file",
            "loop/file",
            "/etc/passwd",
            real.to_str().unwrap(),
        ] {
            for request in actions(path) {
                let reply = bench.ask(&request).await;
                assert!(reply["code"].is_string(), "{request}: {reply}");
                assert_eq!(std::fs::read(&real).unwrap(), b"hidden", "{request}");
            }
            let to = json!({"action": "file_rename", "path": "loop", "to": path});
            assert!(bench.ask(&to).await["code"].is_string());
        }
        let seen = bench.shell("ls .. ../secret . | tr '\\n' ' '").await;
        assert_eq!(
            seen,
            ".: absolute loop relative  ..: secret workspace  ../secret: file "
        );
        // A link that is removed or renamed is the link itself.
        bench
            .done(json!({"action": "file_remove", "path": "absolute", "recursive": true}))
            .await;
        assert!(real.exists());
    });
}

#[test]
fn odd_names_go_there_and_back() {
    with_workspace(async |bench| {
        // `a\xff\n"` in base64; a name of 255 bytes; one of 256.
        let long = "n".repeat(255);
        bench
            .done(json!({"action": "file_write", "path_b64": "Yf8KIg==", "content": "x"}))
            .await;
        bench
            .done(json!({"action": "file_write", "path": long, "content": "y"}))
            .await;
        bench
            .done(json!({"action": "file_write", "path": " lead", "content": ""}))
            .await;
        let page = bench
            .done(json!({"action": "file_list", "path": "."}))
            .await;
        let entries = page["entries"].as_array().unwrap();
        assert_eq!(entries[0]["path"], "/workspace/ lead");
        // The path that is told can be asked for.
        let stat = bench
            .done(json!({"action": "file_stat", "path_b64": entries[1]["path_b64"]}))
            .await;
        assert_eq!(&stat, &entries[1]);
        assert_eq!(entries[2]["path"], format!("/workspace/{long}"));
        let copied = json!({"action": "file_copy", "path_b64": "Yf8KIg==", "to_b64": "Yv8="});
        bench.done(copied).await;
        let found = bench
            .done(json!({"action": "file_grep", "path": ".", "pattern": "x"}))
            .await;
        assert_eq!(found["matches"], 2);
        assert!(found["lines"][0]["path_b64"].is_string());
        let too_long = format!("{long}n");
        bench
            .refused(
                json!({"action": "file_write", "path": too_long, "content": ""}),
                "invalid_argument",
                "too long",
            )
            .await;
        bench
            .refused(
                json!({"action": "file_stat", "path": "a\0b"}),
                "invalid_argument",
                "NUL",
            )
            .await;
        bench
            .refused(
                json!({"action": "file_stat", "path_b64": "YQBi"}),
                "invalid_argument",
                "NUL",
            )
            .await;
    });
}

#[test]
fn a_parent_that_becomes_a_link_leads_nowhere() {
    with_workspace(async |bench| {
        let outside = bench.outside().to_owned();
        std::fs::create_dir(outside.join("secret")).unwrap();
        std::fs::write(outside.join("secret/file"), "hidden").unwrap();
        std::fs::create_dir_all(bench.path("real")).unwrap();
        std::fs::write(bench.path("real/file"), "own").unwrap();
        let (parent, real, link) = (bench.path("p"), bench.path("real"), bench.path("link"));
        symlink(outside.join("secret"), &link).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let swapping = Arc::clone(&stop);
        let racer = std::thread::spawn(move || {
            // What the agent made under the name meanwhile gives way.
            let swap = |other: &std::path::Path| {
                while std::fs::rename(other, &parent).is_err() {
                    let _ = std::fs::remove_dir_all(&parent);
                }
                std::fs::rename(&parent, other).expect("nobody else takes it away");
            };
            while !swapping.load(Ordering::Relaxed) {
                swap(&real);
                swap(&link);
            }
        });
        let mut reached = 0;
        for round in 0..80 {
            let text = bench
                .ask(&json!({"action": "file_read", "path": "p/file", "text": true}))
                .await;
            let content = text["content"].as_str();
            assert_ne!(content, Some("hidden"));
            reached += u32::from(content.is_some());
            bench
                .ask(&json!({"action": "file_write", "path": "p/file", "content": "own"}))
                .await;
            bench
                .ask(&json!({"action": "write_workspace_file", "path": "p/new", "text": "evil"}))
                .await;
            bench.ask(&json!({"action": "file_write", "path": format!("p/sub{round}/deep"), "content": "", "create_parents": true})).await;
            let list = bench
                .ask(&json!({"action": "file_list", "path": ".", "recursive": true}))
                .await;
            assert!(!list.to_string().contains("/p/secret"));
            let grep = bench
                .ask(&json!({"action": "file_grep", "path": ".", "pattern": "hidden"}))
                .await;
            assert!(grep["matches"] == 0 || grep["code"].is_string(), "{grep}");
            bench
                .ask(&json!({"action": "file_remove", "path": "p/file"}))
                .await;
            let own = bench.path("real/file");
            let _ = std::fs::write(own, "own");
        }
        stop.store(true, Ordering::Relaxed);
        racer.join().unwrap();
        assert_eq!(bench.shell("ls ../secret").await, "file\n");
        assert_eq!(
            std::fs::read(outside.join("secret/file")).unwrap(),
            b"hidden"
        );
        assert!(reached > 0, "the race was never won by the right directory");
    });
}
