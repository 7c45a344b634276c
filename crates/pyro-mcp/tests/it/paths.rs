//! Which paths of this host a client's model may name: every argument that takes one, against names that lead out.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use pyro_mcp::{ProjectSource, ServeOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Client, options};

/// What of this host an argument names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// Nothing: a workspace, a path of the guest, text.
    Nothing,
    /// A path.
    Path,
    /// An environment, which may be made of a path: `dir:PATH`.
    Environment,
}

/// Every argument of every tool that is text, or a list or an object of texts. One that is new has to be put here, and where it
/// names a path of this host, the tests below go over it.
const ARGUMENTS: [(&str, &str, Names); 45] = [
    ("vm_run", "command", Names::Nothing),
    ("vm_run", "environment", Names::Environment),
    ("workspace_create", "environment", Names::Environment),
    ("workspace_create", "labels", Names::Nothing),
    ("workspace_create", "name", Names::Nothing),
    ("workspace_create", "seed_path", Names::Path),
    ("workspace_update", "workspace_id", Names::Nothing),
    ("workspace_update", "name", Names::Nothing),
    ("workspace_update", "labels", Names::Nothing),
    ("workspace_update", "clear_labels", Names::Nothing),
    ("workspace_status", "workspace_id", Names::Nothing),
    ("workspace_sync_push", "workspace_id", Names::Nothing),
    ("workspace_sync_push", "source_path", Names::Path),
    ("workspace_sync_push", "dest", Names::Nothing),
    ("workspace_exec", "workspace_id", Names::Nothing),
    ("workspace_exec", "command", Names::Nothing),
    ("workspace_exec", "job_id", Names::Nothing),
    ("workspace_logs", "workspace_id", Names::Nothing),
    ("workspace_file_list", "workspace_id", Names::Nothing),
    ("workspace_file_list", "path", Names::Nothing),
    ("workspace_file_list", "cursor", Names::Nothing),
    ("workspace_file_read", "workspace_id", Names::Nothing),
    ("workspace_file_read", "path", Names::Nothing),
    ("workspace_file_write", "workspace_id", Names::Nothing),
    ("workspace_file_write", "path", Names::Nothing),
    ("workspace_file_write", "text", Names::Nothing),
    ("workspace_file_edit", "workspace_id", Names::Nothing),
    ("workspace_file_edit", "path", Names::Nothing),
    ("workspace_file_edit", "old_text", Names::Nothing),
    ("workspace_file_edit", "new_text", Names::Nothing),
    ("workspace_file_grep", "workspace_id", Names::Nothing),
    ("workspace_file_grep", "pattern", Names::Nothing),
    ("workspace_file_grep", "path", Names::Nothing),
    ("workspace_file_grep", "include", Names::Nothing),
    ("workspace_patch_apply", "workspace_id", Names::Nothing),
    ("workspace_patch_apply", "patch", Names::Nothing),
    ("workspace_diff", "workspace_id", Names::Nothing),
    ("workspace_diff", "paths", Names::Nothing),
    ("workspace_export", "workspace_id", Names::Nothing),
    ("workspace_export", "path", Names::Nothing),
    ("workspace_export", "output_path", Names::Path),
    ("workspace_summary", "workspace_id", Names::Nothing),
    ("workspace_reset", "workspace_id", Names::Nothing),
    ("workspace_reset", "snapshot", Names::Nothing),
    ("workspace_delete", "workspace_id", Names::Nothing),
];

/// A call that names `path` of this host in one argument, and is right in all others. No workspace has its id, no environment its
/// name.
fn call(tool: &str, argument: &str, path: &str) -> Value {
    let mut arguments = match tool {
        "vm_run" => json!({"command": "true", "environment": "no:such"}),
        "workspace_create" => json!({"environment": "no:such"}),
        "workspace_sync_push" => json!({"workspace_id": "none"}),
        "workspace_export" => json!({"workspace_id": "none", "path": "a"}),
        _ => panic!("say what else `{tool}` needs"),
    };
    arguments[argument] = path.into();
    arguments
}

/// Each call that names `path` of this host.
fn takers(path: &str) -> Vec<(&'static str, Value)> {
    let mut calls = Vec::new();
    for (tool, argument, names) in ARGUMENTS {
        let named: Vec<String> = match names {
            Names::Nothing => Vec::new(),
            Names::Path => vec![path.to_owned()],
            Names::Environment => ["dir:", "oci:", "docker-archive:"]
                .map(|scheme| format!("{scheme}{path}"))
                .to_vec(),
        };
        calls.extend(
            named
                .iter()
                .map(|named| (tool, call(tool, argument, named))),
        );
    }
    calls
}

/// Those of them whose argument is a path and nothing else.
fn plain_takers(path: &str) -> Vec<(&'static str, Value)> {
    let is_path = |named: &(&str, &str, Names)| named.2 == Names::Path;
    let paths = ARGUMENTS.iter().copied().filter(is_path);
    paths
        .map(|(tool, argument, _)| (tool, call(tool, argument, path)))
        .collect()
}

/// Whether a schema's values may hold text.
fn is_text(schema: &Value) -> bool {
    let holds = |part: &str| schema.get(part).is_some_and(is_text);
    let of_type = |wanted: &str| {
        schema["type"] == wanted
            || schema["type"]
                .as_array()
                .is_some_and(|types| types.iter().any(|one| one == wanted))
    };
    let any = ["anyOf", "oneOf", "allOf"]
        .iter()
        .filter_map(|many| schema[many].as_array())
        .flatten()
        .any(is_text);
    let untyped = schema.get("type").is_none() && schema.get("$ref").is_none() && !any;
    // A definition elsewhere is not looked into: whatever it is, it has to be told what it names.
    of_type("string")
        || any
        || untyped
        || schema.get("$ref").is_some()
        || holds("items")
        || holds("additionalProperties")
        || schema["properties"]
            .as_object()
            .is_some_and(|fields| fields.values().any(is_text))
}

#[tokio::test]
async fn of_every_argument_is_known_what_it_names() {
    let (mut client, _) = Client::with_session(options(), &[]).await;
    let told = client.ask("tools/list", json!({})).await;
    let mut listed = BTreeSet::new();
    for tool in told["result"]["tools"].as_array().unwrap() {
        for (argument, schema) in tool["inputSchema"]["properties"].as_object().unwrap() {
            if is_text(schema) {
                let tool = tool["name"].as_str().unwrap();
                listed.insert((tool.to_owned(), argument.clone()));
            }
        }
    }
    let known = ARGUMENTS.iter().map(|(tool, argument, _)| {
        let known = ((*tool).to_owned(), (*argument).to_owned());
        assert!(listed.contains(&known), "{known:?} is not listed");
        known
    });
    let known: BTreeSet<_> = known.collect();
    let new: Vec<_> = listed.difference(&known).collect();
    assert!(new.is_empty(), "say what these name: {new:?}");
    client.leave().await.unwrap();
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
        "src/\0/../../secret",
        "//etc/passwd",
        "/proc/1/root",
        &"x/".repeat(4000),
        &format!("{}etc/passwd", "../".repeat(500)),
    ] {
        for (tool, arguments) in takers(path) {
            let result = client.call(tool, arguments.clone()).await;
            let refused = result["structuredContent"]["code"].as_str().unwrap();
            let right = ["permission_denied", "invalid_argument", "not_found"];
            assert!(right.contains(&refused), "{tool} {path:?}: {refused}");
            let text = result["content"][0]["text"].as_str().unwrap();
            // A name that is no environment's is refused before anybody looks for a path in it.
            let is_no_name = arguments_are_no_name(&arguments);
            assert!(
                is_no_name || text.contains("of this host"),
                "{tool} {path:?}: {text}"
            );
        }
    }
    // What is allowed comes to the next question: what it is for.
    for path in ["src", &at("project/src"), "."] {
        for (tool, arguments) in plain_takers(path) {
            let result = client.call(tool, arguments).await;
            let text = result["content"][0]["text"].as_str().unwrap();
            assert!(
                text.contains("no:such") || text.contains("`none`"),
                "{tool}: {text}"
            );
        }
    }
    // What only looks like another path is a name in the project, where nothing has it.
    for path in [
        "file:///etc/passwd",
        &uri(&home.path().join("secret/key")),
        "%2e%2e/secret/key",
        "..%2fsecret%2fkey",
        "~",
        "~/.ssh/id_rsa",
        "$HOME",
        "\u{ff0e}\u{ff0e}/secret",
    ] {
        for (tool, arguments) in takers(path) {
            let result = client.call(tool, arguments).await;
            let text = result["content"][0]["text"].as_str().unwrap();
            let right = match tool {
                "workspace_export" => text.contains("`none`"),
                _ => text.contains("of this host cannot be resolved"),
            };
            assert!(right, "{tool} {path:?}: {text}");
        }
    }
    client.leave().await.unwrap();
    assert_eq!(fs::read_dir(home.path().join("secret")).unwrap().count(), 1);
    let left = fs::read_dir(home.path().join("project")).unwrap().count();
    assert_eq!(left, 4, "something was made in the project");
}

/// Whether the environment of a call has no path in it that anybody could look at.
fn arguments_are_no_name(arguments: &Value) -> bool {
    let named = arguments["environment"].as_str().unwrap_or_default();
    let schemes = ["dir:", "oci:", "docker-archive:"];
    let path = schemes.iter().find_map(|scheme| named.strip_prefix(scheme));
    path.is_some_and(|path| path.is_empty() || path.contains('\0') || named.len() > 4352)
}

#[tokio::test]
async fn what_an_environment_is_made_of_is_a_path_of_this_host() {
    let home = home();
    let secret = format!("dir:{}", home.path().join("secret").display());
    let project = ProjectSource::Path(home.path().join("project"));
    let serve = ServeOptions {
        project,
        environment: secret.clone(),
        ..options()
    };
    let (mut client, _) = Client::with_session(serve, &[]).await;
    // The one that the user started the server with is theirs to choose, whoever names it; and what is in the project may be read.
    for environment in [secret.as_str(), "dir:src"] {
        for tool in ["vm_run", "workspace_create"] {
            let arguments = call(tool, "environment", environment);
            let result = client.call(tool, arguments).await;
            let text = result["content"][0]["text"].as_str().unwrap();
            assert_eq!(result["isError"], true, "there is no program: {text}");
            assert!(!text.contains("of this host"), "{tool}: {text}");
        }
    }
    let other = format!("dir:{}", home.path().display());
    let refused = code(&mut client, "vm_run", call("vm_run", "environment", &other)).await;
    assert_eq!(refused, "permission_denied");
    client.leave().await.unwrap();
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
    for (tool, arguments) in plain_takers(&inside) {
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
    let push = (
        "workspace_sync_push",
        call("workspace_sync_push", "source_path", &inside),
    );
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
