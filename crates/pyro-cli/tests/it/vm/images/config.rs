//! What an image says about running it holds, and what the caller says wins.

use pyro_testing::forge::{Entry, Forge};
use pyro_testing::{Layer, traces};
use serde_json::{Value, json};

use super::{Images, busybox_layer};

const SAY: &str = "pwd; id -u; id -g; echo \"$COLOUR $PATH\"";

/// Users, a program in a directory that only the image's `PATH` names, and a directory to work in.
fn layers() -> [Layer; 2] {
    let passwd = "root:x:0:0::/:/bin/sh\nworker:x:1234:1235::/:/bin/sh\n";
    let group = "root:x:0:\nworker:x:1235:\nsound:x:29:\n";
    let tool = "#!/bin/sh\necho \"the tool of the image: $*\"\n";
    let above = Forge::new()
        .directory("etc")
        .file("etc/passwd", passwd)
        .file("etc/group", group)
        // As in most distributions.
        .file("etc/profile", "PATH=/usr/bin:/bin\nexport PATH\n")
        .entry(Entry::new(b'0', "opt/tools/tool").mode(0o755).content(tool))
        .directory("srv")
        .directory("mine")
        .finish();
    [busybox_layer(), Layer::plain(above)]
}

fn config() -> Value {
    json!({
        "Env": ["PATH=/opt/tools:/bin", "COLOUR=green"],
        "WorkingDir": "/srv",
        "User": "worker:sound",
        "Entrypoint": ["tool", "entry"],
        "Cmd": ["cmd"],
    })
}

/// A run that comes to nothing: its exit code, and what was told on stderr.
fn failed(images: &Images, name: &str, flags: &[&str], argv: &[&str]) -> (i32, String) {
    let arguments = [&["run", name, "--quiet"], flags, &["--"], argv].concat();
    let finished = images.pyro(&arguments).run();
    assert_eq!(finished.stdout_text(), "");
    (finished.code(), finished.stderr_text())
}

#[test]
fn what_an_image_says_holds_and_what_the_caller_says_wins() {
    let mut images = Images::new();
    let name = images.layout.add("config", &layers(), config());
    assert_eq!(
        images.ran(&name, &[], &[]),
        "the tool of the image: entry cmd"
    );
    assert_eq!(
        images.ran(&name, &[], &["sh", "-c", SAY]),
        "/srv\n1234\n29\ngreen /opt/tools:/bin"
    );
    let shell = "tool in a shell; pwd; echo $COLOUR";
    assert_eq!(
        images.ran(&name, &["--shell"], &[shell]),
        "the tool of the image: in a shell\n/srv\ngreen"
    );
    let flags = [
        "--user",
        "0:7",
        "--workdir",
        "/mine",
        "--env",
        "COLOUR=red",
        "--env",
        "PATH=/bin",
    ];
    assert_eq!(
        images.ran(&name, &flags, &["sh", "-c", SAY]),
        "/mine\n0\n7\nred /bin"
    );
    traces::assert_none(&images.world);
}

#[test]
fn users_are_names_and_numbers() {
    let mut images = Images::new();
    for (user, expected) in [
        ("worker", "1234 1235"),
        ("1234", "1234 1235"),
        // A number that no file knows is a user as well, with a group of its own.
        ("4321", "4321 0"),
        ("4321:77", "4321 77"),
        ("worker:77", "1234 77"),
        ("", "0 0"),
    ] {
        let name = images.layout.add("user", &layers(), json!({"User": user}));
        images
            .pyro(&["env", "pull", &name, "--pull", "always"])
            .run();
        let said = images.ran(&name, &[], &["sh", "-c", "echo $(id -u) $(id -g)"]);
        assert_eq!(said, expected, "{user:?}");
    }
}

#[test]
fn what_an_image_lacks_is_told() {
    let mut images = Images::new();
    let layers = layers();
    let bare = images.layout.add("bare", &layers, json!({}));
    let absent = json!({"WorkingDir": "/not/there", "User": "absent:sound", "Cmd": ["pwd"]});
    let absent = images.layout.add("absent", &layers, absent);
    let broken = json!({"Cmd": ["/no/such/program"]});
    let broken = images.layout.add("broken", &layers, broken);
    let by_flag = "`--user` or `--workdir`";
    for (name, flags, code, message, hint) in [
        (&bare, &[][..], 125, "no command was given", "behind `--`"),
        (
            &absent,
            &["--workdir", "/mine"],
            126,
            "the guest has no user `absent`",
            by_flag,
        ),
        (
            &absent,
            &["--workdir", "/mine", "--user", "worker:none"],
            126,
            "the guest has no group `none`",
            by_flag,
        ),
        (
            &absent,
            &[],
            126,
            "the working directory `/not/there` cannot be entered",
            by_flag,
        ),
        (&broken, &[], 127, "/no/such/program", "check the name"),
    ] {
        let (found, told) = failed(&images, name, flags, &[]);
        assert_eq!(found, code, "{told}");
        assert!(told.contains(message), "{told}");
        assert!(told.contains(hint), "{told}");
    }
    let flags = ["--user", "root", "--workdir", "/mine"];
    assert_eq!(images.ran(&absent, &flags, &[]), "/mine");
    traces::assert_none(&images.world);
}

#[test]
fn an_image_of_one_static_program_runs_it() {
    let mut images = Images::new();
    let program = std::fs::read("/bin/busybox").unwrap();
    let only = Forge::new()
        .entry(Entry::new(b'0', "echo").mode(0o755).content(program))
        .finish();
    let config = json!({"Entrypoint": ["/echo"], "Cmd": ["from", "one file"]});
    let name = images
        .layout
        .add("distroless", &[Layer::gzip(&only)], config);
    assert_eq!(images.ran(&name, &[], &[]), "from one file");
    assert_eq!(images.ran(&name, &[], &["/echo", "mine"]), "mine");
    let (code, told) = failed(&images, &name, &["--shell"], &["echo x"]);
    assert_eq!(code, 127, "{told}");
    assert!(told.contains("/bin/sh"), "{told}");
    traces::assert_none(&images.world);
}
