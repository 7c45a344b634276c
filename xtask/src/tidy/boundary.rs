//! Who may touch the world: `unsafe`, the environment, the terminal, processes and the network.

use super::source::Source;
use super::{Tree, Violation};

/// The only modules with `unsafe` code.
const UNSAFE_MODULES: [&str; 3] = [
    "crates/pyro-agent/src/exec/spawn.rs",
    "crates/pyro-agent/src/machine/ioctl.rs",
    "crates/pyro-vm/src/jail/enter.rs",
];

/// The only modules that start processes, and which.
const SPAWNING_MODULES: [(&str, &str); 21] = [
    (
        "crates/pyro-agent/src/exec/spawn.rs",
        "what the host asks to run in the guest",
    ),
    (
        "crates/pyro-guest/build.rs",
        "Cargo, which builds the static agent",
    ),
    (
        "crates/pyro-image/src/disk.rs",
        "unshare and rm, for trees that belong to subordinate users",
    ),
    (
        "crates/pyro-image/src/host.rs",
        "mmdebstrap, apt and unpackers, with a clean environment",
    ),
    (
        "crates/pyro-image/src/oci/credential_program.rs",
        "docker-credential-NAME, which keeps a user's credentials for registries",
    ),
    (
        "crates/pyro-vm/build.rs",
        "the assembler of the probe guest",
    ),
    ("crates/pyro-vm/src/disk.rs", "mke2fs, for empty disks"),
    (
        "crates/pyro-vm/src/jail/layers.rs",
        "a child that enters the jail, tells how far it got and executes nothing",
    ),
    (
        "crates/pyro-vm/src/firecracker/machine.rs",
        "the VMM, where it is Firecracker",
    ),
    (
        "crates/pyro-vm/src/program.rs",
        "an engine, for its version",
    ),
    (
        "crates/pyro-vm/src/qemu/machine.rs",
        "the VMM: the only place, the probe goes through it",
    ),
    ("crates/pyro/src/supervisor.rs", "our own hidden supervisor"),
    (
        "crates/pyro/src/tree/git/child.rs",
        "Git, with an environment in which nothing it looks at starts another program",
    ),
    ("xtask/src/ci.rs", "the steps of CI"),
    ("xtask/src/fuzz.rs", "the fuzz targets"),
    (
        "xtask/src/firecracker.rs",
        "pip and the programs that unpack and check",
    ),
    ("xtask/src/kvm_lab/initramfs.rs", "cpio"),
    ("xtask/src/kvm_lab/kernel.rs", "apt, dpkg-deb and busybox"),
    (
        "xtask/src/kvm_lab/machine.rs",
        "the QEMU that is the lab, and mke2fs",
    ),
    ("xtask/src/kvm_tests.rs", "the test runner and the program"),
    (
        "xtask/src/mcp_programs.rs",
        "pip, and the npm that it fetches",
    ),
];

/// How far above `unsafe` its reason may begin.
const SAFETY_LINES: usize = 12;

/// The only modules of pyro-vm that leave a process running.
const VMM_MODULES: [&str; 2] = [
    "crates/pyro-vm/src/firecracker/machine.rs",
    "crates/pyro-vm/src/qemu/machine.rs",
];

/// `unsafe` stays where it is audited.
pub(crate) fn keeps_unsafe_in_its_place(source: &Source<'_>) -> Vec<Violation> {
    if UNSAFE_MODULES.contains(&source.path) {
        return Vec::new();
    }
    let cure = format!(
        "`unsafe` belongs to one of {}; use rustix here",
        UNSAFE_MODULES.join(", ")
    );
    let places = source.words("unsafe").into_iter();
    places
        .map(|at| source.violation(at, cure.clone()))
        .collect()
}

/// What makes an `unsafe` block sound is written above it.
pub(crate) fn says_why_unsafe_is_sound(source: &Source<'_>) -> Vec<Violation> {
    let mut found = source.words("unsafe");
    found.retain(|&at| {
        let above: Vec<&str> = source.comments[..at].lines().collect();
        let near = &above[above.len().saturating_sub(SAFETY_LINES)..];
        !near.iter().any(|line| line.contains("SAFETY: "))
    });
    let cure = "write `// SAFETY: ` above: every condition that makes it sound, and why safe code would not do";
    found
        .into_iter()
        .map(|at| source.violation(at, cure))
        .collect()
}

/// Settings reach the crates as values: only the outermost one looks at the environment.
pub(crate) fn reads_no_environment(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_product() || source.crate_name() == "pyro-cli" {
        return Vec::new();
    }
    let names = ["var", "var_os", "vars", "vars_os", "set_var", "remove_var"];
    source
        .outside_tests(source.uses("env", &names))
        .map(|(at, name)| {
            let cure = format!("`env::{name}`: read it in pyro-cli and pass it down as a value");
            source.violation(at, cure)
        })
        .collect()
}

/// Libraries return what they know. The agent may write to its console: clippy demands a reason at each place.
pub(crate) fn prints_nothing(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_product() || source.crate_name() == "pyro-cli" {
        return Vec::new();
    }
    let mut found = source.uses("io", &["stdout", "stderr"]);
    if source.crate_name() != "pyro-agent" {
        for name in ["print", "println", "eprint", "eprintln", "dbg"] {
            found.extend(source.calls(name, "!").into_iter().map(|at| (at, name)));
        }
    }
    source
        .outside_tests(found)
        .map(|(at, name)| {
            let cure = format!(
                "`{name}`: return it or send it as an event; only pyro-cli writes to the terminal"
            );
            source.violation(at, cure)
        })
        .collect()
}

/// Only the program itself decides that it ends.
pub(crate) fn never_exits(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_product() || source.crate_name() == "pyro-cli" {
        return Vec::new();
    }
    let found = source.calls("exit", "(").into_iter().filter(|&at| {
        let before = source.code[..at].trim_end();
        !before.ends_with('.') && !before.ends_with("fn")
    });
    source
        .outside_tests(found.map(|at| (at, "exit")).collect())
        .map(|(at, _)| {
            source.violation(
                at,
                "return an error or an `ExitCode`; only pyro-cli ends the process",
            )
        })
        .collect()
}

/// Processes are started by modules that own them until they are reaped.
pub(crate) fn starts_processes_where_listed(source: &Source<'_>) -> Vec<Violation> {
    if SPAWNING_MODULES
        .iter()
        .any(|(path, _)| *path == source.path)
    {
        return Vec::new();
    }
    let cure = "start processes through a module that owns them, or list this file with its reason in \
                xtask/src/tidy/boundary.rs";
    source
        .outside_tests(source.uses("Command", &["new"]))
        .map(|(at, _)| source.violation(at, cure))
        .collect()
}

/// A VMM is started in one place; the others of pyro-vm wait for what they start.
pub(crate) fn starts_the_vmm_in_one_place(source: &Source<'_>) -> Vec<Violation> {
    if source.crate_name() != "pyro-vm"
        || !source.is_product()
        || VMM_MODULES.contains(&source.path)
    {
        return Vec::new();
    }
    let mut found = source.calls("spawn", "(");
    found.retain(|&at| source.code[..at].trim_end().ends_with('.') && !source.is_test(at));
    let cure = format!(
        "start machines through {}; wait for other programs with `output()`",
        VMM_MODULES.join(" or ")
    );
    found
        .into_iter()
        .map(|at| source.violation(at, cure.clone()))
        .collect()
}

/// Connects to servers inside the guest, where there is no network of ours.
const INSIDE_THE_GUEST: &str = "crates/pyro-agent/src/machine/connect.rs";

/// The only modules that talk to the network: they get images from registries, and engines as released.
const NETWORK_CLIENTS: [&str; 2] = [
    "crates/pyro-image/src/oci/",
    "crates/pyro-image/src/runtime/download.rs",
];

/// Nothing else of ours talks to the network; unix sockets only.
pub(crate) fn opens_no_network_connection(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_product()
        || source.path == INSIDE_THE_GUEST
        || NETWORK_CLIENTS
            .iter()
            .any(|client| source.path.starts_with(client))
    {
        return Vec::new();
    }
    let mut found = source.uses("AddressFamily", &["INET", "INET6"]);
    for name in [
        "TcpStream",
        "TcpListener",
        "TcpSocket",
        "UdpSocket",
        "ToSocketAddrs",
        "reqwest",
        "hyper",
    ] {
        found.extend(source.words(name).into_iter().map(|at| (at, name)));
    }
    source
        .outside_tests(found)
        .map(|(at, name)| {
            let cure = format!(
                "`{name}`: images come through {}, packages through apt and mmdebstrap",
                NETWORK_CLIENTS[0]
            );
            source.violation(at, cure)
        })
        .collect()
}

/// The list of spawning modules names nothing that no longer spawns.
pub(crate) fn spawning_list_is_current(tree: &Tree) -> Vec<Violation> {
    let sources: Vec<Source<'_>> = tree.sources().collect();
    let spawns = |path: &str| {
        let source = sources.iter().find(|source| source.path == path);
        source.is_some_and(|source| {
            source
                .outside_tests(source.uses("Command", &["new"]))
                .next()
                .is_some()
        })
    };
    SPAWNING_MODULES
        .iter()
        .filter(|(path, _)| !spawns(path))
        .map(|(path, reason)| Violation {
            path: (*path).to_owned(),
            line: 1,
            message: format!(
                "starts no process any more ({reason}): take it off the list in xtask/src/tidy/boundary.rs"
            ),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::super::tests::{assert_reports, shown};
    use super::*;

    const IN_VM: &str = "crates/pyro-vm/src/other.rs";
    const IN_CLI: &str = "crates/pyro-cli/src/other.rs";

    #[test]
    fn unsafe_elsewhere_is_reported() {
        let text =
            "#![deny(unsafe_code)]\nfn a() { unsafe { b() } }\nunsafe impl C for D {}\n// unsafe\n";
        assert_reports(keeps_unsafe_in_its_place, IN_VM, text, &[2, 3]);
        assert_reports(
            keeps_unsafe_in_its_place,
            "crates/pyro-vm/tests/it/a.rs",
            text,
            &[2, 3],
        );
        assert_reports(keeps_unsafe_in_its_place, UNSAFE_MODULES[0], text, &[]);
    }

    #[test]
    fn reading_the_environment_elsewhere_is_reported() {
        let text = "use std::env::{self, var_os};\nfn a() { env::vars(); std::env::temp_dir(); env!(\"A\"); }\n\
                    #[cfg(test)]\nmod tests { fn b() { std::env::var(\"C\"); } }\n";
        assert_reports(reads_no_environment, IN_VM, text, &[1, 2]);
        for path in [
            IN_CLI,
            "crates/pyro-vm/build.rs",
            "xtask/src/a.rs",
            "crates/pyro-testing/src/a.rs",
        ] {
            assert_reports(reads_no_environment, path, text, &[]);
        }
    }

    #[test]
    fn printing_elsewhere_is_reported() {
        let text = "fn a() {\n    println!(\"b\");\n    eprint!(\"c\");\n    std::io::stdout().flush();\n    dbg!(d);\n}\n\
                    #[cfg(test)]\nmod tests { fn e() { println!(\"f\"); } }\n";
        assert_reports(prints_nothing, IN_VM, text, &[2, 3, 4, 5]);
        assert_reports(
            prints_nothing,
            "crates/pyro-agent/src/init/power.rs",
            text,
            &[4],
        );
        for path in [
            IN_CLI,
            "crates/pyro-vm/build.rs",
            "crates/pyro-vm/tests/it/a.rs",
        ] {
            assert_reports(prints_nothing, path, text, &[]);
        }
    }

    #[test]
    fn ending_the_process_elsewhere_is_reported() {
        let text = "use std::process::exit;\nfn a() { std::process::exit(1); }\nfn b() { exit(2); }\n\
                    fn exit(c: u8) { d.exit(3); wait_exit(4); }\n";
        assert_reports(never_exits, IN_VM, text, &[2, 3]);
        assert_reports(never_exits, IN_CLI, text, &[]);
    }

    #[test]
    fn a_process_started_elsewhere_is_reported() {
        let text = "fn a() { Command::new(\"b\"); }\nfn c() { tokio::process::Command::new(\"d\"); }\n\
                    #[cfg(test)]\nmod tests { fn e() { Command::new(\"f\"); } }\n";
        assert_reports(starts_processes_where_listed, IN_VM, text, &[1, 2]);
        assert_reports(starts_processes_where_listed, IN_CLI, text, &[1, 2]);
        assert_reports(
            starts_processes_where_listed,
            SPAWNING_MODULES[0].0,
            text,
            &[],
        );
    }

    #[test]
    fn a_listed_module_that_starts_nothing_is_reported() {
        let file = |path: &str, text: &str| File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let spawning = "fn a() { Command::new(\"b\"); }\n";
        let idle = "#[cfg(test)]\nmod tests { fn a() { Command::new(\"b\"); } }\n";
        let mut files: Vec<File> = SPAWNING_MODULES
            .iter()
            .map(|(path, _)| file(path, spawning))
            .collect();
        assert!(spawning_list_is_current(&Tree { files }).is_empty());
        files = SPAWNING_MODULES[2..]
            .iter()
            .map(|(path, _)| file(path, spawning))
            .collect();
        files.push(file(SPAWNING_MODULES[0].0, idle));
        let found = shown(&spawning_list_is_current(&Tree { files }));
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn unsafe_without_its_reason_is_reported() {
        let far = "\n".repeat(SAFETY_LINES);
        let text =
            format!("unsafe {{}}\n// SAFETY: a\n// b\nlet c = unsafe {{}};\n{far}unsafe {{}}\n");
        let check = says_why_unsafe_is_sound;
        assert_reports(check, UNSAFE_MODULES[1], &text, &[1, 5 + SAFETY_LINES]);
    }

    #[test]
    fn a_vmm_started_elsewhere_is_reported() {
        let text = "fn a() {\n    tokio::spawn(b);\n    command\n        .spawn();\n}\n";
        assert_reports(starts_the_vmm_in_one_place, IN_VM, text, &[4]);
        assert_reports(starts_the_vmm_in_one_place, VMM_MODULES[0], text, &[]);
    }

    #[test]
    fn a_network_connection_is_reported() {
        let text = "use tokio::net::{TcpStream, UnixStream};\nlet a = AddressFamily::INET;\n\
                    #[cfg(test)]\nmod tests { fn b() { TcpListener::bind(c); } }\n";
        assert_reports(opens_no_network_connection, IN_VM, text, &[1, 2]);
        let client = "use reqwest::Client;\nlet a = hyper::Request::new(b);\n";
        assert_reports(opens_no_network_connection, IN_VM, client, &[1, 2]);
        let beside = "crates/pyro-image/src/blobs/mod.rs";
        assert_reports(opens_no_network_connection, beside, client, &[1, 2]);
        let inside = "crates/pyro-image/src/oci/http.rs";
        assert_reports(opens_no_network_connection, inside, client, &[]);
        assert_reports(
            opens_no_network_connection,
            "crates/a/tests/it/b.rs",
            text,
            &[],
        );
    }
}
