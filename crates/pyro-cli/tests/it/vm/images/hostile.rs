//! Hostile images: each is refused with its reason or becomes something harmless. Nothing of
//! them is written on the host but in the store, and a good image takes their place at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pyro::{EnvironmentOptions, ErrorCode, PullPolicy};
use pyro_testing::forge::{Entry, Forge};
use pyro_testing::{Layer, traces};
use serde_json::json;

use super::{Images, assert_sound, busybox_layer};

/// No pull of a small image takes this long, hostile or not.
const DEADLINE: Duration = Duration::from_mins(1);

/// What hostile names lead to, and what no file may be called afterwards.
const ESCAPED: &str = "pyro-escaped";

#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Refused with this code; the message has this text.
    Refused(&'static str, &'static str),
    /// Installed, and nobody is harmed.
    Harmless,
}
use Fate::{Harmless, Refused};

/// A layer below the hostile one, so that its whiteouts count.
fn below() -> Layer {
    let forge = Forge::new()
        .directory("dir")
        .file("dir/file", "x")
        .file("file", "x");
    Layer::plain(forge.finish())
}

fn names(canary: &Path) -> Vec<(&'static str, Forge, Fate)> {
    let up = "../".repeat(40);
    let outside = "leads out of the root";
    let new = Forge::new;
    let absolute = canary.join(ESCAPED);
    let absolute = absolute.to_str().unwrap();
    vec![
        (
            "parents",
            new().file(&format!("{up}{ESCAPED}"), "evil"),
            Refused("invalid_argument", outside),
        ),
        ("absolute", new().file(absolute, "evil"), Harmless),
        (
            "parents by pax",
            new()
                .pax(&[("path", format!("dir/{up}tmp/{ESCAPED}").as_bytes())])
                .file("x", "evil"),
            Refused("invalid_argument", outside),
        ),
        (
            "NUL in a name",
            new()
                .pax(&[("path", b"file\0/../pyro-escaped")])
                .file("x", "evil"),
            Refused("invalid_argument", "NUL"),
        ),
        (
            "name of 64 KiB",
            new().long(b'L', &vec![b'n'; 65_536]).file("x", "evil"),
            Refused("limit_exceeded", "layer 2"),
        ),
        (
            "whiteouts of the outside",
            new().file("dir/../../.wh.victim", ""),
            Refused("invalid_argument", outside),
        ),
        (
            "whiteout of parents",
            new().file("dir/.wh...", ""),
            Refused("invalid_argument", "whiteout"),
        ),
        (
            "opaque outside",
            new().file(&format!("{up}tmp/.wh..wh..opq"), ""),
            Refused("invalid_argument", outside),
        ),
        (
            "root is a link",
            new().symlink("./", "/tmp"),
            Refused("invalid_argument", "layer 2"),
        ),
    ]
}

fn links(canary: &Path) -> Vec<(&'static str, Forge, Fate)> {
    let new = Forge::new;
    let canary = canary.to_str().unwrap();
    let deep = format!("{}{canary}", "../".repeat(40));
    vec![
        (
            "writes through links",
            new()
                .symlink("absolute", canary)
                .symlink("relative", &deep)
                .symlink("through-proc", "/proc/self/root")
                .file("absolute/victim", "evil")
                .file(&format!("relative/{ESCAPED}"), "evil")
                .file("through-proc/sys/kernel/core_pattern", "|/pyro-escaped"),
            Harmless,
        ),
        (
            "hard link outside",
            new()
                .hard_link("hard", &format!("{deep}/victim"))
                .file("hard", "evil"),
            Refused("invalid_argument", "layer 2"),
        ),
        (
            "hard link through a link",
            new()
                .symlink("way", canary)
                .hard_link("hard", "way/victim")
                .file("hard", "evil"),
            Refused("not_found", "layer 2"),
        ),
        (
            "circles",
            new()
                .symlink("a", "b")
                .symlink("b", "a")
                .hard_link("c", "b"),
            Harmless,
        ),
        (
            "write into a circle",
            new()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/file", "x"),
            Refused("failed_precondition", "layer 2"),
        ),
        (
            "devices that are written to",
            new()
                .entry(Entry::new(b'4', "disk").device(254, 0))
                .entry(Entry::new(b'4', "file").device(254, 16))
                .file("disk", "over the disk")
                .file("file", "over the disk")
                .entry(Entry::new(b'3', "dir/mem").device(1, 1))
                .hard_link("mem", "dir/mem")
                .file("mem", "over the memory"),
            Harmless,
        ),
        (
            "one name in all kinds",
            new()
                .directory("same")
                .file("same/a/b", "x")
                .symlink("same", canary)
                .entry(Entry::new(b'6', "same"))
                .file("same/victim", "inside")
                .file("same", "x"),
            Harmless,
        ),
    ]
}

fn forms() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let new = || Forge::new().file("new", "x");
    let sparse = |size: &str, map: &str| {
        let records = [
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.map", map.as_bytes()),
        ];
        new()
            .pax(&records)
            .entry(Entry::new(b'0', "f").content([b'd'; 1024]))
            .finish()
    };
    let attributes: Vec<(String, Vec<u8>)> = (0..16)
        .map(|at| (format!("SCHILY.xattr.user.{at}"), vec![b'v'; 60_000]))
        .collect();
    let attributes: Vec<(&str, &[u8])> = attributes
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_slice()))
        .collect();
    let bomb = vec![b'p'; 8 * 1024 * 1024];
    vec![
        (
            "no tar",
            b"this is no archive at all".repeat(100),
            Refused("unsupported", "the layer sha256:"),
        ),
        (
            "cut",
            new().entry(Entry::new(b'0', "f").size(1 << 20)).cut(),
            Refused("invalid_argument", "layer 2"),
        ),
        (
            "wrong checksum",
            new().entry(Entry::new(b'0', "f").wrong_checksum()).finish(),
            Refused("invalid_argument", "checksum"),
        ),
        (
            "claims 8 EiB",
            new()
                .entry(Entry::new(b'0', "f").size(u64::MAX >> 1))
                .finish(),
            Refused("invalid_argument", "layer 2"),
        ),
        (
            "pax of 8 MiB",
            new().pax(&[("comment", &bomb)]).file("f", "").finish(),
            Refused("limit_exceeded", "layer 2"),
        ),
        (
            "attributes of 1 MB",
            new().pax(&attributes).file("f", "").finish(),
            Refused("no_space", "layer 2"),
        ),
        (
            "sparse of 8 TB",
            sparse("8796093022208", "0,1024"),
            Harmless,
        ),
        (
            "sparse of 8 EiB",
            sparse("9223372036854775807", "0,1024"),
            Refused("limit_exceeded", "layer 2"),
        ),
    ]
}

/// Names of all files of the host that hostile names could have led to: the test's home but for
/// the store and what pyro keeps, the canary with its content, and the places above.
fn survey(home: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![home.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in directory.read_dir().unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(home).unwrap();
            if ["environments", "layout", "state", "run"]
                .iter()
                .any(|own| name == Path::new(own))
            {
                continue;
            }
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_file() {
                std::fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            if metadata.is_dir() {
                left.push(path.clone());
            }
            found.insert(path, content);
        }
    }
    for place in ["/", "/tmp", "/etc", "/dev/shm", "/var/tmp"] {
        let path = Path::new(place).join(ESCAPED);
        if path.symlink_metadata().is_ok() {
            found.insert(path, Vec::new());
        }
    }
    found
}

/// No file of the store bears a name out of an archive, and nothing half-made is left.
fn assert_store_is_clean(store: &Path) {
    let mut left = vec![store.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in directory.read_dir().unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            for wrong in [ESCAPED, "victim", ".partial-", "layers.tar"] {
                assert!(!name.contains(wrong), "{}", path.display());
            }
            if path.is_dir() {
                left.push(path);
            }
        }
    }
}

fn pulled(images: &Images, name: &str) -> Result<(), (String, String)> {
    let finished = images
        .pyro(&["env", "pull", name, "--pull", "always", "--json"])
        .deadline(DEADLINE)
        .run();
    let answer = finished.json();
    if finished.code() == 0 {
        assert_eq!(answer["installed"], true, "{answer}");
        return Ok(());
    }
    assert_eq!(finished.code(), 1, "{answer}");
    let text = |key: &str| answer["error"][key].as_str().unwrap().to_owned();
    Err((text("code"), text("message")))
}

#[test]
fn hostile_layers_harm_nobody() {
    let mut images = Images::new();
    let canary = images.world.home().join("canary");
    std::fs::create_dir(&canary).unwrap();
    std::fs::write(canary.join("victim"), "untouched").unwrap();
    let good = [
        below(),
        Layer::plain(Forge::new().file("good", "x").finish()),
    ];
    let cases = names(&canary).into_iter().chain(links(&canary));
    let cases = cases.map(|(case, forge, fate)| (case, forge.finish(), fate));
    let before = survey(images.world.home());
    let mut wrong = Vec::new();
    for (case, tar, fate) in cases.chain(forms()) {
        let tag = "image";
        let name = images
            .layout
            .add(tag, &[below(), Layer::plain(tar)], json!({}));
        let outcome = pulled(&images, &name);
        let is_right = match (&outcome, fate) {
            (Err((code, message)), Refused(expected, text)) => {
                code == expected && message.contains(text)
            }
            (Ok(()), Harmless) => {
                assert_sound(&images.rootfs(&name));
                true
            }
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{case}: {outcome:?} instead of {fate:?}"));
        }
        assert_eq!(survey(images.world.home()), before, "{case}");
        assert_store_is_clean(&images.store());
        let name = images.layout.add(tag, &good, json!({}));
        pulled(&images, &name).unwrap_or_else(|error| panic!("after {case}: {error:?}"));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    traces::assert_none(&images.world);
}

#[tokio::test]
async fn layers_that_lie_about_themselves_end_before_a_machine_starts() {
    let mut images = Images::new();
    let sdk = images.sdk(|settings| settings.max_image_bytes = 4 * 1024 * 1024);
    let sound = Forge::new().file("file", "x").finish();
    let bomb = Layer::gzip(&vec![0; 64 * 1024 * 1024]);
    let half = Entry::new(b'0', "half").content(vec![7; 2 * 1024 * 1024 + 512]);
    let half = Layer::plain(Forge::new().entry(half).finish());
    for (case, layers, code) in [
        ("a bomb", vec![bomb], ErrorCode::LimitExceeded),
        (
            "bombs that count together",
            vec![half.clone(), half],
            ErrorCode::LimitExceeded,
        ),
        (
            "another diff_id",
            vec![Layer::gzip(&sound).with_diff_id_of(&below())],
            ErrorCode::DigestMismatch,
        ),
        (
            "called gzip",
            vec![Layer::plain(sound.clone()).said_to_be("+gzip")],
            ErrorCode::Unsupported,
        ),
        (
            "called plain",
            vec![Layer::gzip(&sound).said_to_be("")],
            ErrorCode::Unsupported,
        ),
    ] {
        let name = images.layout.add("liar", &layers, json!({}));
        let options = EnvironmentOptions {
            pull: PullPolicy::Always,
            force: false,
        };
        let outcome = sdk
            .pull_environment(&name, options, &pyro::progress::ignore())
            .await;
        let error = outcome.expect_err(case);
        assert_eq!(error.code(), code, "{case}: {error}");
        let told = pyro::error::chain(&error);
        assert!(told.contains("layer sha256:"), "{case}: {told}");
        assert!(told.contains("liar"), "{case}: {told}");
        assert_store_is_clean(&images.store());
        assert!(!images.world.state().join("machines").exists(), "{case}");
    }
    traces::assert_none(&images.world);
}

/// What the agent needs of a root is in the way or a link: the machine runs, or says why not.
#[test]
fn roots_that_fight_the_boot_end_in_time() {
    let mut images = Images::new();
    let hostile: [(&str, Forge); 4] = [
        (
            "links",
            ["proc", "sys", "dev", "tmp", "run", "etc"]
                .iter()
                .fold(Forge::new(), |forge, name| forge.symlink(name, "/bin")),
        ),
        (
            "files",
            ["proc", "sys", "dev", "tmp", "run", "etc"]
                .iter()
                .fold(Forge::new(), |forge, name| forge.file(name, "in the way")),
        ),
        (
            "circle",
            Forge::new()
                .symlink("proc", "dev")
                .symlink("dev", "proc")
                .symlink("run", "run"),
        ),
        (
            "pipes",
            Forge::new()
                .entry(Entry::new(b'6', "etc/passwd"))
                .entry(Entry::new(b'6', "etc/group"))
                .entry(Entry::new(b'6', "etc/resolv.conf"))
                .entry(Entry::new(b'6', "etc/hosts")),
        ),
    ];
    let refused = Refused("guest_error", "image");
    let fates = [refused, refused, refused, Harmless];
    for ((case, forge), fate) in hostile.into_iter().zip(fates) {
        let layers = [busybox_layer(), Layer::plain(forge.finish())];
        let name = images.layout.add(case, &layers, json!({}));
        let run = [
            "run",
            &name,
            "--user",
            "7",
            "--json",
            "--",
            "/bin/echo",
            "ran",
        ];
        let finished = images.pyro(&run).deadline(DEADLINE).run();
        let answer = finished.json();
        match fate {
            Harmless => assert_eq!(answer["stdout"], "ran\n", "{case}: {answer}"),
            Refused(code, text) => {
                assert_eq!(finished.code(), 125, "{case}: {answer}");
                assert_eq!(answer["error"]["code"], code, "{case}: {answer}");
                assert_eq!(
                    answer["error"]["details"]["cause"], text,
                    "{case}: {answer}"
                );
            }
        }
        traces::assert_none(&images.world);
    }
}
