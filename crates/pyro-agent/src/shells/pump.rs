//! The task of one shell: it moves bytes between the terminal and the shell's queues until
//! the process ends.
//!
//! It waits for nobody but the terminal: output that nobody reads falls off the ring, input
//! that the terminal does not take stays in its bounded queue.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use pyro_protocol::code::ErrorReply;
use pyro_protocol::shell::OpenShell;
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::program;
use super::shell::{Shell, winsize};
use crate::budget::Reserved;
use crate::exec::{Exit, OnTerminal, Reaper, spawn_on_terminal};

/// How long output that may begin a secret is held back while nothing follows.
const HOLD: Duration = Duration::from_millis(50);

/// When to look again at a terminal that said it cannot be read or written now: nobody has
/// it open, or its wake-up was lost.
const RETRY: Duration = Duration::from_millis(100);

/// Most that one read takes, in bytes. The kernel gives no more than a page at a time.
const READ_BYTES: usize = 4096;

/// Most output that is taken after the end of the process, in bytes: far above what a
/// terminal holds.
const REST_BYTES: usize = 1024 * 1024;

/// Starts a shell and its task.
pub(super) fn start(
    reaper: &Reaper,
    mut order: OpenShell,
    memory: Reserved,
) -> Result<Rc<Shell>, ErrorReply> {
    let given = std::mem::take(&mut order.env);
    let (argv, env) = if let Some(argv) = order.argv.take() {
        (argv, program::on_terminal(given))
    } else {
        let env = program::environment(given);
        (program::argv(&env), env)
    };
    let OnTerminal {
        pid,
        terminal,
        tree,
    } = spawn_on_terminal(&argv, &env, &order.cwd, winsize(order.size))?;
    // No await since the spawn: the reaper has not run.
    let exit = reaper.watch(pid);
    let terminal = Rc::new(terminal);
    let shell = Rc::new(Shell::new(order, pid, tree, Rc::clone(&terminal), memory));
    tokio::task::spawn_local(run(Rc::clone(&shell), terminal, exit));
    Ok(shell)
}

async fn run(shell: Rc<Shell>, terminal: Rc<AsyncFd<OwnedFd>>, mut exit: oneshot::Receiver<Exit>) {
    let mut buffer = [0; READ_BYTES];
    let mut hold_until = Instant::now();
    let mut read_again: Option<Instant> = None;
    let exit = loop {
        // A terminal that is always ready must not keep the other tasks waiting.
        tokio::task::consume_budget().await;
        let holds = shell.holds_output();
        let typing = shell.has_input();
        let write_again = Instant::now() + RETRY;
        tokio::select! {
            exit = &mut exit => break exit.unwrap_or(Exit::Signal(Signal::KILL.as_raw())),
            read = read(&terminal, &mut buffer), if read_again.is_none() => match read {
                Ok(count) if count > 0 => {
                    shell.put(&buffer[..count]);
                    hold_until = Instant::now() + HOLD;
                }
                // Nobody has the terminal open now; somebody may open it again.
                Ok(_) | Err(_) => read_again = Some(Instant::now() + RETRY),
            },
            () = until(read_again), if read_again.is_some() => read_again = None,
            () = write(&terminal, &shell), if typing => {}
            () = sleep_until(write_again), if typing => write_now(&terminal, &shell),
            () = shell.entered.notified(), if !typing => {}
            () = sleep_until(hold_until), if holds => shell.flush(),
        }
    };
    // The end of the session's leader hung up the terminal: what it holds now is all.
    let mut taken = 0;
    while taken < REST_BYTES
        && let Ok(count @ 1..) = rustix::io::read(&*terminal, &mut buffer)
    {
        shell.put(&buffer[..count]);
        taken += count;
    }
    shell.end(exit);
}

async fn read(terminal: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        let mut ready = terminal.readable().await?;
        let hung_up = ready.ready().is_read_closed();
        match ready.try_io(|fd| Ok(rustix::io::read(fd, &mut *buffer)?)) {
            Ok(read) => return read,
            // A hang-up stays set for ever: going on would be a loop without rest.
            Err(_would_block) if hung_up => {
                return Err(std::io::ErrorKind::WouldBlock.into());
            }
            Err(_would_block) => {}
        }
    }
}

/// Writes once, as soon as the terminal takes something.
async fn write(terminal: &AsyncFd<OwnedFd>, shell: &Shell) {
    loop {
        let Ok(mut ready) = terminal.writable().await else {
            return std::future::pending().await;
        };
        let hung_up = ready.ready().is_write_closed();
        let written = ready.try_io(|fd| {
            shell.take_input(|bytes| rustix::io::write(fd, bytes))?;
            Ok(())
        });
        match written {
            Ok(Ok(())) => return,
            // The end of the process or the next try decides.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_would_block) if hung_up => return std::future::pending().await,
            Err(_would_block) => {}
        }
    }
}

fn write_now(terminal: &AsyncFd<OwnedFd>, shell: &Shell) {
    // What it does not take now it is offered again.
    let _ = shell.take_input(|bytes| rustix::io::write(terminal, bytes));
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
