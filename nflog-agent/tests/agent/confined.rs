//! What an agent that runs can still do: by `check --running`, which reads it from `/proc`.

use std::net::{TcpListener, UdpSocket};
use std::process::Command;

use serde_json::Value;

use crate::otlp::Collector;
use crate::program::{Agent, binary};
use crate::support::{Netns, wait_for};

const RULES: &str = "
    table inet t {
        chain out {
            type filter hook output priority 0
            udp dport 4242 counter log group 7
        }
    }";

/// An agent that runs inside a namespace, so that it reads its own.
fn inside(netns: &Netns, arguments: &[&str], environment: &[(&str, &str)]) -> Agent {
    let program = binary();
    let mut command = netns.command(program.to_str().expect("UTF-8"));
    command
        .args(["run", "--group", "7"])
        .args(arguments)
        .env("RUST_LOG", "info")
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
        .envs(environment.iter().copied());
    let mut agent = Agent::from(&mut command);
    agent.wait_until_said("reading group");
    agent
}

/// What was found about a running agent.
struct Report {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Report {
    fn of(agent: &Agent, more: &[&str]) -> Self {
        let output = Command::new(binary())
            .args(["check", "--output", "json"])
            .args(more)
            .args(["--running", &agent.pid().to_string()])
            .output()
            .expect("it starts");
        Self {
            code: output.status.code(),
            findings: serde_json::from_slice(&output.stdout).expect("JSON"),
        }
    }

    /// Checks with a status.
    fn with(&self, status: &str) -> Vec<&str> {
        let of_status = self.findings.iter().filter(|finding| finding["status"] == status);
        of_status
            .filter_map(|finding| finding["check"].as_str())
            .collect()
    }

    #[track_caller]
    fn found(&self, check: &str) -> &str {
        let finding = self.findings.iter().find(|finding| finding["check"] == check);
        let finding = finding.unwrap_or_else(|| panic!("no {check} in {:#?}", self.findings));
        finding["found"].as_str().expect("text")
    }
}

#[test]
fn an_agent_keeps_only_what_its_settings_need_in_each_of_its_threads() {
    let netns = Netns::new("confined");
    netns.nft(RULES);
    // It is down: every part of the agent is at work, the spool included.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{nobody}");
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().join("spool");
    let arguments = ["--spool", spool.to_str().unwrap(), "--shutdown-timeout", "1s"];
    let mut agent = inside(
        &netns,
        &arguments,
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
        ],
    );
    send_one(&netns);
    agent.wait_until_said("cannot deliver");
    let report = Report::of(&agent, &["--group", "7"]);
    assert_eq!(
        (report.code, report.with("ok").len()),
        (Some(0), 6),
        "{:#?}",
        report.findings
    );
    let readers = report.found("capabilities-readers");
    assert!(
        readers.contains("CAP_NET_ADMIN") && readers.contains("CAP_SYS_PTRACE"),
        "{readers}"
    );
    assert!(
        !readers.contains("CAP_SYS_ADMIN") && !readers.contains("CAP_PERFMON"),
        "{readers}"
    );
    let network = report.found("capabilities-network");
    // Before Linux 5.19 a map can be read without CAP_BPF only where programs of users are allowed.
    let maps_alone = crate::support::kernel() < (5, 19)
        && network.contains("threads keep CAP_BPF (")
        && network.matches("CAP_").count() == 1;
    assert!(
        (network.ends_with("threads have none") || maps_alone) && !network.starts_with('0'),
        "{network}"
    );
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages());
    assert_eq!(ended.count("spooled"), 1, "{}", ended.messages());
}

/// One packet that is logged.
fn send_one(netns: &Netns) {
    netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", "127.0.0.1:4242").unwrap();
    });
}

#[test]
fn an_agent_for_namespaces_to_come_keeps_the_right_to_enter_them_and_no_other_may() {
    let netns = Netns::new("confined");
    let path = netns.path().display().to_string();
    let agent = Agent::on(&netns, &["--output", "json"], &[]);
    let report = Report::of(&agent, &["--group", "7", "--netns", &path]);
    assert_eq!(report.code, Some(0), "{:#?}", report.findings);
    assert!(report.found("capabilities-readers").contains("CAP_SYS_ADMIN"));
    // By the word of a configuration that names no namespace it is too much.
    let report = Report::of(&agent, &["--group", "7"]);
    assert_eq!(
        (report.code, report.with("failed")),
        (Some(77), vec!["capabilities-readers"])
    );
    let found = report.found("capabilities-readers");
    assert!(found.contains("still has CAP_SYS_ADMIN"), "{found}");
    assert_eq!(agent.stop().code, Some(0));
}

#[test]
fn an_agent_that_gave_nothing_up_is_found_out() {
    let netns = Netns::new("confined");
    let agent = inside(&netns, &["--sandbox", "off", "--output", "json"], &[]);
    assert!(agent.said("not confined, as asked"));
    let report = Report::of(&agent, &[]);
    assert_eq!(report.code, Some(77));
    let failed = [
        "no-new-privs",
        "seccomp",
        "capabilities-readers",
        "capabilities-network",
    ];
    assert_eq!(report.with("failed"), failed, "{:#?}", report.findings);
}

/// Root without one of its capabilities, as a container can have it.
#[test]
fn a_capability_that_was_never_there_is_said_with_what_it_is_for() {
    let netns = Netns::new("confined");
    let mut command = Command::new("setpriv");
    command
        .args([
            "--bounding-set",
            "-dac_read_search",
            "--inh-caps",
            "-dac_read_search",
        ])
        .arg(binary())
        .args(["run", "--group", "7", "--output", "json", "--listen", "off"])
        .args(["--attribution", "sockdiag", "--netns"])
        .arg(netns.path())
        .env("RUST_LOG", "info");
    if Command::new("setpriv").arg("--version").output().is_err() {
        println!("SKIPPED: no setpriv in this guest");
        return;
    }
    let mut agent = Agent::from(&mut command);
    agent.wait_until_said("reading group");
    assert!(agent.said("missing: CAP_DAC_READ_SEARCH (list the descriptors of other users' processes"));
    assert_eq!(agent.stop().code, Some(0));
}

#[test]
fn a_confined_agent_delivers() {
    let netns = Netns::new("confined");
    netns.nft(RULES);
    let collector = Collector::start();
    let environment = [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            &*collector.endpoint().replace("127.0.0.1", "localhost"),
        ),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    let agent = Agent::on(&netns, &[], &environment);
    assert!(agent.said("confined: keeps CAP_"));
    send_one(&netns);
    wait_for("a record", || (!collector.requests().is_empty()).then_some(()));
    assert_eq!(agent.stop().code, Some(0));
}
