//! The client against peers of every kind.

use super::*;
use proptest::prelude::*;
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;

const SOON: Duration = Duration::from_secs(5);

/// A peer that takes one request and answers with `bytes`, cut as it pleases the kernel.
async fn answered(bytes: Vec<u8>, action: &Action) -> (Result<Vec<u8>, ApiError>, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let api = Api::new(&path);
    let peer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        request.truncate(length);
        for part in bytes.chunks(7) {
            // A client that has heard enough hangs up.
            if stream.write_all(part).await.is_err() {
                break;
            }
        }
        String::from_utf8(request).unwrap()
    };
    tokio::join!(api.exchange(action, Instant::now() + SOON), peer)
}

fn with_body(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} \r\nServer: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[tokio::test]
async fn a_request_has_the_form_of_http() {
    let pause = Action::Run(RunState::Paused);
    let (answer, request) = answered(b"HTTP/1.1 204 \r\n\r\n".to_vec(), &pause).await;
    assert_eq!(answer.unwrap(), b"");
    assert_eq!(
        request,
        "PATCH /vm HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
         Content-Length: 18\r\n\r\n{\"state\":\"Paused\"}"
    );
}

#[tokio::test]
async fn a_refusal_carries_firecrackers_words_on_one_line() {
    let body = r#"{"fault_message":"no\n\u0007way"}"#;
    let (answer, _) = answered(with_body(400, body), &Action::InstanceStart).await;
    let error = answer.unwrap_err();
    assert_eq!(
        error.to_string(),
        "firecracker refused `PUT /actions`: no way"
    );
    assert!(matches!(error, ApiError::Refused { status: 400, .. }));
}

#[tokio::test]
async fn answers_beyond_their_bounds_are_refused() {
    let long_head = vec![b'x'; 100_000];
    let long_body = b"HTTP/1.1 200 \r\nContent-Length: 99999999\r\n\r\n".to_vec();
    let chunked = b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for bytes in [
        long_head,
        long_body,
        chunked,
        b"SSH-2.0-x\r\n\r\n".to_vec(),
        b"HTTP/1.1 20 \r\n\r\n".to_vec(),
    ] {
        let (answer, _) = answered(bytes, &Action::Version).await;
        let error = answer.unwrap_err();
        assert!(matches!(error, ApiError::NotHttp { .. }), "{error}");
    }
    for bytes in [
        &b""[..],
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 \r\nContent-Length: 9\r\n\r\n{",
    ] {
        let (answer, _) = answered(bytes.to_vec(), &Action::Version).await;
        let error = answer.unwrap_err();
        assert!(matches!(error, ApiError::Closed { .. }), "{error}");
    }
}

#[tokio::test]
async fn nobody_and_silence_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let api = Api::new(&path);
    let error = api.send(&Action::Version, SOON).await.unwrap_err();
    assert!(matches!(error, ApiError::Unreachable { .. }), "{error}");
    let _listener = UnixListener::bind(&path).unwrap();
    let short = Duration::from_millis(20);
    let error = api.send(&Action::Version, short).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "firecracker did not answer `GET /version` in time"
    );
}

proptest! {
    #[test]
    fn every_error_body_becomes_bounded_text_on_one_line(body in proptest::collection::vec(any::<u8>(), 0..4096), text in ".{0,2000}") {
        for body in [body, serde_json::json!({ "fault_message": text }).to_string().into_bytes()] {
            let message = fault_message(&body);
            prop_assert!(message.chars().count() <= MAX_MESSAGE_CHARS);
            prop_assert!(!message.chars().any(char::is_control));
        }
    }
}
