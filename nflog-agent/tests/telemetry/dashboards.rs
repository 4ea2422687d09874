//! `deploy/grafana`: Grafana's own model takes the dashboards whole, and they ask only for what a running agent has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use nflog_agent::record::semconv::{ENTRIES, Place, SCOPE};
use serde_json::Value;

use crate::expression::{References, references};
use crate::prometheus::{Prometheus, deploy, read, tool};
use crate::scrape::{Samples, metrics};
use crate::{logging, nobody, send, start};

const DASHBOARDS: [&str; 2] = ["agent.json", "records.json"];

/// What families look like that need kernel probes, for kernels that have none. The sources have their names.
const OF_PROBES: [(&str, &str, &str); 3] = [
    (
        "nflog_agent_probes_events_total",
        "nflog_agent_probe_event",
        include_str!("../../src/agent/probes.rs"),
    ),
    (
        "nflog_agent_probes_missed_total",
        "nflog_agent_probe_program",
        include_str!("../../src/agent/probes.rs"),
    ),
    (
        "nflog_agent_processes_known",
        "nflog_agent_process_state",
        include_str!("../../src/agent/processes.rs"),
    ),
];

/// What Loki's OTLP endpoint keeps beside attributes.
const OF_LOKI: [&str; 2] = ["scope_name", "severity_text"];

/// Runs Python of the test environment with these arguments; answers what it prints.
#[track_caller]
fn python(script: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool("NFLOG_TEST_VENV", "venv", "python"))
        .args(["-c", script])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A YAML document.
#[track_caller]
pub(crate) fn yaml(text: &str) -> Value {
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.argv[1])))";
    serde_json::from_str(&python(script, &[text])).unwrap()
}

fn dashboard(name: &str) -> Value {
    serde_json::from_str(&read(&deploy("grafana").join(name)))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Panels that are no rows.
fn panels(dashboard: &Value) -> Vec<Value> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.filter(|panel| panel["type"] != "row").cloned().collect()
}

/// Expression and legend of each query of a panel.
fn queries(panel: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let targets = panel["targets"].as_array().unwrap().iter();
    targets
        .map(|target| (text(&target["expr"]), text(&target["legendFormat"])))
        .collect()
}

/// With values in place of Grafana's variables.
fn filled(expression: &str) -> String {
    let mut filled = expression.to_owned();
    for (variable, value) in [
        ("$__rate_interval", "1m"),
        ("$__range", "1m"),
        ("$__auto", "1m"),
        ("$instance", ".*"),
        ("$job", ".*"),
        ("$service", ".+"),
        ("$prefix", ".*"),
        ("$search", ""),
    ] {
        filled = filled.replace(variable, value);
    }
    assert!(!filled.contains('$'), "an unknown variable in {expression}");
    filled
}

/// The metrics of a running agent: labels, and their values.
pub(crate) struct Known(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Known {
    #[track_caller]
    pub(crate) fn of(address: SocketAddr) -> Self {
        let samples: Samples = metrics(address);
        let mut known = BTreeMap::from([("up".to_owned(), BTreeMap::new())]);
        for (name, samples) in samples {
            let labels: &mut BTreeMap<String, BTreeSet<String>> = known.entry(name).or_default();
            for (label, value) in samples.into_iter().flat_map(|(labels, _)| labels) {
                labels.entry(label).or_default().insert(value);
            }
        }
        for (name, label, source) in OF_PROBES {
            known.entry(name.to_owned()).or_insert_with(|| {
                let dotted = |text: &str| {
                    let plain = text
                        .trim_end_matches("_total")
                        .replace("nflog_agent_", "nflog_agent.");
                    let (scope, rest) = plain.split_once('.').unwrap();
                    format!("\"{scope}.{}\"", rest.replace('_', "."))
                };
                assert!(source.contains(&dotted(name)), "{name}");
                assert!(source.contains(&dotted(label)), "{label}");
                BTreeMap::from([(label.to_owned(), BTreeSet::new())])
            });
        }
        Self(known)
    }

    /// Whether any metric has a label.
    pub(crate) fn has_label(&self, label: &str) -> bool {
        ["job", "instance"].contains(&label) || self.0.values().any(|labels| labels.contains_key(label))
    }

    /// Panics unless the metrics, the labels and the values that an expression asks for are there.
    #[track_caller]
    pub(crate) fn check(&self, expression: &str) -> References {
        let found = references(expression);
        assert!(!found.selectors.is_empty(), "{expression}");
        let mut grouped = found.grouping.clone();
        for selector in &found.selectors {
            let Some(labels) = self.0.get(&selector.name) else {
                panic!("no metric {} (in {expression})", selector.name)
            };
            for (label, _, value) in &selector.conditions {
                if ["job", "instance"].contains(&label.as_str()) {
                    continue;
                }
                let Some(values) = labels.get(label) else {
                    panic!("{} has no label {label} (in {expression})", selector.name)
                };
                let plain = value
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-|".contains(c));
                for value in value.split('|').filter(|_| plain && !values.is_empty()) {
                    assert!(
                        values.contains(value),
                        "{label} is never {value} (in {expression})"
                    );
                }
            }
            grouped.retain(|label| {
                !labels.contains_key(label) && !["job", "instance"].contains(&label.as_str())
            });
        }
        assert!(grouped.is_empty(), "no metric has {grouped:?} (in {expression})");
        found
    }
}

/// What a legend puts in must be what the query groups by.
#[track_caller]
fn check_legend(legend: &str, found: &References, expression: &str) {
    for label in legend.split("{{").skip(1) {
        let label = label.split("}}").next().unwrap();
        assert!(found.grouping.contains(label), "{label} is not in {expression}");
    }
}

/// A dashboard is read into the model of Grafana's own SDK and written again: what the model does not know is gone then.
const ROUND_TRIP: &str = r#"
import json, sys
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
register_default_plugins()
ours = json.load(open(sys.argv[1]))
theirs = json.loads(JSONEncoder().encode(Dashboard.from_json(ours)))
def lost(a, b, path):
    if isinstance(a, dict) and isinstance(b, dict):
        for key, value in a.items():
            if key not in b:
                if value is not None and value != [] and value != {}: yield f'{path}.{key}'
            else: yield from lost(value, b[key], f'{path}.{key}')
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for at, (x, y) in enumerate(zip(a, b)): yield from lost(x, y, f'{path}[{at}]')
    elif a != b: yield f'{path}: {a!r} became {b!r}'
print(json.dumps(list(lost(ours, theirs, ''))))
"#;

fn lost_in_grafanas_model(path: &str) -> Vec<String> {
    serde_json::from_str(&python(ROUND_TRIP, &[path])).unwrap()
}

#[test]
fn grafanas_own_model_takes_the_dashboards_whole() {
    for name in DASHBOARDS {
        let path = deploy("grafana").join(name);
        assert_eq!(
            lost_in_grafanas_model(path.to_str().unwrap()),
            [] as [String; 0],
            "{name}"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wrong.json");
    let text = read(&deploy("grafana/agent.json"));
    fs::write(&path, text.replacen("\"gridPos\"", "\"gridPosition\"", 1)).unwrap();
    let lost = lost_in_grafanas_model(path.to_str().unwrap());
    assert!(lost.len() == 1 && lost[0].contains("gridPosition"), "{lost:?}");
}

#[test]
fn panels_have_ids_places_and_data_sources_of_their_own() {
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(
                ids.insert(panel["id"].as_u64().unwrap()),
                "{name}: {}",
                panel["id"]
            );
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{name}: {}", panel["title"]);
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(taken.insert((x, y)), "{name}: {} is over another", panel["title"]);
                }
            }
        }
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().unwrap() {
                assert_eq!(
                    target["datasource"]["uid"], "${datasource}",
                    "{name}: {}",
                    panel["title"]
                );
            }
        }
    }
}

#[test]
fn each_query_of_the_agents_dashboard_is_answered_by_a_prometheus_that_scrapes_an_agent() {
    let netns = logging("board");
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("agent.toml");
    fs::write(
        &config,
        "[[rule]]\nname = \"few\"\nmatch = { destination-port = [\"4242\"] }\nthen = { sample = 2 }\n",
    )
    .unwrap();
    let config = config.display().to_string();
    let spool = directory.path().join("spool").display().to_string();
    let endpoint = format!("http://{}", nobody());
    let (_agent, address) = start(
        &netns,
        &["--config", &config, "--spool", &spool, "--shutdown-timeout", "1s"],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)],
    );
    send(&netns, 100);
    let known = Known::of(address);
    let prometheus = Prometheus::scraping(address);
    for panel in panels(&dashboard("agent.json")) {
        for (expression, legend) in queries(&panel) {
            let filled = filled(&expression);
            let found = known.check(&filled);
            check_legend(&legend, &found, &expression);
            let result = prometheus.query(&filled);
            let needs_probes = found
                .selectors
                .iter()
                .any(|selector| OF_PROBES.iter().any(|(name, ..)| *name == selector.name));
            let compares = filled.contains("> 0") && !filled.contains("vector(0)");
            let empty = result.as_array().unwrap().is_empty();
            assert!(!empty || needs_probes || compares, "nothing for {expression}");
        }
    }
    for variable in dashboard("agent.json")["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["query"]["query"].as_str() {
            let query = query.trim_start_matches("label_values(");
            let (selector, label) = query.trim_end_matches(')').rsplit_once(", ").unwrap();
            known.check(&filled(selector));
            assert!(known.has_label(label), "{label}");
        }
    }
}

#[test]
fn units_fit_what_is_shown() {
    for name in DASHBOARDS {
        for panel in panels(&dashboard(name)) {
            let title = &panel["title"];
            let unit = panel["fieldConfig"]["defaults"]["unit"]
                .as_str()
                .unwrap_or_default();
            for (expression, _) in queries(&panel) {
                let is_ratio = expression.contains(" / ");
                let is_bytes = expression.contains("_bytes") && !is_ratio;
                let only_rates = expression.starts_with("sum(rate(") || expression.contains(") (rate(");
                assert_eq!(unit == "percentunit", is_ratio, "{name}, {title}: {unit}");
                assert_eq!(unit == "bytes", is_bytes, "{name}, {title}: {unit}");
                let per_second = ["pps", "cps", "reqps"].contains(&unit);
                let mixed = unit == "short" && title == "Network namespaces";
                assert_eq!(
                    per_second || mixed,
                    only_rates && !is_ratio || mixed,
                    "{name}, {title}: {unit}"
                );
            }
        }
    }
}

#[test]
fn the_dashboard_of_records_asks_for_attributes_that_records_have() {
    let under = |key: &str| key.replace('.', "_");
    let entries = || {
        ENTRIES
            .iter()
            .map(|entry| (under(entry.key.name()), entry.key.place()))
    };
    let known: BTreeSet<String> = entries()
        .map(|(name, _)| name)
        .chain(OF_LOKI.map(str::to_owned))
        .collect();
    let of_resource: BTreeSet<String> = entries()
        .filter(|(_, place)| *place == Place::Resource)
        .map(|(name, _)| name)
        .collect();
    for panel in panels(&dashboard("records.json")) {
        for (expression, legend) in queries(&panel) {
            let expression = filled(&expression);
            let found = references(&expression);
            check_legend(&legend, &found, &expression);
            assert!(
                expression.contains(&format!("scope_name=\"{SCOPE}\"")),
                "{expression}"
            );
            for selector in &found.selectors {
                for (label, ..) in &selector.conditions {
                    assert!(
                        of_resource.contains(label),
                        "{label} is no label of streams: {expression}"
                    );
                }
            }
            let unknown: Vec<_> = found
                .fields
                .union(&found.grouping)
                .filter(|name| !known.contains(*name))
                .collect();
            assert!(unknown.is_empty(), "{unknown:?} in {expression}");
        }
    }
}
