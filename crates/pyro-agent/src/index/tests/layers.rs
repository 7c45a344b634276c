//! What is read off an overlay's layers is what a walk of both whole trees finds.

use std::process::Command;

use proptest::prelude::*;

use super::super::layers::{Layers, compare};
use super::*;

/// The image of these tests.
const IMAGE: &str = "
    mkdir -p etc usr/bin usr/lib/a usr/lib/b/deep/er usr/share/p usr/share/p-q empty home
    echo root > etc/passwd; echo hosts > etc/hosts; echo tool > usr/bin/tool
    chmod 755 usr/bin/tool; for i in x y z; do echo $i > usr/lib/a/$i; done
    echo a > usr/lib/a-b; echo 0 > usr/lib/a0; echo deep > usr/lib/b/deep/er/file
    echo doc > usr/share/p/f; echo doc > usr/share/p-q/f; ln -s tool usr/bin/link
";

/// The layers of an overlay, and a copy of the tree that it shows.
struct Overlay {
    bench: Bench,
}

impl Overlay {
    /// Makes the image, mounts the overlay where nobody else sees it, and runs `edits` in it.
    /// Edits that cannot be done are none.
    fn edited(edits: &str) -> Self {
        let bench = Bench::new();
        let overlay = Self { bench };
        overlay.run(&format!("mkdir lower upper work copy; cd lower; {IMAGE}"));
        overlay.edit(edits);
        overlay
    }

    fn edit(&self, edits: &str) {
        // The options are those of the machine's root.
        self.run(&format!(
            "mkdir -p merged; rm -rf copy; mkdir copy
            mount -t overlay overlay merged -o \
            lowerdir=lower,upperdir=upper,workdir=work,redirect_dir=nofollow,metacopy=off
            (cd merged; set +e; {edits}
            true) 2> errors; cp -a merged/. copy"
        ));
    }

    fn run(&self, script: &str) {
        let output = Command::new("unshare")
            .args(["--mount", "bash", "-c", &format!("set -e; {script}")])
            .current_dir(self.bench.tree.path())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {errors}");
    }

    /// What the layers tell, and how many files were read for it.
    fn told(&self) -> (Vec<Change>, u64) {
        let layers = Layers {
            upper: open(&self.bench.path("upper")),
            lower: open(&self.bench.path("lower")),
        };
        let counters = Counters::default();
        let walked = compare(
            &layers,
            Tools {
                home: &self.bench.home,
                clock: Clock(|| NOW.get()),
                cancel: &Cancel::default(),
                counters: &counters,
            },
        )
        .unwrap();
        (changed(walked), counters.read().files_hashed)
    }

    /// What differs between the image and the tree that is seen, each walked whole.
    fn found(&self) -> Vec<Change> {
        let elsewhere = Bench::new();
        let order = |directory: &str| Order {
            directory: open(&self.bench.path(directory)),
            ..elsewhere.order()
        };
        let image = Order {
            name: Some(baseline_name("lower")),
            ..order("lower")
        };
        elsewhere.run(image).unwrap();
        let now = Order {
            since: Since::Baseline(baseline_name("lower")),
            ..order("copy")
        };
        changed(elsewhere.run(now).unwrap().walked)
    }
}

/// A change without what differs between a tree and its copy.
fn essence(change: &Change) -> Change {
    let plain = |record: &Record| Record {
        inode: 0,
        changed: Stamp::default(),
        modified: Stamp::default(),
        opaque: false,
        ..record.clone()
    };
    match change {
        Change::Added(record) => Change::Added(plain(record)),
        Change::Deleted(record) => Change::Deleted(plain(record)),
        Change::Both { status, old, new } => Change::Both {
            status: *status,
            old: plain(old),
            new: plain(new),
        },
    }
}

fn essences(changes: &[Change]) -> Vec<Change> {
    changes.iter().map(essence).collect()
}

fn assert_agree(overlay: &Overlay) {
    let (told, found) = (overlay.told().0, overlay.found());
    assert_eq!(essences(&told), essences(&found));
}

#[test]
fn layers_tell_what_whole_walks_find() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let overlay = Overlay::edited(
        "echo more >> etc/passwd        # another content
        touch etc/hosts                 # only copied up
        chmod 700 usr/bin/tool          # another mode
        rm usr/lib/a/x                  # a whiteout
        rm -r usr/lib/b                 # one for a whole tree
        rm -r usr/share/p; mkdir usr/share/p; echo new > usr/share/p/g  # opaque
        rm -r usr/lib/a; mkdir usr/lib/a; echo y > usr/lib/a/y; echo Z > usr/lib/a/z
        rm -r usr/share/p-q; echo file > usr/share/p-q      # a directory becomes a file
        rm usr/lib/a-b; mkdir usr/lib/a-b; echo in > usr/lib/a-b/in  # and the reverse
        ln -sf other usr/bin/link
        rm usr/lib/a0; echo 0 > usr/lib/a0  # the same again
        mkdir -p home/user/.cache; ln etc/passwd home/user/hard; mkfifo home/pipe
        mv empty moved; rm etc/nothing",
    );
    assert_agree(&overlay);
    let statuses: Vec<_> = overlay
        .told()
        .0
        .iter()
        .map(|change| {
            let path = String::from_utf8_lossy(change.path()).into_owned();
            (path, change.status())
        })
        .collect();
    let is = |path: &str, status| statuses.contains(&(path.to_owned(), status));
    assert!(is("etc/passwd", ChangeStatus::Modified));
    assert!(is("usr/bin/tool", ChangeStatus::ModeChanged));
    assert!(is("usr/lib/a/x", ChangeStatus::Deleted));
    assert!(is("usr/lib/b/deep/er/file", ChangeStatus::Deleted));
    assert!(is("usr/share/p-q", ChangeStatus::TypeChanged));
    assert!(is("usr/share/p-q/f", ChangeStatus::Deleted));
    for same in ["etc", "etc/hosts", "usr/lib/a/y", "usr/lib/a0", "usr/lib/a"] {
        assert!(statuses.iter().all(|(path, _)| path != same), "{same}");
    }
}

#[test]
fn layers_are_read_once() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let overlay = Overlay::edited("echo more >> etc/passwd; rm -r usr/lib; echo n > new");
    let (first, read) = overlay.told();
    assert_eq!(
        read,
        2 + 7,
        "two of the upper layer, and what stood in their place or is gone"
    );
    let (again, read) = overlay.told();
    assert_eq!((again, read), (first, 0));
    overlay.edit("echo again >> etc/passwd");
    assert_eq!(overlay.told().1, 1);
    assert_agree(&overlay);
}

/// One edit of the overlay, in the words of a shell.
fn edit() -> impl Strategy<Value = String> {
    let path = prop::sample::select(vec![
        "etc",
        "etc/passwd",
        "usr/lib",
        "usr/lib/a",
        "usr/lib/a/x",
        "usr/lib/a-b",
        "usr/lib/b",
        "usr/lib/b/deep",
        "usr/share/p",
        "usr/share/p/f",
        "usr/share/p-q",
        "new",
        "new/er",
    ]);
    prop_oneof![
        path.clone().prop_map(|path| format!("rm -rf {path}")),
        path.clone().prop_map(|path| format!("mkdir {path}")),
        path.clone().prop_map(|path| format!("echo x > {path}")),
        path.clone()
            .prop_map(|path| format!("ln -sfn nowhere {path}")),
        path.clone().prop_map(|path| format!("chmod 700 {path}")),
        (path.clone(), path).prop_map(|(from, to)| format!("mv -T {from} {to}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn whatever_is_edited_in_an_overlay_is_told(
        rounds in prop::collection::vec(prop::collection::vec(edit(), 1..12), 1..3),
    ) {
        if rustix::process::geteuid().is_root() {
            let mut rounds = rounds.into_iter().map(|edits| edits.join("\n"));
            let overlay = Overlay::edited(&rounds.next().unwrap());
            prop_assert_eq!(essences(&overlay.told().0), essences(&overlay.found()));
            for edits in rounds {
                overlay.edit(&edits);
                prop_assert_eq!(essences(&overlay.told().0), essences(&overlay.found()));
            }
        }
    }
}
