//! The agent over AF_VSOCK, in a real machine with a device of that kind.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use pyro_testing::{Carriers, VsockHost, VsockMachine, World};
use serde_json::{Value, json};

use super::legacy::{ask, connect, machine};
use super::world;

/// The build of the agent that machines of `world` run. Its initramfs is there afterwards.
fn build_id(world: &World) -> String {
    let (running, socket) = machine(world);
    let hello = ask(&socket, &json!({"action": "hello"}));
    running.signal("TERM");
    running.finish();
    hello["build_id"].as_str().unwrap().to_owned()
}

/// The machines' addresses.
const FIRST: u32 = VsockHost::CIDS[0];
const SECOND: u32 = VsockHost::CIDS[1];

/// Sends a request and leaves the stream open.
fn send(stream: &mut UnixStream, request: &Value) {
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
}

fn line(stream: &mut UnixStream) -> Value {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).unwrap();
        bytes.extend(byte);
    }
    serde_json::from_slice(&bytes).unwrap()
}

/// The bytes of the frames `Stdout` (1) up to the frame `End` (0).
fn stdout_of_frames(stream: &mut UnixStream) -> Vec<u8> {
    let mut output = Vec::new();
    loop {
        let mut header = [0; 5];
        stream.read_exact(&mut header).unwrap();
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).unwrap();
        match header[0] {
            0 => return output,
            1 => output.extend(payload),
            kind => panic!("a frame of the kind {kind}"),
        }
    }
}

#[test]
fn the_agent_serves_the_host_over_a_vsock_as_over_the_link() {
    let world = world();
    let build_id = build_id(&world);
    let host = VsockHost::start();
    let machine = VsockMachine::start(&world, &build_id, Carriers::Both(&host, FIRST));
    machine.wait_for_link();
    let socket = host.socket(FIRST);

    let hello = ask(&socket, &json!({"action": "hello"}));
    assert_eq!(hello["build_id"], build_id);
    let reply = ask(
        &socket,
        &json!({"command": "echo out; echo err >&2; exit 3"}),
    );
    assert_eq!(reply["stdout"], "out\n");
    assert_eq!(reply["stderr"], "err\n");
    assert_eq!(reply["exit_code"], 3);

    // Ten million bytes of which no two pieces are alike.
    let count = "seq 1 2000000 | head -c 10000000";
    let (mut long, _) = connect(&socket, 5005);
    send(&mut long, &json!({"command": count, "stream": true}));
    assert!(line(&mut long)["pid"].is_u64());
    let expected: Vec<u8> = (1..=2_000_000)
        .flat_map(|number| format!("{number}\n").into_bytes())
        .take(10_000_000)
        .collect();
    assert!(stdout_of_frames(&mut long) == expected, "not byte for byte");

    // Sixty-four at once: all are open before the first is asked, and the last is asked first.
    let mut many: Vec<_> = (0..64).map(|_| connect(&socket, 5005)).collect();
    for (number, (stream, answer)) in many.iter_mut().enumerate().rev() {
        assert!(answer.starts_with("OK "), "{number}: {answer}");
        send(stream, &json!({"argv": ["echo", number.to_string()]}));
    }
    for (number, (stream, _)) in many.iter_mut().enumerate() {
        assert_eq!(line(stream)["stdout"], format!("{number}\n"));
    }

    // A peer that disconnects takes its command with it and nothing else.
    let (mut leaving, _) = connect(&socket, 5005);
    send(
        &mut leaving,
        &json!({"argv": ["sleep", "1000"], "stream": true}),
    );
    let pid = line(&mut leaving)["pid"].clone();
    drop(leaving);
    let gone = format!("while test -d /proc/{pid}; do :; done; echo gone");
    assert_eq!(ask(&socket, &json!({"command": gone}))["stdout"], "gone\n");
}

#[test]
fn nobody_but_the_host_reaches_the_agent_over_a_vsock() {
    let world = world();
    let build_id = build_id(&world);
    let host = VsockHost::start();
    let first = VsockMachine::start(&world, &build_id, Carriers::Both(&host, FIRST));
    let second = VsockMachine::start(&world, &build_id, Carriers::Both(&host, SECOND));
    first.wait_for_link();
    second.wait_for_link();
    // `AF_VSOCK` is 40; an address is family, nothing, port, CID, nothing.
    let ask_from = |machine: u32, cid: u32, port: u32| {
        let program = format!(
            r#"$SIG{{PIPE}} = "IGNORE"; $| = 1;
               socket(my $agent, 40, 1, 0) or die "no socket: $!";
               connect($agent, pack("SSLLx4", 40, 0, {port}, {cid})) or die "refused: $!";
               print "connected\n";
               syswrite($agent, qq({{"action": "hello"}}\n));
               my $count = sysread($agent, my $reply, 4096);
               print $count ? "answered: $reply" : "no byte\n""#
        );
        let request = json!({"argv": ["perl", "-e", program]});
        ask(&host.socket(machine), &request)
    };
    // From the machine beside it a process gets through to the agent's socket, as it would from
    // inside over the kernel's loopback, whose module no machine has.
    let agent = ask_from(SECOND, FIRST, 5005);
    assert_eq!(agent["stdout"], "connected\nno byte\n", "{agent}");
    // Where nobody listens it does not even connect: the socket above was the agent's.
    let nobody = ask_from(SECOND, FIRST, 5006);
    // From inside, by the machine's own address and by that of loopback.
    let own = ask_from(FIRST, FIRST, 5005);
    let loopback = ask_from(FIRST, 1, 5005);
    for unconnected in [nobody, own, loopback] {
        assert_eq!(unconnected["stdout"], "", "{unconnected}");
        let reason = unconnected["stderr"].as_str().unwrap();
        assert!(reason.starts_with("refused: "), "{unconnected}");
    }
    // Nor can a process take the port.
    let take = r#"socket(my $own, 40, 1, 0);
                  print bind($own, pack("SSLLx4", 40, 0, 5005, 4294967295)) ? "bound" : $!"#;
    let taken = ask(&host.socket(FIRST), &json!({"argv": ["perl", "-e", take]}));
    assert_eq!(taken["stdout"], "Address already in use", "{taken}");
}

#[test]
fn a_machine_with_a_vsock_alone_is_served_to_its_orderly_end() {
    let world = world();
    let build_id = build_id(&world);
    let host = VsockHost::start();
    let mut machine = VsockMachine::start(&world, &build_id, Carriers::Vsock(&host, FIRST));
    let socket = host.socket(FIRST);
    machine.wait_for_vsock(&socket);
    let ports = json!({"command": "ls /sys/class/virtio-ports 2>/dev/null"});
    assert_eq!(ask(&socket, &ports)["stdout"], "");
    // The reply leaves the machine before the machine goes.
    assert_eq!(ask(&socket, &json!({"action": "power_off"}))["ok"], true);
    assert!(machine.wait().success());
    assert!(machine.console().contains("pyro-agent: power off"));
}

#[test]
fn a_machine_that_cannot_be_reached_says_so_and_ends() {
    let world = world();
    let build_id = build_id(&world);
    let mut machine = VsockMachine::start(&world, &build_id, Carriers::None);
    assert!(machine.wait().success());
    let console = machine.console();
    assert!(
        console.contains(
            "pyro-agent: fatal: cause=kernel the machine has no virtio-serial port and no vsock"
        ),
        "{console}"
    );
}
