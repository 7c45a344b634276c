//! Trees into a real machine and out of it again, on its overlay, against GNU tar.

use std::process::Command;

use pyro_protocol::frame::Kind;
use serde_json::{Value, json};

use super::legacy::{ask, machine};
use super::peer::Peer;
use super::world;

/// Sends `archive` as a tree import and gives its end.
fn import(socket: &std::path::Path, request: &Value, archive: &[u8]) -> Value {
    let (mut peer, header) = Peer::ask(socket, request);
    assert_eq!(header["ok"], true, "{header}");
    // Less than the window: there is no need to wait for credit.
    assert!(archive.len() < 200_000);
    peer.send(Kind::Stdin, archive);
    peer.send(Kind::StdinEnd, b"");
    peer.finish().1
}

#[test]
fn a_tree_goes_in_as_a_whole_and_comes_out_the_same() {
    let host = tempfile::tempdir().unwrap();
    let sh = |script: &str| {
        let output = Command::new("bash")
            .args(["-ec", script])
            .current_dir(host.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    sh("mkdir -p tree/sub/empty && cd tree && echo one > a && chmod 751 a && ln -s ../away sub/link && ln a sub/hard
        touch -d '2001-02-03 04:05:06.789' sub/late && truncate -s 5M hole && echo x >> hole
        printf n > $'new\\nline' && printf b > $'\\xff' && chmod 700 sub/empty && tar --format=posix -Sczf ../in.tar.gz .");
    let archive = std::fs::read(host.path().join("in.tar.gz")).unwrap();
    let world = world();
    let (_running, socket) = machine(&world);
    let request = json!({"action": "tree_import", "destination": "tree"});
    let cut = import(&socket, &request, &archive[..archive.len() - 20]);
    assert_eq!(cut["code"], "invalid_argument", "{cut}");
    let left = ask(&socket, &json!({"command": "ls -A /workspace"}));
    assert_eq!(left["stdout"], "", "what fails leaves nothing");
    let end = import(&socket, &request, &archive);
    assert_eq!(end["entries"], 10, "{end}");
    // Onto what is there: files are replaced, what else is there stays.
    let changed = ask(
        &socket,
        &json!({"command": "cd /workspace/tree && echo changed > a && echo mine > b"}),
    );
    assert_eq!(changed["exit_code"], 0, "{changed}");
    let end = import(&socket, &request, &archive);
    assert_eq!(end["entries"], 10, "{end}");
    let merged = ask(
        &socket,
        &json!({"command": "cd /workspace/tree && cat a b && rm b && find . -mindepth 1 -maxdepth 1 -printf x"}),
    );
    assert_eq!(merged["stdout"], "one\nmine\nxxxxx", "{merged}");
    for compression in ["none", "gzip", "zstd"] {
        let export = json!({"action": "tree_export", "path": "tree", "compression": compression, "include_root": true});
        let (mut peer, header) = Peer::ask(&socket, &export);
        assert_eq!(header["artifact_type"], "directory", "{header}");
        let (archive, end) = peer.finish();
        assert_eq!(end["archive_size"], archive.len() as u64, "{end}");
        std::fs::write(host.path().join("out"), archive).unwrap();
        let digest = String::from_utf8(sh("sha256sum < out | cut -d' ' -f1")).unwrap();
        assert_eq!(end["digest"], format!("sha256:{}", digest.trim()), "{end}");
        let same = "rm -rf back && mkdir back && (zstd -dcf out 2>/dev/null || zcat -f out) | tar -C back -x
                    list() { (cd \"$1\" && find . -mindepth 1 -printf '%P %y %m %T@ %s %l %n\\0' | sort -z | tr '\\0' '\\n'); }
                    diff <(list tree) <(list back) && diff -r --no-dereference tree back && stat -c %b back/hole";
        let blocks = String::from_utf8(sh(same)).unwrap();
        assert!(
            blocks.trim().parse::<u64>().unwrap() < 100,
            "holes stay holes: {blocks}"
        );
    }
}
