//! Installing an engine from a server that is well, and from servers that are not.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pyro_image::oci::{OciError, RegistrySettings, RetryPolicy};
use pyro_image::runtime::{Program, Release, RuntimeError, RuntimeInstallation, RuntimeStore};
use pyro_image::{Sha256Digest, progress};
use pyro_testing::wire::{Deed, Request, Server};

/// Bytes of each program. They do not compress, so an archive of two has a little more than twice as many.
const SIZE: usize = 300_000;

/// An archive as it is released, a store, and what should come of it.
struct World {
    folder: tempfile::TempDir,
    archive: Vec<u8>,
    release: Release,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = [
            ("firecracker", "release-v1/firecracker-v1", 1),
            ("jailer", "release-v1/jailer-v1", 2),
        ];
        let inside = folder.path().join("release-v1");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(inside.join("LICENSE"), "free").unwrap();
        let programs = programs.map(|(name, member, seed)| {
            let content = noise(seed);
            std::fs::write(folder.path().join(member), &content).unwrap();
            Program {
                name,
                member,
                digest: Sha256Digest::of(&content),
            }
        });
        let archive = pack(folder.path());
        let release = Release {
            name: "firecracker-1",
            url: "https://127.0.0.1:1/never-asked",
            programs: programs.to_vec(),
        };
        Self {
            folder,
            archive,
            release,
        }
    }

    fn store(&self) -> RuntimeStore {
        RuntimeStore::new(self.folder.path().join("runtime"))
    }

    fn serve(&self) -> Server {
        let archive = self.archive.clone();
        Server::start(0, move |request| ranged(&archive, request))
    }

    async fn install(&self, port: u16) -> Result<RuntimeInstallation, RuntimeError> {
        let url = format!("http://127.0.0.1:{port}/x.tgz");
        let progress = progress::ignore();
        self.store()
            .install(&self.release, Some(&url), &network(), false, &progress)
            .await
    }

    fn assert_installed(&self) {
        let found = self.store().installed(&self.release).unwrap().unwrap();
        assert!(found.valid);
        for (name, seed) in [("firecracker", 1), ("jailer", 2)] {
            use std::os::unix::fs::PermissionsExt;
            let path = found.directory.join(name);
            assert_eq!(std::fs::read(&path).unwrap(), noise(seed));
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        }
        assert_eq!(
            names(&found.directory).len(),
            2,
            "nothing else is installed"
        );
        assert_eq!(
            names(&self.folder.path().join("runtime")),
            [".lock", "firecracker-1"]
        );
    }

    fn assert_nothing(&self) {
        assert_eq!(self.store().installed(&self.release).unwrap(), None);
        assert_eq!(names(&self.folder.path().join("runtime")), [".lock"]);
    }

    fn partial(&self) -> PathBuf {
        self.folder.path().join("runtime/.download-firecracker-1")
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What does not compress.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(SIZE)
    .collect()
}

fn pack(folder: &Path) -> Vec<u8> {
    let packed = Command::new("tar")
        .args(["--create", "--gzip", "--directory"])
        .arg(folder)
        .arg("release-v1")
        .output()
        .unwrap();
    assert!(packed.status.success());
    packed.stdout
}

/// An answer as of a server that knows ranges.
fn ranged(archive: &[u8], request: &Request) -> Deed {
    let offset = usize::try_from(request.offset()).unwrap();
    let total = archive.len();
    if request.range.is_none() {
        return Deed::Answer(200, Vec::new(), archive.to_vec());
    }
    if offset >= total {
        let range = ("Content-Range".to_owned(), format!("bytes */{total}"));
        return Deed::Answer(416, vec![range], Vec::new());
    }
    let range = format!("bytes {offset}-{}/{total}", total - 1);
    let headers = vec![("Content-Range".to_owned(), range)];
    Deed::Answer(206, headers, archive[offset..].to_vec())
}

fn network() -> RegistrySettings {
    RegistrySettings {
        retry: RetryPolicy {
            attempts: 3,
            first_pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(10),
            silence: Duration::from_secs(2),
        },
        ..RegistrySettings::default()
    }
}

#[tokio::test]
async fn it_is_installed_once_and_then_nobody_is_asked() {
    let world = World::new();
    let server = world.serve();
    let first = world.install(server.port).await.unwrap();
    assert!(!first.present);
    world.assert_installed();
    let second = world.install(server.port).await.unwrap();
    assert!(second.present);
    assert_eq!(second.runtime, first.runtime);
    assert_eq!(server.requests().len(), 1);
    let progress = progress::ignore();
    let offline = world
        .store()
        .install(&world.release, None, &network(), true, &progress)
        .await;
    assert!(offline.unwrap().present, "what is here needs no network");
    let store = world.store();
    assert!(store.remove(&world.release, &progress).await.unwrap());
    assert!(!store.remove(&world.release, &progress).await.unwrap());
    world.assert_nothing();
}

#[tokio::test]
async fn a_damaged_installation_is_replaced() {
    let world = World::new();
    let server = world.serve();
    let first = world.install(server.port).await.unwrap();
    std::fs::write(first.runtime.directory.join("jailer"), "other").unwrap();
    let found = world.store().installed(&world.release).unwrap().unwrap();
    assert!(!found.valid);
    assert!(!world.install(server.port).await.unwrap().present);
    world.assert_installed();
}

#[tokio::test]
async fn a_connection_that_is_cut_again_and_again_gets_there() {
    let world = World::new();
    let behind = world.serve();
    let front = Server::start(behind.port, |_| Deed::Cut(100_000));
    world.install(front.port).await.unwrap();
    world.assert_installed();
    let offsets: Vec<u64> = front.requests().iter().map(Request::offset).collect();
    assert_eq!(offsets[..3], [0, 100_000, 200_000]);
}

#[tokio::test]
async fn what_came_before_a_failure_is_not_fetched_again() {
    let world = World::new();
    let behind = world.serve();
    let count = AtomicUsize::new(0);
    let front = Server::start(behind.port, move |_| {
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => Deed::Cut(150_000),
            _ => Deed::HangUp,
        }
    });
    let error = world.install(front.port).await.unwrap_err();
    assert!(
        matches!(&error, RuntimeError::Fetch(OciError::Unreachable { .. })),
        "{error}"
    );
    assert!(error.hint().is_some());
    assert_eq!(world.partial().metadata().unwrap().len(), 150_000);
    world.install(behind.port).await.unwrap();
    world.assert_installed();
    assert_eq!(behind.requests().last().unwrap().offset(), 150_000);
}

#[tokio::test]
async fn a_part_of_something_else_is_thrown_away() {
    let world = World::new();
    let server = world.serve();
    let put = |bytes: &[u8]| {
        std::fs::create_dir_all(world.partial().parent().unwrap()).unwrap();
        std::fs::write(world.partial(), bytes).unwrap();
    };
    put(&noise(9)[..1000]);
    world.install(server.port).await.unwrap();
    world.assert_installed();
    let progress = progress::ignore();
    world
        .store()
        .remove(&world.release, &progress)
        .await
        .unwrap();
    put(&vec![7; world.archive.len() + 5]);
    world.install(server.port).await.unwrap();
    world.assert_installed();
    world
        .store()
        .remove(&world.release, &progress)
        .await
        .unwrap();
    put(&world.archive);
    world.install(server.port).await.unwrap();
    world.assert_installed();
}

#[tokio::test]
async fn a_server_without_ranges_starts_again() {
    let world = World::new();
    let archive = world.archive.clone();
    let server = Server::start(0, move |_| Deed::Answer(200, Vec::new(), archive.clone()));
    std::fs::create_dir(world.folder.path().join("runtime")).unwrap();
    std::fs::write(world.partial(), &world.archive[..5000]).unwrap();
    world.install(server.port).await.unwrap();
    world.assert_installed();
}

#[tokio::test]
async fn another_program_is_not_installed() {
    let mut world = World::new();
    let server = world.serve();
    world.release.programs[1].digest = Sha256Digest::of(b"the released one");
    let error = world.install(server.port).await.unwrap_err();
    let RuntimeError::WrongDigest { member, found, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*member, "release-v1/jailer-v1");
    assert_eq!(*found, Sha256Digest::of(&noise(2)));
    assert!(error.hint().is_some());
    world.assert_nothing();
    world.release.programs[1].member = "release-v1/other";
    let error = world.install(server.port).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Missing { .. }), "{error}");
    world.assert_nothing();
}

#[tokio::test]
async fn what_is_no_archive_is_told() {
    let world = World::new();
    for body in [
        b"<html>sign in</html>".to_vec(),
        Vec::new(),
        world.archive[..1000].to_vec(),
    ] {
        let server = Server::start(0, move |_| Deed::Answer(200, Vec::new(), body.clone()));
        let error = world.install(server.port).await.unwrap_err();
        assert!(matches!(error, RuntimeError::Archive { .. }), "{error}");
        world.assert_nothing();
    }
}

#[tokio::test]
async fn a_link_in_the_place_of_a_program_is_refused() {
    let world = World::new();
    let program = world.folder.path().join("release-v1/jailer-v1");
    std::fs::remove_file(&program).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &program).unwrap();
    let archive = pack(world.folder.path());
    let server = Server::start(0, move |_| Deed::Answer(200, Vec::new(), archive.clone()));
    let error = world.install(server.port).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Archive { .. }), "{error}");
    world.assert_nothing();
}

#[tokio::test]
async fn refusals_and_no_network_have_their_own_errors() {
    let world = World::new();
    let server = Server::start(0, |_| Deed::Answer(404, Vec::new(), Vec::new()));
    let error = world.install(server.port).await.unwrap_err();
    assert!(
        matches!(&error, RuntimeError::Fetch(OciError::NotFound { .. })),
        "{error}"
    );
    let progress = progress::ignore();
    let install = |url: &'static str, offline| {
        let (store, release, progress) = (world.store(), world.release.clone(), progress.clone());
        async move {
            store
                .install(&release, Some(url), &network(), offline, &progress)
                .await
                .unwrap_err()
        }
    };
    let error = install("http://127.0.0.1:1/x", true).await;
    assert!(matches!(error, RuntimeError::Offline { .. }), "{error}");
    for url in ["http://example.com/x", "ftp://127.0.0.1/x", "x"] {
        let error = install(url, false).await;
        assert!(matches!(error, RuntimeError::Address { .. }), "{error}");
    }
    let error = install("http://user:secret@example.com/x", false).await;
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn the_release_of_firecracker_has_its_programs() {
    let release = Release::firecracker();
    assert!(
        release
            .url
            .ends_with("/v1.12.1/firecracker-v1.12.1-x86_64.tgz")
    );
    let names: Vec<_> = release
        .programs
        .iter()
        .map(|program| program.name)
        .collect();
    assert_eq!(names, ["firecracker", "jailer"]);
}
