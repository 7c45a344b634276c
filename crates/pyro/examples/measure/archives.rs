//! Trees into a guest and out of it, against GNU tar inside the same guest.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use pyro::{Program, Pyro};
use pyro_protocol::frame::{HEADER_LEN, Kind, encode, parse_header};
use pyro_protocol::limits::{FRAME_CHUNK, STDIN_WINDOW};
use serde_json::{Value, json};

use super::{exec, row, started, timed};

/// Files of the tree; their sizes are 0 to 45 kB.
const FILES: usize = 11_000;

/// Bytes of the archive that shows that memory does not grow with it.
const LARGE: usize = 2 * 1024 * 1024 * 1024;

/// Import and export of 250 MB in 11,000 files, `rounds` times, in turn with GNU tar; then one
/// archive of 2 GiB each way, and what the agent held at most.
pub(crate) async fn archives(pyro: &Pyro, rounds: usize) {
    let mut machine = started(pyro).await;
    let socket = machine.ready().unwrap().agent_socket.clone();
    let make = format!(
        "mkdir -p /workspace/src && cd /workspace/src && perl -e '
         my $noise = join \"\", map {{ pack \"N\", rand(2**32) }} 1..16384;
         for my $i (0..{}) {{
           my $d = \"d\" . int($i / 40); mkdir $d;
           open my $f, \">\", \"$d/$i\" or die; print $f substr($noise, $i % 1000, $i % 46 * 1000);
         }}' && tar -cf /root/tree.tar . && sync",
        FILES - 1
    );
    exec(&mut machine, &Program::shell(make)).await;
    let archive = ask(
        &socket,
        &json!({"argv": ["/bin/cat", "/root/tree.tar"], "stream": true}),
    );
    let archive = archive.0;
    println!("archive: {:.1} MB", archive.len() as f64 / 1e6);
    let (mut gnu_in, mut ours_in) = (Vec::new(), Vec::new());
    let (mut gnu_out, mut ours_out) = (Vec::new(), Vec::new());
    let (mut whole_in, mut whole_out) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let clear = "rm -rf /workspace/gnu /workspace/ours; mkdir /workspace/gnu; sync";
        timed(&mut machine, clear).await;
        let unpack = "tar -C /workspace/gnu -xf /root/tree.tar";
        gnu_in.push(timed(&mut machine, unpack).await);
        // How the original does it: the archive is held in memory, then unpacked.
        let clear = "rm -rf /workspace/gnu; mkdir /workspace/gnu; sync";
        timed(&mut machine, clear).await;
        let unpack = "cat /root/tree.tar > /dev/shm/whole && tar -C /workspace/gnu -xf /dev/shm/whole; \
                      rm /dev/shm/whole";
        whole_in.push(timed(&mut machine, unpack).await);
        timed(&mut machine, "sync").await;
        let begun = Instant::now();
        let end = import(&socket, "ours", archive.len(), |sent| &archive[sent..]);
        ours_in.push(begun.elapsed().as_secs_f64() * 1000.0);
        assert_eq!(count(&end["entries"]), entries(), "{end}");
        timed(&mut machine, "sync").await;
        let pack = "tar -C /workspace/src -cf - . | cat > /dev/null";
        gnu_out.push(timed(&mut machine, pack).await);
        // How the original does it: written to a file, read to count, read to be sent.
        let pack = "tar -C /workspace/src -cf /root/whole.tar . && tar -tf /root/whole.tar > /dev/null; \
                    cat /root/whole.tar > /dev/null; rm /root/whole.tar";
        whole_out.push(timed(&mut machine, pack).await);
        let begun = Instant::now();
        let export = json!({"action": "tree_export", "path": "src", "include_root": true});
        let (bytes, end) = ask(&socket, &export);
        ours_out.push(begun.elapsed().as_secs_f64() * 1000.0);
        assert_eq!(count(&end["entry_count"]), entries(), "{end}");
        assert_eq!(count(&end["archive_size"]), bytes.len());
    }
    let same = "diff -r --no-dereference /workspace/src /workspace/ours";
    exec(&mut machine, &Program::shell(same)).await;
    row("import: GNU `tar x` in the guest", &mut gnu_in);
    row("import: into memory, then GNU `tar x`", &mut whole_in);
    row("import: `tree_import`", &mut ours_in);
    row("export: GNU `tar c` in the guest", &mut gnu_out);
    row("export: GNU `tar c` to a file, read twice", &mut whole_out);
    row("export: `tree_export`", &mut ours_out);
    println!("most memory of the agent so far: {}", peak(&socket));
    timed(&mut machine, "rm -rf /workspace/* /root/tree.tar; sync").await;
    let begun = Instant::now();
    let zeros = vec![0; 1024 * 1024];
    let mut head = large_head();
    head.resize(1024 * 1024, 0);
    let total = 512 + LARGE + 1024;
    import(&socket, "large", total, |sent| match sent {
        sent if sent < head.len() => &head[sent..],
        sent => &zeros[..zeros.len().min(total - sent)],
    });
    println!("import of 2 GiB: {:.1} s", begun.elapsed().as_secs_f64());
    println!("most memory of the agent so far: {}", peak(&socket));
    for compression in ["none", "gzip", "zstd"] {
        let begun = Instant::now();
        let export = json!({"action": "tree_export", "path": "large", "compression": compression});
        let mut bytes = 0;
        hear(&socket, &export, |piece| bytes += piece.len());
        println!(
            "export of 2 GiB, {compression}: {:.1} s, {bytes} bytes",
            begun.elapsed().as_secs_f64(),
        );
        println!("most memory of the agent so far: {}", peak(&socket));
    }
    machine.stop(false).await.unwrap();
}

/// Members of the tree's archive: files, directories of 40 files each, and the root.
fn entries() -> usize {
    FILES + FILES.div_ceil(40) + 1
}

/// The header of a file of [`LARGE`] zeros.
fn large_head() -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..5].copy_from_slice(b"zeros");
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{LARGE:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[148..156].copy_from_slice(b"        ");
    block[156] = b'0';
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

/// `VmHWM` of the guest's first process.
fn peak(socket: &Path) -> String {
    let argv = json!({"argv": ["/bin/grep", "VmHWM", "/proc/1/status"], "stream": true});
    String::from_utf8(ask(socket, &argv).0)
        .unwrap()
        .trim()
        .to_owned()
}

/// A stream past the header line of its answer.
fn open(socket: &Path, request: &Value) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream
        .write_all(format!("CONNECT 5005\n{request}\n").as_bytes())
        .unwrap();
    for _ in 0..2 {
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte).unwrap();
        }
    }
    stream
}

/// What comes on stdout, and the end frame.
fn ask(socket: &Path, request: &Value) -> (Vec<u8>, Value) {
    let mut stdout = Vec::new();
    let end = hear(socket, request, |piece| stdout.extend_from_slice(piece));
    (stdout, end)
}

/// The end frame; `take` is given what comes on stdout.
fn hear(socket: &Path, request: &Value, mut take: impl FnMut(&[u8])) -> Value {
    let mut stream = open(socket, request);
    loop {
        match frame(&mut stream) {
            (Kind::Stdout, bytes) => take(&bytes),
            (Kind::End, end) => return serde_json::from_slice(&end).unwrap(),
            (Kind::Progress | Kind::Window, _) => {}
            (kind, bytes) => panic!("{kind:?}: {}", String::from_utf8_lossy(&bytes)),
        }
    }
}

fn count(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// Sends `total` bytes, of which `rest` gives what follows those sent, and keeps to the window.
fn import<'a>(
    socket: &Path,
    destination: &str,
    total: usize,
    rest: impl Fn(usize) -> &'a [u8],
) -> Value {
    let mut stream = open(
        socket,
        &json!({"action": "tree_import", "destination": destination}),
    );
    let (mut sent, mut credit) = (0, STDIN_WINDOW);
    loop {
        while sent < total && credit > 0 {
            let rest = rest(sent);
            let piece = &rest[..rest.len().min(credit).min(FRAME_CHUNK)];
            stream.write_all(&encode(Kind::Stdin, piece)).unwrap();
            sent += piece.len();
            credit -= piece.len();
            if sent == total {
                stream.write_all(&encode(Kind::StdinEnd, b"")).unwrap();
            }
        }
        match frame(&mut stream) {
            (Kind::Window, more) => {
                credit += u32::from_be_bytes(more.try_into().unwrap()) as usize;
            }
            (Kind::Progress, _) => {}
            (Kind::End, end) => {
                let end: Value = serde_json::from_slice(&end).unwrap();
                assert!(end.get("error").is_none(), "{end}");
                return end;
            }
            (kind, bytes) => panic!("{kind:?}: {}", String::from_utf8_lossy(&bytes)),
        }
    }
}

fn frame(stream: &mut UnixStream) -> (Kind, Vec<u8>) {
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head).unwrap();
    let (kind, length) = parse_header(head).unwrap();
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).unwrap();
    (kind, payload)
}
