//! What a client is shown, word by word, and what that costs.

use pyro_mcp::Profile;
use serde_json::{Value, json};

use crate::client::{Client, meta, of_profile};

/// The most tokens that the listing of `workspace-core` may cost.
const MAX_TOKENS: usize = 4000;

/// Bytes of such JSON to a token, fewer than the tokenizers of today need.
const BYTES_TENTHS_PER_TOKEN: usize = 36;

async fn listed(profile: Profile) -> Value {
    let (mut client, _) = Client::with_session(of_profile(profile), &[]).await;
    let told = client.ask("tools/list", json!({})).await;
    client.leave().await.unwrap();
    told["result"].clone()
}

#[tokio::test]
async fn the_listing_of_a_session() {
    for (profile, name) in [
        (Profile::VmRun, "listing-vm-run"),
        (Profile::WorkspaceCore, "listing-workspace-core"),
    ] {
        insta::assert_snapshot!(name, format!("{:#}", listed(profile).await));
    }
}

#[tokio::test]
async fn the_listing_without_a_session_is_the_same() {
    let mut client = Client::silent(of_profile(Profile::WorkspaceCore));
    let told = client.ask("tools/list", json!({"_meta": meta()})).await;
    let with_session = listed(Profile::WorkspaceCore).await;
    assert_eq!(told["result"]["tools"], with_session["tools"]);
    client.leave().await.unwrap();
}

#[tokio::test]
async fn the_listing_costs_a_model_little() {
    let bytes = listed(Profile::WorkspaceCore).await["tools"]
        .to_string()
        .len();
    let tokens = bytes * 10 / BYTES_TENTHS_PER_TOKEN;
    assert!(
        tokens < MAX_TOKENS,
        "{bytes} bytes are about {tokens} tokens"
    );
}

#[tokio::test]
async fn every_tool_says_what_it_may_do() {
    for tool in listed(Profile::WorkspaceCore).await["tools"]
        .as_array()
        .unwrap()
    {
        let hints = &tool["annotations"];
        assert!(hints["openWorldHint"].is_boolean(), "{tool}");
        let says = hints["readOnlyHint"] == true || hints["destructiveHint"].is_boolean();
        assert!(says, "{tool}");
        assert_eq!(tool["outputSchema"]["type"], "object", "{tool}");
        assert_eq!(tool["inputSchema"]["additionalProperties"], false, "{tool}");
        let sentence = tool["description"].as_str().unwrap();
        assert!(
            sentence.len() < 160 && sentence.ends_with('.'),
            "{sentence}"
        );
    }
}
