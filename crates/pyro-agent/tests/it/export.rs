//! Trees that leave the guest, as GNU tar sees them.

use pyro_protocol::frame::{HEADER_LEN, Kind, parse_header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, BufReader, DuplexStream};

use crate::files::{Bench, read_line, with_workspace};

/// What an export answered.
struct Exported {
    header: Value,
    archive: Vec<u8>,
    progress: usize,
    /// `None`: the stream ended without one.
    end: Option<Value>,
}

impl Exported {
    /// The end of an export that must be whole.
    fn whole(&self) -> &Value {
        let end = self.end.as_ref().expect("there is an end");
        assert!(end.get("error").is_none(), "{end}");
        assert_eq!(end["archive_size"], self.archive.len());
        end
    }
}

async fn export(bench: &Bench, request: Value) -> Exported {
    let mut stream = BufReader::new(bench.send(&request).await);
    let header = read_line(&mut stream).await;
    assert_eq!(header["frames"], true, "{request}: {header}");
    collect(stream, header).await
}

async fn collect(mut stream: BufReader<DuplexStream>, header: Value) -> Exported {
    let mut exported = Exported {
        header,
        archive: Vec::new(),
        progress: 0,
        end: None,
    };
    loop {
        let mut head = [0; HEADER_LEN];
        if stream.read_exact(&mut head).await.is_err() {
            return exported;
        }
        let (kind, length) = parse_header(head).unwrap();
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        match kind {
            Kind::Stdout => exported.archive.extend(payload),
            Kind::Progress => exported.progress += 1,
            Kind::End => {
                exported.end = Some(serde_json::from_slice(&payload).unwrap());
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "nothing follows");
                return exported;
            }
            other => panic!("{other:?} is no part of an export"),
        }
    }
}

/// Puts an archive beside the workspace.
fn keep(bench: &Bench, exported: &Exported) {
    std::fs::write(bench.outside().join("archive"), &exported.archive).unwrap();
}

async fn names(bench: &Bench, exported: &Exported) -> Vec<String> {
    keep(bench, exported);
    let listed = bench.shell("tar -tf ../archive").await;
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn gnu_tar_unpacks_an_export_of_any_compression() {
    with_workspace(async |bench| {
        bench
            .shell(
                "mkdir -p t/empty t/sub && cd t && seq 300000 > big && printf x > sub/$(printf '\\377') && \
                 ln -s ../nowhere sub/link && ln big sub/hard && chmod 4750 big && \
                 truncate -s 5M hole && mkfifo pipe && touch -d '1999-01-01 00:00:00.123456789' sub",
            )
            .await;
        for (compression, flag) in [("none", ""), ("gzip", "-z"), ("zstd", "--zstd")] {
            let request = json!({"action": "tree_export", "path": "t", "compression": compression, "special": true});
            let exported = export(&bench, request).await;
            assert_eq!(
                exported.header,
                json!({"ok": true, "frames": true, "path": "/workspace/t", "artifact_type": "directory", "compression": compression})
            );
            let end = exported.whole();
            assert_eq!(
                (&end["entry_count"], &end["bytes_written"]),
                (&json!(8), &json!(1_988_895 + 5 * 1024 * 1024 + 1))
            );
            keep(&bench, &exported);
            let digest = bench.shell("sha256sum < ../archive").await;
            assert_eq!(
                end["digest"],
                format!("sha256:{}", digest.split(' ').next().unwrap())
            );
            bench
                .shell(&format!(
                    "mkdir ../{compression} && tar {flag} -xpf ../archive -C ../{compression}"
                ))
                .await;
            let look = "find . -mindepth 1 -printf '%P %y %m %s %n %l %T+\\n' | LC_ALL=C sort; find . -type f -exec sha256sum {} + | LC_ALL=C sort -k2";
            let packed = bench.shell(&format!("cd t && {look}")).await;
            let unpacked = bench.shell(&format!("cd ../{compression} && {look}")).await;
            // The times of the directory above are nobody's.
            assert_eq!(packed, unpacked);
            bench
                .shell(&format!("tar {flag} --compare -f ../archive -C t"))
                .await;
        }
    });
}

#[test]
fn one_thing_several_or_what_is_left_of_it() {
    with_workspace(async |bench| {
        bench
            .shell("mkdir -p a/node_modules/x a/src b && touch a/src/m.rs a/src/m.o a/top b/file c && ln -s a link")
            .await;
        let all = async |request: Value| {
            let mut request = request;
            request["action"] = "tree_export".into();
            let exported = export(&bench, request).await;
            exported.whole();
            names(&bench, &exported).await
        };
        assert_eq!(all(json!({"path": "c"})).await, ["c"]);
        assert_eq!(all(json!({"path": "link"})).await, ["link"]);
        assert_eq!(all(json!({"path": "b"})).await, ["file"]);
        assert_eq!(
            all(json!({"path": "b", "include_root": true})).await,
            ["./", "file"]
        );
        assert_eq!(
            all(json!({"paths": ["c", "a/src", "/workspace/a/src/m.rs", "b/file", "c"]})).await,
            ["a/src/", "a/src/m.o", "a/src/m.rs", "b/file", "c"]
        );
        assert_eq!(
            all(json!({"exclude": ["node_modules", "*.o", "/b"]})).await,
            ["a/", "a/src/", "a/src/m.rs", "a/top", "c", "link"]
        );
        assert_eq!(
            all(json!({"path": "a", "exclude": ["src/**"]})).await,
            ["node_modules/", "node_modules/x/", "src/", "top"]
        );
        let root = bench.path("b").to_str().unwrap().to_owned();
        assert_eq!(all(json!({"root": root})).await, ["file"]);
        for (request, code, part) in [
            (json!({"path": "none"}), "not_found", "none"),
            (json!({"paths": ["c", "none"]}), "not_found", "none"),
            (json!({"path": "../x"}), "invalid_argument", "../x"),
            (json!({"path": "/etc"}), "invalid_argument", "/etc"),
            (json!({"exclude": ["[a"]}), "invalid_argument", "[a"),
        ] {
            let mut request = request;
            request["action"] = "tree_export".into();
            bench.refused(request, code, part).await;
        }
        bench.shell("mkfifo pipe").await;
        bench
            .refused(
                json!({"action": "tree_export", "path": "pipe"}),
                "failed_precondition",
                "pipe",
            )
            .await;
        let skipped = export(
            &bench,
            json!({"action": "tree_export", "exclude": ["a", "b"]}),
        )
        .await;
        assert_eq!(
            skipped.whole()["skipped"],
            json!({"count": 1, "paths": ["pipe"]})
        );
    });
}

#[test]
fn twenty_thousand_entries_come_in_order_and_are_reported() {
    with_workspace(async |bench| {
        bench
            .shell("for d in 1 2; do mkdir $d && (cd $d && seq -w 10000 | xargs touch); done")
            .await;
        let exported = export(&bench, json!({"action": "tree_export"})).await;
        assert_eq!(exported.whole()["entry_count"], 20_002);
        assert!(exported.progress <= 240, "at most four a second");
        let found = names(&bench, &exported).await;
        let mut sorted = found.clone();
        sorted.sort();
        assert_eq!(found.len(), 20_002);
        assert_eq!(found, sorted);
        let again = export(&bench, json!({"action": "tree_export"})).await;
        assert!(again.archive == exported.archive);
    });
}

#[test]
fn limits_and_kernel_files_are_told_in_the_end() {
    with_workspace(async |bench| {
        bench
            .shell("head -c 3000000 /dev/urandom > big && touch a b")
            .await;
        for limit in [json!({"max_bytes": 1_000_000}), json!({"max_entries": 2})] {
            let mut request = limit;
            request["action"] = "tree_export".into();
            let exported = export(&bench, request).await;
            let end = exported.end.expect("there is an end");
            assert_eq!(end["code"], "limit_exceeded", "{end}");
            assert!(exported.archive.len() <= 3_100_000);
        }
        let request = json!({"action": "tree_export", "root": "/proc/self", "path": "status"});
        let exported = export(&bench, request).await;
        assert_eq!(
            exported.whole()["changed"],
            json!({"count": 1, "paths": ["status"]})
        );
        assert_eq!(names(&bench, &exported).await, ["status"]);
    });
}

#[test]
fn an_export_that_is_cut_has_no_end() {
    with_workspace(async |bench| {
        bench.shell("head -c 30000000 /dev/urandom > big").await;
        let stream = bench.send(&json!({"action": "tree_export"})).await;
        let mut stream = BufReader::new(stream);
        let header = read_line(&mut stream).await;
        // The peer ends its direction: it gives up, and is not told that all was well.
        tokio::io::AsyncWriteExt::shutdown(&mut stream)
            .await
            .unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() < 30_000_000);
        assert_eq!(header["ok"], true);
        assert!(!rest.windows(7).any(|window| window == b"\"digest"));
        bench.guest.assert_serves().await;
    });
}

#[test]
fn peers_that_take_nothing_hold_nothing_and_too_many_are_refused() {
    with_workspace(async |bench| {
        bench
            .shell("head -c 1000000 /dev/urandom > big && touch file")
            .await;
        let mut hung = Vec::new();
        for _ in 0..32 {
            let stream = bench.send(&json!({"action": "tree_export"})).await;
            let mut stream = BufReader::with_capacity(16, stream);
            assert_eq!(read_line(&mut stream).await["ok"], true);
            hung.push(stream);
        }
        bench
            .refused(
                json!({"action": "tree_export"}),
                "limit_exceeded",
                "32 exports",
            )
            .await;
        // Work of others goes on.
        let globbed = bench
            .done(json!({"action": "file_glob", "path": ".", "patterns": ["*"]}))
            .await;
        assert_eq!(globbed["entries"].as_array().unwrap().len(), 2);
        // One that takes its archive late gets it whole.
        let late = collect(hung.pop().unwrap(), Value::Null).await;
        assert_eq!(late.whole()["entry_count"], 2);
        drop(hung);
        while export_or_refusal(&bench).await == "limit_exceeded" {
            tokio::task::yield_now().await;
        }
    });
}

async fn export_or_refusal(bench: &Bench) -> String {
    let mut stream = BufReader::new(
        bench
            .send(&json!({"action": "tree_export", "path": "file"}))
            .await,
    );
    let header = read_line(&mut stream).await;
    header["code"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn nothing_outside_is_read_while_links_and_directories_change_places() {
    with_workspace(async |bench| {
        bench
            .shell("mkdir ../secret && echo 'top secret' > ../secret/file && mkdir -p t/a t/b && echo mine > t/a/file && \
                    ln -s ../../secret t/link && ln -s ../../secret/file t/b/file && seq 2000 | sed s,^,t/a/f, | xargs touch")
            .await;
        // Swaps a directory and a link, a file and a link, as fast as it can.
        let swap = "while [ ! -e stop ]; do mv -T t/a t/was && mv -T t/link t/a && mv -T t/a t/link && mv -T t/was t/a; \
                    mv -f t/a/file t/x; mv -f t/b/file t/a/file; mv -f t/a/file t/b/file; mv -f t/x t/a/file; done";
        let here = bench.path("");
        let racing = bench
            .guest
            .start(crate::guest::script(&format!(
                "cd {} && {swap}",
                here.display()
            )))
            .await;
        for _ in 0..40 {
            let exported = export(&bench, json!({"action": "tree_export", "path": "t"})).await;
            exported.whole();
            let secret = b"top secret";
            assert!(
                !exported
                    .archive
                    .windows(secret.len())
                    .any(|window| window == secret)
            );
        }
        bench.shell("touch stop").await;
        racing.finish().await;
    });
}
