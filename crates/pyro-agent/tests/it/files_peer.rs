//! Peers that leave, wait or come in crowds.

use std::time::Duration;

use pyro_protocol::frame::{Kind, encode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::files::with_workspace;

#[test]
fn of_many_writes_one_is_left_whole() {
    with_workspace(async |bench| {
        let letters: Vec<u8> = (b'a'..=b'z').collect();
        let writes = letters.iter().map(|letter| {
            let content = vec![*letter; 300_000];
            let bench = &bench;
            async move {
                let request = json!({"action": "file_write", "path": "file"});
                bench.write(request, &content, 10_000).await
            }
        });
        let mut waiting: Vec<_> = writes.map(Box::pin).collect();
        std::future::poll_fn(|context| {
            waiting.retain_mut(|write| write.as_mut().poll(context).is_pending());
            if waiting.is_empty() {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        let left = std::fs::read(bench.path("file")).unwrap();
        assert_eq!(left.len(), 300_000);
        assert!(left.iter().all(|byte| *byte == left[0]));
        bench.assert_tidy().await;
    });
}

#[test]
fn a_peer_that_leaves_in_the_middle_costs_its_stream() {
    with_workspace(async |bench| {
        std::fs::write(bench.path("big"), vec![b'x'; 8_000_000]).unwrap();
        std::fs::write(bench.path("old"), "old").unwrap();
        let mut idle = Vec::new();
        for _ in 0..100 {
            let mut reading = bench
                .send(&json!({"action": "file_read", "path": "big"}))
                .await;
            reading.read_exact(&mut [0; 1000]).await.unwrap();
            idle.push(reading);
        }
        for half in [
            &encode(Kind::Stdin, b"new")[..],
            &encode(Kind::Stdin, b"new")[..6],
            b"\x01\0\0\0\0",
            b"garbage!!",
            b"",
        ] {
            let mut writing = bench
                .send(&json!({"action": "file_write", "path": "old"}))
                .await;
            writing.write_all(half).await.unwrap();
            drop(writing);
        }
        bench.guest.assert_serves().await;
        drop(idle);
        let text = bench
            .done(json!({"action": "file_read", "path": "old", "text": true}))
            .await;
        assert_eq!(text["content"], "old");
        bench.assert_tidy().await;
    });
}

#[test]
fn a_write_that_fails_is_told_although_content_comes() {
    with_workspace(async |bench| {
        let content = vec![0; 1_000_000];
        let reply = bench
            .write(
                json!({"action": "file_write", "path": "no/file"}),
                &content,
                50_000,
            )
            .await;
        assert_eq!(reply["code"], "not_found");
    });
}

#[test]
fn a_copy_whose_peer_leaves_is_taken_away() {
    with_workspace(async |bench| {
        bench
            .shell("mkdir t && cd t && seq 1 20000 | xargs touch")
            .await;
        let copying = bench
            .send(&json!({"action": "file_copy", "path": "t", "to": "copy"}))
            .await;
        while bench
            .shell("find . -maxdepth 1 -name '.pyro-*'")
            .await
            .is_empty()
        {
            assert!(
                !bench.path("copy").exists(),
                "the copy was quicker than this test"
            );
        }
        drop(copying);
        while !bench
            .shell("find . -maxdepth 1 -name '.pyro-*'")
            .await
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!bench.path("copy").exists());
    });
}
