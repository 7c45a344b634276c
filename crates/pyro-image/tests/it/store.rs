//! Installing, replacing, verifying, pruning and locking environments.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pyro_image::progress::{self, Progress, ProgressSink};
use pyro_image::store::{NewEnvironment, PruneOptions, RootKey};
use pyro_image::{Catalog, CatalogEntry, EnvironmentStore, InstallState, Sha256Digest, StoreError};

const NAME: &str = "debian:12-base";
const DIRECTORY: &str = "debian_12-base-1.0.0";
const SOON: Duration = Duration::from_millis(300);

fn entry(name: &str) -> CatalogEntry {
    Catalog::builtin().get(name).unwrap().clone()
}

struct World {
    dir: tempfile::TempDir,
    store: EnvironmentStore,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store =
            EnvironmentStore::new(dir.path().join("cache"), "linux-x86_64", Catalog::builtin());
        Self { dir, store }
    }

    async fn install(&self, content: &str) {
        self.install_as(&entry(NAME), content, None).await;
    }

    async fn install_as(&self, entry: &CatalogEntry, content: &str, root_key: Option<RootKey>) {
        let staging = self
            .store
            .begin_install(entry, SOON, &progress::ignore())
            .await
            .unwrap();
        fs::write(staging.rootfs(), content).unwrap();
        fs::write(staging.dir().join("layer.tar"), "scrap").unwrap();
        let environment = NewEnvironment {
            source: "recipe://test".to_owned(),
            packages: vec!["bash".to_owned()],
            kernel_digest: Some(Sha256Digest::of(b"kernel")),
            root_key,
            ..NewEnvironment::default()
        };
        staging
            .commit(environment, &progress::ignore())
            .await
            .unwrap();
    }

    fn reason(&self) -> String {
        match self.store.installed(&entry(NAME)).unwrap() {
            InstallState::Invalid { reason } => reason,
            other => panic!("not invalid but {other:?}"),
        }
    }

    /// Names in the platform's directory without lock files.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.store.platform_dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with(".lock-"))
            .collect();
        names.sort();
        names
    }

    fn manifest_path(&self) -> std::path::PathBuf {
        self.store
            .install_dir(&entry(NAME))
            .join("environment.json")
    }
}

/// Another process that holds a lock.
struct Holder(Child);

impl Holder {
    fn new(world: &World) -> Self {
        fs::create_dir_all(world.store.platform_dir()).unwrap();
        let ready = world.dir.path().join("ready");
        // One process, so that the lock is free when it has ended.
        let child = Command::new("flock")
            .arg("--no-fork")
            .arg(
                world
                    .store
                    .platform_dir()
                    .join(format!(".lock-{DIRECTORY}")),
            )
            .args(["sh", "-c", "touch \"$0\"; exec sleep 60"])
            .arg(&ready)
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !ready.exists() {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(10));
        }
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn an_environment_is_installed_and_replaced() {
    let world = World::new();
    assert_eq!(
        world.store.installed(&entry(NAME)).unwrap(),
        InstallState::Absent
    );

    world.install("one").await;
    world.install("two").await;
    let InstallState::Valid(installed) = world.store.installed(&entry(NAME)).unwrap() else {
        panic!("it is installed");
    };
    assert_eq!(fs::read_to_string(&installed.rootfs).unwrap(), "two");
    assert_eq!(world.names(), [DIRECTORY]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(world.store.root()), 0o700);
    assert_eq!(mode(&installed.rootfs), 0o644);
    let files: Vec<_> = fs::read_dir(&installed.dir).unwrap().collect();
    assert_eq!(files.len(), 3, "scrap does not survive the commit");
    assert_eq!(
        world.store.verify(&entry(NAME)).unwrap(),
        InstallState::Valid(installed)
    );
}

#[tokio::test]
async fn the_manifest_has_sorted_keys_and_the_first_generations_fields() {
    let world = World::new();
    world.install("one").await;
    let text = fs::read_to_string(world.manifest_path()).unwrap();
    let keys: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("  \"")?.split('"').next())
        .collect();
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    assert_eq!(keys, sorted);
    for key in [
        "catalog_version",
        "name",
        "version",
        "source",
        "source_digest",
        "installed_at",
    ] {
        assert!(keys.contains(&key), "{key}");
    }
}

#[tokio::test]
async fn damage_is_found() {
    let world = World::new();
    world.install("one").await;
    let rootfs = world.store.install_dir(&entry(NAME)).join("rootfs.ext4");

    fs::write(&rootfs, "on").unwrap();
    assert!(world.reason().contains("another size"));
    fs::write(&rootfs, "two").unwrap();
    assert!(world.reason().contains("instead of sha256:"));
    fs::remove_file(&rootfs).unwrap();
    assert!(world.reason().contains("is missing"));
    fs::write(world.manifest_path(), "{").unwrap();
    assert!(world.reason().contains("cannot be parsed"));
    fs::remove_file(world.manifest_path()).unwrap();
    assert!(world.reason().contains("has no"));

    world.install("again").await;
    assert!(matches!(
        world.store.installed(&entry(NAME)).unwrap(),
        InstallState::Valid(_)
    ));
}

#[tokio::test]
async fn a_copied_cache_is_hashed_once() {
    let world = World::new();
    world.install("one").await;
    let rootfs = world.store.install_dir(&entry(NAME)).join("rootfs.ext4");
    let before = fs::read_to_string(world.manifest_path()).unwrap();
    fs::remove_file(&rootfs).unwrap();
    fs::write(&rootfs, "one").unwrap();
    assert!(matches!(
        world.store.installed(&entry(NAME)).unwrap(),
        InstallState::Valid(_)
    ));
    let after = fs::read_to_string(world.manifest_path()).unwrap();
    assert_ne!(before, after, "the new marks are kept");
}

#[tokio::test]
async fn reports_tell_what_is_installed() {
    let world = World::new();
    world.install("one").await;
    let listing = world.store.list().unwrap();
    let installed: Vec<_> = listing
        .environments
        .iter()
        .map(|report| (report.name.as_str(), report.installed))
        .collect();
    assert_eq!(
        installed,
        [
            ("debian:12", false),
            ("debian:12-base", true),
            ("debian:12-build", false),
            ("pyro:builder", false)
        ]
    );
    let json = serde_json::to_value(world.store.report(&entry(NAME)).unwrap()).unwrap();
    assert_eq!(json["install_manifest"]["source"], "recipe://test");
    assert!(json["size_bytes"].as_u64().unwrap() > 3);
    assert!(json["disk_bytes"].is_u64());
    let absent = serde_json::to_value(world.store.report(&entry("debian:12")).unwrap()).unwrap();
    assert!(absent.get("install_manifest").is_none());
    assert!(absent.get("size_bytes").is_none());
    assert!(matches!(
        world.store.entry("nothing"),
        Err(StoreError::Catalog(_))
    ));
}

#[tokio::test]
async fn an_abandoned_installation_leaves_the_old_one() {
    let world = World::new();
    world.install("one").await;
    let staging = world
        .store
        .begin_install(&entry(NAME), SOON, &progress::ignore())
        .await
        .unwrap();
    assert_eq!(world.names().len(), 2);
    let error = staging
        .commit(NewEnvironment::default(), &progress::ignore())
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::NoRootImage { .. }), "{error}");
    assert_eq!(world.names(), [DIRECTORY]);
    assert!(matches!(
        world.store.installed(&entry(NAME)).unwrap(),
        InstallState::Valid(_)
    ));
}

#[tokio::test]
async fn another_process_is_waited_for() {
    let world = World::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink: ProgressSink = {
        let seen = Arc::clone(&seen);
        Arc::new(move |event| seen.lock().unwrap().push(event))
    };
    let holder = Holder::new(&world);
    let error = world
        .store
        .begin_install(&entry(NAME), SOON, &sink)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    assert!(error.hint().is_some());
    assert!(matches!(
        seen.lock().unwrap().first(),
        Some(Progress::Waiting { seconds: 0, .. })
    ));
    let entry = entry(NAME);
    let waiting = world
        .store
        .begin_install(&entry, Duration::from_secs(20), &sink);
    let (staging, ()) = tokio::join!(waiting, async {
        tokio::time::sleep(SOON).await;
        drop(holder);
    });
    staging.unwrap();
}

#[tokio::test]
async fn prune_keeps_what_is_valid_or_in_use() {
    let world = World::new();
    assert_eq!(world.store.prune(PruneOptions::default()).unwrap().count, 0);
    world.install("one").await;
    let platform = world.store.platform_dir();
    for name in [
        ".partial-debian_12-1.0.0-abcdefgh",
        ".partial-tmpxyz",
        "debian_12-0.9.0",
        "debian_12-1.0.0",
        "unknown-1.0.0",
    ] {
        fs::create_dir(platform.join(name)).unwrap();
    }
    fs::write(platform.join("debian_12-1.0.0/environment.json"), "[1").unwrap();
    let staging = world
        .store
        .begin_install(&entry("debian:12-build"), SOON, &progress::ignore())
        .await
        .unwrap();

    let expected = [
        ".partial-debian_12-1.0.0-abcdefgh",
        ".partial-tmpxyz",
        "debian_12-0.9.0",
        "debian_12-1.0.0",
        "unknown-1.0.0",
    ];
    let dry = world
        .store
        .prune(PruneOptions {
            dry_run: true,
            ..PruneOptions::default()
        })
        .unwrap();
    assert_eq!(dry.deleted_environment_dirs, expected);
    assert_eq!(world.names().len(), 7);
    assert_eq!(world.store.prune(PruneOptions::default()).unwrap(), dry);
    assert!(staging.dir().is_dir());
    assert_eq!(world.names().len(), 2);
    drop(staging);
    assert_eq!(world.names(), [DIRECTORY]);
}

#[tokio::test]
async fn what_a_killed_process_left_goes_with_the_next_installation() {
    let world = World::new();
    let holder = Holder::new(&world);
    let left = world
        .store
        .platform_dir()
        .join(format!(".partial-{DIRECTORY}-12345678"));
    fs::create_dir(&left).unwrap();
    assert!(world.store.remove_stale_staging(false).unwrap().is_empty());
    drop(holder);
    assert_eq!(world.store.remove_stale_staging(true).unwrap().len(), 1);
    world.install("one").await;
    assert_eq!(world.names(), [DIRECTORY]);
}

#[tokio::test]
async fn what_a_machine_uses_is_not_removed() {
    let world = World::new();
    world.install("root").await;
    let InstallState::Valid(installed) = world.store.installed(&entry(NAME)).unwrap() else {
        panic!("installed");
    };
    let hold = installed.hold().unwrap().unwrap();
    let error = world.store.remove(&entry(NAME)).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    let all = PruneOptions {
        all: true,
        ..PruneOptions::default()
    };
    let pruned = world.store.prune(all).unwrap();
    assert_eq!((pruned.count, pruned.in_use), (0, vec![NAME.to_owned()]));
    drop(hold);
    // Used a moment ago: not old.
    let old = PruneOptions {
        older_than: Some(Duration::from_hours(1)),
        ..PruneOptions::default()
    };
    assert_eq!(world.store.prune(old).unwrap().count, 0);
    let older_than = Some(Duration::ZERO);
    let pruned = world
        .store
        .prune(PruneOptions { older_than, ..old })
        .unwrap();
    assert_eq!(pruned.deleted_environment_dirs, [DIRECTORY]);
    assert!(pruned.freed_bytes > 0);
    assert!(installed.hold().unwrap().is_none(), "it is gone");
    let error = world.store.remove(&entry(NAME)).unwrap_err();
    assert!(matches!(error, StoreError::NotInstalled { .. }), "{error}");
}

#[tokio::test]
async fn equal_root_images_are_kept_once() {
    use std::os::unix::fs::MetadataExt;
    let world = World::new();
    let key = RootKey::of_layers([Sha256Digest::of(b"layer")]);
    let one = world.store.entry("h.x/a:1").unwrap();
    let two = world.store.entry("h.x/b:2").unwrap();
    world.install_as(&one, &"same".repeat(100_000), key).await;
    let mut staging = world
        .store
        .begin_install(&two, SOON, &progress::ignore())
        .await
        .unwrap();
    assert!(
        !staging
            .adopt(RootKey::of_image(Sha256Digest::of(b"other")))
            .unwrap()
    );
    assert!(staging.adopt(key.unwrap()).unwrap());
    let environment = NewEnvironment {
        root_key: key,
        ..NewEnvironment::default()
    };
    let installed = staging
        .commit(environment, &progress::ignore())
        .await
        .unwrap();
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let first = world.store.install_dir(&one).join("rootfs.ext4");
    assert_eq!(inode(&installed.rootfs), inode(&first));
    assert!(matches!(
        world.store.verify(&two).unwrap(),
        InstallState::Valid(_)
    ));
    let names: Vec<_> = world.store.list().unwrap().environments;
    assert!(
        names
            .iter()
            .any(|found| found.name == "h.x/a:1" && found.installed)
    );

    let removed = world.store.remove(&one).unwrap();
    // The other one has the image still; the manifest goes.
    assert!(removed.freed_bytes < 400_000, "{removed:?}");
    assert!(world.store.remove(&two).unwrap().freed_bytes >= 400_000);
    let left: Vec<_> = fs::read_dir(world.store.platform_dir().join(".shared"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn damage_that_left_no_mark_counts_once_it_was_found() {
    let world = World::new();
    let key = RootKey::of_layers([Sha256Digest::of(b"layer")]).unwrap();
    let image = world.store.entry("h.x/a:1").unwrap();
    world.install_as(&image, "good", Some(key)).await;
    let rootfs = world.store.install_dir(&image).join("rootfs.ext4");
    let before = fs::metadata(&rootfs).unwrap().modified().unwrap();
    fs::write(&rootfs, "evil").unwrap();
    let file = fs::File::options().write(true).open(&rootfs).unwrap();
    file.set_modified(before).unwrap();
    // Nothing tells it apart without reading it.
    let state = world.store.installed(&image).unwrap();
    assert!(matches!(state, InstallState::Valid(_)), "{state:?}");
    let state = world.store.verify(&image).unwrap();
    assert!(matches!(state, InstallState::Invalid { .. }), "{state:?}");
    let state = world.store.installed(&image).unwrap();
    assert!(matches!(state, InstallState::Invalid { .. }), "{state:?}");
    let mut staging = world
        .store
        .begin_install(&image, SOON, &progress::ignore())
        .await
        .unwrap();
    assert!(
        !staging.adopt(key).unwrap(),
        "the shared one is the same file"
    );
}

#[tokio::test]
async fn a_damaged_shared_image_is_not_taken() {
    let world = World::new();
    let key = RootKey::of_layers([Sha256Digest::of(b"layer")]).unwrap();
    let one = world.store.entry("h.x/a:1").unwrap();
    world.install_as(&one, "good", Some(key)).await;
    fs::write(world.store.install_dir(&one).join("rootfs.ext4"), "evil").unwrap();
    let two = world.store.entry("h.x/b:2").unwrap();
    let mut staging = world
        .store
        .begin_install(&two, SOON, &progress::ignore())
        .await
        .unwrap();
    assert!(!staging.adopt(key).unwrap());
    assert!(!staging.rootfs().exists());
}

#[tokio::test]
async fn blobs_live_as_long_as_what_is_made_of_them() {
    let world = World::new();
    let blobs = world.store.blobs();
    let needed = blobs.install(b"needed").unwrap();
    let other = blobs.install(b"other").unwrap();
    let image = world.store.entry("h.x/a:1").unwrap();
    let staging = world
        .store
        .begin_install(&image, SOON, &progress::ignore())
        .await
        .unwrap();
    fs::write(staging.rootfs(), "root").unwrap();
    let environment = NewEnvironment {
        blobs: vec![needed],
        ..NewEnvironment::default()
    };
    staging
        .commit(environment, &progress::ignore())
        .await
        .unwrap();
    let pruned = world.store.prune(PruneOptions::default()).unwrap();
    assert_eq!((pruned.count, pruned.deleted_blobs), (0, 1));
    assert!(blobs.find(other, 5).unwrap().is_none());
    assert!(blobs.find(needed, 6).unwrap().is_some());
    let all = PruneOptions {
        all: true,
        ..PruneOptions::default()
    };
    let dry = PruneOptions {
        dry_run: true,
        ..all
    };
    assert_eq!(world.store.prune(dry).unwrap().deleted_blobs, 1);
    assert_eq!(world.store.prune(all).unwrap().deleted_blobs, 1);
    assert!(blobs.find(needed, 6).unwrap().is_none());
}
