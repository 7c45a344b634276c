//! Machines that are paused, captured, and gone on with.

use crate::guest::{DEADLINE, GREETING, World};
use pyro_vm::GuestMemory;
use pyro_vm::machine::End;
use pyro_vm::qemu::{QemuBegin, QemuStarted};
use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Sends a byte to the guest, which sends it back.
async fn echo(started: &mut QemuStarted, byte: u8) {
    started.console.write_all(&[byte]).await.unwrap();
    assert_eq!(hear(started).await, byte);
}

async fn hear(started: &mut QemuStarted) -> u8 {
    tokio::time::timeout(DEADLINE, started.console.read_u8())
        .await
        .unwrap()
        .unwrap()
}

async fn greeted(mut started: QemuStarted) -> QemuStarted {
    for byte in GREETING.bytes() {
        assert_eq!(hear(&mut started).await, byte);
    }
    started
}

/// What a machine that was paused goes on from.
struct Captured {
    folder: tempfile::TempDir,
}

impl Captured {
    async fn of(started: &mut QemuStarted) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let this = Self { folder };
        started.machine.pause(DEADLINE).await.unwrap();
        let devices = File::create(this.path("devices")).unwrap();
        started
            .machine
            .save_devices(&devices, DEADLINE)
            .await
            .unwrap();
        let memory = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(this.path("memory"))
            .unwrap();
        memory
            .set_permissions(PermissionsExt::from_mode(0o666))
            .unwrap();
        started.machine.copy_memory().unwrap()(&memory).unwrap();
        this
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn begin(&self) -> QemuBegin {
        QemuBegin::Restore {
            memory: GuestMemory::copy_on_write(open(&self.path("memory"))),
            devices: File::open(self.path("devices")).unwrap(),
        }
    }
}

fn open(path: &Path) -> File {
    let both = File::options().read(true).write(true).open(path);
    both.unwrap()
}

#[tokio::test]
async fn a_guest_goes_on_where_it_was_paused_again_and_again() {
    let world = World::new();
    let spec = world.spec("aaaaaaaaab01");
    let mut source = greeted(world.start(&spec).await.unwrap()).await;
    echo(&mut source, b'a').await;
    let first = Captured::of(&mut source).await;
    assert!(
        first.path("memory").metadata().unwrap().blocks() * 512 < 16 * 1024 * 1024,
        "what the guest never used stays a hole"
    );
    // The source goes on, undisturbed.
    source.machine.resume(DEADLINE).await.unwrap();
    echo(&mut source, b'b').await;
    let before = std::fs::read(first.path("memory")).unwrap();
    let mut clones = Vec::new();
    for number in 2..4 {
        let spec = world.spec(&format!("aaaaaaaaab0{number}"));
        let mut clone = world.begin(&spec, first.begin()).await.unwrap();
        // Before it is told to run on it does not.
        clone.console.write_all(b"c").await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), clone.console.read_u8()).await;
        assert!(early.is_err());
        clone.machine.resume(DEADLINE).await.unwrap();
        assert_eq!(hear(&mut clone).await, b'c', "and greets nobody again");
        echo(&mut clone, b'd').await;
        clones.push(clone);
    }
    // A clone of a clone: its memory is the file and what it wrote itself.
    let second = Captured::of(&mut clones[0]).await;
    let spec = world.spec("aaaaaaaaab04");
    let mut third = world.begin(&spec, second.begin()).await.unwrap();
    third.machine.resume(DEADLINE).await.unwrap();
    echo(&mut third, b'e').await;
    assert_eq!(
        std::fs::read(first.path("memory")).unwrap(),
        before,
        "no clone wrote into what all share"
    );
    third.console.write_all(b"q").await.unwrap();
    let reason = tokio::time::timeout(DEADLINE, third.machine.wait()).await;
    assert_eq!(reason.unwrap().unwrap().end, End::Code(0));
}

#[tokio::test]
async fn memory_in_a_file_is_captured_without_a_copy() {
    let world = World::new();
    let spec = world.spec("aaaaaaaaab05");
    let folder = tempfile::tempdir().unwrap();
    let memory = GuestMemory::in_file(&folder.path().join("memory"), spec.memory).unwrap();
    let source = world
        .begin(&spec, QemuBegin::Boot { memory })
        .await
        .unwrap();
    let mut source = greeted(source).await;
    source.machine.pause(DEADLINE).await.unwrap();
    let devices = File::create(folder.path().join("devices")).unwrap();
    source
        .machine
        .save_devices(&devices, DEADLINE)
        .await
        .unwrap();
    source.machine.kill().await.unwrap();
    let begin = QemuBegin::Restore {
        memory: GuestMemory::copy_on_write(open(&folder.path().join("memory"))),
        devices: File::open(folder.path().join("devices")).unwrap(),
    };
    let mut clone = world.begin(&spec, begin).await.unwrap();
    clone.machine.resume(DEADLINE).await.unwrap();
    echo(&mut clone, b'x').await;
}

#[tokio::test]
async fn devices_that_are_none_are_refused_with_the_engines_words() {
    let world = World::new();
    let spec = world.spec("aaaaaaaaab06");
    let mut source = greeted(world.start(&spec).await.unwrap()).await;
    let captured = Captured::of(&mut source).await;
    let length = captured.path("devices").metadata().unwrap().len();
    File::options()
        .write(true)
        .open(captured.path("devices"))
        .unwrap()
        .set_len(length / 2)
        .unwrap();
    let error = world.begin(&spec, captured.begin()).await.unwrap_err();
    assert!(error.to_string().contains("the engine ended"), "{error}");
}
