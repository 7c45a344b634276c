//! Clock, entropy, names and write-back, against settings that only take notes: nothing here
//! can reach the host's own.

use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pyro_agent::machine::{Disk, Name, Processes, Settings, Stopped};
use pyro_agent::serve::Agent;
use pyro_protocol::guest::Processes as Fate;
use pyro_protocol::request::BootTimes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::guest::{Guest, with_guest};

/// Longest time that one test may take.
const TEST_DEADLINE: Duration = Duration::from_secs(30);

/// 32 bytes in base64.
pub(crate) const SEED: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

pub(crate) const MACHINE_ID: &str = "0123456789abcdef0123456789abcdef";

/// Settings that note what they are asked to do.
#[derive(Debug)]
pub(crate) struct Notes {
    root: TempDir,
    calls: Arc<Mutex<Vec<String>>>,
    faults: Mutex<Faults>,
    running: Running,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) no_entropy: bool,
    pub(crate) no_boot_id: bool,
    pub(crate) no_sync: bool,
    pub(crate) sync_takes: Duration,
    /// The disk that cannot be frozen now.
    pub(crate) busy_disk: Option<&'static str>,
    pub(crate) freeze_takes: Duration,
    /// The disk that neither freezes nor thaws while processes stand still.
    pub(crate) served_disk: Option<&'static str>,
}

/// A disk that notes what is asked of it.
#[derive(Debug)]
struct NotedDisk {
    name: &'static str,
    calls: Arc<Mutex<Vec<String>>>,
    faults: Faults,
    running: Running,
}

/// Whether processes run, and who waits for that.
type Running = Arc<(Mutex<bool>, Condvar)>;

/// Processes that note what is asked of them.
#[derive(Debug)]
struct NotedProcesses {
    calls: Arc<Mutex<Vec<String>>>,
    running: Running,
}

impl NotedProcesses {
    fn run(&self, run: bool, call: &str) {
        let (running, changed) = &*self.running;
        let mut running = running.lock().expect("nobody panicked");
        if *running != run {
            *running = run;
            changed.notify_all();
            let mut calls = self.calls.lock().expect("nobody panicked");
            calls.push(call.into());
        }
    }
}

impl Processes for NotedProcesses {
    fn stop(&mut self, _within: Duration) -> Fate {
        self.run(false, "stop processes");
        Fate::Stopped
    }

    fn go_on(&mut self) {
        self.run(true, "let processes go on");
    }
}

impl NotedDisk {
    fn wait_to_be_served(&self) {
        if self.faults.served_disk == Some(self.name) {
            let (running, changed) = &*self.running;
            let running = running.lock().expect("nobody panicked");
            let _running = changed
                .wait_while(running, |running| !*running)
                .expect("nobody panicked");
        }
    }

    fn note(&self, call: &str) {
        let call = format!("{call} {}", self.name);
        self.calls.lock().expect("nobody panicked").push(call);
    }
}

impl Disk for NotedDisk {
    fn freeze(&self) -> io::Result<Stopped> {
        std::thread::sleep(self.faults.freeze_takes);
        self.wait_to_be_served();
        if self.faults.busy_disk == Some(self.name) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        self.note("freeze");
        if self.name == "fat" {
            return Ok(Stopped::WrittenBack);
        }
        Ok(Stopped::Frozen)
    }

    fn thaw(&self) -> io::Result<()> {
        self.wait_to_be_served();
        self.note("thaw");
        Ok(())
    }
}

impl Notes {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            root: TempDir::new().expect("a directory"),
            calls: Arc::default(),
            faults: Mutex::default(),
            running: Arc::new((Mutex::new(true), Condvar::new())),
        })
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        *self.faults.lock().expect("nobody panicked") = faults;
    }

    /// What was asked for since the last look.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().expect("nobody panicked"))
    }

    fn note(&self, call: String) {
        self.calls.lock().expect("nobody panicked").push(call);
    }

    fn faults(&self) -> Faults {
        *self.faults.lock().expect("nobody panicked")
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join(name)
    }
}

impl Settings for Notes {
    fn set_clock(&self, unix_ns: u64) -> io::Result<i64> {
        self.note(format!("clock {unix_ns}"));
        Ok(-5)
    }

    fn add_entropy(&self, seed: &[u8]) -> io::Result<bool> {
        if self.faults().no_entropy {
            return Err(io::Error::other("no entropy today"));
        }
        self.note(format!("entropy {}", seed.len()));
        Ok(false)
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        // The files are there before the kernel has the name.
        self.note(format!(
            "hostname {name}, file {}",
            self.path("etc/hostname").exists()
        ));
        Ok(())
    }

    fn renew_boot_id(&self, apart: &[u8]) -> io::Result<()> {
        if self.faults().no_boot_id {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let apart = String::from_utf8_lossy(apart);
        self.note(format!("boot id, apart by {apart:?}"));
        Ok(())
    }

    fn cover(&self, _name: Name, _line: &[u8]) -> io::Result<bool> {
        Ok(false)
    }

    fn root(&self) -> io::Result<&Path> {
        Ok(self.root.path())
    }

    fn sync(&self) -> io::Result<()> {
        let faults = self.faults();
        std::thread::sleep(faults.sync_takes);
        if faults.no_sync {
            return Err(io::Error::other("the disk is gone"));
        }
        self.note("sync".into());
        Ok(())
    }

    fn disks(&self) -> io::Result<Vec<Box<dyn Disk>>> {
        let disk = |name| -> Box<dyn Disk> {
            Box::new(NotedDisk {
                name,
                calls: Arc::clone(&self.calls),
                faults: self.faults(),
                running: Arc::clone(&self.running),
            })
        };
        Ok(["data", "fat", "root"].map(disk).into())
    }

    fn processes(&self) -> Box<dyn Processes> {
        Box::new(NotedProcesses {
            calls: Arc::clone(&self.calls),
            running: Arc::clone(&self.running),
        })
    }
}

/// Runs `test` beside an agent whose machine is `notes`.
pub(crate) fn with_machine(notes: &Arc<Notes>, test: impl AsyncFnOnce(Guest)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    LocalSet::new().block_on(&runtime, async {
        let settings: Arc<dyn Settings> = notes.clone();
        let guest = Guest {
            agent: Agent::with_settings(BootTimes::default(), settings).expect("it starts"),
        };
        timeout(TEST_DEADLINE, test(guest))
            .await
            .expect("the test ends within its deadline");
    });
}

fn read(notes: &Notes, name: &str) -> String {
    std::fs::read_to_string(notes.path(name)).expect("the file is there")
}

#[test]
fn the_clock_is_set_and_the_offset_told() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        let reply = guest
            .ask_line(r#"{"action": "set_clock", "unix_ns": 1700000000000000001}"#)
            .await;
        assert_eq!(reply, json!({"ok": true, "offset_ns": -5}));
    });
    assert_eq!(notes.take(), ["clock 1700000000000000001"]);
}

#[test]
fn entropy_is_added_and_never_said_to_be_credited_when_it_is_not() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        let request = json!({"action": "reseed_entropy", "seed_b64": SEED}).to_string();
        let reply = guest.ask_line(&request).await;
        assert_eq!(reply, json!({"ok": true, "bytes": 32, "credited": false}));
        let long = format!("{}{}", "AAAA".repeat(170), "AAA=");
        let request = json!({"action": "reseed_entropy", "seed_b64": long}).to_string();
        assert_eq!(guest.ask_line(&request).await["bytes"], 512);
        for bad in ["", "AQEB", &"AAAA".repeat(171), "no base64!"] {
            let request = json!({"action": "reseed_entropy", "seed_b64": bad}).to_string();
            assert_eq!(guest.ask_line(&request).await["code"], "invalid_argument");
        }
    });
    assert_eq!(notes.take(), ["entropy 32", "entropy 512"]);
}

#[test]
fn names_are_replaced_whole_and_links_not_followed() {
    let notes = Notes::new();
    std::fs::create_dir(notes.path("etc")).expect("a directory");
    std::fs::create_dir(notes.path("var")).expect("a directory");
    std::fs::write(notes.path("var/id"), "other\n").expect("a file");
    symlink("../var/id", notes.path("etc/machine-id")).expect("a link");
    std::fs::write(notes.path("etc/hostname"), "a-name-that-is-longer\n").expect("a file");
    with_machine(&notes, async |guest| {
        let reply = guest
            .ask_line(&identity(Some("box-1.lan"), Some(MACHINE_ID)))
            .await;
        assert_eq!(reply, json!({"ok": true}));
    });
    let boot_id = format!("boot id, apart by {MACHINE_ID:?}");
    assert_eq!(notes.take(), ["hostname box-1.lan, file true", &boot_id]);
    assert_eq!(read(&notes, "etc/hostname"), "box-1.lan\n");
    assert_eq!(read(&notes, "etc/machine-id"), format!("{MACHINE_ID}\n"));
    assert_eq!(read(&notes, "var/id"), "other\n");
    let mode = |name: &str| {
        let about = std::fs::symlink_metadata(notes.path(name)).expect("the file is there");
        assert!(about.is_file());
        about.permissions().mode() & 0o7777
    };
    assert_eq!(
        (mode("etc/machine-id"), mode("etc/hostname")),
        (0o444, 0o644)
    );
    let left = std::fs::read_dir(notes.path("etc")).expect("a directory");
    assert_eq!(left.count(), 2, "nothing staged is left");
}

#[test]
fn an_etc_that_leads_out_stays_inside() {
    let notes = Notes::new();
    let outside = TempDir::new().expect("a directory");
    symlink(outside.path(), notes.path("etc")).expect("a link");
    with_machine(&notes, async |guest| {
        let reply = guest.ask_line(&identity(None, Some(MACHINE_ID))).await;
        assert_eq!(reply, json!({"ok": true}));
    });
    let written = std::fs::read_dir(outside.path()).expect("a directory");
    assert_eq!(written.count(), 0);
}

#[test]
fn one_name_leaves_the_other() {
    let notes = Notes::new();
    std::fs::create_dir(notes.path("etc")).expect("a directory");
    with_machine(&notes, async |guest| {
        let upper = MACHINE_ID.to_uppercase();
        let reply = guest.ask_line(&identity(None, Some(&upper))).await;
        assert_eq!(reply, json!({"ok": true}));
        // Twice is as good as once.
        guest.ask_line(&identity(None, Some(&upper))).await;
    });
    let boot_id = format!("boot id, apart by {MACHINE_ID:?}");
    assert_eq!(notes.take(), [boot_id.clone(), boot_id]);
    assert_eq!(read(&notes, "etc/machine-id"), format!("{MACHINE_ID}\n"));
    assert!(!notes.path("etc/hostname").exists());
}

#[test]
fn names_without_a_place_are_left_out() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        for file in [false, true] {
            if file {
                std::fs::write(notes.path("etc"), "no directory").expect("a file");
            }
            let reply = guest
                .ask_line(&identity(Some("bare"), Some(MACHINE_ID)))
                .await;
            assert_eq!(reply, json!({"ok": true}));
            let boot_id = format!("boot id, apart by {MACHINE_ID:?}");
            assert_eq!(notes.take(), ["hostname bare, file false", &boot_id]);
            assert_eq!(notes.path("etc").exists(), file);
        }
    });
}

#[test]
fn a_boot_id_that_cannot_be_renewed_is_no_failure_and_a_name_alone_renews_none() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        let reply = guest.ask_line(&identity(Some("box"), None)).await;
        assert_eq!(reply, json!({"ok": true}));
        assert_eq!(notes.take(), ["hostname box, file false"]);
        let revive = json!({"action": "revive", "unix_ns": 1, "seed_b64": SEED}).to_string();
        assert_eq!(guest.ask_line(&revive).await["ok"], true);
        let seeded = ["clock 1", "entropy 32", "boot id, apart by \"\""];
        assert_eq!(notes.take(), seeded);
        notes.set_faults(Faults {
            no_boot_id: true,
            ..Faults::default()
        });
        assert_eq!(guest.ask_line(&revive).await["ok"], true);
        let reply = guest.ask_line(&identity(None, Some(MACHINE_ID))).await;
        assert_eq!(reply, json!({"ok": true}));
    });
}

fn identity(hostname: Option<&str>, machine_id: Option<&str>) -> String {
    json!({"action": "set_identity", "hostname": hostname, "machine_id": machine_id}).to_string()
}

#[test]
fn a_sync_tells_its_time_and_keeps_its_deadline() {
    let notes = Notes::new();
    with_machine(&notes, async |guest| {
        let reply = guest.ask_line(r#"{"action": "sync"}"#).await;
        assert_eq!(reply["ok"], true);
        assert!(reply["elapsed_ms"].is_u64());
        notes.set_faults(Faults {
            sync_takes: Duration::from_millis(500),
            ..Faults::default()
        });
        let reply = guest
            .ask_line(r#"{"action": "sync", "timeout_ms": 50}"#)
            .await;
        assert_eq!(reply["code"], "timeout");
        notes.set_faults(Faults {
            no_sync: true,
            ..Faults::default()
        });
        let reply = guest.ask_line(r#"{"action": "sync"}"#).await;
        assert_eq!(reply["code"], "guest_error");
    });
}

#[test]
fn outside_a_machine_nothing_can_be_changed() {
    assert_ne!(std::process::id(), 1);
    let now = std::time::UNIX_EPOCH.elapsed().expect("after the epoch");
    // Harmless even if it were done.
    let unix_ns = u64::try_from(now.as_nanos()).expect("a year below 2554");
    with_guest(async |guest| {
        let requests: [Value; 4] = [
            json!({"action": "set_clock", "unix_ns": unix_ns}),
            json!({"action": "reseed_entropy", "seed_b64": SEED}),
            json!({"action": "revive", "unix_ns": unix_ns}),
            json!({"action": "sync"}),
        ];
        for request in requests {
            let reply = guest.ask_line(&request.to_string()).await;
            assert_eq!(reply["code"], "failed_precondition", "{request}: {reply}");
        }
    });
}
