//! How a command starts: program, arguments, environment, directory; how it ends.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::exec::ExecRequest;
use pyro_protocol::frame::Kind;

use crate::guest::{script, with_guest};
use crate::processes::runs;

fn argv(argv: &[&[u8]]) -> ExecRequest {
    ExecRequest::argv(&argv.iter().map(|arg| arg.to_vec()).collect::<Vec<_>>())
}

#[test]
fn exit_codes_are_a_shells() {
    with_guest(async |guest| {
        for (command, code, signal) in [
            ("exit 0", 0, None),
            ("exit 1", 1, None),
            ("exit 255", 255, None),
            ("no-such-program", 127, None),
            ("kill -9 $$", 137, Some(9)),
            ("kill -TERM $$", 143, Some(15)),
        ] {
            let end = guest.run(script(command)).await.end;
            assert_eq!((end.exit_code, end.signal), (code, signal), "{command}");
            assert_eq!(end.error, None, "{command}");
        }
    });
}

#[test]
fn a_program_that_is_missing_is_127() {
    with_guest(async |guest| {
        for program in ["no-such-program", "/no/such/program"] {
            let running = guest.start(argv(&[program.as_bytes()])).await;
            assert_eq!(running.pid, 0, "nothing was started");
            let end = running.finish().await.end;
            assert_eq!(end.exit_code, 127);
            let error = end.error.expect("it says why");
            assert_eq!(error.code, ErrorCode::NotFound);
            assert!(error.error.contains(program), "{}", error.error);
        }
        guest.assert_serves().await;
    });
}

#[test]
fn a_program_that_cannot_be_executed_is_126() {
    let directory = tempfile::tempdir().expect("a directory");
    let plain = directory.path().join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").expect("a file");
    std::fs::set_permissions(&plain, PermissionsExt::from_mode(0o644)).expect("ours");
    with_guest(async |guest| {
        for program in [&plain, directory.path()] {
            let name = program.to_str().expect("UTF-8");
            let end = guest.run(argv(&[name.as_bytes()])).await.end;
            assert_eq!(end.exit_code, 126, "{name}");
            let error = end.error.expect("it says why");
            assert_eq!(error.code, ErrorCode::PermissionDenied, "{name}");
        }
    });
}

#[test]
fn a_directory_that_is_missing_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    with_guest(async |guest| {
        for cwd in ["/no/such/directory", file.path().to_str().expect("UTF-8")] {
            let request = ExecRequest {
                cwd: Some(cwd.into()),
                ..script("echo not run")
            };
            let outcome = guest.run(request).await;
            assert!(outcome.stdout.is_empty());
            assert_eq!(outcome.end.exit_code, 126);
            let error = outcome.end.error.expect("it says why");
            assert_eq!(error.code, ErrorCode::NotFound);
            assert!(error.error.contains(cwd), "{}", error.error);
        }
    });
}

#[test]
fn the_directory_is_the_one_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().canonicalize().expect("it exists");
    with_guest(async |guest| {
        let here = ExecRequest {
            cwd: Some(path.to_str().expect("UTF-8").into()),
            ..script("pwd -P")
        };
        assert_eq!(
            guest.run(here).await.text().trim_end(),
            path.to_str().expect("UTF-8")
        );
        assert_eq!(guest.run(script("pwd")).await.text(), "/\n");
    });
}

#[test]
fn a_relative_program_is_looked_up_in_the_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink("/bin/pwd", directory.path().join("here")).expect("a link");
    let path = directory.path().canonicalize().expect("it exists");
    with_guest(async |guest| {
        let request = ExecRequest {
            cwd: Some(path.to_str().expect("UTF-8").into()),
            ..argv(&[b"./here"])
        };
        let outcome = guest.run(request).await;
        assert_eq!(outcome.text().trim_end(), path.to_str().expect("UTF-8"));
    });
}

#[test]
fn arguments_come_as_they_are() {
    with_guest(async |guest| {
        let request = argv(&[b"printf", b"[%s]", b"", b"a b", b"$HOME;*", b"\xff\xfe"]);
        assert!(request.argv_b64.is_some(), "no text, so base64");
        let outcome = guest.run(request).await;
        assert_eq!(outcome.stdout, b"[][a b][$HOME;*][\xff\xfe]");
        let outcome = guest.run(argv(&[b"printf", b"[%s]", b"x\ny"])).await;
        assert_eq!(outcome.stdout, b"[x\ny]");
    });
}

#[test]
fn the_environment_is_the_base_and_what_was_asked_for() {
    with_guest(async |guest| {
        let request = ExecRequest {
            env: Some(BTreeMap::from([
                ("HOME".into(), "/elsewhere".into()),
                ("EMPTY".into(), String::new()),
                ("LINES_".into(), "a\nb=c".into()),
            ])),
            ..argv(&[b"env", b"-0"])
        };
        let outcome = guest.run(request).await;
        let mut variables: Vec<&str> = outcome.text().split_terminator('\0').collect();
        variables.sort_unstable();
        assert_eq!(
            variables,
            [
                "EMPTY=",
                "HOME=/elsewhere",
                "LANG=C.UTF-8",
                "LINES_=a\nb=c",
                "LOGNAME=root",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "USER=root",
            ]
        );
    });
}

#[test]
fn a_program_is_looked_up_in_the_path_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink("/bin/echo", directory.path().join("my-echo")).expect("a link");
    with_guest(async |guest| {
        let request = ExecRequest {
            env: Some(BTreeMap::from([(
                "PATH".into(),
                directory.path().to_str().expect("UTF-8").into(),
            )])),
            ..argv(&[b"my-echo", b"hi"])
        };
        assert_eq!(guest.run(request).await.text(), "hi\n");
    });
}

#[test]
fn the_pid_is_the_commands_own_and_leads_its_session() {
    with_guest(async |guest| {
        let mut running = guest
            .start(script("cut -d' ' -f5,6 /proc/$$/stat; echo $$"))
            .await;
        let pid = running.pid;
        let mut text = String::new();
        while text.lines().count() < 2 {
            text += &running.next_text().await;
        }
        assert_eq!(text, format!("{pid} {pid}\n{pid}\n"));
        assert_eq!(running.finish().await.end.exit_code, 0);
        assert!(!runs(pid), "reaped before its end was told");
    });
}

#[test]
fn a_command_inherits_nothing_of_the_agents() {
    // What this process was started with is not the agent's.
    let inherited: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .expect("there is a /proc")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("a number"))
        .collect();
    with_guest(async |guest| {
        // Another command's pipes are open meanwhile.
        let mut other = guest.start(script("exec sleep 100")).await;
        let outcome = guest.run(script("ls /proc/self/fd/ | cat")).await;
        // The last one is the listing's own.
        let mut found: Vec<&str> = outcome.text().split_whitespace().collect();
        found.retain(|fd| !inherited.iter().any(|known| known == fd));
        assert!(found.len() <= 1, "{found:?} beside {inherited:?}");
        other.send(Kind::Signal, &[9]).await;
        other.finish().await;
    });
}

#[test]
fn a_command_starts_with_ordinary_signals_and_mask() {
    with_guest(async |guest| {
        // The agent itself ignores SIGPIPE.
        let outcome = guest.run(script("kill -PIPE $$")).await;
        assert_eq!(outcome.end.signal, Some(13));
        assert_eq!(guest.run(script("umask")).await.text(), "0022\n");
        let blocked = guest
            .run(argv(&[b"grep", b"SigBlk", b"/proc/self/status"]))
            .await;
        assert_eq!(blocked.text(), "SigBlk:\t0000000000000000\n");
    });
}
