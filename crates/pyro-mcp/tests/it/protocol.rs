//! Both families of the protocol, and who is told what about a mistake.

use std::time::Instant;

use pyro_mcp::{Profile, ProjectSource, ServeOptions};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::client::{Client, meta, of_profile, options};

#[tokio::test]
async fn a_session_begins_with_who_the_server_is() {
    let project = ProjectSource::Path("/srv/app".into());
    let with_project = ServeOptions {
        project,
        ..options()
    };
    let (client, told) = Client::with_session(with_project, &[]).await;
    assert_eq!(told["protocolVersion"], "2025-11-25");
    assert_eq!(told["serverInfo"]["name"], "pyro_mcp");
    assert_eq!(told["serverInfo"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(told["capabilities"], json!({"tools": {}}));
    let instructions = told["instructions"].as_str().unwrap();
    assert!(instructions.contains("/srv/app"), "{instructions}");
    assert!(instructions.len() < 500);
    client.leave().await.unwrap();
}

#[tokio::test]
async fn older_versions_are_met() {
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut client = Client::silent(options());
        let params = json!({
            "protocolVersion": version,
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        });
        let told = client.ask("initialize", params).await;
        assert_eq!(told["result"]["protocolVersion"], version);
        client.leave().await.unwrap();
    }
}

#[tokio::test]
async fn nothing_needs_a_session() {
    let mut client = Client::silent(options());
    let told = client
        .ask("server/discover", json!({"_meta": meta()}))
        .await;
    insta::assert_snapshot!(format!("{:#}", told["result"]));
    let call = json!({"_meta": meta(), "name": "workspace_list", "arguments": {}});
    let told = client.ask("tools/call", call).await;
    assert_eq!(told["result"]["structuredContent"]["count"], 0, "{told}");
    assert_eq!(told["result"]["resultType"], "complete");
    client.leave().await.unwrap();
}

#[tokio::test]
async fn a_model_is_told_of_its_mistakes_and_a_client_of_its_own() {
    let (mut client, _) = Client::with_session(options(), &[]).await;
    let error = |result: &Value| result["structuredContent"]["code"].clone();
    for (tool, arguments, code, part) in [
        (
            "workspace_status",
            json!({}),
            "invalid_argument",
            "workspace_id",
        ),
        (
            "workspace_status",
            json!({"workspace_id": 7}),
            "invalid_argument",
            "string",
        ),
        (
            "workspace_status",
            json!({"workspace_id": "x"}),
            "not_found",
            "`x`",
        ),
        (
            "workspace_list",
            json!({"other": 1}),
            "invalid_argument",
            "other",
        ),
        (
            "workspace_exec",
            json!({"workspace_id": "x", "command": "ls"}),
            "not_found",
            "`x`",
        ),
        (
            "vm_run",
            json!({"command": "id", "allow_host_compat": true}),
            "invalid_argument",
            "host",
        ),
        (
            "vm_run",
            json!({"command": "id", "vcpu_count": 0}),
            "invalid_argument",
            "0",
        ),
        (
            "vm_run",
            json!({"command": "id", "timeout_seconds": 0}),
            "invalid_argument",
            "",
        ),
        (
            "vm_run",
            json!({"command": "id", "environment": "no:such"}),
            "not_found",
            "no:such",
        ),
        (
            "workspace_create",
            json!({"allow_host_compat": true}),
            "invalid_argument",
            "allow_host_compat",
        ),
        (
            "workspace_create",
            json!({"ttl_seconds": 1}),
            "invalid_argument",
            "1 seconds",
        ),
        (
            "workspace_create",
            json!({"name": "a\nb"}),
            "invalid_argument",
            "name",
        ),
        (
            "workspace_create",
            json!({"environment": "no:such"}),
            "not_found",
            "no:such",
        ),
    ] {
        let result = client.call(tool, arguments.clone()).await;
        assert_eq!(result["isError"], true, "{tool} {arguments}");
        assert_eq!(error(&result), code, "{tool} {arguments}: {result}");
        assert!(result["structuredContent"]["retryable"].is_boolean());
        let text = result["content"][0]["text"].as_str().unwrap();
        assert!(text.starts_with(code) && text.contains(part), "{text}");
    }
    for (method, params, number) in [
        (
            "tools/call",
            json!({"name": "no_such_tool", "arguments": {}}),
            -32602,
        ),
        (
            "tools/call",
            json!({"name": "workspace_start", "arguments": {}}),
            -32602,
        ),
        ("resources/read", json!({"uri": "x:y"}), -32601),
        ("no/such", json!({}), -32601),
    ] {
        let answer = client.ask(method, params).await;
        assert_eq!(answer["error"]["code"], number, "{answer}");
    }
    client.leave().await.unwrap();
}

#[tokio::test]
async fn a_profile_has_its_tools_alone() {
    let (mut client, _) = Client::with_session(of_profile(Profile::VmRun), &[]).await;
    let call = json!({"name": "workspace_list", "arguments": {}});
    let answer = client.ask("tools/call", call).await;
    assert_eq!(answer["error"]["code"], -32602);
    client.leave().await.unwrap();
}

#[tokio::test]
async fn what_is_no_protocol_ends_nothing() {
    let (mut client, _) = Client::with_session(options(), &[]).await;
    let writer = client.writer.as_mut().unwrap();
    writer
        .write_all(b"\n\xff\xfe\n{\"jsonrpc\": \"2.0\"\n[1, 2\n\"x\"\n")
        .await
        .unwrap();
    let told = client.ask("tools/list", json!({})).await;
    assert!(told["result"]["tools"].is_array());
    client.leave().await.unwrap();
}

#[tokio::test]
async fn a_client_that_says_nothing_and_goes_is_no_error() {
    Client::silent(options()).leave().await.unwrap();
    Client::silent(options()).stop().await.unwrap();
}

#[tokio::test]
async fn a_server_stops_when_it_is_told_to() {
    let (client, _) = Client::with_session(options(), &[]).await;
    let begun = Instant::now();
    client.stop().await.unwrap();
    assert!(begun.elapsed().as_secs() < 3);
}
