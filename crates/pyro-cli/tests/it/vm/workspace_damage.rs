//! What is written down of workspaces is damaged: it is told, the others go on, and nothing that was written is cleared away.

use std::path::{Path, PathBuf};

use pyro_testing::{World, traces};
use serde_json::Value;

use super::workspace_story::{done, run};
use super::world;

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Makes a workspace that began with something, and writes something in it.
fn made(world: &World, name: &str) -> String {
    let source = world.home().join("source");
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("a"), "one\n").unwrap();
    let create = [
        "create",
        "debian:12",
        "--name",
        name,
        "--seed-path",
        source.to_str().unwrap(),
        "--id-only",
    ];
    let id = done(world, &create).stdout_text().trim().to_owned();
    done(world, &["file", "write", name, "mine", "--text", "two\n"]);
    id
}

fn list(world: &World) -> Value {
    done(world, &["list", "--json"]).json()
}

#[test]
fn a_damaged_record_is_told_and_left_alone_and_can_be_deleted() {
    let world = world();
    let damaged = made(&world, "damaged");
    done(&world, &["create", "debian:12", "--name", "whole"]);
    let database = rusqlite::Connection::open(world.state().join("workspaces.db")).unwrap();
    let changed = database.execute("UPDATE workspace SET facts = '{' WHERE id = ?1", [&damaged]);
    assert_eq!(changed.unwrap(), 1);
    drop(database);

    let listed = list(&world);
    assert_eq!(listed["count"], 1, "{listed}");
    assert_eq!(listed["damaged"][0]["workspace_id"], damaged.as_str());
    let told = done(&world, &["list"]).stdout_text();
    assert!(told.contains(" damaged: "), "{told}");
    let refused = run(&world, &["exec", &damaged, "--", "true"]);
    assert_ne!(refused.code(), 0);
    let told = refused.stderr_text();
    assert!(
        told.contains("is damaged") && told.contains("hint: what it wrote"),
        "{told}"
    );
    done(&world, &["exec", "whole", "--", "true"]);
    world.pyro(&["gc"]).run();
    let seeds = world.state().join("seeds");
    assert_eq!(
        entries(&seeds).len(),
        1,
        "it may be what that one began with"
    );
    assert!(world.state().join("workspaces").join(&damaged).exists());

    done(&world, &["delete", &damaged]);
    assert!(!world.state().join("workspaces").join(&damaged).exists());
    done(&world, &["delete", "whole"]);
    world.pyro(&["gc"]).run();
    assert!(entries(&seeds).is_empty());
    traces::assert_none(&world);
}

#[test]
fn a_damaged_database_is_put_aside_and_what_its_workspaces_wrote_stays() {
    let world = world();
    let lost = made(&world, "lost");
    done(&world, &["stop", "lost"]);
    let state = world.state();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(state.join(format!("workspaces.db{suffix}")));
    }
    std::fs::write(state.join("workspaces.db"), [b'x'; 8192]).unwrap();

    let listed = list(&world);
    assert_eq!(listed["count"], 0, "{listed}");
    let aside = listed["damaged_databases"][0].as_str().unwrap().to_owned();
    assert_eq!(std::fs::read(&aside).unwrap(), [b'x'; 8192]);
    let told = done(&world, &["list"]).stdout_text();
    assert!(told.contains("was damaged and lies in"), "{told}");
    done(&world, &["create", "debian:12", "--name", "new"]);
    done(&world, &["exec", "new", "--", "true"]);
    world.pyro(&["gc"]).run();
    let disks = state.join("workspaces").join(&lost).join("disks");
    assert_eq!(entries(&disks).len(), 1);
    assert_eq!(entries(&state.join("seeds")).len(), 1);
    assert_eq!(entries(&state.join("snapshots")).len(), 1);

    std::fs::remove_file(aside).unwrap();
    world.pyro(&["gc"]).run();
    assert!(!state.join("workspaces").join(&lost).exists());
    assert!(
        entries(&state.join("seeds")).is_empty() && entries(&state.join("snapshots")).is_empty()
    );
    done(&world, &["delete", "new"]);
    traces::assert_none(&world);
}
