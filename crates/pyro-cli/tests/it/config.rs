//! Settings: a flag wins over its variable, that over the file, and each says where it came from.

use pyro_testing::World;
use serde_json::Value;

fn world(file: &str) -> World {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    let config = world.home().join(".config/pyro");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("config.toml"), file).unwrap();
    world
}

fn setting(shown: &Value, name: &str) -> Value {
    let settings = shown["settings"].as_array().unwrap();
    let found = settings.iter().find(|setting| setting["name"] == name);
    let mut found = found.unwrap_or_else(|| panic!("{name} is shown")).clone();
    found.as_object_mut().unwrap().remove("variable");
    found
}

#[test]
fn each_setting_tells_where_it_came_from() {
    let world = world(
        "engine = \"qemu-tcg\"\noffline = true\nkernel = \"/k\"\n\n[limits]\nrunning = 5\nmemory_mib = 100\n",
    );
    let shown = world
        .pyro(&["config", "show", "--json", "--kernel", "/flag"])
        .env("PYRO_OFFLINE", "0")
        .env("PYRO_MAX_MEMORY_MIB", "200")
        .run()
        .json();
    assert_eq!(shown["file_exists"], true);
    for (name, value, source, line) in [
        ("engine", Value::from("qemu-tcg"), "file", Some(1)),
        ("offline", false.into(), "variable", None),
        ("kernel", "/flag".into(), "flag", None),
        ("limits.running", 5.into(), "file", Some(6)),
        ("limits.memory_mib", 200.into(), "variable", None),
        ("limits.workspaces", 200.into(), "default", None),
        ("limits.expired_grace_hours", 168.into(), "default", None),
    ] {
        let found = setting(&shown, name);
        assert_eq!(found["value"], value, "{name}");
        assert_eq!(found["source"], source, "{name}");
        assert_eq!(found["line"].as_u64(), line, "{name}");
    }
    let text = world.pyro(&["config", "show"]).run().stdout_text();
    assert!(
        text.contains("engine = qemu-tcg (line 1 of the file)\n"),
        "{text}"
    );
    assert!(
        text.contains("limits.running = 5 (line 6 of the file)\n"),
        "{text}"
    );
    assert!(text.contains("directories.state = "), "{text}");
}

#[test]
fn a_file_that_says_what_nobody_understands_stops_every_command() {
    for (file, line, told) in [
        (
            "offline = true\n\nengin = \"auto\"\n",
            3,
            "there is no setting `engin`",
        ),
        ("engine = \"kvm\"\n", 1, "`engine` is not one of"),
        (
            "[limits]\nrunning = \"many\"\n",
            2,
            "`limits.running` is not a whole number",
        ),
        ("kernel = \"here\"\n", 1, "`kernel` is not an absolute path"),
        ("offline = \n", 1, ""),
    ] {
        let world = world(file);
        let finished = world.pyro(&["env", "list"]).run();
        assert_eq!(finished.code(), 1, "{file}");
        let stderr = finished.stderr_text();
        assert!(
            stderr.contains(&format!("config.toml`, line {line}: ")),
            "{stderr}"
        );
        assert!(stderr.contains(told), "{stderr}");
        assert!(stderr.contains("\nhint: "), "{stderr}");
    }
}

#[test]
fn variables_of_limits_are_numbers() {
    let finished = World::empty(env!("CARGO_BIN_EXE_pyro"))
        .pyro(&["workspace", "list"])
        .env("PYRO_MAX_RUNNING", "many")
        .run();
    assert_eq!(finished.code(), 1);
    let stderr = finished.stderr_text();
    assert!(stderr.contains("`PYRO_MAX_RUNNING` is `many`"), "{stderr}");
}
