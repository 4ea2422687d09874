//! What the kernel probes count, as a Prometheus sees it.

use std::process::Command;

use crate::has_kprobes;
use crate::program::Agent;
use crate::scrape::{metrics, sum, wait_for_metrics, with};
use crate::support::Netns;

#[test]
fn the_metrics_of_the_probes_are_those_that_the_dashboards_ask_for() {
    if !has_kprobes() {
        return;
    }
    let netns = Netns::new("scraped");
    let agent = Agent::on(&netns, &["--output", "json", "--listen", "127.0.0.1:0"], &[]);
    let address = agent.last_said("health and metrics: http://");
    let address = address.split('/').next().unwrap().parse().unwrap();
    let samples = metrics(address);
    let degraded = with(
        &samples,
        "nflog_agent_degraded",
        "nflog_agent_shortcoming",
        "no-probes",
    );
    assert_eq!(degraded, f64::from(u8::from(agent.said("degraded attribution"))));
    // No samples of runs that were left out where the kernel does not count them.
    for (name, label) in [
        ("nflog_agent_probes_events_total", "nflog_agent_probe_event"),
        ("nflog_agent_probes_missed_total", "nflog_agent_probe_program"),
        ("nflog_agent_processes_known", "nflog_agent_process_state"),
    ] {
        let of_name = samples.get(name).into_iter().flatten();
        assert!(
            of_name.clone().all(|(labels, _)| labels.contains_key(label)),
            "{name}"
        );
        let needed = degraded == 0.0 && name != "nflog_agent_probes_missed_total";
        assert!(!needed || of_name.count() > 0, "{name}");
    }
    if degraded == 0.0 {
        let events = "nflog_agent_probes_events_total";
        for event in ["process-events-lost", "socket-map-error"] {
            with(&samples, events, "nflog_agent_probe_event", event);
        }
        Command::new("true").status().unwrap();
        wait_for_metrics(address, "a program to be known", |now| {
            sum(now, "nflog_agent_processes_known") > 0.0
        });
    }
    assert_eq!(agent.stop().code, Some(0));
}
