//! What a restart costs: with the descriptor store nothing, without it packets that nobody counts.

use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio, id};

use rustix::process::Signal;

use crate::flood::{RULES, Sender, burst, number, numbers};
use crate::manager::{Manager, State};
use crate::program::{Agent, Ended};
use crate::seen::Seen;
use crate::support::{Netns, wait_for};

const RESTARTS: usize = 8;

/// What came out of all agents of a test.
#[derive(Default)]
struct Outcome {
    records: Vec<Seen>,
    /// Lost in the kernel, as each agent counted.
    lost: u64,
}

impl Outcome {
    fn add(&mut self, ended: &Ended) {
        assert_eq!(ended.code, Some(0), "{}", ended.messages());
        self.records.extend(Seen::from_json(&ended.stdout));
        self.lost += ended.count("missed");
    }
}

fn arguments(path: &str) -> [&str; 6] {
    ["--group", "7", "--netns", path, "--output", "json"]
}

/// Waits until the packet with this number has come out.
#[track_caller]
fn wait_for_packet(agent: &Agent, wanted: u32) {
    wait_for("the last packet", || {
        let records = Seen::from_json(&agent.output());
        records
            .iter()
            .any(|record| number(record) == wanted)
            .then_some(())
    });
}

/// Restarts the agent over and over while packets flow. Returns what came out, how many were sent, and which of them while no agent ran.
fn restarted(manager: &Manager) -> (Outcome, u32, Vec<Range<u32>>) {
    let netns = Netns::new("restart");
    netns.nft(RULES);
    let path = netns.path().display().to_string();
    let mut outcome = Outcome::default();
    let mut gone = Vec::new();
    let mut agent = manager.start(&arguments(&path));
    let sender = Sender::start(&netns);
    for _ in 0..RESTARTS {
        sender.wait_for_more(2000);
        outcome.add(&agent.stop());
        // The one under way may have been logged already.
        let from = sender.sent() + 1;
        gone.push(from..sender.wait_for_more(1000));
        agent = manager.start(&arguments(&path));
    }
    sender.wait_for_more(2000);
    let sent = sender.stop();
    wait_for_packet(&agent, sent - 1);
    outcome.add(&agent.stop());
    assert_eq!(netns.counter("sent"), u64::from(sent));
    (outcome, sent, gone)
}

#[test]
fn with_the_descriptor_store_every_packet_comes_out_exactly_once_over_all_restarts() {
    let manager = Manager::new(true);
    let (outcome, sent, gone) = restarted(&manager);
    let numbers = numbers(&outcome.records);
    assert_eq!(numbers.len() as u64 + outcome.lost, u64::from(sent));
    // 16 MiB of receive buffer hold far more than is sent while no agent runs.
    assert_eq!(outcome.lost, 0);
    assert!(gone.iter().all(|range| range.len() >= 900), "{gone:?}");
    for record in &outcome.records {
        let pid = record.number("process.pid");
        let number = number(record);
        if gone.iter().any(|range| range.contains(&number)) {
            // Nobody watched: whoever has the addresses by now may not have had them then.
            assert_eq!(
                record.text("nflog.owner.reason"),
                Some("before-start"),
                "{record:?}"
            );
            assert_eq!(pid, None);
        } else if let Some(pid) = pid {
            assert_eq!(pid, u64::from(id()), "{record:?}");
        }
    }
    let owned = outcome
        .records
        .iter()
        .filter(|record| record.text("process.pid").is_some());
    assert!(owned.count() > 0, "no packet has an owner");
}

#[test]
fn without_the_descriptor_store_a_restart_leaves_a_hole_that_nobody_counts() {
    let (outcome, sent, _) = restarted(&Manager::new(false));
    let accounted = numbers(&outcome.records).len() as u64 + outcome.lost;
    assert!(
        accounted + RESTARTS as u64 * 900 <= u64::from(sent),
        "{accounted} of {sent} are accounted for"
    );
}

#[test]
fn what_overflows_while_no_agent_runs_is_counted_by_the_next() {
    let netns = Netns::new("overflow");
    netns.nft(RULES);
    let path = netns.path().display().to_string();
    let arguments = [&arguments(&path)[..], &["--receive-buffer", "200000"]].concat();
    let manager = Manager::new(true);
    let mut outcome = Outcome::default();
    let agent = manager.start(&arguments);
    burst(&netns, 0, 10);
    wait_for("the first packets", || {
        (Seen::from_json(&agent.output()).len() == 10).then_some(())
    });
    outcome.add(&agent.stop());
    burst(&netns, 10, 20_000);
    // The overflow shows as an error of the socket; it must stay in the store nevertheless.
    assert_eq!(manager.look(|state| state.kept().len()), 1);
    let agent = manager.start(&arguments);
    // What was dropped last shows only when another packet follows and finds room.
    let mut sent = 20_010;
    wait_for("a loss record", || {
        burst(&netns, sent, 1);
        sent += 1;
        let lines = agent.output();
        lines.iter().any(|line| line.contains("nflog.loss")).then_some(())
    });
    outcome.add(&agent.stop());
    // What is queued after the last agent.
    let agent = manager.start(&arguments);
    burst(&netns, sent, 1);
    sent += 1;
    wait_for_packet(&agent, sent - 1);
    outcome.add(&agent.stop());
    assert!(outcome.lost > 0, "the buffer did not overflow");
    let numbers = numbers(&outcome.records);
    assert_eq!(numbers.len() as u64 + outcome.lost, u64::from(sent));
}

#[test]
fn after_a_crash_the_next_agent_goes_on_and_no_packet_comes_out_twice() {
    let netns = Netns::new("crash");
    netns.nft(RULES);
    let path = netns.path().display().to_string();
    let manager = Manager::new(true);
    let agent = manager.start(&arguments(&path));
    let sender = Sender::start(&netns);
    sender.wait_for_more(2000);
    agent.signal(Signal::KILL);
    let killed = agent.wait();
    assert_eq!(killed.code, Some(128 + 9));
    let down = sender.wait_for_more(1000);
    let agent = manager.start(&arguments(&path));
    assert!(agent.said("going on where the former process ended"));
    let sent = {
        sender.wait_for_more(500);
        sender.stop()
    };
    wait_for_packet(&agent, sent - 1);
    let ended = agent.stop();
    let (before, after) = (Seen::from_json(&killed.stdout), Seen::from_json(&ended.stdout));
    let (before, after) = (numbers(&before), numbers(&after));
    let (first, last) = (after.first().unwrap(), before.last().unwrap());
    assert!(first > last, "{last}, then {first}");
    assert!(*first < down, "what was queued while no agent ran is lost");
    assert_eq!(after.len(), (sent - first) as usize, "a hole after the start");
}

/// A process that has this socket as its standard input, killed on drop.
struct Holder(Child);

impl Holder {
    fn new(socket: UdpSocket) -> Self {
        let mut command = Command::new("sleep");
        command.arg("1000").stdin(Stdio::from(OwnedFd::from(socket)));
        Self(command.spawn().unwrap())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn whoever_has_the_addresses_after_a_restart_does_not_get_the_packets_of_before() {
    let netns = Netns::new("reused");
    netns.nft(RULES);
    let path = netns.path().display().to_string();
    let manager = Manager::new(true);
    assert_eq!(manager.start(&arguments(&path)).stop().code, Some(0));
    let bind = || netns.run(|| UdpSocket::bind("127.0.0.1:5555").unwrap());
    let socket = bind();
    socket.send_to(b"of this process", "127.64.0.0:4242").unwrap();
    drop(socket);
    let socket = bind();
    let holder = Holder::new(socket.try_clone().unwrap());
    drop(socket);
    let agent = manager.start(&arguments(&path));
    let first = wait_for("the packet", || Seen::from_json(&agent.output()).pop());
    assert_eq!(number(&first), 0);
    assert_eq!(first.text("process.pid"), None, "of {}: {first:?}", holder.0.id());
    assert_eq!(first.text("nflog.owner.reason"), Some("before-start"));
    // Packets of now have owners: the answer above was no inability.
    let live = netns.run(|| UdpSocket::bind("127.0.0.1:5556").unwrap());
    wait_for("a packet with its owner", || {
        live.send_to(b"of this process", "127.64.0.1:4242").unwrap();
        let records = Seen::from_json(&agent.output());
        let owned = |record: &Seen| record.number("process.pid") == Some(id().into());
        records.iter().any(owned).then_some(())
    });
    agent.stop();
}

#[test]
fn groups_and_settings_that_change_with_the_restart_are_those_of_the_new_agent() {
    let netns = Netns::new("groups");
    netns.nft(RULES);
    netns.nft(
        "table inet u { chain out { type filter hook output priority 1; udp dport 4242 log group 9; }; }",
    );
    let path = netns.path().display().to_string();
    let manager = Manager::new(true);
    let agent = manager.start(&["--group", "7,8", "--netns", &path, "--output", "json"]);
    assert_eq!(agent.stop().code, Some(0));
    burst(&netns, 0, 3);
    let changed = [
        "--group",
        "7,9",
        "--netns",
        &path,
        "--output",
        "json",
        "--copy-range",
        "77",
    ];
    let agent = manager.start(&changed);
    assert_eq!(netns.bound_groups(), [7, 9]);
    // The fifth column is the copy range.
    let listed = netns.run(|| std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_log"));
    for line in listed.unwrap().lines() {
        assert_eq!(line.split_whitespace().nth(4), Some("77"), "{line}");
    }
    burst(&netns, 3, 1);
    let groups = |group: u64| {
        let records = Seen::from_json(&agent.output());
        records
            .iter()
            .filter(|record| record.number("nflog.group") == Some(group))
            .count()
    };
    wait_for("the packets of both groups", || {
        (groups(7) == 4 && groups(9) == 1).then_some(())
    });
    let ended = agent.stop();
    assert_eq!(ended.count("missed"), 0, "{}", ended.messages());
}

#[test]
fn a_namespace_that_is_not_read_any_more_is_not_kept() {
    let (stays, goes) = (Netns::new("stays"), Netns::new("goes"));
    let paths = [&stays, &goes].map(|netns| netns.path().display().to_string());
    let names = [&stays, &goes].map(|netns| format!("nflog-{}", netns.inode()));
    let manager = Manager::new(true);
    let agent = manager.start(&["--group", "7", "--netns", &paths.join(",")]);
    assert_eq!(manager.look(State::kept), names);
    drop(goes);
    wait_for("the namespace to be let go", || {
        (manager.look(State::kept) == names[..1]).then_some(())
    });
    agent.stop();
    // One that the configuration does not name any more.
    let other = Netns::new("other");
    let agent = manager.start(&["--group", "7", "--netns", &other.path().display().to_string()]);
    let name = format!("nflog-{}", other.inode());
    wait_for("the rest to be let go", || {
        (manager.look(State::kept) == [name.clone()]).then_some(())
    });
    // Nothing holds its group now.
    let reader = Agent::start(&["--group", "7", "--netns", &paths[0]], &[]);
    reader.stop();
    agent.stop();
}
