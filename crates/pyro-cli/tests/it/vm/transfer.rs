//! Archives into a machine and out of it, through the SDK.

use std::process::Command;

use pyro::MachineOptions;
use pyro_protocol::archive::export::{Compression, TreeExport};
use pyro_protocol::archive::import::TreeImport;

use super::sdk::{output, started};
use super::world;

#[tokio::test]
async fn a_tree_comes_back_as_it_was_sent() {
    let world = world();
    let mut machine = started(&world, &MachineOptions::default()).await;
    let home = world.home();
    let tree = home.join("tree");
    std::fs::create_dir_all(tree.join("deep/er")).unwrap();
    // More than every window and buffer on the way.
    std::fs::write(tree.join("large"), vec![b'x'; 5_000_000]).unwrap();
    std::fs::write(tree.join("deep/er/file"), "content").unwrap();
    std::os::unix::fs::symlink("deep/er", tree.join("link")).unwrap();
    let tar = |arguments: &[&str]| {
        let output = Command::new("tar")
            .args(arguments)
            .current_dir(home)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}");
        output.stdout
    };
    let sent = tar(&["c", "-C", "tree", "."]);
    let mut seen = 0;
    let end = machine
        .import(&TreeImport::workspace(), sent.as_slice(), |progress| {
            seen = progress.bytes;
        })
        .await
        .unwrap();
    assert_eq!(end.bytes_written, 5_000_007);
    assert!(seen <= sent.len() as u64);
    let (said, code) = output(&mut machine, "cat /workspace/link/file").await;
    assert_eq!((said.as_str(), code), ("content", 0));

    let request = TreeExport {
        compression: Compression::Gzip,
        ..TreeExport::workspace(".")
    };
    let mut archive = Vec::new();
    let end = machine
        .export(&request, &mut archive, 1 << 20)
        .await
        .unwrap();
    assert_eq!(end.archive_size, archive.len() as u64);
    std::fs::write(home.join("back.tar.gz"), &archive).unwrap();
    std::fs::create_dir(home.join("back")).unwrap();
    tar(&["xf", "back.tar.gz", "-C", "back"]);
    let compared = Command::new("diff")
        .args(["-r", "tree", "back"])
        .current_dir(home)
        .output();
    assert!(compared.unwrap().status.success());

    // A bound ends the export, and the machine goes on.
    let error = machine
        .export(&request, tokio::io::sink(), 100)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("100 bytes"), "{error}");
    assert_eq!(output(&mut machine, "true").await.1, 0);
    machine.stop(false).await.unwrap();
}

#[tokio::test]
async fn an_import_that_is_dropped_leaves_nothing() {
    let world = world();
    let mut machine = started(&world, &MachineOptions::default()).await;
    // One whole member, and then nothing more.
    let (mut tar, reader) = tokio::io::duplex(4096);
    let home = world.home();
    std::fs::write(home.join("member"), "content").unwrap();
    let output_of_tar = Command::new("tar")
        .args(["c", "member"])
        .current_dir(home)
        .output();
    let bytes = output_of_tar.unwrap().stdout;
    tokio::io::AsyncWriteExt::write_all(&mut tar, &bytes[..1024])
        .await
        .unwrap();
    let staged = "until ls -A /workspace | grep -q .; do :; done";
    {
        let request = TreeImport::workspace();
        let exec = pyro::ExecOptions::new(pyro::Program::shell(staged));
        let mut waiting = machine.exec(&exec).await.unwrap();
        let import = machine.import(&request, reader, |_| {});
        tokio::select! {
            ended = import => panic!("{ended:?}"),
            ended = waiting.next() => drop(ended.unwrap()),
        }
    }
    let gone = "while ls -A /workspace | grep -q .; do :; done; echo gone";
    assert_eq!(output(&mut machine, gone).await, ("gone\n".into(), 0));
    machine.stop(false).await.unwrap();
}
