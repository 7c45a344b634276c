//! `export_archive` as the original's peers know it.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, BufReader};

use crate::files::{Bench, read_line, with_workspace};

async fn export(bench: &Bench, request: Value) -> (Value, Vec<u8>) {
    let mut stream = BufReader::new(bench.send(&request).await);
    let header = read_line(&mut stream).await;
    let mut archive = Vec::new();
    stream.read_to_end(&mut archive).await.unwrap();
    (header, archive)
}

#[test]
fn the_header_tells_the_size_and_so_many_bytes_follow() {
    with_workspace(async |bench| {
        bench
            .shell("mkdir -p d/b d/a && seq 200000 > d/b/big && printf hé > d/a/text && ln -s /nowhere d/link && touch d/0")
            .await;
        for (request, expected, members) in [
            (
                json!({"path": "d"}),
                json!({"workspace_path": "/workspace/d", "artifact_type": "directory", "entry_count": 6, "bytes_written": 1_288_898}),
                "0\na/\na/text\nb/\nb/big\nlink\n",
            ),
            (
                json!({"path": " /workspace/d/a/text "}),
                json!({"workspace_path": "/workspace/d/a/text", "artifact_type": "file", "entry_count": 1, "bytes_written": 3}),
                "text\n",
            ),
            (
                json!({"path": "d/link"}),
                json!({"workspace_path": "/workspace/d/link", "artifact_type": "symlink", "entry_count": 1, "bytes_written": 0}),
                "link\n",
            ),
        ] {
            let mut request = request;
            request["action"] = "export_archive".into();
            let (mut header, archive) = export(&bench, request).await;
            assert_eq!(header["archive_size"].take(), archive.len());
            let mut expected = expected;
            expected["archive_size"] = Value::Null;
            assert_eq!(header, expected);
            std::fs::write(bench.outside().join("archive"), &archive).unwrap();
            assert_eq!(bench.shell("tar -tf ../archive").await, members);
        }
        bench
            .shell("tar -xf ../archive -C .. && test -L ../link")
            .await;
        // Half-closed, as a peer of that generation may.
        let reply = bench.guest.ask(b"{\"action\": \"export_archive\"}\n").await;
        let line = reply.iter().position(|byte| *byte == b'\n').unwrap();
        let header: Value = serde_json::from_slice(&reply[..line]).unwrap();
        assert_eq!(header["workspace_path"], "/workspace");
        assert_eq!(header["archive_size"], reply.len() - line - 1);
        std::fs::write(bench.outside().join("archive"), &reply[line + 1..]).unwrap();
        bench.shell("tar --compare -f ../archive").await;
        let spooled = format!("export-{}-*", std::process::id());
        let find = format!("find /tmp -maxdepth 1 -name '{spooled}'");
        assert_eq!(bench.shell(&find).await, "", "no file of ours has a name");
    });
}

#[test]
fn what_cannot_be_exported_is_one_error() {
    with_workspace(async |bench| {
        bench
            .shell("mkfifo pipe && ln -s ../.. up && mkdir d")
            .await;
        for (path, code) in [
            ("none", "not_found"),
            ("pipe", "failed_precondition"),
            ("up/etc", "not_found"),
            ("", "invalid_argument"),
            ("..", "invalid_argument"),
            ("/etc", "invalid_argument"),
            ("d/../../etc", "invalid_argument"),
        ] {
            let request = json!({"action": "export_archive", "path": path});
            bench.refused(request, code, path).await;
        }
    });
}
