//! The file actions one by one, and the bench on which the other file tests stand.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use pyro_agent::serve::Agent;
use pyro_protocol::frame::{HEADER_LEN, Kind, encode, parse_header};
use pyro_protocol::request::BootTimes;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::guest::{Guest, script};

/// Longest time that one test may take: far above what the slowest one needs.
const TEST_DEADLINE: Duration = Duration::from_mins(1);

/// An agent whose workspace is a directory of the test's own.
pub(crate) struct Bench {
    pub(crate) guest: Guest,
    directory: tempfile::TempDir,
}

/// Runs `test` beside an agent with an empty workspace.
pub(crate) fn with_workspace(test: impl AsyncFnOnce(Bench)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    LocalSet::new().block_on(&runtime, async {
        let directory = tempfile::tempdir().expect("a directory is made");
        let workspace = directory.path().join("workspace");
        std::fs::create_dir(&workspace).expect("a directory is made");
        let agent = Agent::with_workspace(BootTimes::default(), workspace);
        let bench = Bench {
            guest: Guest {
                agent: agent.expect("the reaper starts"),
            },
            directory,
        };
        timeout(TEST_DEADLINE, test(bench))
            .await
            .expect("the test ends within its deadline");
    });
}

impl Bench {
    /// A path in the workspace, as the host sees it.
    pub(crate) fn path(&self, path: &str) -> std::path::PathBuf {
        self.directory.path().join("workspace").join(path)
    }

    /// The directory that holds the workspace: outside of it.
    pub(crate) fn outside(&self) -> &Path {
        self.directory.path()
    }

    /// Asks one question and keeps its direction open until the answer has come.
    pub(crate) async fn ask(&self, request: &Value) -> Value {
        let mut stream = BufReader::new(self.send(request).await);
        let reply = read_line(&mut stream).await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "one line and nothing else");
        reply
    }

    /// Asks and expects no error.
    pub(crate) async fn done(&self, request: Value) -> Value {
        let reply = self.ask(&request).await;
        assert!(reply.get("error").is_none(), "{request}: {reply}");
        reply
    }

    /// Asks and expects an error of `code` that names `path`.
    pub(crate) async fn refused(&self, request: Value, code: &str, path: &str) {
        let reply = self.ask(&request).await;
        assert_eq!(reply["code"], code, "{request}: {reply}");
        let error = reply["error"].as_str().unwrap_or_default();
        assert!(error.contains(path), "{request}: {reply}");
    }

    /// Opens a stream and sends its request line.
    pub(crate) async fn send(&self, request: &Value) -> DuplexStream {
        let mut stream = self.guest.connect();
        let line = format!("{request}\n");
        stream.write_all(line.as_bytes()).await.unwrap();
        stream
    }

    /// Reads a file by frames: header, content, end.
    pub(crate) async fn read(&self, request: Value) -> (Value, Vec<u8>, Value) {
        let mut stream = BufReader::new(self.send(&request).await);
        let header = read_line(&mut stream).await;
        let mut content = Vec::new();
        loop {
            let mut head = [0; HEADER_LEN];
            stream.read_exact(&mut head).await.unwrap();
            let (kind, length) = parse_header(head).unwrap();
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            match kind {
                Kind::Stdout => content.extend(payload),
                Kind::End => {
                    return (header, content, serde_json::from_slice(&payload).unwrap());
                }
                other => panic!("{other:?} is no part of a read"),
            }
        }
    }

    /// Writes `content` by frames of `piece` bytes.
    pub(crate) async fn write(&self, request: Value, content: &[u8], piece: usize) -> Value {
        let mut stream = self.send(&request).await;
        for piece in content.chunks(piece) {
            stream.write_all(&encode(Kind::Stdin, piece)).await.unwrap();
        }
        stream
            .write_all(&encode(Kind::StdinEnd, b""))
            .await
            .unwrap();
        read_line(&mut BufReader::new(stream)).await
    }

    /// What a shell command prints; run by the agent, which reaps every child here.
    pub(crate) async fn shell(&self, command: &str) -> String {
        let here = self.path("");
        let command = format!("cd {} && {command}", here.display());
        let reply = self.guest.collect(&script(&command)).await;
        assert_eq!(reply.exit_code, 0, "{command}: {}", reply.stderr);
        assert!(!reply.truncated);
        reply.stdout
    }

    /// What no test may leave behind: files with the name of unfinished ones.
    pub(crate) async fn assert_tidy(&self) {
        assert_eq!(self.shell("find . -name '.pyro-*'").await, "");
    }
}

/// The next line of `stream`, as JSON.
pub(crate) async fn read_line(stream: &mut BufReader<DuplexStream>) -> Value {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

fn mode(path: impl AsRef<Path>) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_write_is_whole_and_keeps_the_mode() {
    with_workspace(async |bench| {
        let made = bench
            .done(
                json!({"action": "file_write", "path": "a/b/c.sh", "content": "one",
                "create_parents": true, "mode": 0o750}),
            )
            .await;
        assert_eq!(
            made,
            json!({"path": "/workspace/a/b/c.sh", "size_bytes": 3, "bytes_written": 3,
                "mode": 0o750, "created": true})
        );
        let content = b"\xff\0two".repeat(100_000);
        let request = json!({"action": "file_write", "path": "/workspace/a/b/c.sh"});
        let written = bench.write(request, &content, 200_000).await;
        assert_eq!(written["created"], false);
        assert_eq!(std::fs::read(bench.path("a/b/c.sh")).unwrap(), content);
        assert_eq!(mode(bench.path("a/b/c.sh")), 0o750);
        bench
            .done(json!({"action": "file_write", "path": "a/b/c.sh", "content_b64": "/w=="}))
            .await;
        let request = json!({"action": "file_write", "path": "a/b/c.sh", "append": true});
        let added = bench.write(request, b"xyz", 2).await;
        assert_eq!(
            (&added["size_bytes"], &added["bytes_written"]),
            (&json!(4), &json!(3))
        );
        assert_eq!(std::fs::read(bench.path("a/b/c.sh")).unwrap(), b"\xffxyz");
        assert_eq!(mode(bench.path("a/b/c.sh")), 0o750);
        for (request, code) in [
            (json!({"path": "a", "content": ""}), "failed_precondition"),
            (json!({"path": ".", "content": ""}), "failed_precondition"),
            (json!({"path": "no/file", "content": ""}), "not_found"),
            (
                json!({"path": "a/b/c.sh/d", "content": ""}),
                "failed_precondition",
            ),
            (
                json!({"path": "a/b/c.sh", "content": "", "must_not_exist": true}),
                "already_exists",
            ),
        ] {
            let mut request = request;
            let path = request["path"]
                .as_str()
                .unwrap()
                .trim_end_matches('.')
                .to_owned();
            request["action"] = "file_write".into();
            bench.refused(request, code, &path).await;
        }
        bench.assert_tidy().await;
    });
}

#[test]
fn a_read_has_ranges_and_a_text_form() {
    with_workspace(async |bench| {
        let content: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(bench.path("big"), &content).unwrap();
        let (header, read, end) = bench
            .read(json!({"action": "file_read", "path": "big"}))
            .await;
        assert_eq!(
            (&header["frames"], &header["size_bytes"]),
            (&json!(true), &json!(2_800_000))
        );
        assert!(read == content);
        assert_eq!(end, json!({"bytes_read": 2_800_000, "end_of_file": true}));
        for (offset, length, ends) in [
            (5, 300_000, false),
            (2_799_990, 100, true),
            (9_000_000, 1, true),
        ] {
            let request =
                json!({"action": "file_read", "path": "big", "offset": offset, "length": length});
            let (_, read, end) = bench.read(request).await;
            let from = offset.min(content.len());
            assert!(read == content[from..(from + length).min(content.len())]);
            assert_eq!(end["end_of_file"], ends);
        }
        std::fs::write(bench.path("text"), "aé".repeat(600_000)).unwrap();
        let text = bench
            .done(json!({"action": "file_read", "path": "text", "text": true}))
            .await;
        assert_eq!(
            (&text["truncated"], &text["size_bytes"]),
            (&json!(true), &json!(1_800_000))
        );
        assert!(
            "aé"
                .repeat(600_000)
                .starts_with(text["content"].as_str().unwrap())
        );
        assert!(text.get("content_b64").is_none());
        std::fs::write(bench.path("bytes"), b"a\xffb").unwrap();
        let bytes = bench
            .done(json!({"action": "file_read", "path": "bytes", "text": true}))
            .await;
        assert_eq!(
            (&bytes["content"], &bytes["content_b64"]),
            (&json!("a\u{fffd}b"), &json!("Yf9i"))
        );
        bench.shell("mkfifo pipe && mkdir directory").await;
        for path in ["pipe", "directory"] {
            bench
                .refused(
                    json!({"action": "file_read", "path": path}),
                    "failed_precondition",
                    path,
                )
                .await;
        }
        bench
            .refused(
                json!({"action": "file_read", "path": "none"}),
                "not_found",
                "/workspace/none",
            )
            .await;
    });
}

#[test]
fn directories_are_made_renamed_and_removed() {
    with_workspace(async |bench| {
        let made = bench
            .done(json!({"action": "file_mkdir", "path": "a/b", "parents": true, "mode": 0o777}))
            .await;
        assert_eq!(
            made,
            json!({"path": "/workspace/a/b", "mode": 0o777, "created": true})
        );
        let again = bench
            .done(json!({"action": "file_mkdir", "path": "a/b", "parents": true}))
            .await;
        assert_eq!(again["created"], false);
        bench
            .refused(
                json!({"action": "file_mkdir", "path": "a/b"}),
                "already_exists",
                "a/b",
            )
            .await;
        std::fs::write(bench.path("a/b/file"), "x").unwrap();
        std::fs::write(bench.path("other"), "y").unwrap();
        let onto = json!({"action": "file_rename", "path": "a/b/file", "to": "other"});
        bench.refused(onto, "already_exists", "other").await;
        bench.done(json!({"action": "file_rename", "path": "a/b/file", "to": "other", "replace": true})).await;
        assert_eq!(std::fs::read(bench.path("other")).unwrap(), b"x");
        let renamed = bench
            .done(
                json!({"action": "file_rename", "path": "a", "to": "c/d", "create_parents": true}),
            )
            .await;
        assert_eq!(
            (&renamed["path"], &renamed["artifact_type"]),
            (&json!("/workspace/c/d"), &json!("directory"))
        );
        bench
            .refused(
                json!({"action": "file_remove", "path": "c"}),
                "failed_precondition",
                "recursive",
            )
            .await;
        let removed = bench
            .done(json!({"action": "file_remove", "path": "c", "recursive": true}))
            .await;
        assert_eq!(
            removed,
            json!({"path": "/workspace/c", "entries": 3, "bytes": 0})
        );
        bench
            .refused(
                json!({"action": "file_remove", "path": "c"}),
                "not_found",
                "/workspace/c",
            )
            .await;
        bench
            .done(json!({"action": "file_remove", "path": "c", "missing_ok": true}))
            .await;
        bench
            .refused(
                json!({"action": "file_remove", "path": "/workspace", "recursive": true}),
                "failed_precondition",
                "/workspace",
            )
            .await;
        let stat = bench.done(json!({"action": "file_stat", "path": "other", "root": bench.path("").to_str().unwrap()})).await;
        assert_eq!(stat["code"], Value::Null);
    });
}

#[test]
fn the_originals_actions_answer_as_it_does() {
    with_workspace(async |bench| {
        let written = bench
            .done(json!({"action": "write_workspace_file", "path": "src/a.txt", "text": "hé"}))
            .await;
        assert_eq!(
            written,
            json!({"path": "/workspace/src/a.txt", "size_bytes": 3, "bytes_written": 3})
        );
        bench.shell("chmod 755 src/a.txt && ln -s src/a.txt link && mkfifo src-pipe && mkdir src/sub && touch src/sub/z").await;
        bench.done(json!({"action": "write_workspace_file", "path": "/workspace/src/a.txt", "text": "x"})).await;
        assert_eq!(mode(bench.path("src/a.txt")), 0o755);
        let read = bench
            .done(json!({"action": "read_workspace_file", "path": "src/a.txt"}))
            .await;
        assert_eq!(
            read,
            json!({"path": "/workspace/src/a.txt", "size_bytes": 1, "content_b64": "eA=="})
        );
        // Half-closed, as a peer of that generation may.
        let list = bench
            .guest
            .ask_line(r#"{"action": "list_workspace", "recursive": true}"#)
            .await;
        let entry = |path: &str, kind: &str, size: u64, target: Value| json!({"path": format!("/workspace/{path}"), "artifact_type": kind, "size_bytes": size, "link_target": target});
        assert_eq!(
            list,
            json!({"path": "/workspace", "artifact_type": "directory", "entries": [
                entry("link", "symlink", 9, "src/a.txt".into()),
                entry("src", "directory", 0, Value::Null),
                entry("src/a.txt", "file", 1, Value::Null),
                entry("src/sub", "directory", 0, Value::Null),
                entry("src/sub/z", "file", 0, Value::Null),
                entry("src-pipe", "fifo", 0, Value::Null),
            ]})
        );
        let one = bench
            .done(json!({"action": "list_workspace", "path": "link"}))
            .await;
        assert_eq!(
            (&one["artifact_type"], &one["entries"][0]["path"]),
            (&json!("symlink"), &json!("/workspace/link"))
        );
        bench
            .refused(
                json!({"action": "read_workspace_file", "path": "link"}),
                "failed_precondition",
                "link",
            )
            .await;
        bench
            .refused(
                json!({"action": "read_workspace_file", "path": "../x"}),
                "invalid_argument",
                "../x",
            )
            .await;
        bench
            .refused(
                json!({"action": "read_workspace_file", "path": "/etc/passwd"}),
                "invalid_argument",
                "/etc/passwd",
            )
            .await;
        bench
            .refused(
                json!({"action": "write_workspace_file", "path": "link", "text": ""}),
                "failed_precondition",
                "link",
            )
            .await;
        bench
            .shell("ln -s src through && head -c 1048577 /dev/zero > large")
            .await;
        bench
            .refused(
                json!({"action": "write_workspace_file", "path": "through/new", "text": ""}),
                "failed_precondition",
                "through",
            )
            .await;
        bench
            .refused(
                json!({"action": "read_workspace_file", "path": "large"}),
                "limit_exceeded",
                "large",
            )
            .await;
        bench
            .refused(
                json!({"action": "delete_workspace_path", "path": "src"}),
                "failed_precondition",
                "src",
            )
            .await;
        let deleted = bench
            .done(json!({"action": "delete_workspace_path", "path": "link"}))
            .await;
        assert_eq!(deleted, json!({"path": "/workspace/link", "deleted": true}));
        assert!(bench.path("src/a.txt").exists());
        bench.assert_tidy().await;
    });
}
