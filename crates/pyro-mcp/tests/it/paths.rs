//! Which paths of this host a client's model may name: every argument that takes one, against names that lead out.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use pyro_mcp::{ProjectSource, ServeOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Client, options};

/// The tools with an argument that names a path of this host, and what else they need.
fn takers(path: &str) -> [(&'static str, Value); 3] {
    [
        (
            "workspace_create",
            json!({"seed_path": path, "environment": "no:such"}),
        ),
        (
            "workspace_sync_push",
            json!({"workspace_id": "none", "source_path": path}),
        ),
        (
            "workspace_export",
            json!({"workspace_id": "none", "path": "a", "output_path": path}),
        ),
    ]
}

/// A project beside a secret, with links to it.
fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().join(path);
    fs::create_dir_all(at("project/src")).unwrap();
    fs::create_dir(at("secret")).unwrap();
    fs::write(at("secret/key"), "").unwrap();
    symlink("../secret", at("project/out")).unwrap();
    symlink("../secret/new", at("project/dangling")).unwrap();
    symlink("/", at("project/root")).unwrap();
    home
}

fn uri(path: &Path) -> String {
    format!("file://{}", path.display())
}

async fn code(client: &mut Client, tool: &str, arguments: Value) -> String {
    let result = client.call(tool, arguments).await;
    result["structuredContent"]["code"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn no_argument_leads_out() {
    let home = home();
    let at = |path: &str| home.path().join(path).display().to_string();
    let project = ProjectSource::Path(home.path().join("project"));
    let (mut client, _) = Client::with_session(
        ServeOptions {
            project,
            ..options()
        },
        &[],
    )
    .await;
    for path in [
        "",
        "..",
        "../secret",
        "src/../../secret",
        "out",
        "out/key",
        "out/new",
        "dangling",
        "root",
        "root/etc/passwd",
        "/",
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/self/root/etc/passwd",
        "/dev/stdin",
        "a\0b",
        &at("secret"),
        &at("secret/key"),
        &at("project/../secret"),
        &at("."),
        &"x/".repeat(4000),
    ] {
        for (tool, arguments) in takers(path) {
            let result = client.call(tool, arguments).await;
            let refused = result["structuredContent"]["code"].as_str().unwrap();
            let right = ["permission_denied", "invalid_argument", "not_found"];
            assert!(right.contains(&refused), "{tool} {path:?}: {refused}");
            let text = result["content"][0]["text"].as_str().unwrap();
            assert!(text.contains("of this host"), "{tool} {path:?}: {text}");
        }
    }
    // What is allowed comes to the next question: what it is for.
    for path in ["src", &at("project/src"), "."] {
        for (tool, arguments) in takers(path) {
            let result = client.call(tool, arguments).await;
            let text = result["content"][0]["text"].as_str().unwrap();
            assert!(
                text.contains("no:such") || text.contains("`none`"),
                "{tool}: {text}"
            );
        }
    }
    client.leave().await.unwrap();
    assert!(!home.path().join("secret/new").exists());
}

#[tokio::test]
async fn without_a_project_nothing_is_allowed_but_what_the_user_says() {
    let home = home();
    let (mut client, _) = Client::with_session(options(), &[]).await;
    let inside = home.path().join("project/src").display().to_string();
    for (tool, arguments) in takers(&inside) {
        assert_eq!(
            code(&mut client, tool, arguments).await,
            "permission_denied"
        );
    }
    client.leave().await.unwrap();

    let allowed = vec![home.path().join("project")];
    let (mut client, _) = Client::with_session(
        ServeOptions {
            allowed,
            ..options()
        },
        &[],
    )
    .await;
    for (tool, arguments) in takers(&inside) {
        assert_eq!(code(&mut client, tool, arguments).await, "not_found");
    }
    client.leave().await.unwrap();
}

#[tokio::test]
async fn a_clients_roots_are_allowed_until_it_takes_them_back() {
    let home = home();
    let inside = home.path().join("project/src").display().to_string();
    let root = uri(&home.path().join("project"));
    let (mut client, _) = Client::with_session(options(), &[root]).await;
    let [_, push, _] = takers(&inside);
    assert_eq!(code(&mut client, push.0, push.1.clone()).await, "not_found");
    assert_eq!(code(&mut client, push.0, push.1.clone()).await, "not_found");
    let asked = client
        .heard
        .iter()
        .filter(|told| told["method"] == "roots/list")
        .count();
    assert_eq!(asked, 1);

    client.roots = vec![
        uri(&home.path().join("elsewhere")),
        "https://example.com/".into(),
    ];
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    client.say(&changed).await;
    assert_eq!(code(&mut client, push.0, push.1).await, "permission_denied");
    client.leave().await.unwrap();
}
