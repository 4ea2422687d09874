//! The agent with a spool, as a process: stopped, killed, started again while its collector is down.
#![cfg(feature = "agent")]

#[path = "agent/otlp.rs"]
#[expect(dead_code, reason = "the other tests' part of it")]
mod otlp;
#[path = "agent/program.rs"]
#[expect(dead_code, reason = "the other tests' part of it")]
mod program;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use otlp::Collector;
use program::{Agent, binary};
use rustix::process::Signal;
use support::{Netns, wait_for};

const RULES: &str = "
    table inet t {
        chain out {
            type filter hook output priority 0
            udp dport 4242 counter log group 7 comment \"sent\"
        }
    }";

/// Sends datagrams whose source port says which run they are of.
fn send(netns: &Netns, run: u16, datagrams: u32) {
    netns.run(|| {
        let socket = UdpSocket::bind(("127.0.0.1", 20_000 + run)).unwrap();
        for _ in 0..datagrams {
            // The answer is a port-unreachable error, reported by the next send.
            let _ = socket.send_to(b"spool", "127.0.0.1:4242");
        }
    });
}

/// An address at which nobody listens until a collector is started there.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

fn start(netns: &Netns, collector: &str, spool: &Path) -> Agent {
    let (path, spool) = (netns.path().display().to_string(), spool.display().to_string());
    let endpoint = format!("http://{collector}");
    let arguments = [
        "--group",
        "7",
        "--netns",
        &path,
        "--spool",
        &spool,
        "--shutdown-timeout",
        "1s",
        "--account-interval",
        "200ms",
    ];
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("NFLOG_AGENT_ATTRIBUTION", "sockdiag"),
    ];
    Agent::start(&arguments, &environment)
}

/// The records of an event that have arrived.
fn records(collector: &Collector, event: &str) -> Vec<LogRecord> {
    let requests = collector.requests().into_iter();
    let resources = requests.flat_map(|request| request.resource_logs);
    let scopes = resources.flat_map(|resource| resource.scope_logs);
    scopes
        .flat_map(|scope| scope.log_records)
        .filter(|record| record.event_name == event)
        .collect()
}

/// Checks every account that has arrived, and returns the last one of what was received.
fn accounts(collector: &Collector) -> Option<i64> {
    let of = |record: &LogRecord, name: &str| {
        let name = format!("nflog.account.{name}");
        let found = record.attributes.iter().find(|attribute| attribute.key == name);
        let value = found.and_then(|attribute| attribute.value.as_ref()?.value.clone());
        match value {
            Some(Value::IntValue(count)) => count,
            other => panic!("{name} is {other:?} in {record:?}"),
        }
    };
    let accounts = records(collector, "nflog.account");
    for account in &accounts {
        let sum = |names: &[&str]| names.iter().map(|name| of(account, name)).sum::<i64>();
        assert_eq!(
            sum(&["received", "recovered"]),
            sum(&["exported", "spooled", "in_flight", "lost"]),
            "{account:?}"
        );
    }
    accounts.last().map(|account| of(account, "received"))
}

/// How many records of each run have arrived.
fn arrived(collector: &Collector) -> BTreeMap<i64, u64> {
    let mut runs = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for record in records(collector, "nflog.packet") {
        let value = |key| {
            let attribute = record.attributes.iter().find(|attribute| attribute.key == key);
            let value = attribute.and_then(|attribute| attribute.value.as_ref());
            value.and_then(|value| value.value.as_ref())
        };
        let Some(Value::IntValue(port)) = value("source.port") else {
            panic!("no port: {record:?}");
        };
        let Some(Value::StringValue(id)) = value("log.record.uid") else {
            panic!("no id: {record:?}");
        };
        assert!(ids.insert(id.clone()), "two records have the id {id}");
        *runs.entry(port - 20_000).or_default() += 1;
    }
    runs
}

fn files(spool: &Path) -> usize {
    fs::read_dir(spool).unwrap().count()
}

#[test]
fn what_an_outage_leaves_survives_a_stop_and_a_kill_and_arrives() {
    const DATAGRAMS: u32 = 500;
    let netns = Netns::new("spool");
    netns.nft(RULES);
    let spool = tempfile::tempdir().unwrap();
    let address = nobody();

    let agent = start(&netns, &address, spool.path());
    send(&netns, 1, DATAGRAMS);
    wait_for("the packets", || {
        (netns.counter("sent") == u64::from(DATAGRAMS)).then_some(())
    });
    let stopped = agent.stop();
    assert_eq!(stopped.code, Some(0), "{}", stopped.messages());
    let account = ["received", "exported", "spooled", "lost"].map(|word| stopped.count(word));
    assert_eq!(account, [500, 0, 500, 0], "{}", stopped.messages());

    let mut agent = start(&netns, &address, spool.path());
    assert!(agent.said("500 records are in the spool"));
    send(&netns, 2, DATAGRAMS);
    agent.wait_until_said("cannot deliver");
    agent.signal(Signal::KILL);
    assert_eq!(agent.wait().code, Some(137));

    let collector = Collector::start_at(&address);
    let agent = start(&netns, &address, spool.path());
    send(&netns, 3, DATAGRAMS);
    wait_for("the records of the first and the last run", || {
        let runs = arrived(&collector);
        [1, 3].iter().all(|run| runs.get(run) == Some(&500)).then_some(())
    });
    wait_for("the end of the spool", || {
        (files(spool.path()) == 0).then_some(())
    });
    wait_for("an account of what this run has received", || {
        (accounts(&collector) == Some(500)).then_some(())
    });
    let stopped = agent.stop();
    assert_eq!(stopped.count("lost"), 0, "{}", stopped.messages());
    assert!(!stopped.messages().contains(" spooled"), "{}", stopped.messages());
    let runs = arrived(&collector);
    // Of the killed run what had been spooled by then, and nothing twice.
    assert!(runs.get(&2).is_none_or(|records| *records <= 500), "{runs:?}");
    assert!(runs.keys().all(|run| (1..=3).contains(run)), "{runs:?}");
}

#[test]
fn a_second_signal_ends_at_once_and_what_was_spooled_arrives_later() {
    const DATAGRAMS: u32 = 500;
    let netns = Netns::new("twosignals");
    netns.nft(RULES);
    let spool = tempfile::tempdir().unwrap();
    let address = nobody();
    let (path, directory) = (
        netns.path().display().to_string(),
        spool.path().display().to_string(),
    );
    let endpoint = format!("http://{address}");
    let arguments = [
        "--group",
        "7",
        "--netns",
        &path,
        "--spool",
        &directory,
        // The test would be over long before.
        "--shutdown-timeout",
        "1h",
    ];
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("NFLOG_AGENT_ATTRIBUTION", "sockdiag"),
    ];
    let mut agent = Agent::start(&arguments, &environment);
    send(&netns, 1, DATAGRAMS);
    agent.wait_until_said("cannot deliver");
    send(&netns, 1, DATAGRAMS);
    agent.wait_until_said("records wait in the spool");
    agent.signal(Signal::TERM);
    agent.wait_until_said("SIGTERM");
    agent.signal(Signal::TERM);
    let ended = agent.wait();
    assert_eq!(ended.code, Some(143), "{}", ended.messages());

    let collector = Collector::start_at(&address);
    let agent = start(&netns, &address, spool.path());
    wait_for("what was spooled", || (files(spool.path()) == 0).then_some(()));
    let stopped = agent.stop();
    assert_eq!(stopped.count("lost"), 0, "{}", stopped.messages());
    let recovered = stopped.count("recovered");
    assert!((1..=u64::from(2 * DATAGRAMS)).contains(&recovered), "{recovered}");
    assert_eq!(stopped.count("exported"), recovered, "{}", stopped.messages());
    assert_eq!(arrived(&collector).values().sum::<u64>(), recovered);
}

#[test]
fn a_spool_that_cannot_be_used_is_named_with_the_remedy() {
    let netns = Netns::new("nospool");
    let path = netns.path().display().to_string();
    let file = tempfile::NamedTempFile::new().unwrap();
    let name = file.path().display().to_string();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command
            .args(["run", "--group", "7", "--netns", &path])
            .args(arguments);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, messages) = run(&["--spool", &name]);
    assert_eq!(code, Some(74), "{messages}");
    assert!(
        messages.contains(&name) && messages.contains("must be a directory"),
        "{messages}"
    );
    let (code, messages) = run(&["--spool-bytes", "5000000"]);
    assert_eq!(code, Some(64), "{messages}");
    assert!(messages.contains("--spool"), "{messages}");
}

#[test]
fn a_full_disk_costs_what_does_not_fit_and_is_counted() {
    let netns = Netns::new("fulldisk");
    netns.nft(RULES);
    let mount = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "spool"])
        .arg(mount.path())
        .status()
        .unwrap();
    assert!(mounted.success(), "this test needs root");
    let agent = start(&netns, &nobody(), mount.path());
    for round in 1..=5 {
        send(&netns, 1, 60);
        // Longer than a batch is kept open.
        std::thread::sleep(Duration::from_millis(1200));
        assert_eq!(netns.counter("sent"), round * 60);
    }
    let ended = agent.stop();
    let unmounted = Command::new("umount").arg(mount.path()).status().unwrap();
    assert!(unmounted.success());
    let [received, spooled, lost] = ["received", "spooled", "lost"].map(|word| ended.count(word));
    assert_eq!(received, 300, "{}", ended.messages());
    assert_eq!(spooled + lost, received, "{}", ended.messages());
    assert!(ended.messages().contains("spool-failed"), "{}", ended.messages());
}
