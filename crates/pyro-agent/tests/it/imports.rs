//! Archives that a peer sends.

use std::path::Path;
use std::time::Duration;

use pyro_protocol::frame::{Kind, encode, parse_header};
use pyro_protocol::limits::{MAX_IMPORTS, STDIN_WINDOW};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, split};

use crate::files::{Bench, with_workspace};

/// What an import answered: its header, the credit it gave, progress, and its end.
struct Imported {
    credit: u64,
    progress: Vec<Value>,
    end: Value,
}

/// Sends `archive` as an honest peer does, within the window.
async fn import(bench: &Bench, mut request: Value, archive: &[u8]) -> Imported {
    request["action"] = "tree_import".into();
    let (mut reader, mut writer) = split(bench.send(&request).await);
    let header = line(&mut reader).await;
    assert_eq!(header, json!({"ok": true, "frames": true}));
    let (mut sent, mut window) = (0, STDIN_WINDOW);
    let mut imported = Imported {
        credit: 0,
        progress: Vec::new(),
        end: Value::Null,
    };
    loop {
        while window > 0 && sent < archive.len() {
            let piece = (archive.len() - sent).min(window).min(50_000);
            let frame = encode(Kind::Stdin, &archive[sent..sent + piece]);
            if writer.write_all(&frame).await.is_err() {
                break;
            }
            sent += piece;
            window -= piece;
            if sent == archive.len() {
                let _ = writer.write_all(&encode(Kind::StdinEnd, b"")).await;
            }
        }
        if archive.is_empty() && sent == 0 {
            let _ = writer.write_all(&encode(Kind::StdinEnd, b"")).await;
            sent = 1;
        }
        let (kind, payload) = frame(&mut reader).await;
        match kind {
            Kind::Window => {
                let credit = u32::from_be_bytes(payload.try_into().expect("four bytes"));
                imported.credit += u64::from(credit);
                window += credit as usize;
            }
            Kind::Progress => imported.progress.push(parsed(&payload)),
            Kind::End => {
                imported.end = parsed(&payload);
                return imported;
            }
            other => panic!("{other:?} is no part of an import"),
        }
    }
}

async fn line(reader: &mut ReadHalf<DuplexStream>) -> Value {
    let mut line = Vec::new();
    loop {
        match reader.read_u8().await.expect("a line comes") {
            b'\n' => return parsed(&line),
            byte => line.push(byte),
        }
    }
}

async fn frame(reader: &mut ReadHalf<DuplexStream>) -> (Kind, Vec<u8>) {
    let mut head = [0; 5];
    reader.read_exact(&mut head).await.expect("a frame comes");
    let (kind, length) = parse_header(head).expect("the agent sends frames");
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload).await.expect("it is whole");
    (kind, payload)
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("it is JSON")
}

/// An archive that GNU tar makes of a tree outside of the workspace.
async fn packed(bench: &Bench, options: &str) -> Vec<u8> {
    let outside = bench.outside().to_str().expect("UTF-8").to_owned();
    let script = format!(
        "mkdir -p {outside}/tree/dir && cd {outside}/tree && umask 022 && echo file > dir/file \
         && ln -sf ../../up dir/link && ln -f dir/file hard && head -c 3000000 /dev/zero | \
         tr '\\0' x > large && chmod 0751 dir/file && touch -d @1000000000.5 dir/file dir large \
         && tar -C {outside}/tree {options} -cf {outside}/archive dir hard large"
    );
    bench.shell(&script).await;
    std::fs::read(bench.outside().join("archive")).expect("it was made")
}

/// Everything in the workspace with kind, mode, time, size and target.
async fn listing(bench: &Bench) -> String {
    bench
        .shell("find . -printf '%P %y %m %T@ %s %l\\n' | grep -v ' d ' | LC_ALL=C sort; find . -type d -printf '%P %m %T@\\n' | sort")
        .await
}

fn header(name: &str, size: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[156] = b'0';
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[test]
fn a_tree_comes_as_frames_within_the_window() {
    with_workspace(async |bench| {
        for options in ["", "--gzip", "--zstd", "--format=posix"] {
            let archive = packed(&bench, options).await;
            let imported = import(&bench, json!({"destination": "a/b"}), &archive).await;
            let end = json!({
                "destination": "/workspace/a/b",
                "entries": 5,
                "bytes_written": 3_000_005,
                "attributes_left_out": 0,
            });
            assert_eq!(imported.end, end, "{options}");
            assert!(imported.credit <= archive.len() as u64);
            let same = "cd a/b && diff -r --no-dereference . ../../../tree && \
                        stat -c '%a %Y %h' dir/file hard && readlink dir/link && cd ../.. && rm -r a";
            let told = bench.shell(same).await;
            assert_eq!(
                told, "751 1000000000 2\n751 1000000000 2\n../../up\n",
                "{options}"
            );
        }
    });
}

#[test]
fn an_import_counts_as_a_whole_or_not_at_all() {
    with_workspace(async |bench| {
        bench
            .shell(
                "mkdir -p dir sub/large; echo old > dir/file; echo keep > keep; touch -d @5 dir .",
            )
            .await;
        let before = listing(&bench).await;
        let archive = packed(&bench, "").await;
        let digest = bench
            .shell(&format!(
                "sha256sum < {}/archive",
                bench.outside().display()
            ))
            .await;
        let digest = digest.split(' ').next().expect("a digest").to_owned();
        let half = archive.len() / 2;
        for (request, archive, code) in [
            (json!({}), &archive[..half], "invalid_argument"),
            (
                json!({"sha256": "00".repeat(32)}),
                &archive[..],
                "digest_mismatch",
            ),
            (json!({"max_bytes": 1000}), &archive[..], "limit_exceeded"),
            (json!({"max_entries": 2}), &archive[..], "limit_exceeded"),
            (
                json!({"destination": "sub"}),
                &archive[..],
                "failed_precondition",
            ),
            (
                json!({"compression": "gzip"}),
                &archive[..],
                "invalid_argument",
            ),
            (
                json!({"destination": "keep/below"}),
                &archive[..],
                "failed_precondition",
            ),
            (
                json!({"destination": "../x"}),
                &archive[..],
                "invalid_argument",
            ),
            (json!({"root": "/no/such/root"}), &archive[..], "not_found"),
            (json!({}), &header("../out", 0)[..], "invalid_argument"),
        ] {
            let imported = import(&bench, request.clone(), archive).await;
            assert_eq!(imported.end["code"], code, "{request}: {}", imported.end);
            assert_eq!(listing(&bench).await, before, "{request}");
        }
        let imported = import(&bench, json!({"sha256": digest}), &archive).await;
        assert_eq!(imported.end["entries"], 5, "{}", imported.end);
        assert_eq!(bench.shell("cat dir/file keep").await, "file\nkeep\n");
    });
}

#[test]
fn in_place_the_error_tells_what_was_written() {
    with_workspace(async |bench| {
        let archive = [header("one", 0), header("two", 0), header("../out", 0)].concat();
        let imported = import(&bench, json!({"staged": false}), &archive).await;
        let error = imported.end["error"].as_str().expect("an error");
        assert!(
            error.ends_with("2 members were written in place, the last of them `two`"),
            "{error}"
        );
        assert_eq!(bench.shell("ls").await, "one\ntwo\n");
    });
}

#[test]
fn an_error_is_told_before_the_archive_is_at_its_end() {
    with_workspace(async |bench| {
        let (mut reader, mut writer) = split(bench.send(&json!({"action": "tree_import"})).await);
        line(&mut reader).await;
        writer
            .write_all(&encode(Kind::Stdin, &[b'x'; 600]))
            .await
            .unwrap();
        let end = loop {
            let (kind, payload) = frame(&mut reader).await;
            if kind == Kind::End {
                break parsed(&payload);
            }
        };
        assert_eq!(end["code"], "invalid_argument");
        // Whoever goes on sending comes to the end all the same.
        for _ in 0..20 {
            writer
                .write_all(&encode(Kind::Stdin, &vec![0; 60_000]))
                .await
                .unwrap();
        }
        writer
            .write_all(&encode(Kind::StdinEnd, b""))
            .await
            .unwrap();
        assert_eq!(reader.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn a_peer_that_breaks_the_rules_or_leaves_changes_nothing() {
    with_workspace(async |bench| {
        bench.shell("echo old > one; touch -d @5 one .").await;
        let before = listing(&bench).await;
        let begin = [
            header("one", 5),
            b"new\n\n".to_vec(),
            vec![0; 507],
            header("two", 1 << 30),
        ]
        .concat();
        let begun = encode(Kind::Stdin, &begin);
        for rest in [
            &encode(Kind::Signal, b"\x0f")[..],
            &encode(Kind::Stdout, b"x"),
            &[
                encode(Kind::Stdin, &vec![0; 250_000]),
                encode(Kind::Stdin, &vec![0; 250_000]),
                encode(Kind::Stdin, &vec![0; 250_000]),
            ]
            .concat()
            .repeat(4),
            b"\xff\xff\xff\xff\xff",
            b"\x03\0\0\x01",
            b"",
        ] {
            let (mut reader, mut writer) =
                split(bench.send(&json!({"action": "tree_import"})).await);
            line(&mut reader).await;
            writer.write_all(&begun).await.unwrap();
            let send = async {
                let _ = writer.write_all(rest).await;
                let _ = writer.shutdown().await;
            };
            let mut answer = Vec::new();
            let (read, ()) = tokio::join!(reader.read_to_end(&mut answer), send);
            read.unwrap();
            assert_eq!(listing(&bench).await, before);
        }
        // And one that is gone without a word.
        let mut stream = bench.send(&json!({"action": "tree_import"})).await;
        stream.write_all(&begun).await.unwrap();
        while !bench.shell("ls -A").await.contains(".pyro-import-") {}
        drop(stream);
        while listing(&bench).await != before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bench.assert_tidy().await;
    });
}

#[test]
fn imports_that_hang_hold_nothing_else() {
    with_workspace(async |bench| {
        let mut hung = Vec::new();
        for _ in 0..MAX_IMPORTS + 3 {
            let stream = bench.send(&json!({"action": "tree_import"})).await;
            hung.push(stream);
        }
        bench.guest.assert_serves().await;
        let (mut reader, mut writer) = split(bench.send(&json!({"action": "tree_import"})).await);
        let archive = header("late", 0);
        writer
            .write_all(&encode(Kind::Stdin, &archive))
            .await
            .unwrap();
        writer
            .write_all(&encode(Kind::StdinEnd, b""))
            .await
            .unwrap();
        line(&mut reader).await;
        drop(hung);
        loop {
            if let (Kind::End, end) = frame(&mut reader).await {
                assert_eq!(parsed(&end)["entries"], 1);
                break;
            }
        }
        bench.assert_tidy().await;
    });
}

#[test]
fn an_import_takes_little_memory_however_large_it_is() {
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = line.expect("a peak").trim().trim_end_matches(" kB");
        peak.parse::<u64>().expect("a number")
    };
    with_workspace(async |bench| {
        import(&bench, json!({}), &header("warm", 0)).await;
        let before = peak();
        let (mut reader, mut writer) = split(bench.send(&json!({"action": "tree_import"})).await);
        line(&mut reader).await;
        let mut window = STDIN_WINDOW;
        let size = 128 << 20;
        let mut piece = header("large", size);
        let mut left = size;
        let end = loop {
            while window >= 64 * 1024 && !piece.is_empty() {
                writer
                    .write_all(&encode(Kind::Stdin, &piece))
                    .await
                    .unwrap();
                window -= piece.len();
                piece = vec![0; left.min(64 * 1024) as usize];
                left -= piece.len() as u64;
                if piece.is_empty() {
                    writer
                        .write_all(&encode(Kind::StdinEnd, b""))
                        .await
                        .unwrap();
                }
            }
            match frame(&mut reader).await {
                (Kind::Window, credit) => {
                    window += u32::from_be_bytes(credit.try_into().unwrap()) as usize;
                }
                (Kind::End, end) => break parsed(&end),
                _ => {}
            }
        };
        assert_eq!(end["bytes_written"], size, "{end}");
        let grown = peak() - before;
        assert!(grown < 3 * 1024, "{grown} KiB");
    });
}

/// Sends the request line of an action of the original with its body, and reads one line.
async fn original(bench: &Bench, mut request: Value, body: &[u8], size: i64) -> Value {
    request["archive_size"] = size.into();
    let (mut reader, mut writer) = split(bench.send(&request).await);
    // The original's host sends everything before it reads.
    writer.write_all(body).await.expect("the agent reads on");
    let reply = line(&mut reader).await;
    assert_eq!(
        reader.read(&mut [0; 1]).await.unwrap(),
        0,
        "one line and the end"
    );
    reply
}

#[test]
fn the_originals_archive() {
    with_workspace(async |bench| {
        let extract = json!({"action": "extract_archive"});
        for options in ["", "--gzip", "--format=posix"] {
            let archive = packed(&bench, options).await;
            let size = i64::try_from(archive.len()).unwrap();
            let reply = original(&bench, extract.clone(), &archive, size).await;
            let expected =
                json!({"destination": "/workspace", "entry_count": 5, "bytes_written": 3_000_005});
            assert_eq!(reply, expected);
            let same = bench
                .shell("diff -r --no-dereference . ../tree && stat -c %a dir/file")
                .await;
            assert_eq!(same, "751\n");
        }
        let archive = packed(&bench, "").await;
        let size = i64::try_from(archive.len()).unwrap();
        for (destination, shown) in [
            ("sub/./dir", "/workspace/sub/dir"),
            (" /workspace//other ", "/workspace/other"),
        ] {
            let request = json!({"action": "extract_archive", "destination": destination});
            assert_eq!(
                original(&bench, request, &archive, size).await["destination"],
                shown
            );
        }
        let before = listing(&bench).await;
        for destination in [
            "",
            " ",
            "/",
            "/etc",
            "/workspace/../etc",
            "../x",
            "/workspacex",
        ] {
            let request = json!({"action": "extract_archive", "destination": destination});
            let reply = original(&bench, request, &archive, size).await;
            assert_eq!(
                reply["code"], "invalid_argument",
                "{destination:?}: {reply}"
            );
        }
        let reply = original(&bench, extract.clone(), b"", -1).await;
        assert_eq!(reply["code"], "invalid_argument", "{reply}");
        // The first byte behind the size belongs to nobody.
        let short = [&header("new", 0)[..], b"evil"].concat();
        let reply = original(&bench, extract.clone(), &short, 512).await;
        assert_eq!(reply["entry_count"], 1, "{reply}");
        bench.shell("rm new; mkdir here").await;
        let standing = header("here", 0);
        let reply = original(
            &bench,
            extract.clone(),
            &[standing, vec![0; 3_000_000]].concat(),
            3_000_512,
        )
        .await;
        assert_eq!(reply["code"], "failed_precondition", "{reply}");
        bench.shell("rmdir here").await;
        let lines = |text: &str| {
            text.lines()
                .filter(|line| !line.starts_with(' '))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(&listing(&bench).await), lines(&before));
        bench.assert_tidy().await;
    });
}

/// What is in a directory anywhere.
async fn found(bench: &Bench, place: &Path) -> String {
    let find = "find . -printf '%P %y %m\\n' | sort";
    bench
        .shell(&format!("cd {} && {find}", place.display()))
        .await
}

#[test]
fn secrets_are_swapped_as_a_whole() {
    with_workspace(async |bench| {
        let memory = tempfile::tempdir_in("/dev/shm").expect("memory is a file system");
        let place = memory.path().join("secrets");
        let mut bench = bench;
        bench.guest.agent = bench.guest.agent.clone().with_secrets(place.clone());
        let install = json!({"action": "install_secrets"});
        let size = |archive: &[u8]| i64::try_from(archive.len()).unwrap();
        let first = [
            &header("TOKEN", 6)[..],
            b"hidden",
            &[0; 506],
            &header("sub/KEY", 0),
        ]
        .concat();
        let reply = original(&bench, install.clone(), &first, size(&first)).await;
        let told = json!({"destination": place, "entry_count": 2, "bytes_written": 6});
        assert_eq!(reply, told);
        let whole = " d 700\nTOKEN f 600\nsub d 700\nsub/KEY f 600\n";
        assert_eq!(found(&bench, &place).await, whole);
        // Half an archive, a link, a way out: the old ones stay.
        let mut link = header("link", 0);
        link[156] = b'2';
        link[157..161].copy_from_slice(b"/etc");
        link[148..156].fill(b' ');
        let sum: u32 = link.iter().map(|byte| u32::from(*byte)).sum();
        link[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        for bad in [
            &first[..700],
            &link,
            &header("../out", 0),
            &header("/abs", 0),
            b"noise",
        ] {
            let bad = [&header("NEW", 0)[..], bad].concat();
            let reply = original(&bench, install.clone(), &bad, size(&bad)).await;
            assert!(reply["error"].is_string(), "{reply}");
            assert_eq!(found(&bench, &place).await, whole);
        }
        let second = header("OTHER", 0);
        original(&bench, install.clone(), &second, size(&second)).await;
        assert_eq!(found(&bench, &place).await, " d 700\nOTHER f 600\n");
        assert_eq!(
            std::fs::read_dir(memory.path()).unwrap().count(),
            1,
            "nothing is left"
        );
        // On a disk they would outlive the machine.
        bench.guest.agent = bench
            .guest
            .agent
            .clone()
            .with_secrets(bench.path("secrets"));
        let reply = original(&bench, install, &second, size(&second)).await;
        assert_eq!(reply["code"], "failed_precondition", "{reply}");
    });
}
