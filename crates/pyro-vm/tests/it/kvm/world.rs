//! Guests for Firecracker, and where to find it.

use crate::guest::{DEADLINE, ENTRY, GREETING, World, executable, options};
use pyro_vm::firecracker::{Firecracker, FirecrackerOptions, FirecrackerStarted, start};
use pyro_vm::{MachineSpec, StartError};
use std::ffi::OsStr;
use std::path::Path;
use tokio::io::AsyncReadExt;
use tokio::process::ChildStdout;

/// What a guest does after its greeting.
pub(crate) enum Then {
    /// It resets itself.
    Reset,
    /// It writes the letters from `a` to `z` over and over.
    Count,
}

/// The program that the tests are for: `PYRO_FIRECRACKER`, or what `target/tools` or the system has.
pub(crate) fn firecracker() -> Firecracker {
    let explicit = std::env::var_os("PYRO_FIRECRACKER");
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/firecracker-1.12.1");
    let tools = tools.canonicalize().ok();
    Firecracker::locate(
        explicit.as_deref().map(Path::new),
        tools.as_deref(),
        OsStr::new("/usr/local/bin:/usr/bin"),
    )
    .unwrap()
}

pub(crate) fn world(then: &Then) -> World {
    let world = World::new();
    std::fs::write(world.path("kernel"), executable(&code(then))).unwrap();
    world
}

pub(crate) fn options_for(world: &World, name: &str) -> FirecrackerOptions {
    FirecrackerOptions {
        start: options(world.folder.path(), 20),
        directory: world.path(name),
    }
}

/// Starts the machine in the directory `name`.
pub(crate) async fn started(
    world: &World,
    spec: &MachineSpec,
    name: &str,
) -> Result<FirecrackerStarted, StartError> {
    let options = options_for(world, name);
    start(&firecracker(), spec, options).await
}

/// The next `count` bytes of the console.
pub(crate) async fn read(console: &mut ChildStdout, count: usize) -> String {
    let mut bytes = vec![0; count];
    tokio::time::timeout(DEADLINE, console.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The letter that a counting guest writes after `letter`.
pub(crate) fn next(letter: u8) -> u8 {
    if letter == b'z' { b'a' } else { letter + 1 }
}

fn code(then: &Then) -> Vec<u8> {
    const TEXT_AT: usize = 1;
    let mut code = vec![0xbe, 0, 0, 0, 0]; // mov esi, the greeting
    code.extend([0x66, 0xba, 0xf8, 0x03]); // mov dx, 0x3f8
    code.extend([0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8]); // out each byte up to a zero
    match then {
        Then::Reset => code.extend([0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe]), // out 0x64, 0xfe; stay
        Then::Count => {
            code.extend([0xb0, b'a']); // mov al, 'a'
            code.extend([0xee, 0xb9]); // out dx, al; mov ecx, a moment
            code.extend(100_000_u32.to_le_bytes());
            code.extend([0x49, 0x75, 0xfd]); // count down
            code.extend([0xfe, 0xc0, 0x3c, b'z' + 1, 0x75, 0xf1]); // inc al; go on unless beyond `z`
            code.extend([0xeb, 0xed]); // from the start
        }
    }
    let text = ENTRY + u32::try_from(code.len()).unwrap();
    code[TEXT_AT..][..4].copy_from_slice(&text.to_le_bytes());
    code.extend(GREETING.as_bytes());
    code.push(0);
    code
}
