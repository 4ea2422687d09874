//! The account closes: what the rule counted is what was received plus what is known to be lost, and what was received is
//! what came out plus what is known to be lost.

use std::net::UdpSocket;
use std::time::Duration;

use rustix::process::Signal;

use crate::program::{Agent, Ended};
use crate::seen::Seen;
use crate::support::{Netns, wait_for};

const RULES: &str = "
    table inet t {
        chain out {
            type filter hook output priority 0
            udp dport 4242 counter log prefix \"flood \" group 7 comment \"sent\"
        }
    }";

/// Sends `packets` datagrams to a port where nobody listens.
fn flood(netns: &Netns, packets: u32) {
    netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..packets {
            // The reply is a port-unreachable error, reported by the next send.
            let _ = socket.send_to(&number.to_be_bytes(), "127.0.0.1:4242");
        }
    });
}

#[track_caller]
fn assert_account(ended: &Ended, counter: u64) {
    let (received, gaps) = (ended.count("received"), ended.count("missed"));
    assert_eq!(
        received + gaps,
        counter,
        "received {received} + gaps {gaps}:\n{}",
        ended.messages()
    );
    assert_eq!(ended.count("exported"), received, "{}", ended.messages());
    let records = Seen::from_json(&ended.stdout);
    assert_eq!(records.len() as u64, received, "records on standard output");
    assert_eq!(attributed(ended), received, "{}", ended.messages());
    assert_eq!(ended.code, Some(0));
}

/// Packets in the line that says how owners were found, by method.
fn attributed(ended: &Ended) -> u64 {
    let line = ended
        .stderr
        .iter()
        .find_map(|line| Some(line.split_once("owners: ")?.1));
    let methods = line.expect("it is said").split(" (").next().unwrap_or_default();
    methods
        .split(", ")
        .filter_map(|part| part.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

#[test]
fn without_overload_every_packet_comes_out() {
    let netns = Netns::new("calm");
    netns.nft(RULES);
    let agent = Agent::on(&netns, &["--output", "json"], &[]);
    for _ in 0..20 {
        flood(&netns, 100);
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = agent.stop();
    let counter = netns.counter("sent");
    assert!(counter >= 2000, "the rule counted {counter}");
    assert_account(&ended, counter);
    assert_eq!(ended.count("missed"), 0, "{}", ended.messages());
}

#[test]
fn with_overload_every_lost_packet_is_counted() {
    let netns = Netns::new("storm");
    netns.nft(RULES);
    let agent = Agent::on(&netns, &["--output", "json", "--receive-buffer", "200000"], &[]);
    agent.signal(Signal::STOP);
    flood(&netns, 20_000);
    agent.signal(Signal::CONT);
    // What was dropped last shows only when another packet follows and finds room.
    wait_for("a loss record", || {
        flood(&netns, 1);
        agent
            .output()
            .iter()
            .any(|line| line.contains("nflog.loss"))
            .then_some(())
    });
    let ended = agent.stop();
    let counter = netns.counter("sent");
    assert!(counter > 20_000, "the rule counted {counter}");
    assert_account(&ended, counter);
    assert!(
        ended.count("missed") > 0,
        "the buffer did not overflow: {}",
        ended.messages()
    );
    let reported: u64 = losses(&ended).sum();
    assert_eq!(
        reported,
        ended.count("missed"),
        "loss records add up to the count"
    );
}

fn losses(ended: &Ended) -> impl Iterator<Item = u64> {
    let records = ended
        .stdout
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    records
        .filter(|record| record["event_name"] == "nflog.loss")
        .map(|record| {
            assert_eq!(record["severity"], "WARN");
            record["attributes"]["nflog.loss.packets"]
                .as_u64()
                .expect("a count of packets")
        })
}
