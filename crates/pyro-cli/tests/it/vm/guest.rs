//! The guest itself: its own kernel, root, clock, processes, network, and what it may not see.

use std::time::{Duration, SystemTime};

use super::world;

fn output(flags: &[&str], command: &str) -> String {
    let mut flags = flags.to_vec();
    flags.push("--shell");
    let finished = world().run(&flags, &[command]).run();
    assert_eq!(finished.code(), 0, "{}", finished.stderr_text());
    finished.stdout_text()
}

#[test]
fn git_answers_from_a_kernel_of_its_own() {
    let told = output(&[], "git --version; uname -r; id -u; pwd");
    let mut lines = told.lines();
    assert!(
        lines.next().unwrap().starts_with("git version 2.39"),
        "{told}"
    );
    let guest = lines.next().unwrap();
    let host = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(
        guest.ends_with("-cloud-amd64") && guest != host.trim(),
        "{guest}"
    );
    assert_eq!(lines.collect::<Vec<_>>(), ["0", "/"]);
}

#[test]
fn the_clock_is_the_hosts() {
    let guest: u64 = output(&[], "date +%s").trim().parse().unwrap();
    let host = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(host.abs_diff(guest) <= 5, "guest {guest}, host {host}");
}

#[test]
fn what_one_run_writes_no_other_sees() {
    let world = world();
    let before = std::fs::metadata(world.root_image()).unwrap();
    let wrote = world
        .run(&["--shell"], &["echo x > /etc/mark && rm /bin/ls && sync"])
        .run();
    assert_eq!(wrote.code(), 0, "{}", wrote.stderr_text());
    let looked = world
        .run(&["--shell"], &["test ! -e /etc/mark && ls / > /dev/null"])
        .run();
    assert_eq!(looked.code(), 0, "{}", looked.stderr_text());
    let after = std::fs::metadata(world.root_image()).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
}

#[test]
fn there_is_no_network_unless_asked_for() {
    assert_eq!(output(&[], "ls /sys/class/net").trim(), "lo");
}

#[test]
fn a_network_is_there_when_asked_for() {
    let told = output(
        &["--network"],
        "cat /sys/class/net/e*/operstate /etc/resolv.conf; cat /proc/net/route",
    );
    assert!(told.contains("nameserver 10.0.2.3"), "{told}");
    // The default route over 10.0.2.2, in the kernel's little-endian hexadecimal.
    assert!(told.contains("0202000A"), "{told}");
}

#[test]
fn a_guest_reaches_the_outside_through_the_user_mode_network() {
    // A listener on the host's loopback stands for the outside: nothing else is sure to be
    // there. QEMU's user-mode network maps it to 10.0.2.2.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        use std::io::Write;
        listener
            .accept()
            .unwrap()
            .0
            .write_all(b"hello from outside\n")
            .unwrap();
    });
    let told = output(
        &["--network"],
        &format!("bash -c 'cat </dev/tcp/10.0.2.2/{port}'"),
    );
    assert_eq!(told, "hello from outside\n");
    server.join().unwrap();
}

#[test]
fn processors_memory_directory_and_variables_are_as_asked() {
    let flags = [
        "--vcpu-count",
        "2",
        "--mem-mib",
        "512",
        "--workdir",
        "/tmp",
        "--env",
        "A=1",
        "--env",
        "B=x y",
    ];
    let told = output(
        &flags,
        "nproc; awk '/MemTotal/ {print int($2/1024)}' /proc/meminfo; pwd; echo \"$A|$B\"",
    );
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "2");
    let mib: u32 = lines[1].parse().unwrap();
    assert!((400..=512).contains(&mib), "{mib}");
    assert_eq!(&lines[2..], ["/tmp", "1|x y"]);
}

#[test]
fn stdin_is_empty_unless_asked_for() {
    let world = world();
    let closed = world
        .run(&[], &["wc", "-c"])
        .stdin("not for the guest")
        .run();
    assert_eq!(closed.stdout_text(), "0\n");
    let passed = world
        .run(&["-i"], &["wc", "-c"])
        .stdin("for the guest")
        .run();
    assert_eq!(passed.stdout_text(), "13\n");
}

#[test]
fn a_full_guest_disk_is_the_commands_error_and_nothing_else() {
    // 8 GiB of holes cost nothing; the size of the disk is what ends the writing.
    let finished = world()
        .run(&["--shell"], &["fallocate -l 100G /big; df / | tail -1"])
        .run();
    assert_eq!(finished.code(), 0, "{}", finished.stderr_text());
    assert!(
        finished.stderr_text().contains("No space left on device"),
        "{}",
        finished.stderr_text()
    );
}

#[test]
fn a_time_to_live_that_passes_ends_the_machine_and_says_so() {
    let world = world();
    let flags = ["--ttl-seconds", "4", "--timeout-seconds", "60"];
    let finished = world.run(&flags, &["sleep", "50"]).run();
    assert_eq!(finished.code(), 125, "{}", finished.stderr_text());
    assert!(
        finished.stderr_text().contains("time to live"),
        "{}",
        finished.stderr_text()
    );
    assert!(
        finished.stderr_text().contains("--ttl-seconds"),
        "{}",
        finished.stderr_text()
    );
    assert!(
        finished.took < Duration::from_secs(40),
        "{:?}",
        finished.took
    );
    pyro_testing::traces::assert_none(&world);
}
