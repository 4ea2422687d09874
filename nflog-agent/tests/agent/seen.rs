//! A record as it came out, whichever way.

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};

/// Attributes of one packet record; integers and text as text.
#[derive(Clone, Debug)]
pub(crate) struct Seen(HashMap<String, String>);

impl Seen {
    /// The value of an attribute.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// An integer attribute.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// Whether there is no owner because a probe did not run: at the log call, or at the handshake of a later connection, of which
    /// it is then not known that it is young.
    pub(crate) fn is_missed(&self) -> bool {
        matches!(
            self.text("nflog.owner.reason"),
            Some("missed" | "older-than-agent")
        )
    }

    /// The packet records among JSON lines.
    pub(crate) fn from_json(lines: &[String]) -> Vec<Self> {
        let parse = |line: &String| -> serde_json::Value { serde_json::from_str(line).expect("a JSON line") };
        lines
            .iter()
            .map(parse)
            .filter(|record| record["event_name"] == "nflog.packet")
            .map(|record| json(&record))
            .collect()
    }

    /// The packet records of OTLP requests.
    pub(crate) fn from_otlp(requests: &[ExportLogsServiceRequest]) -> Vec<Self> {
        let scopes = requests
            .iter()
            .flat_map(|request| &request.resource_logs)
            .flat_map(|logs| &logs.scope_logs);
        let records = scopes.flat_map(|scope| &scope.log_records);
        records
            .filter(|record| record.event_name == "nflog.packet")
            .map(|record| Self(attributes(&record.attributes)))
            .collect()
    }
}

fn json(record: &serde_json::Value) -> Seen {
    let attributes = record["attributes"].as_object().expect("attributes");
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Seen(
        attributes
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect(),
    )
}

fn attributes(attributes: &[KeyValue]) -> HashMap<String, String> {
    attributes
        .iter()
        .map(|KeyValue { key, value, .. }| (key.clone(), text(value.as_ref())))
        .collect()
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        Some(Value::ArrayValue(array)) => {
            let texts: Vec<_> = array.values.iter().map(|value| text(Some(value))).collect();
            format!("{texts:?}")
        }
        other => panic!("an attribute of another type: {other:?}"),
    }
}
