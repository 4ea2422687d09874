//! `/live`, `/ready` and `/metrics` of a running agent.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use nflog_agent::telemetry::endpoint::DEFAULT;

use crate::program::{Agent, binary};
use crate::scrape::{exchange, get, metrics, sum, wait_for_metrics, with};
use crate::support::{Netns, PATIENCE};
use crate::{logging, nobody, send, start};

#[test]
fn health_and_metrics_are_served_while_the_agent_reads() {
    let netns = logging("serve");
    let (agent, address) = start(&netns, &["--output", "json", "--attribution", "sockdiag"], &[]);
    let live = get(address, "/live");
    assert_eq!((live.status, live.body.as_str()), (200, "live\n"));
    let ready = get(address, "/ready");
    assert_eq!(ready.status, 200, "{}", ready.body);
    assert!(
        ready.body.starts_with("ready: reading group 7 in ") && !ready.body.contains("degraded"),
        "sockdiag was asked for: {}",
        ready.body
    );
    send(&netns, 30);
    let samples = wait_for_metrics(address, "all records", |now| {
        sum(now, "nflog_agent_records_exported_total") >= 30.0
    });
    assert_eq!(netns.counter("sent"), 30);
    for (name, value) in [
        ("nflog_agent_records_received_total", 30.0),
        ("nflog_agent_records_in_flight", 0.0),
        ("nflog_agent_records_lost_total", 0.0),
        ("nflog_agent_packets_missed_total", 0.0),
        ("nflog_agent_attributions_total", 30.0),
        ("nflog_agent_netns_reading", 1.0),
        ("nflog_agent_degraded", 0.0),
        ("target_info", 1.0),
    ] {
        assert_eq!(sum(&samples, name), value, "{name}");
    }
    let ended = agent.stop();
    assert_eq!(ended.count("received"), 30);
}

#[test]
fn what_is_asked_in_another_way_is_answered_shortly() {
    let netns = logging("ways");
    let (_agent, address) = start(&netns, &["--output", "json"], &[]);
    let head = exchange(address, "HEAD /metrics HTTP/1.1\r\nhost: agent\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(
        head.head
            .contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{}",
        head.head
    );
    let old = exchange(address, "GET /live HTTP/1.0\r\n\r\n");
    assert_eq!((old.status, old.body.as_str()), (200, "live\n"));
    let post = exchange(
        address,
        "POST /metrics HTTP/1.1\r\nhost: agent\r\ncontent-length: 0\r\n\r\n",
    );
    assert_eq!(post.status, 405);
    let other = get(address, "/");
    assert!(
        other.status == 404 && other.body.contains("/metrics"),
        "{other:?}"
    );
    let long = format!(
        "GET /live HTTP/1.1\r\nhost: agent\r\nx: {}\r\n\r\n",
        "y".repeat(10_000)
    );
    assert_eq!(exchange(address, &long).status, 431);
    let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    let many = format!("GET /live HTTP/1.1\r\nhost: agent\r\n{many}\r\n");
    assert_eq!(exchange(address, &many).status, 431);
    assert!(!exchange(address, "nonsense\r\n\r\n").head.contains("200"));
}

/// A probe must find room whatever else is connected; and who sends nothing is let go.
#[test]
fn many_silent_connections_do_not_keep_a_probe_out() {
    let netns = logging("silent");
    let (_agent, address) = start(&netns, &["--output", "json"], &[]);
    let mut silent: Vec<_> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    // Half of a request each.
    for stream in &mut silent {
        // Closed already where newer ones needed the room.
        let _ = stream.write_all(b"GET /live HTTP/1.1\r\nhost: a");
    }
    assert_eq!(get(address, "/live").status, 200);
    for stream in &mut silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        // Ends, in this way or that, without an answer to half a request.
        assert!(ended.is_err() || !rest.starts_with(b"HTTP/1.1 200"), "{ended:?}");
        if let Err(error) = ended {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
}

#[test]
fn an_outage_of_the_collector_makes_the_agent_neither_dead_nor_unready() {
    let netns = logging("outage");
    let spool = tempfile::tempdir().unwrap();
    let endpoint = format!("http://{}", nobody());
    let spool_path = spool.path().display().to_string();
    let (agent, address) = start(
        &netns,
        &["--spool", &spool_path, "--shutdown-timeout", "1s"],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)],
    );
    // The first batch is tried again and again; those behind it go to disk.
    let samples = wait_for_metrics(address, "records in the spool", |now| {
        send(&netns, 3);
        sum(now, "nflog_agent_records_spooled") > 0.0
    });
    assert!(
        with(
            &samples,
            "nflog_agent_export_failures_total",
            "error_type",
            "connection"
        ) >= 1.0
    );
    assert!(sum(&samples, "nflog_agent_spool_size_bytes") > 0.0);
    assert_eq!(sum(&samples, "nflog_agent_spool_limit_bytes"), f64::from(1 << 30));
    assert_eq!(
        sum(&samples, "nflog_agent_export_queue_limit_bytes"),
        f64::from(32 << 20)
    );
    assert_eq!(get(address, "/live").status, 200);
    let ready = get(address, "/ready");
    assert_eq!(ready.status, 200, "{}", ready.body);
    drop(agent);
}

#[test]
fn what_the_agent_does_without_is_said_when_it_is_ready_and_is_a_metric() {
    let netns = logging("without");
    let (agent, address) = start(&netns, &["--output", "json"], &[]);
    let ready = get(address, "/ready");
    assert_eq!(ready.status, 200, "{}", ready.body);
    let degraded = agent.said("degraded attribution");
    assert_eq!(
        ready.body.contains("degraded: no-probes: "),
        degraded,
        "{}",
        ready.body
    );
    let samples = metrics(address);
    let metric = with(
        &samples,
        "nflog_agent_degraded",
        "nflog_agent_shortcoming",
        "no-probes",
    );
    assert_eq!(metric, f64::from(u8::from(degraded)));
}

/// `run` with these arguments in a namespace of its own, in which the port is taken.
fn run(netns: &Netns, arguments: &[&str]) -> Agent {
    let mut command = netns.command(&binary().display().to_string());
    command
        .args(["run", "--group", "7", "--output", "json"])
        .args(arguments)
        .env("RUST_LOG", "info");
    Agent::from(&mut command)
}

#[test]
fn an_address_that_is_taken_is_an_error_if_it_was_asked_for_and_else_a_warning() {
    let netns = logging("taken");
    let _holder = netns.run(|| TcpListener::bind(DEFAULT).unwrap());
    let ended = run(&netns, &["--listen", &DEFAULT.to_string()]).wait();
    assert_eq!(ended.code, Some(75), "{}", ended.messages());
    let error = ended.stderr.last().unwrap();
    assert!(
        error.starts_with("error: ")
            && error.contains(&DEFAULT.to_string())
            && error.contains("--listen off"),
        "{error}"
    );
    let mut agent = run(&netns, &[]);
    agent.wait_until_said("reading group");
    assert_eq!(agent.count_said(&DEFAULT.to_string()), 1);
    assert!(agent.said("doing without"));
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages());
}

#[test]
fn without_a_word_it_is_on_this_host_only() {
    let netns = logging("default");
    let mut agent = run(&netns, &[]);
    agent.wait_until_said("reading group");
    netns.run(|| {
        assert_eq!(get(DEFAULT, "/ready").status, 200);
        let elsewhere = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), DEFAULT.port()));
        assert!(
            TcpStream::connect(elsewhere).is_err(),
            "every other address of this host, too"
        );
    });
}

#[test]
fn a_bad_address_is_a_usage_error() {
    for (value, word) in [("6356", "127.0.0.1:6356"), ("192.0.2.1:6356", "no device")] {
        let output = Command::new(binary())
            .args(["run", "--group", "7", "--listen", value])
            .env("RUST_LOG", "error")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains(word), "{stderr}");
    }
}
