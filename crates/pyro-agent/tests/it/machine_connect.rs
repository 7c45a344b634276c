//! Connections to ports of the guest, here the test's own listeners on loopback.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::guest::{Guest, with_guest};

type Halves = (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>);

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("it has one").port();
    (listener, port)
}

/// A stream that has become a connection.
async fn connected(guest: &Guest, request: &Value) -> Halves {
    connected_with(guest, request, b"").await
}

async fn connected_with(guest: &Guest, request: &Value, first: &[u8]) -> Halves {
    let (mut reader, mut writer) = split(guest.connect());
    let mut line = format!("{request}\n").into_bytes();
    line.extend_from_slice(first);
    writer.write_all(&line).await.expect("the agent reads");
    let header = b"{\"ok\":true}\n";
    let mut told = vec![0; header.len()];
    reader.read_exact(&mut told).await.expect("a header comes");
    assert_eq!(
        String::from_utf8_lossy(&told),
        String::from_utf8_lossy(header)
    );
    (reader, writer)
}

fn to_port(port: u16) -> Value {
    json!({"action": "connect_tcp", "port": port})
}

/// Bytes that no shift or gap leaves equal.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect()
}

async fn echo(mut stream: TcpStream) {
    let (mut reader, mut writer) = stream.split();
    tokio::io::copy(&mut reader, &mut writer)
        .await
        .expect("the echo works");
    writer.shutdown().await.expect("it can end");
}

fn serve_echo(listener: TcpListener) {
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(echo(stream));
        }
    });
}

async fn echoed(halves: Halves, bytes: &[u8]) {
    let (mut reader, mut writer) = halves;
    let mut back = Vec::new();
    let send = async {
        writer.write_all(bytes).await.expect("the agent reads");
        writer.shutdown().await.expect("the direction ends");
    };
    let (read, ()) = tokio::join!(reader.read_to_end(&mut back), send);
    read.expect("the stream ends in order");
    assert!(back == bytes, "{} of {} bytes", back.len(), bytes.len());
}

#[test]
fn ten_megabytes_go_there_and_back() {
    with_guest(async |guest| {
        let (listener, port) = listen().await;
        serve_echo(listener);
        let halves = connected(&guest, &to_port(port)).await;
        echoed(halves, &pattern(10 * 1024 * 1024)).await;
    });
}

#[test]
fn sixty_four_at_once_beside_a_hung_one() {
    with_guest(async |guest| {
        let (listener, port) = listen().await;
        serve_echo(listener);
        let (_hung_reader, mut hung_writer) = connected(&guest, &to_port(port)).await;
        hung_writer.write_all(b"more to come").await.expect("sent");
        let bytes = pattern(300_000);
        let request = to_port(port);
        let guest = &guest;
        let all = (0..64).map(|at| {
            let (bytes, request) = (&bytes, &request);
            async move {
                let halves = connected(guest, request).await;
                echoed(halves, &bytes[at * 1000..]).await;
            }
        });
        let mut running: Vec<_> = all.map(Box::pin).collect();
        std::future::poll_fn(|context| {
            running.retain_mut(|one| one.as_mut().poll(context).is_pending());
            if running.is_empty() {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    });
}

#[test]
fn the_peer_ends_first_and_still_hears() {
    with_guest(async |guest| {
        let (listener, port) = listen().await;
        let (mut reader, mut writer) = connected_with(&guest, &to_port(port), b"early ").await;
        let (mut service, _) = listener.accept().await.expect("a connection");
        writer.write_all(b"question").await.expect("sent");
        writer.shutdown().await.expect("the direction ends");
        let mut question = String::new();
        service
            .read_to_string(&mut question)
            .await
            .expect("the end comes through");
        assert_eq!(question, "early question");
        tokio::time::sleep(Duration::from_millis(50)).await;
        service.write_all(b"answer").await.expect("still open");
        drop(service);
        let mut answer = String::new();
        reader.read_to_string(&mut answer).await.expect("it ends");
        assert_eq!(answer, "answer");
    });
}

#[test]
fn the_service_ends_first_and_still_hears() {
    with_guest(async |guest| {
        let (listener, port) = listen().await;
        let (mut reader, mut writer) = connected(&guest, &to_port(port)).await;
        let (mut service, _) = listener.accept().await.expect("a connection");
        service.write_all(b"greeting").await.expect("sent");
        service.shutdown().await.expect("the direction ends");
        let mut greeting = String::new();
        reader.read_to_string(&mut greeting).await.expect("it ends");
        assert_eq!(greeting, "greeting");
        tokio::time::sleep(Duration::from_millis(50)).await;
        writer.write_all(b"thanks").await.expect("still open");
        writer.shutdown().await.expect("the direction ends");
        let mut thanks = String::new();
        service
            .read_to_string(&mut thanks)
            .await
            .expect("the end comes through");
        assert_eq!(thanks, "thanks");
    });
}

#[test]
fn a_peer_that_leaves_ends_the_connection() {
    with_guest(async |guest| {
        let (listener, port) = listen().await;
        let halves = connected(&guest, &to_port(port)).await;
        let (mut service, _) = listener.accept().await.expect("a connection");
        drop(halves);
        let mut rest = Vec::new();
        service.read_to_end(&mut rest).await.expect("it ends");
        // Towards nobody: the connection breaks instead of taking bytes for ever.
        let chunk = pattern(64 * 1024);
        while service.write_all(&chunk).await.is_ok() {}
        guest.assert_serves().await;
    });
}

#[test]
fn a_service_that_breaks_off_ends_the_stream() {
    with_guest(async |guest| {
        let (listener, port) = listen().await;
        let (mut reader, mut writer) = connected(&guest, &to_port(port)).await;
        let (service, _) = listener.accept().await.expect("a connection");
        service.set_zero_linger().expect("a reset at the close");
        drop(service);
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
        while writer.write_all(b"anybody?").await.is_ok() {}
        guest.assert_serves().await;
    });
}

#[test]
fn ipv6_and_localhost() {
    with_guest(async |guest| {
        let Ok(listener) = TcpListener::bind("[::1]:0").await else {
            // A host without IPv6 has nothing to test here.
            return;
        };
        let port = listener.local_addr().expect("it has one").port();
        serve_echo(listener);
        for host in ["::1", "localhost"] {
            let request = json!({"action": "connect_tcp", "port": port, "host": host});
            let halves = connected(&guest, &request).await;
            echoed(halves, b"six").await;
        }
    });
}

#[test]
fn a_refusal_is_told_before_the_header() {
    with_guest(async |guest| {
        let (listener, port) = listen().await;
        drop(listener);
        let reply = guest.ask_line(&to_port(port).to_string()).await;
        assert_eq!(reply["code"], "failed_precondition", "{reply}");
        assert_eq!(reply["ok"], Value::Null);
    });
}

#[test]
fn a_port_that_does_not_answer_is_given_up() {
    with_guest(async |guest| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .expect("a port");
        // A queue that is full lets the kernel drop what comes: no answer, no refusal.
        let listener = socket.listen(0).expect("it listens");
        let address = listener.local_addr().expect("it has one");
        let mut filling = Vec::new();
        while let Ok(stream) =
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200))
        {
            filling.push(stream);
        }
        let request = json!({
            "action": "connect_tcp",
            "port": address.port(),
            "connect_timeout_ms": 300,
        });
        let start = Instant::now();
        let reply = guest.ask_line(&request.to_string()).await;
        assert_eq!(reply["code"], "timeout", "{reply}");
        assert!(start.elapsed() >= Duration::from_millis(300));
    });
}

#[test]
fn other_hosts_are_refused_unless_asked_for() {
    with_guest(async |guest| {
        for host in ["192.0.2.1", "0.0.0.0", "2001:db8::1", "example.org"] {
            let request = json!({"action": "connect_tcp", "port": 80, "host": host});
            let reply = guest.ask_line(&request.to_string()).await;
            assert_eq!(reply["code"], "invalid_argument", "{host}: {reply}");
        }
    });
}
