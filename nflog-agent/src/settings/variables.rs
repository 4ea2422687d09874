//! Tables that stand for the variables of the OpenTelemetry specification.

use std::fmt::Write as _;

/// Keys of `[otlp]`, `[otlp.logs]` and `[otlp.metrics]`, and the ends of their variables' names.
pub(super) const OTLP: [(&str, &str); 9] = [
    ("endpoint", "ENDPOINT"),
    ("protocol", "PROTOCOL"),
    (HEADERS_KEY, HEADERS),
    ("timeout", TIMEOUT),
    ("compression", "COMPRESSION"),
    ("insecure", INSECURE),
    ("certificate", "CERTIFICATE"),
    ("client-certificate", "CLIENT_CERTIFICATE"),
    ("client-key", "CLIENT_KEY"),
];
pub(super) const HEADERS_KEY: &str = "headers";
pub(super) const HEADERS: &str = "HEADERS";
pub(super) const TIMEOUT: &str = "TIMEOUT";
pub(super) const INSECURE: &str = "INSECURE";

pub(super) const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
pub(super) const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// The variable of a key; `signal` is `LOGS`, `METRICS`, or empty for both.
pub(super) fn otlp(signal: &str, suffix: &str) -> String {
    let separator = if signal.is_empty() { "" } else { "_" };
    format!("OTEL_EXPORTER_OTLP_{signal}{separator}{suffix}")
}

/// Members as the variables have them: `key=value`, values percent-encoded.
pub(super) fn list<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (key, value) in members {
        if !out.is_empty() {
            out.push(',');
        }
        encode(key, &mut out);
        out.push('=');
        encode(value, &mut out);
    }
    out
}

fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Each variable that a file can set, and its key there.
pub(super) fn keys() -> impl Iterator<Item = (String, String)> {
    let signals = [("", "otlp"), ("LOGS", "otlp.logs"), ("METRICS", "otlp.metrics")];
    let of_signals = signals.into_iter().flat_map(|(signal, table)| {
        OTLP.iter()
            .map(move |(key, suffix)| (otlp(signal, suffix), format!("{table}.{key}")))
    });
    let resource = [
        (SERVICE_NAME, "resource.\"service.name\""),
        (RESOURCE_ATTRIBUTES, "resource"),
    ];
    of_signals.chain(resource.map(|(variable, key)| (variable.to_owned(), key.to_owned())))
}
