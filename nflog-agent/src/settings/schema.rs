//! The configuration file's JSON Schema, made of what reads the file: clap's flags, the tables of variables, and the policy's types.
//!
//! A file that the agent takes fits it. What it cannot express (patterns, durations, values that exclude each other) the agent says.

use std::any::TypeId;
use std::time::Duration;

use clap::Arg;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use serde_json::{Map, Value, json};

use super::file::{OTLP, RESOURCE};
use super::flags::{self, Flag};
use super::variables::{self, HEADERS, INSECURE, TIMEOUT};
use crate::policy::PolicyConfig;

/// The schema, draft 7, which editors know.
#[must_use]
pub fn schema() -> Value {
    let policy = SchemaSettings::draft07()
        .with_transform(without_null)
        .into_generator()
        .into_root_schema_for::<PolicyConfig>();
    let part = |name: &str| policy.get(name).cloned().unwrap_or_default();
    let mut properties = match part("properties") {
        Value::Object(properties) => properties,
        _ => Map::new(),
    };
    properties.extend(flags::arguments().filter_map(|arg| {
        let name = arg.get_long()?.to_owned();
        let schema = flag(&name, &arg);
        Some((name, schema))
    }));
    properties.insert(OTLP.to_owned(), otlp());
    properties.insert(RESOURCE.to_owned(), resource());
    json!({
        "$schema": part("$schema"),
        "title": "Configuration of nflog-agent",
        "description": "The TOML file of `nflog-agent run --config`. Flags and environment variables beat it.",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "definitions": part("definitions"),
    })
}

/// TOML has no null: what is optional is left out.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    transform_subschemas(&mut without_null, schema);
}

fn flag(name: &str, arg: &Arg) -> Value {
    let one = value(name, arg);
    let several = flags::takes_several(arg);
    let mut schema = match one {
        Value::Object(one) if !several => one,
        one => {
            let list = json!({ "type": "array", "items": one });
            // With commas between them.
            Map::from_iter([("anyOf".to_owned(), json!([one, { "type": "string" }, list]))])
        }
    };
    let help = arg.get_long_help().or_else(|| arg.get_help());
    if let Some(help) = help {
        schema.insert("description".to_owned(), help.to_string().into());
    }
    if let [default] = arg.get_default_values() {
        let text = default.to_string_lossy();
        let default = serde_json::from_str(&text).unwrap_or_else(|_| text.into());
        schema.insert("default".to_owned(), default);
    }
    Value::Object(schema)
}

/// One value of a flag.
fn value(name: &str, arg: &Arg) -> Value {
    if flags::is_set_true(arg) {
        return json!({ "type": "boolean" });
    }
    let words: Vec<_> = arg
        .get_possible_values()
        .iter()
        .map(|word| word.get_name().to_owned())
        .collect();
    if !words.is_empty() {
        return json!({ "enum": words });
    }
    let parsed = arg.get_value_parser().type_id();
    let most = [
        (TypeId::of::<u16>(), u16::MAX.into()),
        (TypeId::of::<u32>(), u32::MAX.into()),
        // What TOML's integers reach.
        (TypeId::of::<u64>(), i64::MAX.cast_unsigned()),
    ];
    if let Some((_, most)) = most.into_iter().find(|(number, _)| parsed == *number) {
        return number(name, arg, most);
    }
    if parsed == TypeId::of::<Duration>() {
        return json!({ "anyOf": [{ "type": "string", "examples": ["100ms", "10s", "1day"] }, { "const": 0 }] });
    }
    // Names may be numbers, those of files, too.
    json!({ "type": ["string", "integer"] })
}

/// A number with the bounds that the flag's own parser has.
fn number(name: &str, arg: &Arg, most: u64) -> Value {
    let takes = |number: u64| {
        let values = vec![number.to_string()];
        let name = name.to_owned();
        flags::check(&Flag { name, values }).is_ok()
    };
    let default = arg.get_default_values().first();
    let inside = default.and_then(|text| text.to_str()?.parse().ok()).unwrap_or(1);
    let (minimum, maximum) = (bound(&takes, inside, 0), bound(&takes, inside, most));
    json!({ "anyOf": [
        { "type": "integer", "minimum": minimum, "maximum": maximum },
        { "type": "string", "pattern": "^ *[0-9]+ *$" },
    ]})
}

/// The last number from `inside`, which is taken, towards `outside` that is.
fn bound(takes: &impl Fn(u64) -> bool, mut inside: u64, mut outside: u64) -> u64 {
    if takes(outside) {
        return outside;
    }
    while inside.abs_diff(outside) > 1 {
        let middle = u64::midpoint(inside, outside);
        if takes(middle) {
            inside = middle;
        } else {
            outside = middle;
        }
    }
    inside
}

fn otlp() -> Value {
    let mut of_both = variables("", "both records and the agent's own metrics");
    for (key, signal, what) in [
        ("logs", "LOGS", "records alone"),
        ("metrics", "METRICS", "the agent's own metrics alone"),
    ] {
        let properties = variables(signal, what);
        let table = table(
            &format!("OTEL_EXPORTER_OTLP_{signal}_*: for {what}."),
            &properties,
        );
        of_both.insert(key.to_owned(), table);
    }
    table("OTEL_EXPORTER_OTLP_*: where to send, and how.", &of_both)
}

fn variables(signal: &str, what: &str) -> Map<String, Value> {
    let keys = variables::OTLP.into_iter().map(|(key, suffix)| {
        let mut schema = match suffix {
            HEADERS => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
            INSECURE => json!({ "type": "boolean" }),
            TIMEOUT => json!({ "type": "string", "examples": ["10s"] }),
            _ => json!({ "type": "string" }),
        };
        let variable = variables::otlp(signal, suffix);
        schema["description"] = format!("{variable}, for {what}.").into();
        (key.to_owned(), schema)
    });
    keys.collect()
}

fn resource() -> Value {
    json!({
        "description": "OTEL_SERVICE_NAME (\"service.name\") and OTEL_RESOURCE_ATTRIBUTES.",
        "type": "object",
        "additionalProperties": { "type": "string" },
    })
}

fn table(description: &str, properties: &Map<String, Value>) -> Value {
    json!({
        "description": description,
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}
