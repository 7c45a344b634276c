//! Commands as another user, with a mask and with limits.

use std::collections::BTreeMap;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::exec::{EXIT_NOT_EXECUTABLE, ExecRequest, Rlimit};

use crate::guest::{script, with_guest};

#[test]
fn a_command_runs_as_the_user_asked_for() {
    if !rustix::process::geteuid().is_root() {
        // Only root can be somebody else.
        return;
    }
    with_guest(async |guest| {
        let run = async |user: &str, line: &str| {
            let request = ExecRequest {
                user: Some(user.into()),
                ..script(line)
            };
            guest.run(request).await.text().to_owned()
        };
        let told = run("nobody", "id -u; id -g; id -G; echo $HOME $USER").await;
        assert_eq!(told, "65534\n65534\n65534\n/nonexistent nobody\n");
        assert_eq!(
            run("4321:1234", "id -u; id -g; id -G").await,
            "4321\n1234\n1234\n"
        );
        // Nothing of root is left: neither its files nor a way back.
        let told = run(
            "nobody",
            "cat /etc/shadow 2>&1 | grep -c denied; kill -0 1 2>&1 | grep -c permitted",
        )
        .await;
        assert_eq!(told, "1\n1\n");
        let own = ExecRequest {
            user: Some("nobody".into()),
            env: Some(BTreeMap::from([("HOME".into(), "/mine".into())])),
            ..script("echo $HOME")
        };
        assert_eq!(guest.run(own).await.text(), "/mine\n");
    });
}

#[test]
fn a_user_that_the_guest_does_not_have_is_named() {
    with_guest(async |guest| {
        let request = ExecRequest {
            user: Some("no-such-user".into()),
            ..script("true")
        };
        let end = guest.run(request).await.end;
        let error = end.error.expect("the reason");
        assert_eq!(
            (end.exit_code, error.code),
            (EXIT_NOT_EXECUTABLE, ErrorCode::NotFound)
        );
        assert!(error.error.contains("no-such-user"), "{}", error.error);
    });
}

#[test]
fn mask_and_limits_hold() {
    with_guest(async |guest| {
        let masked = ExecRequest {
            umask: Some("077".into()),
            ..script("umask")
        };
        assert_eq!(guest.run(masked).await.text(), "0077\n");
        assert_eq!(guest.run(script("umask")).await.text(), "0022\n");
        let limited = ExecRequest {
            rlimits: Some(BTreeMap::from([
                (Rlimit::Nofile, 64),
                (Rlimit::Core, 0),
                (Rlimit::Fsize, 4096),
            ])),
            ..script(
                "ulimit -n; ulimit -Hn; ulimit -c; trap '' XFSZ; head -c 9000 /dev/zero > /tmp/pyro-limit-$$; stat -c %s /tmp/pyro-limit-$$; rm /tmp/pyro-limit-$$",
            )
        };
        let outcome = guest.run(limited).await;
        assert_eq!(outcome.text(), "64\n64\n0\n4096\n");
    });
}

#[test]
fn a_limit_of_processor_time_ends_the_command() {
    with_guest(async |guest| {
        let limited = ExecRequest {
            rlimits: Some(BTreeMap::from([(Rlimit::Cpu, 1)])),
            ..script("exec sh -c 'while :; do :; done'")
        };
        let end = guest.run(limited).await.end;
        // Soft and hard limit are one: the kernel kills.
        assert_eq!(end.signal, Some(9));
    });
}
