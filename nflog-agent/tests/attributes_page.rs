//! The page of all attributes is what the constants say.
#![cfg(feature = "agent")]

use std::fmt::Write as _;
use std::path::Path;

use nflog_agent::owner::{Method, Reason};
use nflog_agent::record::semconv::{ENTRIES, EVENTS, Entry, Kind, Place, SCHEMA_URL, SCOPE, VERSION};

const PAGE: &str = "src/record/attributes.md";

fn page() -> String {
    let mut out = format!(
        "# What records say\n\n\
         Written by `UPDATE=1 cargo test -p nflog-agent --test attributes_page` from the constants in `src/record/semconv.rs`.\n\n\
         Names without `nflog.` are those of the OpenTelemetry semantic conventions {VERSION}, whose stability is given; `{SCHEMA_URL}` is the\n\
         `schema_url`, `{SCOPE}` the instrumentation scope. What is unknown is absent. A key's type never changes.\n\n\
         ## Fields\n\n\
         | field | what |\n|---|---|\n\
         | `time_unix_nano` | when the packet was logged, by the kernel's stamp; else when it was received: `nflog.time.source` says which |\n\
         | `observed_time_unix_nano` | when the agent received it |\n\
         | `severity_number`, `severity_text` | by event, below |\n\
         | `body` | one readable line, as the console prints it |\n\
         | `event_name` | below |\n\n\
         ## Events\n\n| event name | severity | a record of |\n|---|---|---|\n"
    );
    for (name, severity, about) in EVENTS {
        writeln!(out, "| `{name}` | {severity} | {about} |").unwrap();
    }
    for (place, title) in [
        (
            Place::Resource,
            "Attributes of the Resource: one for each workload",
        ),
        (Place::Record, "Attributes of the record"),
    ] {
        write!(
            out,
            "\n## {title}\n\n| attribute | type | unit | convention | what |\n|---|---|---|---|---|\n"
        )
        .unwrap();
        for entry in ENTRIES.iter().filter(|entry| entry.key.place() == place) {
            row(&mut out, entry);
        }
    }
    out.push_str("\n## Values of `nflog.owner.method`\n\n| method | what |\n|---|---|\n");
    for method in Method::ALL {
        value(&mut out, method.name(), method.text());
    }
    out.push_str(
        "| `kernel` | The kernel itself sent or takes the packet; the reason says which part of it. |\n",
    );
    out.push_str("| `none` | No process can be named; the reason says why. |\n");
    out.push_str("\n## Values of `nflog.owner.reason`\n\n| reason | method | what |\n|---|---|---|\n");
    for reason in Reason::ALL {
        let method = if reason.is_kernel() { "kernel" } else { "none" };
        value(
            &mut out,
            &format!("{}` | `{method}", reason.name()),
            reason.text(),
        );
    }
    out
}

fn value(out: &mut String, name: &str, text: &[&str]) {
    writeln!(out, "| `{name}` | {} |", joined(text)).unwrap();
}

fn joined(text: &[&str]) -> String {
    let lines: Vec<_> = text.iter().map(|line| line.trim()).collect();
    lines.join(" ")
}

fn row(out: &mut String, entry: &Entry) {
    let text = entry
        .text
        .iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join(" ");
    let (what, convention) = match text.split_once(" Convention: ") {
        Some((what, stability)) => (what, stability.trim_end_matches('.')),
        None => (text.as_str(), "own"),
    };
    assert_eq!(
        convention == "own",
        entry.key.name().starts_with("nflog."),
        "{}: a name of the conventions has its stability, and only such a one",
        entry.key.name()
    );
    let kind = match entry.key.kind() {
        Kind::Text => "string",
        Kind::Int => "int",
        Kind::Bool => "boolean",
        Kind::Texts => "string[]",
    };
    let unit = if entry.unit.is_empty() {
        String::new()
    } else {
        format!("`{}`", entry.unit)
    };
    writeln!(
        out,
        "| `{}` | {kind} | {unit} | {convention} | {} |",
        entry.key.name(),
        what.replace('|', "\\|")
    )
    .unwrap();
}

#[test]
fn the_page_of_attributes_is_what_the_constants_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == page,
        "{PAGE} is not what the constants say: UPDATE=1 cargo test -p nflog-agent --test attributes_page"
    );
}
