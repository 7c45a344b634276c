//! Machines begin from templates, which are listed, pruned, and go with their environment.

use std::fs;
use std::time::SystemTime;

use pyro_testing::{Finished, World, traces};
use serde_json::Value;

use super::prepare::{other_kernel, own_world};

fn run(world: &World, flags: &[&str]) -> Finished {
    let finished = world.run(flags, &["true"]).run();
    assert_eq!(finished.code(), 0, "{}", finished.stderr_text());
    finished
}

/// How a machine began.
fn started(world: &World, flags: &[&str]) -> String {
    let mut all = vec!["--json"];
    all.extend(flags);
    let began = run(world, &all).json()["started"].clone();
    began.as_str().unwrap().to_owned()
}

fn listed(world: &World, flags: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["template", "list", "--json"];
    arguments.extend(flags);
    let finished = world.pyro(&arguments).run();
    assert_eq!(finished.code(), 0, "{}", finished.stdout_text());
    finished.json()["templates"].as_array().unwrap().clone()
}

/// How many templates a prune removes, or would.
fn pruned(world: &World, flags: &[&str]) -> usize {
    let mut arguments = vec!["template", "prune", "--json"];
    arguments.extend(flags);
    let finished = world.pyro(&arguments).run();
    assert_eq!(finished.code(), 0, "{}", finished.stdout_text());
    let report = finished.json();
    let removed = report["removed"].as_array().unwrap();
    assert_eq!(
        report["freed_bytes"].as_u64().unwrap() > 0,
        !removed.is_empty()
    );
    removed.len()
}

#[test]
fn made_used_listed_and_pruned() {
    let world = own_world();
    assert_eq!(started(&world, &["--cold"]), "cold");
    assert!(listed(&world, &[]).is_empty());
    // What takes so long the first time is told, and only then.
    let first = run(&world, &["--json"]);
    assert_eq!(first.json()["started"], "made");
    let told = first.stderr_text();
    assert!(told.contains("\n[run] phase=template vm_id="), "{told}");
    let second = run(&world, &["--json"]);
    assert_eq!(second.json()["started"], "warm");
    assert!(!second.stderr_text().contains("phase=template"));
    let templates = listed(&world, &[]);
    assert_eq!(templates.len(), 1);
    let template = &templates[0];
    assert_eq!(template["environment"], "debian:12");
    assert_eq!(
        (&template["vcpu_count"], &template["mem_mib"]),
        (&1.into(), &1024.into())
    );
    assert_eq!(template["network"], false);
    assert!(
        template["bytes"].as_u64().unwrap() > 1024 * 1024,
        "{template}"
    );
    assert!(template.get("reason").is_none(), "{template}");
    let told = world.pyro(&["template", "list"]).run().stdout_text();
    let key = template["key"].as_str().unwrap();
    assert!(told.starts_with(&format!("{key} debian:12 (")), "{told}");

    // What is in order and in use stays until somebody says otherwise.
    assert_eq!(pruned(&world, &[]), 0);
    assert_eq!(pruned(&world, &["--older-than", "1d"]), 0);
    assert_eq!(
        pruned(&world, &["--environment", "debian:12-base", "--all"]),
        0
    );
    assert_eq!(pruned(&world, &["--all", "--dry-run"]), 1);
    assert_eq!(listed(&world, &[]).len(), 1);
    // With another kernel no machine begins from it.
    let kernel = other_kernel(&world);
    let outdated = listed(&world, &["--kernel", &kernel]);
    let reason = outdated[0]["reason"].as_str().unwrap();
    assert!(reason.contains("guest kernel"), "{reason}");
    assert_eq!(pruned(&world, &["--kernel", &kernel]), 1);
    assert_eq!(started(&world, &[]), "made");
    assert_eq!(pruned(&world, &["--environment", "debian:12", "--all"]), 1);
    assert_eq!(started(&world, &[]), "made");
    // Half a template is of no use, and told.
    let directory = world.cache().join("templates").join(key);
    fs::File::options()
        .write(true)
        .open(directory.join("memory"))
        .unwrap()
        .set_len(4096)
        .unwrap();
    assert!(listed(&world, &[])[0]["reason"].is_string());
    assert_eq!(pruned(&world, &[]), 1);
    traces::assert_none(&world);
}

#[test]
fn what_is_left_of_an_environment_goes_with_it() {
    let world = own_world();
    assert_eq!(started(&world, &[]), "made");
    let templates = world.cache().join("templates");
    let remains = [".partial-0123456789ab", ".removed-0123456789abcdef-1"].map(|name| {
        let path = templates.join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("memory"), "half").unwrap();
        path.display().to_string()
    });
    let told = world.pyro(&["gc", "--dry-run", "--json"]).run().json();
    let paths = told["paths"].as_array().unwrap();
    for path in &remains {
        assert!(paths.contains(&path.as_str().into()), "{told}");
        assert!(fs::exists(path).unwrap());
    }
    assert_eq!(world.pyro(&["gc"]).run().code(), 0);
    assert!(remains.iter().all(|path| !fs::exists(path).unwrap()));
    assert_eq!(listed(&world, &[]).len(), 1);

    let would = world
        .pyro(&["env", "prune", "--all", "--dry-run", "--json"])
        .run();
    assert_eq!(
        would.json()["deleted_templates"],
        1,
        "{}",
        would.stdout_text()
    );
    assert_eq!(listed(&world, &[]).len(), 1);
    let removed = world.pyro(&["env", "remove", "debian:12"]).run();
    assert_eq!(removed.code(), 0, "{}", removed.stderr_text());
    assert!(listed(&world, &[]).is_empty());
}

#[test]
fn environments_with_one_root_image_share_a_template_until_the_last_is_removed() {
    let world = own_world();
    let names = ["one", "two"].map(|name| {
        let root = world.home().join(name);
        fs::create_dir_all(root.join("etc")).unwrap();
        let hostname = root.join("etc/hostname");
        fs::write(&hostname, "bare\n").unwrap();
        for path in [&hostname, &root.join("etc"), &root] {
            fs::File::open(path)
                .unwrap()
                .set_modified(SystemTime::UNIX_EPOCH)
                .unwrap();
        }
        format!("dir:{}", root.display())
    });
    let pyro = |arguments: &[&str]| {
        let finished = world.pyro(arguments).run();
        assert_eq!(finished.code(), 0, "{}", finished.stderr_text());
        finished
    };
    let [one, two] = &names;
    pyro(&["prepare", one]);
    pyro(&["env", "pull", two]);
    for name in [one, two] {
        assert_eq!(pruned(&world, &["--environment", name, "--all"]), 0);
    }
    pyro(&["env", "remove", one]);
    let templates = listed(&world, &[]);
    assert_eq!(templates[0]["environment"], two.as_str(), "{templates:?}");
    assert!(templates[0].get("reason").is_none(), "{templates:?}");
    assert_eq!(pruned(&world, &[]), 0);
    assert_eq!(
        pyro(&["env", "prune", "--json"]).json()["deleted_templates"],
        0
    );
    let prepared = pyro(&["prepare", two, "--json"]).json();
    assert_eq!(prepared["prepared"]["started"], "warm", "{prepared}");
    pyro(&["env", "remove", two]);
    assert!(listed(&world, &[]).is_empty());
}

#[test]
fn a_template_that_cannot_be_kept_is_told_and_no_failure() {
    let world = own_world();
    fs::write(world.cache().join("templates"), "in the way").unwrap();
    let told = run(&world, &[]).stderr_text();
    assert!(told.contains("[run] warm start is off: "), "{told}");
    assert_eq!(run(&world, &["--quiet"]).stderr_text(), "");
    let unkept = run(&world, &["--quiet", "--json"]).json();
    assert_eq!(unkept["started"], "cold");
    assert!(unkept["not_warm"].is_string(), "{unkept}");
    let cold = run(&world, &["--cold", "--json"]).json();
    assert_eq!(
        (&cold["started"], &cold["not_warm"]),
        (&"cold".into(), &Value::Null)
    );
    assert!(cold["engine"].is_string(), "{cold}");
    let prepared = world.pyro(&["prepare", "debian:12", "--json"]).run();
    assert_eq!(prepared.code(), 1, "{}", prepared.stderr_text());
    let report = prepared.json();
    assert_eq!(report["status"], "stale");
    assert_eq!(report["reasons"][0]["code"], "not_warm", "{report}");
    assert!(report["prepared"]["template"].is_null(), "{report}");
    assert!(report["prepared"]["not_warm"].is_string(), "{report}");
    let wrong = world
        .pyro(&["template", "list"])
        .env("PYRO_TEMPLATE_MAX_MIB", "many")
        .run();
    assert_eq!(wrong.code(), 1);
    assert!(wrong.stderr_text().contains("PYRO_TEMPLATE_MAX_MIB"));
    traces::assert_none(&world);
}
