//! The agent's end of an export, and records for it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use nflog_agent::export::{
    Batcher, ExportQueue, Exporter, ExporterOptions, FlushPolicy, OtlpConfig, Protocol, RetryPolicy, Spool,
    SpoolError, SpoolLimits, Transport,
};
use nflog_agent::owner::{Attribution, Reason};
use nflog_agent::packet::{Packet, Transport as Header};
use nflog_agent::record::{Encoder, Otlp, Record, RecordIds, Resource, TimeSource};
use nflog_agent::telemetry::ledger::{Ledger, LossReason, Snapshot};
use tokio::runtime::Runtime;

/// Far longer than anything here takes; what takes longer has hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const BOTH: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];

/// What the agent's end has said so far, in all tests of this program.
static SAID: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Keeps what is said from now on.
pub(crate) fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(|| Said)
            .init();
    });
}

/// Lines with `what` in them.
pub(crate) fn said(what: &str) -> Vec<String> {
    let text = String::from_utf8(SAID.lock().unwrap().clone()).unwrap();
    let lines = text.lines().filter(|line| line.contains(what));
    lines.map(str::to_owned).collect()
}

struct Said;

impl io::Write for Said {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        SAID.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The agent's end: encoder, queue, exporter.
pub(crate) struct Agent {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) queue: ExportQueue,
    pub(crate) exporter: Exporter,
    pub(crate) batcher: Batcher,
    pub(crate) next: u32,
}

impl Agent {
    pub(crate) fn start(runtime: &Runtime, transport: Transport, options: ExporterOptions) -> Self {
        Self::start_with(runtime, transport, options, |ledger| {
            Box::new(Otlp::new(Resource::new(), ledger))
        })
    }

    pub(crate) fn start_with(
        runtime: &Runtime,
        transport: Transport,
        options: ExporterOptions,
        encoder: impl FnOnce(&Arc<Ledger>) -> Box<dyn Encoder>,
    ) -> Self {
        let ledger = Ledger::new();
        let started = Exporter::start(transport, options, runtime.handle());
        Self::new(encoder(&ledger), started, ledger)
    }

    /// With a spool in `directory`. Records are numbered from `next` on.
    pub(crate) fn start_with_spool(
        runtime: &Runtime,
        transport: Transport,
        options: ExporterOptions,
        (directory, limits): (&Path, SpoolLimits),
        next: u32,
    ) -> Self {
        let ledger = Ledger::new();
        let start = Instant::now();
        let spool = loop {
            match Spool::open(directory, limits, &ledger) {
                Ok(spool) => break spool,
                // The thread of an exporter that has just closed in this process is about to let go of it.
                Err(SpoolError::Busy { .. }) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => panic!("{error}"),
            }
        };
        let started = Exporter::start_with_spool(transport, options, spool, runtime.handle()).unwrap();
        let ids = Some(RecordIds::new().unwrap());
        let encoder = Otlp::new(Resource::new(), &ledger).with_ids(ids);
        let mut agent = Self::new(Box::new(encoder), started, ledger);
        agent.next = next;
        agent
    }

    fn new(
        encoder: Box<dyn Encoder>,
        (queue, exporter): (ExportQueue, Exporter),
        ledger: Arc<Ledger>,
    ) -> Self {
        let batcher = Batcher::new(encoder, FlushPolicy::COLLECTOR, queue.clone());
        Self {
            ledger,
            queue,
            exporter,
            batcher,
            next: 0,
        }
    }

    /// Pushes a batch of so many records.
    pub(crate) fn push(&mut self, records: u32) {
        let now = Instant::now();
        for _ in 0..records {
            let seq = self.next;
            self.next += 1;
            self.batcher.push(&record(seq), now);
        }
        self.batcher.flush();
    }

    /// Waits until a condition holds.
    pub(crate) fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "{what} did not happen: {}",
                self.ledger.snapshot()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn wait_until_settled(&self) {
        self.wait("settling", |agent| agent.ledger.snapshot().in_flight() == 0);
    }

    /// Closes and returns the account, which must be complete.
    pub(crate) fn close(self, deadline: Duration) -> Snapshot {
        let Self {
            ledger,
            queue,
            exporter,
            batcher,
            next,
        } = self;
        drop(batcher);
        assert!(exporter.close(deadline), "the worker did not end");
        let snapshot = ledger.snapshot();
        assert_eq!(snapshot.received, u64::from(next));
        assert_eq!(
            snapshot.received + snapshot.recovered,
            snapshot.exported + snapshot.spooled + snapshot.lost_total(),
            "{snapshot}"
        );
        assert_eq!(snapshot.lost(LossReason::Unsettled), 0, "{snapshot}");
        assert_eq!(
            (queue.stats().bytes, queue.stats().batches),
            (0, 0),
            "the queue is not empty"
        );
        snapshot
    }
}

static PACKET: Packet = Packet {
    source: None,
    destination: None,
    protocol: Some(17),
    transport: Header::Ports {
        source: 1,
        destination: 2,
    },
    length: Some(100),
    captured: 100,
    ttl: Some(64),
    fragment: false,
    problem: None,
};

pub(crate) fn record(seq: u32) -> Record<'static> {
    Record {
        time_unix_nano: 1,
        time_source: TimeSource::Agent,
        observed_unix_nano: 2,
        netns: 3,
        group: 4,
        family: "inet",
        hook: "input",
        direction: None,
        prefix: "test",
        seq: Some(seq),
        seq_global: None,
        mark: None,
        indev: None,
        outdev: None,
        physindev: None,
        physoutdev: None,
        socket_uid: None,
        socket_gid: None,
        hwaddr: None,
        packet: &PACKET,
        attribution: &Attribution::Unowned(Reason::NoSocket),
        process: None,
        peer: None,
        peer_service: None,
        rule: None,
        sample_rate: None,
        flow: None,
    }
}

pub(crate) fn config(protocol: Protocol, address: SocketAddr) -> OtlpConfig {
    let path = match protocol {
        Protocol::Grpc => "",
        Protocol::HttpProtobuf => "/v1/logs",
    };
    OtlpConfig {
        timeout: PATIENCE,
        ..OtlpConfig::new(protocol, format!("http://{address}{path}").parse().unwrap())
    }
}

pub(crate) fn options() -> ExporterOptions {
    let retry = RetryPolicy {
        initial: Duration::from_millis(10),
        max: Duration::from_millis(50),
        give_up: PATIENCE,
    };
    ExporterOptions {
        retry,
        ..ExporterOptions::default()
    }
}

pub(crate) fn transport(protocol: Protocol, address: SocketAddr) -> Transport {
    Transport::otlp(&config(protocol, address)).unwrap()
}
