//! What a client may do to the server's memory: little.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::client::{Client, options};

#[tokio::test]
async fn arguments_of_a_megabyte_are_read_and_a_message_without_an_end_is_not() {
    let (mut client, _) = Client::with_session(options(), &[]).await;
    // Each byte of the text is escaped: six megabytes on the wire.
    let text = "\u{1}".repeat(1024 * 1024);
    let arguments = json!({"workspace_id": "x", "path": "a", "text": text});
    let result = client.call("workspace_file_write", arguments).await;
    assert_eq!(result["structuredContent"]["code"], "not_found");

    let endless = vec![b'x'; 1024 * 1024];
    let writer = client.writer.as_mut().unwrap();
    for _ in 0..20 {
        writer.write_all(&endless).await.unwrap();
    }
    writer.write_all(b"\n").await.unwrap();
    let told = client.ask("ping", json!({})).await;
    assert_eq!(told["result"], json!({}));
    client.leave().await.unwrap();
}

#[tokio::test]
async fn a_client_that_never_reads_is_not_read_either() {
    let (mut client, _) = Client::with_session(options(), &[]).await;
    let mut writer = client.writer.take().unwrap();
    // Each answer is a whole listing. What a server without bounds would take in without end is written until it
    // takes no more.
    let mut written = 0usize;
    let all = async {
        for id in 0u32.. {
            let request = json!({"jsonrpc": "2.0", "id": id, "method": "tools/list"});
            let line = format!("{request}\n");
            writer.write_all(line.as_bytes()).await.unwrap();
            written += 1;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(3), all)
        .await
        .unwrap_err();
    let most = 64 + 64 * 1024 / 40 * 2 + 1000;
    assert!(written < most, "{written} requests were taken in");
    client.writer = Some(writer);
    // It reads after all: nothing was lost.
    let mut answers = 0;
    while answers < 100 {
        let message: Value = client.next().await.unwrap();
        assert!(message["result"]["tools"].is_array());
        answers += 1;
    }
    // It goes away with answers unread.
    client.die().await.unwrap();
}
