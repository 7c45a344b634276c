//! JSON schemas for a reader who pays for each of their words: complete for arguments, the telling fields of results.

use std::sync::Arc;

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

/// The schema of a tool's arguments.
pub(crate) fn input<T: JsonSchema>() -> Arc<JsonObject> {
    let mut settings = SchemaSettings::draft2020_12();
    settings.meta_schema = None;
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let mut value = Value::from(schema);
    compact(&mut value);
    let mut schema = object(value);
    // The tool has one of its own.
    Arc::make_mut(&mut schema).remove("description");
    schema
}

/// What a field of a result holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Text,
    Integer,
    Flag,
    Object,
    List,
    /// An integer or null.
    MaybeInteger,
    /// A text or null.
    MaybeText,
}

/// The schema of a result that has these fields, and perhaps others.
pub(crate) fn output(fields: &[(&str, Kind)]) -> Arc<JsonObject> {
    let mut properties = JsonObject::new();
    for (name, kind) in fields {
        let kind = match kind {
            Kind::Text => json!("string"),
            Kind::Integer => json!("integer"),
            Kind::Flag => json!("boolean"),
            Kind::Object => json!("object"),
            Kind::List => json!("array"),
            Kind::MaybeInteger => json!(["integer", "null"]),
            Kind::MaybeText => json!(["string", "null"]),
        };
        properties.insert((*name).to_owned(), json!({"type": kind}));
    }
    object(json!({"type": "object", "properties": properties}))
}

/// Leaves out what a model has no use for: titles, formats of numbers, bounds that their type says, nulls that stand for
/// an argument that is left out.
fn compact(schema: &mut Value) {
    let Value::Object(object) = schema else {
        return;
    };
    object.remove("title");
    object.remove("format");
    if object.get("minimum") == Some(&json!(0)) {
        object.remove("minimum");
    }
    if object.get("default") == Some(&Value::Null) {
        object.remove("default");
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            object["type"] = only.clone();
        }
    }
    for (name, value) in object {
        match (name.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                properties.values_mut().for_each(compact);
            }
            ("items" | "additionalProperties", value) => compact(value),
            _ => {}
        }
    }
}

fn object(value: Value) -> Arc<JsonObject> {
    match value {
        Value::Object(object) => Arc::new(object),
        other => unreachable!("a schema of a struct is an object, not {other}"),
    }
}
