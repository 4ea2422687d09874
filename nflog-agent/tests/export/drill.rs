//! The outage drill: one exporter through everything that happens to a collector, by both protocols, with a spool and without.
//!
//! After each part: the account holds, each record has arrived or is counted, and nothing has arrived that was not sent.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use nflog_agent::export::{OtlpConfig, Protocol, SpoolLimits, Transport};
use nflog_agent::telemetry::ledger::{LossReason, Snapshot};
use socket2::SockRef;
use tokio::runtime::Runtime;
use tonic::Code;

use crate::harness::{Agent, BOTH, PATIENCE, config, listen, options, said};
use crate::otlp_receiver::certificates::Certificates;
use crate::otlp_receiver::{self, Answer, Receiver};

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Reads so many bytes from each of so many connections, then resets it.
fn cutter(address: SocketAddr, connections: usize, bytes: usize) -> JoinHandle<()> {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut read = vec![0; bytes];
            stream.read_exact(&mut read).unwrap();
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    })
}

/// Records that are neither delivered nor lost.
fn waiting(now: &Snapshot) -> u64 {
    now.in_flight() + now.spooled
}

/// One exporter, and what has arrived of it.
struct Drill {
    protocol: Protocol,
    runtime: Runtime,
    address: SocketAddr,
    agent: Agent,
    arrived: BTreeSet<i64>,
    rejected: u64,
}

impl Drill {
    fn start(protocol: Protocol, spool: Option<&Path>) -> Self {
        let address = nobody();
        Self::start_with(config(protocol, address), address, spool)
    }

    /// By TLS, to a receiver that one of the certificates vouches for.
    fn start_tls(protocol: Protocol, spool: Option<&Path>, certificates: &Certificates) -> Self {
        let address = nobody();
        let authorities = [("OTEL_EXPORTER_OTLP_CERTIFICATE", certificates.path("ours.pem"))];
        let endpoint = format!("https://localhost:{}", address.port());
        let config = otlp_receiver::config(protocol, &endpoint, &authorities);
        Self::start_with(config, address, spool)
    }

    fn start_with(mut config: OtlpConfig, address: SocketAddr, spool: Option<&Path>) -> Self {
        let runtime = Runtime::new().unwrap();
        // Longer than any answer takes, shorter than the patience with a server that hangs.
        config.timeout = Duration::from_secs(2);
        let transport = Transport::otlp(&config).unwrap();
        let agent = match spool {
            None => Agent::start(&runtime, transport, options()),
            Some(directory) => {
                let spool = (directory, SpoolLimits::default());
                Agent::start_with_spool(&runtime, transport, options(), spool, 0)
            }
        };
        Self {
            protocol: config.protocol,
            runtime,
            address,
            agent,
            arrived: BTreeSet::new(),
            rejected: 0,
        }
    }

    fn receiver(&self, script: &[Answer]) -> Receiver {
        Receiver::start_at(self.runtime.handle(), self.protocol, script, self.address)
    }

    fn tls_receiver(&self, certificates: &Certificates, name: &str) -> Receiver {
        let identity = certificates.identity(name, None);
        Receiver::start_tls(self.runtime.handle(), self.protocol, identity, self.address)
    }

    fn push(&mut self, batches: u32) {
        for _ in 0..batches {
            self.agent.push(50);
        }
    }

    /// Waits until all is settled, and compares.
    fn check(&mut self, part: &str, receiver: &Receiver) {
        self.agent.wait(part, |agent| {
            let now = agent.ledger.snapshot();
            now.in_flight() == 0 && now.spooled == 0
        });
        self.arrived.extend(receiver.sequence_numbers());
        let now = self.agent.ledger.snapshot();
        let sent = i64::from(self.agent.next);
        assert_eq!(now.received, u64::from(self.agent.next), "{part}");
        assert_eq!(now.exported + now.lost_total(), now.received, "{part}: {now}");
        assert_eq!(now.lost_total(), self.rejected, "{part}: {now}");
        assert_eq!(now.lost(LossReason::Rejected), self.rejected, "{part}: {now}");
        assert!(
            self.arrived.iter().copied().eq(0..sent),
            "{part}: {} of {sent} arrived",
            self.arrived.len()
        );
    }

    /// The receiver answers like this a few times, then takes everything.
    fn answers(&mut self, part: &str, script: &[Answer]) {
        let receiver = self.receiver(script);
        self.push(20);
        self.check(part, &receiver);
        assert!(
            receiver.requests() > script.len(),
            "{part}: the script was not played"
        );
    }

    /// Records come in, and nothing is delivered. Returns how many wait, and the account.
    fn pile_up(&mut self) -> (u64, Snapshot) {
        let tried = self.agent.queue.stats().retries;
        self.push(200);
        self.agent
            .wait("a failure", |agent| agent.queue.stats().retries > tried);
        let now = self.agent.ledger.snapshot();
        let backlog = waiting(&now);
        assert!(backlog >= 9000, "{now}");
        (backlog, now)
    }

    /// The receiver is back, and records come in as before: what waited drains at five times that rate or more.
    fn drain(&mut self, part: &str, receiver: &Receiver, (backlog, before): (u64, Snapshot)) {
        // The ingest: a batch a step. The drain must take five times as many in the same steps.
        let mut offered = 0;
        while waiting(&self.agent.ledger.snapshot()) > backlog / 10 {
            self.agent.push(10);
            offered += 10;
            assert!(
                offered < 100_000,
                "{part}: no drain: {}",
                self.agent.ledger.snapshot()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let drained = self.agent.ledger.snapshot().exported - before.exported;
        assert!(
            drained >= 5 * offered,
            "{part}: {drained} drained while {offered} came in"
        );
        self.check(part, receiver);
    }

    /// Nobody listens. Then the receiver is back on its port.
    fn stopped_and_restarted(&mut self) {
        let waiting = self.pile_up();
        let receiver = self.receiver(&[]);
        self.drain("restart", &receiver, waiting);
    }

    /// The receiver's certificate is good, then expired, then renewed.
    fn expired_and_renewed(mut self, certificates: &Certificates) {
        let good = self.tls_receiver(certificates, "server");
        self.push(20);
        self.check("a good certificate", &good);
        drop(good);
        let expired = self.tls_receiver(certificates, "expired");
        let waiting = self.pile_up();
        let of_us = format!("cannot deliver to https://localhost:{}", self.address.port());
        let expiries = || {
            let lines = said(&of_us);
            lines.iter().filter(|line| line.contains("expired")).count()
        };
        self.agent.wait("a word of the certificate", |_| expiries() > 0);
        let now = self.agent.ledger.snapshot();
        assert_eq!(expired.requests(), 0, "it was spoken to");
        assert_eq!(now.exported, waiting.1.exported, "{now}");
        assert_eq!(now.lost_total(), 0, "{now}");
        drop(expired);
        let renewed = self.tls_receiver(certificates, "server");
        self.drain("a renewed certificate", &renewed, waiting);
        let sent = u64::from(self.agent.next);
        let account = self.agent.close(PATIENCE);
        assert_eq!(account.exported, sent, "{account}");
        assert_eq!(expiries(), 1, "it is said once, however many attempts there were");
    }

    fn reset_in_the_middle_of_the_body(&mut self) {
        let cutter = cutter(self.address, 3, 4000);
        self.push(20);
        cutter.join().unwrap();
        let receiver = self.receiver(&[]);
        self.check("reset in the middle of a body", &receiver);
    }

    fn run(mut self) {
        self.stopped_and_restarted();
        let soon = Some(Duration::from_millis(20));
        let (throttled, unavailable) = match self.protocol {
            Protocol::Grpc => (
                Answer::Grpc(Code::ResourceExhausted, soon),
                Answer::Grpc(Code::Unavailable, None),
            ),
            Protocol::HttpProtobuf => (Answer::Http(429, Some("1")), Answer::Http(503, None)),
        };
        self.answers("throttling", &[throttled; 3]);
        self.answers("unavailable", &[unavailable; 5]);
        self.rejected += 3;
        self.answers("partial success", &[Answer::Partial(3, "too old")]);
        self.answers("hanging", &[Answer::Hang; 2]);
        self.reset_in_the_middle_of_the_body();
        if self.protocol == Protocol::HttpProtobuf {
            self.answers("reset instead of an answer", &[Answer::Reset; 3]);
        }
        self.stopped_and_restarted();
        let (rejected, sent) = (self.rejected, u64::from(self.agent.next));
        let account = self.agent.close(PATIENCE);
        assert_eq!(account.lost_total(), rejected, "{account}");
        assert_eq!(account.exported, sent - rejected, "{account}");
    }
}

#[test]
fn without_a_spool_the_queue_gets_everything_through_every_kind_of_outage() {
    for protocol in BOTH {
        Drill::start(protocol, None).run();
    }
}

#[test]
fn with_a_spool_everything_gets_through_every_kind_of_outage() {
    for protocol in BOTH {
        let directory = tempfile::tempdir().unwrap();
        Drill::start(protocol, Some(directory.path())).run();
    }
}

#[test]
fn an_expired_certificate_costs_nothing_once_it_is_renewed() {
    listen();
    let certificates = Certificates::new();
    for protocol in BOTH {
        Drill::start_tls(protocol, None, &certificates).expired_and_renewed(&certificates);
        let directory = tempfile::tempdir().unwrap();
        Drill::start_tls(protocol, Some(directory.path()), &certificates).expired_and_renewed(&certificates);
    }
}
