//! Families in the text format of Prometheus (version 0.0.4), with names by the rules that OpenTelemetry has for it: dots become
//! underscores, annotations of units go, `By` is `_bytes`, counters end in `_total`. The Resource is `target_info`.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::families::{CounterFamily, Families, Instrument};
use crate::record::Resource;

/// Content type of [`text`].
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All families at this moment.
#[must_use]
pub fn text(families: &Families, resource: &Resource) -> String {
    let mut out = String::from(
        "# HELP target_info The Resource: what all of these are of.\n# TYPE target_info gauge\ntarget_info{",
    );
    for (at, (key, value)) in resource.of_agent().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        line(
            &mut out,
            format_args!("{comma}{}=\"{}\"", legal(key), escaped(value)),
        );
    }
    out.push_str("} 1\n");
    for family in families.all().iter() {
        write_family(&mut out, family);
    }
    out
}

fn write_family(out: &mut String, family: &CounterFamily) {
    let name = name(family.name, family.unit, family.instrument);
    let kind = match family.instrument {
        Instrument::Counter => "counter",
        Instrument::UpDownCounter => "gauge",
    };
    line(
        out,
        format_args!(
            "# HELP {name} {}\n# TYPE {name} {kind}\n",
            family.description.replace('\\', "\\\\").replace('\n', "\\n")
        ),
    );
    let label = family.label.map(legal);
    (family.read)(&mut |value, count| match &label {
        Some(label) => line(
            out,
            format_args!("{name}{{{label}=\"{}\"}} {count}\n", escaped(value)),
        ),
        None => line(out, format_args!("{name} {count}\n")),
    });
}

/// The name in Prometheus of a metric in OpenTelemetry.
fn name(name: &str, unit: &str, instrument: Instrument) -> String {
    let mut name = legal(name).into_owned();
    let unit = match unit {
        "By" => "bytes",
        "s" => "seconds",
        annotation if annotation.starts_with('{') => "",
        other => other,
    };
    for suffix in [
        unit,
        match instrument {
            Instrument::Counter => "total",
            Instrument::UpDownCounter => "",
        },
    ] {
        if !suffix.is_empty() && !name.ends_with(suffix) {
            name.push('_');
            name.push_str(&legal(suffix));
        }
    }
    name
}

/// With an underscore for whatever may not be in a name.
fn legal(name: &str) -> Cow<'_, str> {
    if name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        return Cow::Borrowed(name);
    }
    let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    Cow::Owned(name.chars().map(legal).collect())
}

fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(value);
    }
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    Cow::Owned(value.replace('\n', "\\n"))
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::ledger::Ledger;

    #[test]
    fn names_have_the_suffixes_of_unit_and_kind_once() {
        for (from, unit, instrument, to) in [
            ("a.b.lost", "{record}", Instrument::Counter, "a_b_lost_total"),
            ("a.size", "By", Instrument::UpDownCounter, "a_size_bytes"),
            ("a.bytes", "By", Instrument::UpDownCounter, "a_bytes"),
            ("a.total", "By", Instrument::Counter, "a_total_bytes_total"),
            (
                "a.netns.reading",
                "{namespace}",
                Instrument::UpDownCounter,
                "a_netns_reading",
            ),
            ("a.time", "s", Instrument::Counter, "a_time_seconds_total"),
        ] {
            assert_eq!(name(from, unit, instrument), to);
        }
    }

    #[test]
    fn what_has_a_meaning_in_the_format_is_escaped() {
        let family = CounterFamily {
            name: "nflog_agent.policy.matched",
            instrument: Instrument::Counter,
            unit: "{packet}",
            description: "One\\two\nthree.",
            label: Some("a.rule"),
            read: Box::new(|observe| observe("say \"hi\\\n", 3)),
        };
        let mut resource = Resource::new();
        resource.set("host.name", "a\"b");
        let text = text(&Families::new(&Ledger::new(), None, vec![family]), &resource);
        for line in [
            concat!(
                "target_info{service_version=\"",
                env!("CARGO_PKG_VERSION"),
                "\",host_name=\"a\\\"b\",service_name=\"nflog-agent\"} 1"
            ),
            "# HELP nflog_agent_policy_matched_total One\\\\two\\nthree.",
            "# TYPE nflog_agent_policy_matched_total counter",
            "nflog_agent_policy_matched_total{a_rule=\"say \\\"hi\\\\\\n\"} 3",
            "nflog_agent_records_received_total 0",
            "# TYPE nflog_agent_records_in_flight gauge",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
    }
}
