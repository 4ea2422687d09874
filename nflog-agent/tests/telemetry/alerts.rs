//! `deploy/prometheus/alerts.yaml`: promtool takes it, each alert fires at what it says and at nothing else, and it names only metrics
//! and labels that a running agent has.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::dashboards::{Known, yaml};
use crate::prometheus::{Prometheus, deploy, promtool, read};
use crate::scrape::get;
use crate::{logging, start};

const UNIT_TESTS: &str = include_str!("../data/alerts-test.yaml");

fn rules() -> Vec<Value> {
    let document = yaml(&read(&deploy("prometheus/alerts.yaml")));
    let groups = document["groups"].as_array().unwrap();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

#[test]
fn promtool_takes_the_alert_rules() {
    let path = deploy("prometheus/alerts.yaml");
    let (ok, text) = promtool(&["check", "rules", path.to_str().unwrap()], "");
    assert!(ok && text.contains("13 rules found"), "{text}");
}

/// promtool's own unit tests, for the alert rules as `change` leaves them, with agents of a job.
fn unit_tests(job: &str, change: impl Fn(String) -> String) -> (bool, String) {
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("alerts.yaml");
    fs::write(&rules, change(read(&deploy("prometheus/alerts.yaml")))).unwrap();
    let tests = directory.path().join("tests.yaml");
    let text = UNIT_TESTS.replace("- ALERTS\n", &format!("- {}\n", rules.display()));
    let text = text.replace("job=\"nflog-agent\"", &format!("job=\"{job}\""));
    fs::write(&tests, text).unwrap();
    promtool(&["test", "rules", tests.to_str().unwrap()], "")
}

#[test]
fn each_alert_fires_at_what_it_is_for_and_at_nothing_else() {
    // As the agent calls itself, and as a PodMonitor of another release does.
    for job in ["nflog-agent", "monitoring/packets"] {
        let (ok, text) = unit_tests(job, |rules| rules);
        assert!(ok, "{job}: {text}");
    }
    let (ok, text) = unit_tests("nflog-agent", |rules| rules.replace("> 0.8", "> 0.6"));
    assert!(!ok, "a spool that is 70 % full: {text}");
    let (ok, text) = unit_tests("nflog-agent", |rules| rules.replace("> 0.8", "> 0.95"));
    assert!(!ok, "a spool that is 90 % full: {text}");
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        assert!(UNIT_TESTS.contains(name), "{name} is not tested");
    }
}

#[test]
fn each_alert_says_how_bad_it_is_what_it_is_and_what_to_do() {
    let mut names = BTreeSet::new();
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        assert!(
            names.insert(name.to_owned()) && name.starts_with("NflogAgent"),
            "{name}"
        );
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity}"
        );
        for annotation in ["summary", "description", "runbook"] {
            assert!(
                rule["annotations"][annotation].is_string(),
                "{name} has no {annotation}"
            );
        }
    }
}

#[test]
fn a_running_agent_has_what_the_alerts_ask_for_and_sets_off_none() {
    let netns = logging("alerts");
    let spool = tempfile::tempdir().unwrap();
    let spool = spool.path().display().to_string();
    // With a collector only the spool's metrics are there; that it is down costs nothing before ten minutes.
    let endpoint = format!("http://{}", crate::nobody());
    let (_agent, address) = start(
        &netns,
        &["--spool", &spool, "--shutdown-timeout", "1s"],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)],
    );
    let (ok, text) = promtool(&["check", "metrics"], &get(address, "/metrics").body);
    assert!(ok && text.is_empty(), "{text}");
    let known = Known::of(address);
    for rule in rules() {
        known.check(rule["expr"].as_str().unwrap());
        // What the texts put in must be there.
        for annotation in rule["annotations"].as_object().unwrap().values() {
            for label in annotation.as_str().unwrap().split("$labels.").skip(1) {
                let label = label.split(' ').next().unwrap();
                assert!(known.has_label(label), "{label}");
            }
        }
    }
    let prometheus = Prometheus::scraping(address);
    let loaded = prometheus.get("/api/v1/rules");
    let loaded = loaded["data"]["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(loaded.len(), rules().len());
    for rule in loaded {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_ne!(rule["state"], "firing", "{rule}");
    }
}
