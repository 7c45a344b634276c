//! Connections to ports through the real link: half-close and reset as the multiplexer
//! carries them.

use pyro_link::{Opener, Session, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};

use crate::guest::{Guest, with_guest};

/// The host's side of a session that the agent serves.
fn link(guest: &Guest) -> Opener {
    let (ours, theirs) = duplex(64 * 1024);
    let (host, opener, _) = Session::host(ours);
    let (session, guest_opener, mut incoming) = Session::guest(theirs);
    let agent = guest.agent.clone();
    tokio::task::spawn_local(host.run());
    tokio::task::spawn_local(session.run());
    tokio::task::spawn_local(async move {
        let _guest_opener = guest_opener;
        while let Some(stream) = incoming.next().await {
            let agent = agent.clone();
            tokio::task::spawn_local(async move { agent.serve(stream).await });
        }
    });
    opener
}

async fn connected(link: &Opener) -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("it has one").port();
    let mut stream = link.open().await.expect("a stream");
    let request = format!("{{\"action\": \"connect_tcp\", \"port\": {port}}}\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("the agent reads");
    let mut header = [0; 12];
    stream.read_exact(&mut header).await.expect("a header");
    assert_eq!(&header, b"{\"ok\":true}\n");
    let (service, _) = listener.accept().await.expect("a connection");
    (stream, service)
}

#[test]
fn both_directions_end_on_their_own() {
    with_guest(async |guest| {
        let link = link(&guest);
        let (mut stream, mut service) = connected(&link).await;
        stream.write_all(b"question").await.expect("sent");
        stream.shutdown().await.expect("the direction ends");
        let mut heard = String::new();
        service.read_to_string(&mut heard).await.expect("it ends");
        assert_eq!(heard, "question");
        service.write_all(b"answer").await.expect("sent");
        drop(service);
        heard.clear();
        stream.read_to_string(&mut heard).await.expect("it ends");
        assert_eq!(heard, "answer");

        let (mut stream, mut service) = connected(&link).await;
        service.write_all(b"greeting").await.expect("sent");
        service.shutdown().await.expect("the direction ends");
        heard.clear();
        stream.read_to_string(&mut heard).await.expect("it ends");
        assert_eq!(heard, "greeting");
        stream.write_all(b"thanks").await.expect("still open");
        stream.shutdown().await.expect("the direction ends");
        heard.clear();
        service.read_to_string(&mut heard).await.expect("it ends");
        assert_eq!(heard, "thanks");
    });
}

#[test]
fn a_broken_connection_resets_the_stream_and_nothing_else() {
    with_guest(async |guest| {
        let link = link(&guest);
        let (mut kept, mut kept_service) = connected(&link).await;
        let (mut stream, service) = connected(&link).await;
        service.set_zero_linger().expect("a reset at the close");
        drop(service);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
        while stream.write_all(b"anybody?").await.is_ok() {
            tokio::task::yield_now().await;
        }
        kept.write_all(b"alive").await.expect("sent");
        let mut heard = [0; 5];
        kept_service.read_exact(&mut heard).await.expect("received");
        assert_eq!(&heard, b"alive");
    });
}

#[test]
fn a_peer_that_goes_on_sending_to_a_service_that_has_left_is_not_held_up() {
    with_guest(async |guest| {
        let link = link(&guest);
        let (mut stream, service) = connected(&link).await;
        drop(service);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("it ends");
        let many_windows = vec![1; 8 * 1024 * 1024];
        stream.write_all(&many_windows).await.expect("it is taken");
        stream.shutdown().await.expect("the direction ends");
        loop {
            let reply = guest.ask_line(r#"{"action": "metrics"}"#).await;
            if reply["agent"]["open_streams"] == 1 {
                break;
            }
        }
    });
}

#[test]
fn a_service_that_is_not_read_costs_its_own_stream_only() {
    with_guest(async |guest| {
        let link = link(&guest);
        let (_unread, mut flooding) = connected(&link).await;
        let flood = async {
            let chunk = vec![1; 64 * 1024];
            while flooding.write_all(&chunk).await.is_ok() {}
        };
        let other = async {
            let (mut stream, mut service) = connected(&link).await;
            for _ in 0..100 {
                service.write_all(b"tick").await.expect("sent");
                let mut heard = [0; 4];
                stream.read_exact(&mut heard).await.expect("received");
            }
        };
        tokio::select! {
            () = flood => panic!("the flood must stall, not fail"),
            () = other => {}
        }
    });
}
