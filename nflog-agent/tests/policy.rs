//! Rules of the configuration file on real packets, as a user runs the agent: what comes out, and that the account closes.
#![cfg(feature = "agent")]

#[allow(dead_code, reason = "shared with the agent's tests")]
#[path = "agent/program.rs"]
mod program;
mod support;

use std::io::Write as _;
use std::net::UdpSocket;

use program::{Agent, Ended};
use serde_json::Value;
use support::Netns;

const RULES: &str = "
    table inet t {
        chain out {
            type filter hook output priority 0
            udp dport 4242 counter log prefix \"[UFW BLOCK] \" group 7 comment \"a\"
            udp dport 4243 counter log prefix \"fwd-accept\" group 7 comment \"b\"
            udp dport 4244 counter log prefix \"odd one\" group 7 comment \"c\"
        }
    }";

const PREFIXES: &str = "
    [[prefix]]
    preset = 'ufw'
    [[prefix]]
    template = '{chain}-{action}'
";

/// Sends `packets` datagrams from one socket to a port where nobody listens.
fn send(netns: &Netns, port: u16, packets: u32) {
    netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..packets {
            // The reply is a port-unreachable error, reported by the next send.
            let _ = socket.send_to(&number.to_be_bytes(), ("127.0.0.1", port));
        }
    });
}

/// Runs the agent with rules while packets are sent.
fn run(name: &str, rules: &str, traffic: impl FnOnce(&Netns)) -> (Ended, Vec<Value>, u64) {
    let netns = Netns::new(name);
    netns.nft(RULES);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(
        file,
        "group = 7\nnetns = '{}'\noutput = 'json'\n{rules}",
        netns.path().display()
    )
    .unwrap();
    let path = file.path().display().to_string();
    let agent = Agent::start(&["--config", &path], &[]);
    traffic(&netns);
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages());
    let records = ended
        .stdout
        .iter()
        .map(|line| serde_json::from_str(line).unwrap());
    let records: Vec<_> = records.collect();
    let sent = ["a", "b", "c"].map(|comment| netns.counter(comment)).iter().sum();
    (ended, records, sent)
}

fn events<'a>(records: &'a [Value], name: &str) -> Vec<&'a Value> {
    let events = records.iter().filter(|record| record["event_name"] == name);
    events.map(|record| &record["attributes"]).collect()
}

/// `received + missed` is what the kernel's rules counted; received is exported or withheld; exported is what came out.
#[track_caller]
fn assert_account(ended: &Ended, records: &[Value], sent: u64, withheld: &[(&str, u64)]) {
    let messages = ended.messages();
    assert_eq!(
        ended.count("received") + ended.count("missed"),
        sent,
        "{messages}"
    );
    let total: u64 = withheld.iter().map(|(_, packets)| packets).sum();
    assert_eq!(
        ended.count("exported") + total,
        ended.count("received"),
        "{messages}"
    );
    for (reason, packets) in withheld.iter().filter(|(_, packets)| *packets > 0) {
        assert_eq!(ended.count(reason), *packets, "{reason}: {messages}");
    }
    let out = events(records, "nflog.packet").len() + events(records, "nflog.flow").len();
    assert_eq!(out as u64, ended.count("exported"), "{messages}");
}

#[test]
fn prefixes_say_what_they_mean_and_others_are_kept_as_they_are() {
    let (ended, records, sent) = run("prefix", PREFIXES, |netns| {
        for port in [4242, 4243, 4244] {
            send(netns, port, 2);
        }
    });
    assert_account(&ended, &records, sent, &[]);
    let with = |prefix: &str| {
        let packets = events(&records, "nflog.packet");
        let mut found = packets
            .into_iter()
            .filter(|record| record["nflog.prefix"] == prefix);
        found.next().unwrap_or_else(|| panic!("no {prefix}"))
    };
    let block = with("[UFW BLOCK] ");
    assert_eq!(block["nflog.rule.action"], "block");
    assert_eq!(block.get("nflog.rule.chain"), None);
    let accept = with("fwd-accept");
    assert_eq!(accept["nflog.rule.action"], "accept");
    assert_eq!(accept["nflog.rule.chain"], "fwd");
    assert_eq!(with("odd one").get("nflog.rule.action"), None);
}

#[test]
fn packets_are_filtered_and_sampled_and_the_account_closes() {
    let rules = format!(
        "{PREFIXES}
        [[rule]]
        match = {{ action = 'block', protocol = 'udp', destination-port = 4242, destination-address = '127.0.0.0/8' }}
        then = 'drop'
        [[rule]]
        match = {{ prefix = 'fwd-*', out-interface = 'lo', hook = 'output' }}
        then = {{ sample = 10 }}"
    );
    let (ended, records, sent) = run("sample", &rules, |netns| {
        send(netns, 4242, 50);
        send(netns, 4243, 200);
        send(netns, 4244, 7);
    });
    assert_eq!(ended.count("missed"), 0, "{}", ended.messages());
    let packets = events(&records, "nflog.packet");
    let sampled = packets
        .iter()
        .filter(|record| record["nflog.sample.rate"] == 10)
        .count() as u64;
    let of_rule = sent - ended.count("filtered") - (packets.len() as u64 - sampled);
    assert!(of_rule.abs_diff(sampled * 10) < 10, "{sampled} of {of_rule}");
    let withheld = [
        ("filtered", ended.count("filtered")),
        ("sampled-out", of_rule - sampled),
    ];
    assert!(ended.count("filtered") > 0);
    assert_account(&ended, &records, sent, &withheld);
    assert!(ended.messages().contains("rule 1: "), "{}", ended.messages());
}

#[test]
fn what_is_above_a_limit_is_counted_and_reported() {
    let rules = "
        [[rule]]
        name = 'noise'
        match = { destination-port = 4242 }
        then = { limit = { rate = '1/h', burst = 5, per = 'source' } }";
    let (ended, records, sent) = run("limit", rules, |netns| send(netns, 4242, 60));
    let limited = ended.count("limited");
    assert_eq!(events(&records, "nflog.packet").len(), 5);
    let reported: u64 = events(&records, "nflog.suppressed")
        .iter()
        .map(|record| {
            assert_eq!(record["nflog.suppressed.rule"], "noise");
            record["nflog.suppressed.packets"].as_u64().unwrap()
        })
        .sum();
    assert_eq!(reported, limited, "all is reported, the rest at the end");
    assert_account(&ended, &records, sent, &[("limited", limited)]);
}

#[test]
fn flows_have_all_their_packets_and_one_owner() {
    let rules = "
        [[rule]]
        match = { protocol = 'udp' }
        then = { aggregate = { interval = '1h' } }";
    let (ended, records, sent) = run("flows", rules, |netns| {
        send(netns, 4242, 40);
        send(netns, 4243, 30);
        send(netns, 4242, 20);
    });
    let flows = events(&records, "nflog.flow");
    let packets = |flow: &&Value| flow["nflog.flow.packets"].as_u64().unwrap();
    assert_eq!(flows.iter().map(packets).sum::<u64>(), ended.count("received"));
    assert!(flows.len() >= 3, "each socket has a flow of its own: {flows:?}");
    for flow in &flows {
        // 20 bytes of IP, 8 of UDP, 4 of payload.
        assert_eq!(flow["nflog.flow.bytes"].as_u64().unwrap(), 32 * packets(flow));
        assert!(flow["nflog.flow.start"].as_u64() <= flow["nflog.flow.end"].as_u64());
        assert_eq!(flow.get("nflog.seq"), None);
    }
    let aggregated = ended.count("received") - flows.len() as u64;
    assert_account(&ended, &records, sent, &[("aggregated", aggregated)]);
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_nothing_runs() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text = "group = 7\n[[rule]]\nthen = 'dorp'\n[[prefix]]\npreset = 'ufv'\n[[rule]]\nmatch = { hook = 'in' }\nthen = 'keep'\n";
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().display().to_string();
    let ended = Agent::spawn(&["--config", &path], &[]).wait();
    assert_eq!(ended.code, Some(64), "{}", ended.messages());
    for (line, word) in [
        ("line 3", "dorp"),
        ("line 4", "ufw"),
        ("line 6", "rule 2: hook 'in'"),
    ] {
        assert!(
            ended
                .stderr
                .iter()
                .any(|said| said.contains(line) && said.contains(word)),
            "{line}, {word}:\n{}",
            ended.messages()
        );
    }
}
