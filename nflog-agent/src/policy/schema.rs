//! What the types of the configuration do not say of its values, for its JSON Schema.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::compile::{FAMILIES, HOOKS};
use super::{PRESETS, Values};
use crate::owner::{Method, Reason};
use crate::record::Severity;

impl JsonSchema for Values {
    fn schema_name() -> Cow<'static, str> {
        "Values".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        one_or_more(&json!({ "type": ["string", "integer"] }))
    }
}

pub(super) fn presets(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
    json_schema!({ "enum": names })
}

pub(super) fn severities(_: &mut SchemaGenerator) -> Schema {
    // In any case; editors offer the lower one first.
    let upper = Severity::ALL.map(|severity| severity.name().to_uppercase());
    let lower = Severity::ALL.map(|severity| severity.name().to_lowercase());
    let names = [lower, upper].concat();
    json_schema!({ "enum": names })
}

pub(super) fn hooks(_: &mut SchemaGenerator) -> Schema {
    words(&HOOKS)
}

pub(super) fn directions(_: &mut SchemaGenerator) -> Schema {
    words(&["receive", "transmit"])
}

pub(super) fn families(_: &mut SchemaGenerator) -> Schema {
    words(&FAMILIES)
}

pub(super) fn owner_methods(_: &mut SchemaGenerator) -> Schema {
    let methods = Method::ALL.iter().map(|method| method.name());
    words(&methods.chain(["kernel", "none"]).collect::<Vec<_>>())
}

pub(super) fn owner_reasons(_: &mut SchemaGenerator) -> Schema {
    words(&Reason::ALL.map(Reason::name))
}

fn words(words: &[&str]) -> Schema {
    one_or_more(&json!({ "enum": words }))
}

fn one_or_more(one: &Value) -> Schema {
    json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
}
