//! The handshake that starts a session.
//!
//! A virtio-serial port keeps bytes of an earlier session across a reconnect, so neither
//! side may trust what it reads first. Host says `H <nonce>`, guest answers `G <nonce>`,
//! host confirms `S <nonce>`; each side drops everything else. The host repeats itself with
//! a new nonce until it is answered, so a guest that is not up yet costs nothing.
//!
//! A guest that goes on from a snapshot may be in the middle of the session of whoever was
//! captured. [`with_restored`] ends that one first.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long the host waits for an answer before it says hello again.
const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// How long the host waits for the first answer of a guest that is up. Twice as long each time,
/// up to [`REPEAT_AFTER`]: only the answer to the latest hello counts, because the guest takes
/// no other confirmation, so the wait must come to be longer than the way there and back.
const FIRST_REPEAT_TO_RESTORED: Duration = Duration::from_millis(20);

/// After so many, which is after 620 ms, the guest is taken to wait for the end of a frame.
const ATTEMPTS_BEFORE_FLOOD: u32 = 5;

/// A byte that begins no frame, because there is no such version.
const NO_FRAME: u8 = 0xff;

/// Bytes of a frame's header.
const HEADER: usize = 12;

/// Completes the longest frame that could have been cut.
const FLOOD: usize = 256 * 1024;

const PREFIX: &[u8] = b"\0PYRO-LINK-1 ";
/// After the prefix: a letter, a space, 16 hexadecimal digits and a newline.
const REST_LEN: usize = 19;

/// Starts a session from the host's side.
///
/// Waits for as long as the guest takes; the caller sets the deadline. `nonce` must differ
/// from that of any earlier session on the carrier.
pub async fn as_host<T>(carrier: &mut T, nonce: u64) -> std::io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut scanner = Scanner::default();
    let mut attempt = nonce;
    while !greet(carrier, &mut scanner, attempt, REPEAT_AFTER).await? {
        attempt = attempt.wrapping_add(1);
    }
    carrier.write_all(&message(Side::Start, attempt)).await?;
    carrier.flush().await
}

/// Starts a session with a guest that goes on from a snapshot. What it holds of an earlier
/// session ends: between two frames by bytes that begin none, and in the middle of one, where
/// the host of that session saw to it that this does not happen, after as many as complete it.
pub async fn with_restored<T>(carrier: &mut T, nonce: u64) -> std::io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut scanner = Scanner::default();
    let mut attempt = nonce;
    let mut wait = FIRST_REPEAT_TO_RESTORED;
    for tried in 0.. {
        let length = if tried == ATTEMPTS_BEFORE_FLOOD {
            FLOOD
        } else {
            HEADER
        };
        carrier.write_all(&vec![NO_FRAME; length]).await?;
        if greet(carrier, &mut scanner, attempt, wait).await? {
            break;
        }
        wait = (wait * 2).min(REPEAT_AFTER);
        attempt = attempt.wrapping_add(1);
    }
    carrier.write_all(&message(Side::Start, attempt)).await?;
    carrier.flush().await
}

/// Says hello once; whether the guest answered in time.
async fn greet<T>(
    carrier: &mut T,
    scanner: &mut Scanner,
    nonce: u64,
    deadline: Duration,
) -> std::io::Result<bool>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    carrier.write_all(&message(Side::Host, nonce)).await?;
    carrier.flush().await?;
    let answered = timeout(deadline, async {
        while scanner.next(carrier).await? != (Side::Guest, nonce) {}
        std::io::Result::Ok(())
    });
    match answered.await {
        Ok(result) => result.map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Starts a session from the guest's side: waits for a host.
pub async fn as_guest<T>(carrier: &mut T) -> std::io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut scanner = Scanner::default();
    let mut answered = None;
    loop {
        match scanner.next(carrier).await? {
            (Side::Host, nonce) => {
                answered = Some(nonce);
                carrier.write_all(&message(Side::Guest, nonce)).await?;
                carrier.flush().await?;
            }
            (Side::Start, nonce) if answered == Some(nonce) => return Ok(()),
            (Side::Start | Side::Guest, _) => {}
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Host,
    Guest,
    Start,
}

impl Side {
    fn letter(self) -> u8 {
        match self {
            Self::Host => b'H',
            Self::Guest => b'G',
            Self::Start => b'S',
        }
    }
}

fn message(side: Side, nonce: u64) -> Vec<u8> {
    let mut bytes = PREFIX.to_vec();
    bytes.push(side.letter());
    bytes.extend_from_slice(format!(" {nonce:016x}\n").as_bytes());
    bytes
}

/// Finds messages in a stream of anything, one byte at a time: after the last message of
/// the handshake the next byte already belongs to the session.
#[derive(Default)]
struct Scanner {
    matched: usize,
    rest: Vec<u8>,
}

impl Scanner {
    /// The next message. Cancel-safe: what was matched so far is kept.
    async fn next<T: AsyncRead + Unpin>(
        &mut self,
        carrier: &mut T,
    ) -> std::io::Result<(Side, u64)> {
        loop {
            let byte = carrier.read_u8().await?;
            if let Some(found) = self.take(byte) {
                return Ok(found);
            }
        }
    }

    fn take(&mut self, byte: u8) -> Option<(Side, u64)> {
        if self.matched < PREFIX.len() {
            self.matched = match byte {
                _ if byte == PREFIX[self.matched] => self.matched + 1,
                // NUL stands only at the start of the prefix, so this is the whole of the
                // usual fall-back table.
                0 => 1,
                _ => 0,
            };
            return None;
        }
        if byte == 0 {
            // Half a message, cut off by the start of another.
            self.rest.clear();
            self.matched = 1;
            return None;
        }
        self.rest.push(byte);
        if self.rest.len() < REST_LEN {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        self.matched = 0;
        parse_rest(&rest)
    }
}

fn parse_rest(rest: &[u8]) -> Option<(Side, u64)> {
    let side = [Side::Host, Side::Guest, Side::Start]
        .into_iter()
        .find(|side| side.letter() == rest[0])?;
    let digits = rest[1..].strip_prefix(b" ")?.strip_suffix(b"\n")?;
    let nonce = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some((side, nonce))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stale_bytes_of_an_earlier_session_do_not_matter() {
        let (mut host, mut guest) = tokio::io::duplex(4096);
        // What an earlier session left in both directions, half a handshake among it.
        host.write_all(b"\0PYRO-LINK-1 H 00000000000000")
            .await
            .unwrap();
        host.write_all(b"\0\0PYRO-LINK-1 S 0000000000000001\nrest")
            .await
            .unwrap();
        guest
            .write_all(b"frames\0PYRO-LINK-1 G 0000000000000001\n")
            .await
            .unwrap();
        let (a, b) = tokio::join!(as_host(&mut host, 7), as_guest(&mut guest));
        a.unwrap();
        b.unwrap();
        host.write_all(b"next").await.unwrap();
        let mut bytes = [0; 4];
        guest.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"next");
    }

    /// A guest that is in the middle of a session, `cut` bytes into what its host wrote last.
    async fn restored_after(cut: usize) {
        use crate::Session;
        let (mut host, guest) = tokio::io::duplex(1024 * 1024);
        let mut frame = vec![0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0x40, 0];
        frame.resize(HEADER + 0x4000, b'x');
        host.write_all(&frame[..cut]).await.unwrap();
        let agent = async move {
            let mut carrier = guest;
            let (session, _opener, incoming) = Session::guest(&mut carrier);
            let ended = session.run().await;
            assert!(ended.is_err());
            drop(incoming);
            as_guest(&mut carrier).await.unwrap();
            let (session, _opener, mut incoming) = Session::guest(&mut carrier);
            tokio::select! {
                _ = session.run() => panic!("the new session ended"),
                stream = incoming.next() => {
                    assert_eq!(stream.unwrap().read_u8().await.unwrap(), b'!');
                }
            }
        };
        let supervisor = async move {
            with_restored(&mut host, 5).await.unwrap();
            let (session, opener, _incoming) = Session::host(host);
            let session = tokio::spawn(session.run());
            let mut stream = opener.open().await.unwrap();
            stream.write_all(b"!").await.unwrap();
            stream.flush().await.unwrap();
            let _ = session.await;
        };
        tokio::select! {
            () = agent => {}
            () = supervisor => panic!("the host's session ended first"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_restored_guest_gives_up_the_session_it_was_in() {
        for cut in [0, 1, 11, 12, 13, 5_000, HEADER + 0x4000] {
            restored_after(cut).await;
        }
    }

    /// Passes on what comes from `from`, each piece `late` after it was sent. Returns how much it was.
    async fn pass_on_late(
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        late: Duration,
    ) -> usize {
        let (pieces, mut queue) = tokio::sync::mpsc::unbounded_channel();
        let take = async move {
            let mut passed = 0;
            let mut piece = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = from.read(&mut piece).await {
                passed += length;
                let due = tokio::time::Instant::now() + late;
                let _ = pieces.send((due, piece[..length].to_vec()));
            }
            passed
        };
        let give = async move {
            while let Some((due, piece)) = queue.recv().await {
                tokio::time::sleep_until(due).await;
                let _ = to.write_all(&piece).await;
            }
        };
        tokio::join!(take, give).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_restored_guest_that_answers_late_is_met() {
        for (late, is_flooded) in [(0, false), (30, false), (300, false), (900, true)] {
            let (mut host, outer) = tokio::io::duplex(1024 * 1024);
            let (inner, mut guest) = tokio::io::duplex(1024 * 1024);
            let (from_host, to_host) = tokio::io::split(outer);
            let (from_guest, to_guest) = tokio::io::split(inner);
            let late = Duration::from_millis(late);
            let there = tokio::spawn(pass_on_late(from_host, to_guest, Duration::ZERO));
            let _back = tokio::spawn(pass_on_late(from_guest, to_host, late));
            let both = async { tokio::join!(with_restored(&mut host, 5), as_guest(&mut guest)) };
            let (a, b) = timeout(Duration::from_secs(10), both)
                .await
                .unwrap_or_else(|_| panic!("never met with answers {late:?} late"));
            a.unwrap();
            b.unwrap();
            host.write_all(b"next").await.unwrap();
            let mut bytes = [0; 4];
            guest.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"next");
            drop(host);
            assert_eq!(there.await.unwrap() > FLOOD, is_flooded, "{late:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_comes_up_late_is_met() {
        let (mut host, mut guest) = tokio::io::duplex(4096);
        let late = async {
            tokio::time::sleep(Duration::from_millis(3500)).await;
            as_guest(&mut guest).await
        };
        let (a, b) = tokio::join!(as_host(&mut host, u64::MAX), late);
        a.unwrap();
        b.unwrap();
    }
}
