//! Debian's registry on loopback, with images that skopeo and umoci made.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::wire;

const START: Duration = Duration::from_mins(1);

/// A running registry; it ends with the value.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// Its port on loopback.
    pub port: u16,
    /// What it keeps, and room for what is pushed.
    pub dir: tempfile::TempDir,
}

impl Registry {
    /// Starts one and waits until it listens.
    pub fn start() -> Self {
        Self::start_with("", "")
    }

    /// With more settings of its storage, and of its addresses.
    pub fn start_with(storage: &str, http: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The port may be taken by another test between its choice and its use.
        for _ in 0..5 {
            let chosen = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = chosen.local_addr().unwrap().port();
            drop(chosen);
            let config = dir.path().join("config.yml");
            let text = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n{storage}\nhttp: {{addr: '127.0.0.1:{port}'{http}}}\n",
                dir.path().join("data").display()
            );
            fs::write(&config, text).unwrap();
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let begin = Instant::now();
            while begin.elapsed() < START && child.try_wait().unwrap().is_none() {
                if listens(child.id(), port) {
                    return Self { child, port, dir };
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("the registry does not start");
    }

    /// Pushes `<layout>:t` as `<name>` with these options of skopeo.
    pub fn push(&self, layout: &Path, name: &str, options: &[&str]) {
        self.push_from(&format!("oci:{}:t", layout.display()), name, options);
    }

    /// Pushes what skopeo calls by this name.
    pub fn push_from(&self, from: &str, name: &str, options: &[&str]) {
        let to = format!("docker://127.0.0.1:{}/{name}", self.port);
        let mut arguments = vec!["--insecure-policy", "copy", "--dest-tls-verify=false"];
        arguments.extend(options);
        arguments.extend([from, to.as_str()]);
        run("skopeo", &arguments);
    }

    /// Puts a document under a tag, as it is.
    pub fn put(&self, repository: &str, tag: &str, media_type: &str, body: &str) {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let answer = self.send("PUT", &path, media_type, body.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    /// Puts a blob into a repository, by its digest in the form `sha256:<hex>`.
    pub fn put_blob(&self, repository: &str, digest: &str, body: &[u8]) {
        let octets = "application/octet-stream";
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let answer = self.send("POST", &uploads, octets, b"");
        let place = answer
            .lines()
            .find_map(|line| line.strip_prefix("Location: "))
            .unwrap();
        let place = &place[place.find("/v2/").unwrap()..];
        let answer = self.send("PUT", &format!("{place}&digest={digest}"), octets, body);
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    fn send(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> String {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The manifest that a tag means, its exact bytes.
    pub fn manifest(&self, repository: &str, tag: &str) -> Vec<u8> {
        wire::get(self.port, &format!("/v2/{repository}/manifests/{tag}"))
    }
}

/// Whether this very process listens on a port: another test's server may have taken it, and
/// would answer as well until it goes away.
fn listens(pid: u32, port: u16) -> bool {
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    let address = format!("0100007F:{port:04X}");
    let inodes = sockets.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&address.as_str()) && fields.get(3) == Some(&"0A"))
            .then(|| format!("socket:[{}]", fields[9]))
    });
    let inodes: Vec<String> = inodes.collect();
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors.flatten().any(|descriptor| {
        fs::read_link(descriptor.path()).is_ok_and(|target| {
            inodes
                .iter()
                .any(|inode| target.as_os_str() == inode.as_str())
        })
    })
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A layout with an image `t` of these layers: each a file of so many bytes that do not compress.
pub fn layout(dir: &Path, layers: &[usize]) -> PathBuf {
    let layout = dir.join("layout");
    let text = layout.display().to_string();
    let image = format!("{text}:t");
    run("umoci", &["init", "--layout", &text]);
    run("umoci", &["new", "--image", &image]);
    for (number, &size) in layers.iter().enumerate() {
        let file = dir.join(format!("file-{number}"));
        fs::write(&file, noise(size, number as u64 + 1)).unwrap();
        let path = file.display().to_string();
        let inside = format!("/file-{number}");
        run(
            "umoci",
            &["insert", "--rootless", "--image", &image, &path, &inside],
        );
    }
    run(
        "umoci",
        &[
            "config",
            "--image",
            &image,
            "--config.env",
            "A=b",
            "--config.workingdir",
            "/w",
            "--config.user",
            "7:8",
            "--config.entrypoint",
            "/e",
            "--config.cmd",
            "c",
            "--architecture",
            "amd64",
            "--os",
            "linux",
        ],
    );
    layout
}

/// Bytes that no compressor makes smaller, the same for the same seed.
pub fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Runs a program that has to succeed; what it printed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
