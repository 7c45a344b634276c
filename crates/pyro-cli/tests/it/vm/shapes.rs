//! The shape of every JSON answer, as a snapshot: names and types, not values.

use serde_json::{Map, Value};

use super::world;

/// The value with each leaf replaced by the name of its type, and each list by its first
/// element.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "boolean".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(items) => items.first().map(shape).into_iter().collect(),
        Value::Object(fields) => {
            let shapes: Map<String, Value> = fields
                .iter()
                .map(|(name, value)| (name.clone(), shape(value)))
                .collect();
            Value::Object(shapes)
        }
    }
}

pub(super) fn pretty(value: &Value) -> String {
    format!("{:#}", shape(value))
}

#[test]
fn answers_keep_their_shape() {
    let world = world();
    let json = |arguments: &[&str]| world.pyro(arguments).run().json();
    insta::assert_snapshot!(
        "run",
        pretty(&json(&[
            "run",
            "debian:12",
            "--json",
            "--",
            "no-such-program"
        ]))
    );
    insta::assert_snapshot!("env_list", pretty(&json(&["env", "list", "--json"])));
    insta::assert_snapshot!(
        "env_inspect",
        pretty(&json(&["env", "inspect", "debian:12", "--json"]))
    );
    insta::assert_snapshot!(
        "env_pull",
        pretty(&json(&["env", "pull", "debian:12", "--json"]))
    );
    insta::assert_snapshot!(
        "env_prune",
        pretty(&json(&["env", "prune", "--json", "--dry-run"]))
    );
    insta::assert_snapshot!(
        "gc",
        pretty(&json(&["gc", "--json", "--dry-run"])["machines"])
    );
    insta::assert_snapshot!(
        "error",
        pretty(&json(&["run", "nope", "--json", "--", "true"]))
    );
    // What differs between hosts is left out: issues, and which programs are installed.
    let mut doctor = json(&["doctor", "--json"]);
    doctor["issues"] = Value::Array(Vec::new());
    for engine in ["firecracker", "firecracker_version"] {
        doctor["runtime"][engine] = engine.into();
    }
    for program in doctor["runtime"]["programs"].as_array_mut().unwrap() {
        program["path"] = "path".into();
    }
    insta::assert_snapshot!("doctor", pretty(&doctor));
}
