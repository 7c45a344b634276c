//! Running the program: with a deadline, its outputs captured, its process id known.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest run of a command that names no deadline.
const DEADLINE: Duration = Duration::from_mins(2);

/// Time between two looks at whether a process has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// The program, about to run.
#[derive(Debug)]
pub struct Pyro {
    command: Command,
    stdin: Vec<u8>,
    hold_stdin: bool,
    deadline: Duration,
}

impl Pyro {
    pub(crate) fn new(program: &Path) -> Self {
        let mut command = Command::new(program);
        command.env_clear();
        Self {
            command,
            stdin: Vec::new(),
            hold_stdin: false,
            deadline: DEADLINE,
        }
    }

    /// Adds arguments.
    pub fn args<T: AsRef<OsStr>>(&mut self, arguments: &[T]) -> &mut Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable.
    pub fn env(&mut self, name: &str, value: impl AsRef<OsStr>) -> &mut Self {
        self.command.env(name, value);
        self
    }

    /// Gives standard input; it is empty otherwise.
    pub fn stdin(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.stdin = bytes.into();
        self
    }

    /// Leaves standard input open for [`Running::send`].
    pub fn hold_stdin(&mut self) -> &mut Self {
        self.hold_stdin = true;
        self
    }

    /// Sets the deadline, after which the test fails.
    pub fn deadline(&mut self, deadline: Duration) -> &mut Self {
        self.deadline = deadline;
        self
    }

    /// Runs to the end.
    pub fn run(&mut self) -> Finished {
        self.start().finish()
    }

    /// Starts it.
    pub fn start(&mut self) -> Running {
        let begun = Instant::now();
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take();
        if !self.hold_stdin {
            let input = std::mem::take(&mut self.stdin);
            let mut stdin = stdin.take().expect("stdin is piped");
            std::thread::spawn(move || {
                // A program that does not read its input is right if it says so elsewhere.
                let _ = stdin.write_all(&input);
            });
        }
        let stdout = drain(child.stdout.take().expect("stdout is piped"));
        let stderr = drain(child.stderr.take().expect("stderr is piped"));
        Running {
            child,
            stdin,
            stdout,
            stderr,
            begun,
            deadline: self.deadline,
            seen: Vec::new(),
        }
    }
}

/// The program, running. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: mpsc::Receiver<Vec<u8>>,
    stderr: mpsc::Receiver<Vec<u8>>,
    begun: Instant,
    deadline: Duration,
    seen: Vec<u8>,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until stderr has shown `text`; fails the test if the program ends before.
    pub fn wait_for_stderr(&mut self, text: &str) {
        let give_up = self.begun + self.deadline;
        while !String::from_utf8_lossy(&self.seen).contains(text) {
            let left = give_up.saturating_duration_since(Instant::now());
            let Ok(chunk) = self.stderr.recv_timeout(left) else {
                panic!(
                    "`{text}` never came: {}",
                    String::from_utf8_lossy(&self.seen)
                );
            };
            self.seen.extend(chunk);
        }
    }

    /// Waits until some standard output came, and takes it.
    pub fn wait_for_stdout(&mut self) -> Vec<u8> {
        self.stdout
            .recv_timeout(self.deadline)
            .expect("output comes before the deadline")
    }

    /// Sends bytes to a standard input that was held open.
    pub fn send(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin was held open");
        stdin.write_all(bytes).expect("the program reads its input");
    }

    /// Sends a signal, by the name that `kill` knows.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .expect("kill runs");
        assert!(sent.success(), "sending {name}");
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Finished {
        let give_up = self.begun + self.deadline;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                break status;
            }
            if Instant::now() >= give_up {
                let _ = self.child.kill();
                let stderr: Vec<u8> = self.stderr.try_iter().flatten().collect();
                panic!(
                    "no end within {:?}: {}",
                    self.deadline,
                    String::from_utf8_lossy(&stderr)
                );
            }
            std::thread::sleep(PAUSE);
        };
        let took = self.begun.elapsed();
        let mut stderr = std::mem::take(&mut self.seen);
        stderr.extend(self.stderr.iter().flatten());
        Finished {
            status,
            stdout: self.stdout.iter().flatten().collect(),
            stderr,
            took,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a run gave.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// Wall time.
    pub took: Duration,
}

impl Finished {
    /// The exit code.
    pub fn code(&self) -> i32 {
        self.status.code().expect("the program ended by itself")
    }

    /// Standard output as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout_text(), self.stderr_text()))
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(count) = pipe.read(&mut chunk) {
            if count == 0 || sender.send(chunk[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}
