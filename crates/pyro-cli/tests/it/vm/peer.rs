//! A peer that speaks frames on `agent.sock`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use pyro_protocol::frame::{HEADER_LEN, Kind, encode, parse_header};
use serde_json::Value;

use super::legacy::connect;

/// One stream whose answer is a line and frames.
pub(super) struct Peer(UnixStream);

impl Peer {
    /// Sends `request` and gives the line that answers it.
    pub(super) fn ask(socket: &Path, request: &Value) -> (Self, Value) {
        let (stream, answer) = connect(socket, 5005);
        assert!(answer.starts_with("OK "), "{answer}");
        let mut peer = Self(stream);
        peer.0.write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            peer.0.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        (peer, serde_json::from_slice(&line).unwrap())
    }

    /// Sends one frame.
    pub(super) fn send(&mut self, kind: Kind, payload: &[u8]) {
        self.0.write_all(&encode(kind, payload)).unwrap();
    }

    /// The next frame.
    pub(super) fn frame(&mut self) -> (Kind, Vec<u8>) {
        let mut head = [0; HEADER_LEN];
        self.0.read_exact(&mut head).unwrap();
        let (kind, length) = parse_header(head).unwrap();
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        (kind, payload)
    }

    /// Reads to the end: what came on stdout, and the end frame.
    pub(super) fn finish(&mut self) -> (Vec<u8>, Value) {
        let mut stdout = Vec::new();
        loop {
            match self.frame() {
                (Kind::Stdout, bytes) => stdout.extend(bytes),
                (Kind::End, end) => return (stdout, serde_json::from_slice(&end).unwrap()),
                (Kind::Window | Kind::Progress, _) => {}
                (kind, _) => panic!("{kind:?} is nothing that is asked for here"),
            }
        }
    }
}
