//! The handshake of `agent.sock`: Firecracker's hybrid vsock, spoken on every engine.
//!
//! A client connects to the Unix socket, sends `CONNECT <port>\n` and reads `OK <n>\n`;
//! from then on the socket is the stream to that port in the guest.

/// Longest handshake line in bytes, newline included.
pub const MAX_LINE: usize = 32;

/// The line that asks for a stream to `port`.
pub fn connect_line(port: u32) -> String {
    format!("CONNECT {port}\n")
}

/// The port that a handshake line (without its newline) asks for.
pub fn parse_connect(line: &[u8]) -> Option<u32> {
    let port = std::str::from_utf8(line).ok()?.strip_prefix("CONNECT ")?;
    if port.starts_with('+') {
        return None;
    }
    port.trim_end_matches('\r').parse().ok()
}

/// The line that grants the stream; `n` is the host's number for it.
pub fn ok_line(n: u32) -> String {
    format!("OK {n}\n")
}

/// Whether a reply line grants the stream.
pub fn is_ok(line: &[u8]) -> bool {
    line.starts_with(b"OK ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_it_gives_and_nothing_else() {
        assert_eq!(
            parse_connect(connect_line(5005).trim_end().as_bytes()),
            Some(5005)
        );
        for bad in [
            "CONNECT",
            "CONNECT -1",
            "CONNECT +1",
            "connect 1",
            "CONNECT 99999999999",
            "",
        ] {
            assert_eq!(parse_connect(bad.as_bytes()), None, "{bad}");
        }
        assert!(is_ok(ok_line(7).as_bytes()));
        assert!(!is_ok(b"ERR"));
    }
}
