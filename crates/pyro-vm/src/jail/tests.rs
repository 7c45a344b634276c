//! What a process in the jail can and cannot do. Whatever is refused inside is done outside first.

use super::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Output, Stdio};
use std::sync::OnceLock;

/// Which layers a test leaves on, to see what each does alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layers {
    All,
    OnlyNamespaces,
    OnlyLandlock,
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/usr/bin/bash");
    command
        .args(["-c", script])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

fn uid() -> Option<MachineUid> {
    rustix::process::geteuid()
        .is_root()
        .then(|| MachineUid::for_slot(9))
}

fn jail(layers: Layers, network: Network, inherit: Vec<RawFd>) -> Jail {
    let mut jail = Jail::new(JailPlan {
        program: Path::new("/usr/bin/bash"),
        uid: uid(),
        group: Some(0),
        inherit,
        devices: &[Path::new("/dev/zero")],
        network,
        cgroup: None,
        workplace: None,
    })
    .unwrap();
    match layers {
        Layers::All => {}
        Layers::OnlyNamespaces => jail.entry.ruleset = None,
        Layers::OnlyLandlock => jail.entry.namespaces = None,
    }
    jail
}

fn confined(script: &str, jail: Jail) -> Command {
    let mut command = shell(script);
    jail.confine(&mut command);
    command
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Whether this host has a layer, so that a test of it can be told from a host without it.
fn has(layer: Layers) -> bool {
    static HOST: OnceLock<(bool, bool)> = OnceLock::new();
    let (namespaces, landlock) = *HOST.get_or_init(|| {
        let told = layers(uid());
        let on = |name: &str| told.iter().any(|layer| layer.name == name && layer.on);
        (on("namespaces") && on("root"), on("landlock"))
    });
    match layer {
        Layers::All => namespaces || landlock,
        Layers::OnlyNamespaces => namespaces,
        Layers::OnlyLandlock => landlock,
    }
}

/// Asserts that `script` succeeds outside and fails inside, with each of `layers` alone and with all.
fn refused(script: &str, network: Network, alone: &[Layers]) {
    let outside = shell(script).output().unwrap();
    assert!(outside.status.success(), "outside: {}", text(&outside));
    let alone: Vec<_> = alone.iter().copied().filter(|layer| has(*layer)).collect();
    let all = (!alone.is_empty()).then_some(Layers::All);
    for layers in alone.into_iter().chain(all) {
        let inside = confined(script, jail(layers, network, Vec::new()))
            .output()
            .unwrap();
        assert_refused(layers, script, &inside);
    }
}

/// Asserts that a script ended by itself and failed, and not for want of a program: a shell ends with 126 or 127 then.
fn assert_refused(layers: Layers, script: &str, output: &Output) {
    let refused = |code| !matches!(code, 0 | 126 | 127);
    assert!(
        output.status.code().is_some_and(refused),
        "{layers:?}: `{script}` was not refused: {}: {}",
        output.status,
        text(output)
    );
}

fn allowed(script: &str, network: Network, inherit: &[RawFd]) -> String {
    let mut told = String::new();
    for layers in [Layers::All, Layers::OnlyNamespaces, Layers::OnlyLandlock] {
        let inside = confined(script, jail(layers, network, inherit.to_vec()))
            .output()
            .unwrap();
        assert!(
            inside.status.success(),
            "{layers:?}: `{script}`: {}",
            text(&inside)
        );
        told = text(&inside);
    }
    told
}

/// A confined process that stands still until its standard input ends.
fn standing(inherit: Vec<RawFd>) -> Child {
    let mut command = confined("echo here; read", jail(Layers::All, Network::Off, inherit));
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "here\n");
    child
}

const EACH: &[Layers] = &[Layers::OnlyNamespaces, Layers::OnlyLandlock];

#[test]
fn nothing_opens_but_the_view() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let mine = folder.path().join("mine");
    std::fs::write(&mine, "mine").unwrap();
    std::fs::set_permissions(&mine, PermissionsExt::from_mode(0o666)).unwrap();
    let mine = mine.display();
    for script in [
        "cat /etc/passwd".to_owned(),
        "cat /proc/1/cmdline".to_owned(),
        "cat /proc/self/environ /proc/version".to_owned(),
        format!("cat {mine}"),
        format!("echo more >> {mine}"),
        format!("echo new > {mine}.new"),
        format!("mkdir {mine}.directory"),
        "exec 3</dev/full".to_owned(),
    ] {
        refused(&script, Network::Off, EACH);
    }
    for directory in ["/", "/etc", "/dev"] {
        let script = format!("ls {directory}");
        refused(&script, Network::Off, &[Layers::OnlyLandlock]);
    }
    // Landlock knows no rule for these.
    for script in [
        format!("test -e {mine}"),
        format!("chmod 600 {mine}"),
        "test -e /etc/passwd".to_owned(),
    ] {
        refused(&script, Network::Off, &[Layers::OnlyNamespaces]);
    }
}

#[test]
fn programs_libraries_and_its_devices_open() {
    for script in [
        "ls /usr/share > /dev/null",
        "/bin/sh -c 'exec /usr/bin/true'",
        "head -c 4 /dev/zero",
        "head -c 4 /dev/urandom > /dev/null",
        "test -e /dev/fd/0",
    ] {
        allowed(script, Network::Off, &[]);
    }
    let resolver = "cat /etc/resolv.conf";
    if shell(resolver).status().unwrap().success() {
        refused(resolver, Network::Off, EACH);
        allowed(resolver, Network::User, &[]);
    }
}

#[test]
fn inherited_files_open_anew_in_their_mode_and_no_other_file_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "content").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let readable = std::fs::File::open(&path).unwrap();
    let mut unnamed = tempfile::tempfile_in(folder.path()).unwrap();
    unnamed
        .set_permissions(PermissionsExt::from_mode(0o666))
        .unwrap();
    unnamed.write_all(b"unnamed").unwrap();
    let memory = std::fs::File::from(
        rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::CLOEXEC).unwrap(),
    );
    memory
        .set_permissions(PermissionsExt::from_mode(0o666))
        .unwrap();
    (&memory).write_all(b"memory").unwrap();
    let [r, u, m] = [&readable, &unnamed, &memory].map(AsRawFd::as_raw_fd);
    let fds = [r, u, m];
    let read = format!("cat /proc/self/fd/{r} /dev/fd/{u} /dev/fd/{m}");
    assert_eq!(allowed(&read, Network::Off, &fds), "contentunnamedmemory");
    allowed(
        &format!("echo changed > /proc/self/fd/{u}; echo changed > /proc/self/fd/{m}"),
        Network::Off,
        &fds,
    );
    let mut now = String::new();
    std::io::Seek::rewind(&mut unnamed).unwrap();
    unnamed.read_to_string(&mut now).unwrap();
    assert_eq!(now, "changed\n");
    let write = format!("echo changed > /proc/self/fd/{r}");
    for layers in [Layers::All, Layers::OnlyLandlock]
        .into_iter()
        .filter(|_| has(Layers::OnlyLandlock))
    {
        let output = confined(&write, jail(layers, Network::Off, fds.to_vec()))
            .output()
            .unwrap();
        assert_refused(layers, &write, &output);
    }
    refused(
        &format!("cat {}", path.display()),
        Network::Off,
        &[Layers::OnlyNamespaces],
    );
}

#[test]
fn the_network_is_the_hosts_only_if_the_guest_has_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    let layers: &[Layers] = if enter::landlock_version() >= 4 {
        EACH
    } else {
        &[Layers::OnlyNamespaces]
    };
    refused(&connect, Network::Off, layers);
    allowed(&connect, Network::User, &[]);
    if !has(Layers::OnlyNamespaces) {
        return;
    }
    let child = standing(Vec::new());
    let network = |pid: String| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(network(child.id().to_string()), network("self".into()));
    let devices = std::fs::read_to_string(format!("/proc/{}/net/dev", child.id())).unwrap();
    assert_eq!(
        devices.lines().skip(2).count(),
        1,
        "only the loopback: {devices}"
    );
    end(child);
}

#[test]
fn no_socket_of_another_process_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let path = folder.path().join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
    let name = format!("pyro-test-{}", std::process::id());
    let _named =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
    let python = |address: &str| {
        format!("python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect({address})'")
    };
    if !Path::new("/usr/bin/python3").exists() {
        return;
    }
    refused(
        &python(&format!("\"{}\"", path.display())),
        Network::User,
        &[Layers::OnlyNamespaces],
    );
    let by_name = python(&format!("\"\\0{name}\""));
    refused(&by_name, Network::Off, &[Layers::OnlyNamespaces]);
    if enter::landlock_version() >= 6 {
        refused(&by_name, Network::User, &[Layers::OnlyLandlock]);
    }
}

#[test]
fn nobody_outside_is_signalled() {
    let mut outside = shell("sleep 600").spawn().unwrap();
    let script = format!("kill -0 {}", outside.id());
    let mut layers = Vec::new();
    if rustix::process::geteuid().is_root() {
        // A user of its own may signal nobody else, and namespaces without process ids forbid it to nobody.
        layers.push(Layers::OnlyNamespaces);
    }
    if enter::landlock_version() >= 6 {
        layers.push(Layers::OnlyLandlock);
    }
    refused(&script, Network::Off, &layers);
    allowed("kill -0 $$", Network::Off, &[]);
    outside.kill().unwrap();
    outside.wait().unwrap();
}

#[test]
fn in_its_workplace_sockets_are_made_and_files_written_but_none_made() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::set_permissions(outside.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let place = outside.path().canonicalize().unwrap().join("place");
    std::fs::create_dir(&place).unwrap();
    std::fs::set_permissions(&place, PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::write(place.join("file"), "").unwrap();
    std::fs::set_permissions(place.join("file"), PermissionsExt::from_mode(0o666)).unwrap();
    let inside = |layers: Layers, script: &str| {
        let mut jail = Jail::new(JailPlan {
            program: Path::new("/usr/bin/perl"),
            uid: uid(),
            group: None,
            inherit: Vec::new(),
            devices: &[],
            network: Network::Off,
            cgroup: None,
            workplace: Some(Workplace {
                path: &place,
                largest_file: 0,
            }),
        })
        .unwrap();
        match layers {
            Layers::All => {}
            Layers::OnlyNamespaces => jail.entry.ruleset = None,
            Layers::OnlyLandlock => jail.entry.namespaces = None,
        }
        let mut command = shell(script);
        command.current_dir(&place);
        jail.confine(&mut command);
        command.output().unwrap()
    };
    let socket =
        "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => shift, Listen => 1) or die $!'";
    for layers in [Layers::All, Layers::OnlyNamespaces, Layers::OnlyLandlock] {
        let name = format!("{layers:?}.sock");
        let script = format!("echo {layers:?} > file && {socket} {name}");
        let done = inside(layers, &script);
        assert!(done.status.success(), "{layers:?}: {}", text(&done));
        let written = std::fs::read_to_string(place.join("file")).unwrap();
        assert_eq!(written, format!("{layers:?}\n"));
        assert!(place.join(name).exists());
    }
    if has(Layers::OnlyLandlock) {
        for script in ["echo x > new", "rm file", "ln file link", "mkdir new"] {
            assert_refused(Layers::All, script, &inside(Layers::All, script));
        }
    }
}

#[test]
fn no_file_grows_beyond_what_the_machine_has() {
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(folder.path().join("disk")).unwrap();
    let beyond = "head -c 1 /dev/zero | dd bs=1 seek=1073741824 conv=notrunc status=none >&3";
    let script = |fd: RawFd| format!("exec 3>&{fd}; {beyond}");
    let inside = confined(
        &script(file.as_raw_fd()),
        jail(Layers::All, Network::Off, vec![file.as_raw_fd()]),
    )
    .output()
    .unwrap();
    assert!(!inside.status.success());
    file.set_len(8 << 30).unwrap();
    allowed(&script(file.as_raw_fd()), Network::Off, &[file.as_raw_fd()]);
    assert_eq!(file.metadata().unwrap().size(), 8 << 30);
}

#[test]
fn the_process_has_no_rights_and_only_its_descriptors() {
    let passed = std::fs::File::open("/dev/null").unwrap();
    let kept_back = std::fs::File::open("/dev/zero").unwrap();
    let child = standing(vec![passed.as_raw_fd()]);
    let of = |name: &str| format!("/proc/{}/{name}", child.id());
    let status = std::fs::read_to_string(of("status")).unwrap();
    let limits = std::fs::read_to_string(of("limits")).unwrap();
    let line = |text: &str, name: &str| {
        let found = text.lines().find(|line| line.starts_with(name));
        found
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    if rustix::process::geteuid().is_root() {
        assert_eq!(line(&status, "Uid:"), ["1879048201"; 4]);
        assert_eq!(line(&status, "Gid:"), ["1879048201"; 4]);
        assert_eq!(line(&status, "Groups:"), [""; 0]);
        assert_eq!(line(&limits, "Max processes")[1..3], ["256", "256"]);
    }
    for set in ["CapInh:", "CapEff:", "CapPrm:", "CapAmb:"] {
        assert_eq!(line(&status, set), ["0000000000000000"], "{set}");
    }
    assert_eq!(line(&status, "NoNewPrivs:"), ["1"]);
    assert_eq!(line(&limits, "Max core")[3..5], ["0", "0"]);
    assert_eq!(line(&limits, "Max open")[2..4], ["512", "512"]);
    let mut descriptors: Vec<RawFd> = std::fs::read_dir(of("fd"))
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    descriptors.sort_unstable();
    assert_eq!(descriptors, [0, 1, 2, passed.as_raw_fd()]);
    assert!(!descriptors.contains(&kept_back.as_raw_fd()));
    end(child);
}

#[test]
fn no_capability_is_regained() {
    // Set-id programs are the only way up that an ordinary process has; a user namespace only seems to be one.
    let run = |script: &str, jail| confined(script, jail).output().unwrap();
    for script in [
        "unshare --mount true",
        "mount -t tmpfs none /usr",
        "/usr/sbin/chroot / true",
    ] {
        // Where the host gives namespaces, whoever has the capability outside does it, in mounts of its own.
        if has(Layers::OnlyNamespaces) {
            let root = rustix::process::geteuid().is_root();
            let capable = if root { "" } else { "--map-root-user " };
            let script = format!("unshare {capable}--mount {script}");
            let outside = shell(&script).output().unwrap();
            assert!(outside.status.success(), "{script}: {}", text(&outside));
        }
        for layers in [Layers::All, Layers::OnlyNamespaces, Layers::OnlyLandlock] {
            let inside = run(script, jail(layers, Network::Off, Vec::new()));
            assert_refused(layers, script, &inside);
        }
    }
    // Even where the kernel gives it one of its own, nothing is mounted under Landlock.
    let script = "unshare --map-root-user --mount mount -t tmpfs none /usr";
    let mut free = jail(Layers::OnlyLandlock, Network::Off, Vec::new());
    free.entry.ruleset = None;
    if has(Layers::OnlyLandlock) && run(script, free).status.success() {
        let jail = jail(Layers::OnlyLandlock, Network::Off, Vec::new());
        assert_refused(Layers::OnlyLandlock, script, &run(script, jail));
    }
}

#[test]
fn a_root_that_cannot_be_changed_costs_that_layer_only() {
    let mut jail = jail(Layers::All, Network::Off, Vec::new());
    jail.entry.namespaces.as_mut().unwrap().root = None;
    let output = confined("test -e /etc/passwd && cat /etc/passwd", jail)
        .output()
        .unwrap();
    assert_eq!(
        output.status.success(),
        !has(Layers::OnlyLandlock),
        "{}",
        text(&output)
    );
    assert!(
        text(&output).contains("passwd"),
        "it runs, and sees the name"
    );
}

#[test]
fn a_failed_exec_is_reported() {
    let mut command = Command::new("/nonexistent/program");
    jail(Layers::All, Network::Off, Vec::new()).confine(&mut command);
    let error = command.spawn().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    let error = confined("true", jail(Layers::All, Network::Off, vec![4_000]))
        .spawn()
        .unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
}

#[test]
#[expect(
    clippy::zombie_processes,
    reason = "the thread that starts it ends, and another one waits"
)]
fn the_process_dies_with_the_thread_that_started_it() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let starter = std::thread::spawn(move || {
        let child = confined("sleep 600", jail(Layers::All, Network::Off, Vec::new()))
            .spawn()
            .unwrap();
        sender.send(child.id()).unwrap();
    });
    let pid = i32::try_from(receiver.recv().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    starter.join().unwrap();
    let (_, status) = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
        .unwrap()
        .unwrap();
    assert_eq!(status.terminating_signal(), Some(libc::SIGKILL));
}

#[test]
fn the_engine_never_runs_as_root() {
    let root = rustix::process::geteuid().is_root();
    let error = Jail::new(JailPlan {
        program: Path::new("/usr/bin/bash"),
        uid: (!root).then(|| MachineUid::for_slot(0)),
        group: None,
        inherit: Vec::new(),
        devices: &[],
        network: Network::Off,
        cgroup: None,
        workplace: None,
    })
    .unwrap_err();
    if root {
        assert!(matches!(error, JailError::RootWithoutUid), "{error}");
    } else {
        assert!(matches!(error, JailError::NotRoot), "{error}");
    }
}

#[test]
fn the_layers_that_are_told_are_those_of_a_process() {
    let root = rustix::process::geteuid().is_root();
    let told = layers(uid());
    let on = |name: &str| told.iter().find(|layer| layer.name == name).unwrap().on;
    let child = standing(Vec::new());
    let of = |pid: &str, name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
    let pid = child.id().to_string();
    assert_eq!(on("user"), root);
    assert_eq!(on("namespaces"), of(&pid, "ns/net") != of("self", "ns/net"));
    let inside = format!("/proc/{pid}/root/etc/passwd");
    assert_eq!(on("root"), !Path::new(&inside).exists());
    let script = "cat /etc/passwd";
    assert!(shell(script).output().unwrap().status.success());
    let only_landlock = jail(Layers::OnlyLandlock, Network::Off, Vec::new());
    let opened = confined(script, only_landlock).output().unwrap();
    assert_eq!(on("landlock"), !opened.status.success());
    assert_eq!(on("landlock"), enter::landlock_version() > 0);
    assert!(
        told.iter()
            .all(|layer| layer.on || layer.name == "user" || layer.hint.is_some())
    );
    end(child);
}

#[test]
fn a_layer_that_a_process_does_not_have_is_not_told_as_one() {
    let report = |layers| layers::try_out(jail(layers, Network::Off, Vec::new())).unwrap();
    let (all, namespaces, landlock) = (
        report(Layers::All),
        report(Layers::OnlyNamespaces),
        report(Layers::OnlyLandlock),
    );
    assert_eq!(namespaces.landlock, Some(rustix::io::Errno::NOSYS));
    assert_eq!(landlock.landlock, all.landlock);
    assert_eq!(landlock.namespaces, Some(rustix::io::Errno::NOSYS));
    assert_eq!(landlock.root, Some(rustix::io::Errno::NOSYS));
    assert_eq!(
        (namespaces.namespaces, namespaces.root),
        (all.namespaces, all.root)
    );
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    child.wait().unwrap();
}
