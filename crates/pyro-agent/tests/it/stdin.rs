//! Standard input as frames, and its window.

use pyro_protocol::code::ErrorCode;
use pyro_protocol::exec::ExecRequest;
use pyro_protocol::frame::{Kind, encode};
use pyro_protocol::limits::{FRAME_CHUNK, STDIN_WINDOW};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::guest::{Guest, Outcome, finish, script, with_guest};

fn with_stdin(command: &str) -> ExecRequest {
    ExecRequest {
        stdin: true,
        ..script(command)
    }
}

/// Bytes without a period that a lost or doubled chunk could hide in.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

/// Feeds `bytes` to a command within its window; tells how many bytes it credited.
async fn feed(guest: &Guest, command: &str, bytes: &[u8]) -> (Outcome, usize) {
    let running = guest.start(with_stdin(command)).await;
    let (mut reader, mut writer) = running.into_halves();
    let window = Semaphore::new(STDIN_WINDOW);
    let mut credited = 0;
    let send = async {
        for chunk in bytes.chunks(FRAME_CHUNK) {
            let size = u32::try_from(chunk.len()).expect("a chunk is small");
            let permit = window.acquire_many(size).await.expect("never closed");
            permit.forget();
            let sent = writer.write_all(&encode(Kind::Stdin, chunk)).await;
            if sent.is_err() {
                // The command is over.
                break;
            }
        }
        let _ = writer.write_all(&encode(Kind::StdinEnd, b"")).await;
        writer
    };
    let receive = finish(&mut reader, |credit| {
        let credit = usize::try_from(credit).expect("64 bits");
        credited += credit;
        window.add_permits(credit);
    });
    // The stream stays whole until the command is over.
    let (_writer, outcome) = tokio::join!(send, receive);
    (outcome, credited)
}

#[test]
fn five_megabytes_come_back_as_they_were_sent() {
    with_guest(async |guest| {
        let bytes = noise(5_000_000);
        let (outcome, credited) = feed(&guest, "cat", &bytes).await;
        assert_eq!(outcome.end.exit_code, 0);
        assert!(outcome.stdout == bytes, "the bytes differ");
        assert!(credited <= bytes.len());
        assert!(credited >= bytes.len() - STDIN_WINDOW);
    });
}

#[test]
fn the_end_of_stdin_ends_the_input() {
    with_guest(async |guest| {
        let mut running = guest.start(with_stdin("wc -c")).await;
        running.send(Kind::Stdin, b"12345").await;
        running.send(Kind::StdinEnd, b"").await;
        let mut stdout = Vec::new();
        while let Some(frame) = running.next().await {
            if frame.kind == Kind::Stdout {
                stdout.extend(frame.payload);
            }
        }
        assert_eq!(stdout.trim_ascii(), b"5");
    });
}

#[test]
fn an_empty_input_is_the_end_alone() {
    with_guest(async |guest| {
        let (outcome, credited) = feed(&guest, "wc -c", b"").await;
        assert_eq!(outcome.text().trim(), "0");
        assert_eq!(credited, 0);
    });
}

#[test]
fn a_command_that_closes_its_input_does_not_stall() {
    with_guest(async |guest| {
        let bytes = noise(3_000_000);
        // Input that nobody reads is taken and dropped, or the sender would wait for ever.
        let (outcome, credited) = feed(&guest, "exec <&-; sleep 0.5; echo done", &bytes).await;
        assert_eq!(outcome.text(), "done\n");
        assert_eq!(outcome.end.exit_code, 0);
        assert!(credited > STDIN_WINDOW);
    });
}

#[test]
fn a_command_that_reads_part_of_its_input_ends_when_it_likes() {
    with_guest(async |guest| {
        let mut running = guest.start(with_stdin("head -c 3")).await;
        running.send(Kind::Stdin, &noise(100_000)).await;
        let outcome = running.finish().await;
        assert_eq!(outcome.stdout, noise(3));
        assert_eq!(outcome.end.exit_code, 0);
    });
}

#[test]
fn what_exceeds_the_window_costs_the_stream_only() {
    with_guest(async |guest| {
        let running = guest.start(with_stdin("exec sleep 100")).await;
        let (mut reader, mut writer) = running.into_halves();
        // What the pipe itself takes counts as consumed.
        let frames = encode(Kind::Stdin, &noise(FRAME_CHUNK)).repeat(8);
        // The agent stops reading at some point.
        let send = writer.write_all(&frames);
        let (_sent, outcome) = tokio::join!(send, finish(&mut reader, |_credit| ()));
        assert_eq!(outcome.end.exit_code, 143);
        let fault = outcome.end.error.expect("it is told why");
        assert_eq!(fault.code, ErrorCode::LimitExceeded, "{fault:?}");
        guest.assert_serves().await;
    });
}

#[test]
fn a_full_window_is_no_violation() {
    with_guest(async |guest| {
        let mut running = guest
            .start(with_stdin("echo ready; read go <&0; cat | wc -c"))
            .await;
        assert_eq!(running.next_text().await, "ready\n");
        for chunk in vec![b'\n'; STDIN_WINDOW].chunks(FRAME_CHUNK) {
            running.send(Kind::Stdin, chunk).await;
        }
        running.send(Kind::StdinEnd, b"").await;
        let outcome = running.finish().await;
        assert_eq!(outcome.text().trim(), (STDIN_WINDOW - 1).to_string());
    });
}

#[test]
fn without_stdin_the_input_is_at_its_end() {
    with_guest(async |guest| {
        let outcome = guest.run(script("wc -c; echo over")).await;
        assert!(outcome.text().ends_with("over\n"));
        assert_eq!(outcome.text().trim_start().chars().next(), Some('0'));
        let reply = guest.collect(&script("cat")).await;
        assert_eq!((reply.stdout.as_str(), reply.exit_code), ("", 0));
    });
}

#[test]
fn stdin_frames_that_were_not_announced_are_dropped() {
    with_guest(async |guest| {
        let mut running = guest.start(script("sleep 0.2; cat; echo over")).await;
        running.send(Kind::Stdin, b"unasked").await;
        running.send(Kind::StdinEnd, b"").await;
        assert_eq!(running.finish().await.text(), "over\n");
    });
}
