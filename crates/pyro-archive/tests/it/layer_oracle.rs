//! GNU tar packs a tree and unpacks it, and so do we: both trees are the same.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use pyro_archive::extract::layer::Position;

use crate::world::World;

const TREE: &str = r#"
umask 022
mkdir -p dir/sub empty 'with space' deep/a/b/c/d/e/f
printf content > dir/file
: > dir/empty-file
head -c 300000 /dev/urandom > dir/large
truncate -s 5M sparse && printf middle | dd of=sparse bs=1 seek=2000000 conv=notrunc 2>/dev/null
ln dir/file dir/sub/hard
ln -s ../file dir/sub/relative
ln -s /dir/file absolute
ln -s nowhere dangling
ln -s "$(printf 'x%.0s' $(seq 150))" long-target
mkfifo dir/fifo
name=$(printf 'n%.0s' $(seq 200))
mkdir "$name"
printf long > "$name/$name"
ln "$name/$name" "hard-$name"
printf bytes > "$(printf 'not\377text')"
printf newline > "$(printf 'a\nb')"
printf deep > deep/a/b/c/d/e/f/file
cp /bin/true setuid && chmod 4755 setuid
printf group > setgid && chmod 2755 setgid
chmod 1777 empty
chmod 0500 'with space'
chmod 0400 dir/large
# Only a privileged user may make these; for others the tree is one poorer.
mknod null c 1 3 2>/dev/null || true
find . -exec touch -h -d @1000000000 {} +
touch -d @1234567890 dir/file
touch -d @1111111111 dir
touch -h -d @1222222222 dangling
"#;

fn run(directory: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
    output.stdout
}

/// Everything about a tree that an archive tells, sorted. The size of a directory is the
/// file system's own.
fn listing(directory: &Path) -> String {
    let script = r"
        { find . -type d -printf '%p d %m %U %G %T@\n'
          find . ! -type d -printf '%p %y %m %U %G %T@ %s %b %l %n\n'
          find . -type f -exec sha256sum {} +
          find . \( -type c -o -type b \) -exec stat -c '%n %t %T' {} +
        } | LC_ALL=C sort";
    let listing = run(directory, "sh", &["-c", script]);
    String::from_utf8_lossy(&listing).into_owned()
}

fn assert_unpacked_as_gnu_tar_does(options: &[&str]) {
    let world = World::new();
    let scratch = tempfile::tempdir().expect("a directory");
    let (tree, theirs) = (scratch.path().join("tree"), scratch.path().join("theirs"));
    for directory in [&tree, &theirs] {
        std::fs::create_dir(directory).expect("it is empty");
    }
    run(&tree, "sh", &["-ec", TREE]);
    let archive = scratch.path().join("layer.tar");
    let archive_name = archive.to_str().expect("UTF-8");
    let pack = [&["-cf", archive_name], options, &["."]].concat();
    run(&tree, "tar", &pack);
    run(&theirs, "tar", &["-xpf", archive_name]);
    let file = File::open(&archive).expect("it is there");
    world.layer(file, Position::Lowest).expect("it is sound");
    assert_eq!(listing(&world.root()), listing(&theirs), "{options:?}");
}

#[test]
fn the_gnu_form() {
    assert_unpacked_as_gnu_tar_does(&["--format=gnu", "--sort=name"]);
}

#[test]
fn the_pax_form() {
    assert_unpacked_as_gnu_tar_does(&["--format=pax", "--sort=name"]);
}

#[test]
fn sparse_files_in_the_gnu_form() {
    assert_unpacked_as_gnu_tar_does(&["--format=gnu", "--sparse"]);
}

#[test]
fn numeric_owners() {
    assert_unpacked_as_gnu_tar_does(&["--format=gnu", "--numeric-owner"]);
}
