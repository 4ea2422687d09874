//! The agent's own messages.

use serde_json::Value;

use nflog_agent::telemetry::messages::BURST;

use crate::logging;
use crate::program::Agent;
use crate::scrape::{metrics, with};
use crate::{address, start};

/// More names of one namespace than one place in the program may speak of: each is said in a message of its own.
#[test]
fn what_one_place_says_too_often_is_held_back_counted_and_summed_up() {
    let netns = logging("wordy");
    let path = netns.path().display().to_string();
    let names: Vec<_> = (0..BURST as usize + 31)
        .map(|dots| path.replace("/netns/", &format!("/netns/{}", "./".repeat(dots))))
        .collect();
    let names = names.join(",");
    let arguments = [
        "--group",
        "7",
        "--output",
        "json",
        "--netns",
        &names,
        "--listen",
        "127.0.0.1:0",
    ];
    let agent = Agent::start(&arguments, &[]);
    let samples = metrics(address(&agent));
    let label = "nflog_agent_message_level";
    assert_eq!(
        with(&samples, "nflog_agent_messages_suppressed_total", label, "info"),
        30.0
    );
    assert!(with(&samples, "nflog_agent_messages_total", label, "info") > 80.0);
    let ended = agent.stop();
    let said: Vec<_> = ended
        .stderr
        .iter()
        .filter(|line| line.contains("is read already"))
        .collect();
    assert_eq!(said.len(), BURST as usize + 1);
    let last = said.last().unwrap();
    assert!(
        last.contains("INFO") && last.contains("… and 30 more like this in "),
        "{last}"
    );
}

#[test]
fn messages_may_be_json() {
    let netns = logging("json");
    let (agent, _) = start(&netns, &["--output", "json", "--log-format", "json"], &[]);
    let stopped = agent.stop();
    assert!(stopped.stderr.len() >= 3, "{}", stopped.messages());
    let arguments = ["--group", "7", "--netns", "no-such-netns", "--log-format", "json"];
    let failed = Agent::spawn(&arguments, &[]).wait();
    assert_eq!(failed.code, Some(64));
    let last = failed.stderr.last().unwrap();
    assert!(last.contains("ERROR") && last.contains("no-such-netns"), "{last}");
    for line in stopped.stderr.iter().chain(&failed.stderr) {
        let message: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        for key in ["timestamp", "level", "message", "target"] {
            assert!(message[key].is_string(), "{line}");
        }
    }
}
