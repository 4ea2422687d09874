//! The export against receivers that misbehave. After each: every record is settled once, and what the ledger calls
//! exported is what the receiver accepted.
#![cfg(feature = "agent")]

mod drill;
mod harness;
#[path = "../otlp_receiver/mod.rs"]
mod otlp_receiver;
mod spool;

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Agent, BOTH, PATIENCE, config, options, record, transport};
use nflog_agent::export::{
    Batcher, Compression, ExporterOptions, FlushPolicy, Protocol, QueueLimits, RetryPolicy, Transport,
};
use nflog_agent::record::{Console, Encoder, Json, Loss, Otlp, Resource};
use nflog_agent::telemetry::ledger::{Ledger, LossReason, Snapshot};
use otlp_receiver::{Answer, Receiver};
use tokio::runtime::Runtime;
use tonic::Code;

/// Sends one batch of 10 records to a receiver with this script. Returns the account and the receiver.
fn one_batch(protocol: Protocol, script: &[Answer]) -> (Snapshot, Receiver) {
    let runtime = Runtime::new().unwrap();
    let receiver = Receiver::start(runtime.handle(), protocol, script);
    let mut agent = Agent::start(&runtime, transport(protocol, receiver.address), options());
    agent.push(10);
    agent.wait_until_settled();
    let snapshot = agent.close(PATIENCE);
    (snapshot, receiver)
}

fn delivered_after_retry(protocol: Protocol, answer: Answer) {
    let (snapshot, receiver) = one_batch(protocol, &[answer, answer]);
    assert_eq!(snapshot.exported, 10, "{answer:?}: {snapshot}");
    assert_eq!(receiver.requests(), 3, "{answer:?}");
    assert_eq!(
        receiver.sequence_numbers(),
        (0..10).collect::<Vec<_>>(),
        "{answer:?}"
    );
}

fn lost_at_once(protocol: Protocol, answer: Answer) {
    let (snapshot, receiver) = one_batch(protocol, &[answer]);
    assert_eq!(snapshot.lost(LossReason::Permanent), 10, "{answer:?}: {snapshot}");
    assert_eq!(receiver.requests(), 1, "{answer:?} was retried");
    assert!(receiver.accepted().is_empty());
}

#[test]
fn everything_arrives_once_when_nothing_goes_wrong() {
    for protocol in BOTH {
        for (compression, name) in [
            (Compression::None, None),
            (Compression::Gzip, Some("gzip")),
            (Compression::Zstd, Some("zstd")),
        ] {
            let runtime = Runtime::new().unwrap();
            let receiver = Receiver::start(runtime.handle(), protocol, &[]);
            let mut config = config(protocol, receiver.address);
            config.compression = compression;
            config.headers = vec![(http::HeaderName::from_static("x-tenant"), "blue".parse().unwrap())];
            let mut agent = Agent::start(&runtime, Transport::otlp(&config).unwrap(), options());
            for _ in 0..20 {
                agent.push(50);
            }
            let snapshot = agent.close(PATIENCE);
            assert_eq!(
                snapshot.exported, 1000,
                "{protocol:?} {compression:?}: {snapshot}"
            );
            assert_eq!(receiver.sequence_numbers(), (0..1000).collect::<Vec<_>>());
            assert_eq!(receiver.header("x-tenant").as_deref(), Some("blue"));
            let encoding = match protocol {
                Protocol::Grpc => receiver.header("grpc-encoding"),
                Protocol::HttpProtobuf => receiver.header("content-encoding"),
            };
            let encoding = encoding.filter(|encoding| encoding != "identity");
            assert_eq!(encoding.as_deref(), name);
        }
    }
}

#[test]
fn temporary_grpc_errors_are_retried() {
    for code in [
        Code::Unavailable,
        Code::Aborted,
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::DataLoss,
    ] {
        delivered_after_retry(Protocol::Grpc, Answer::Grpc(code, None));
    }
    delivered_after_retry(
        Protocol::Grpc,
        Answer::Grpc(Code::Unavailable, Some(Duration::from_millis(20))),
    );
}

#[test]
fn resource_exhausted_is_retried_only_with_retry_info() {
    let delay = Some(Duration::from_millis(20));
    delivered_after_retry(Protocol::Grpc, Answer::Grpc(Code::ResourceExhausted, delay));
    lost_at_once(Protocol::Grpc, Answer::Grpc(Code::ResourceExhausted, None));
}

#[test]
fn temporary_http_errors_are_retried() {
    for status in [429, 502, 503, 504] {
        delivered_after_retry(Protocol::HttpProtobuf, Answer::Http(status, None));
    }
    delivered_after_retry(Protocol::HttpProtobuf, Answer::Http(429, Some("0")));
    delivered_after_retry(Protocol::HttpProtobuf, Answer::Reset);
}

#[test]
fn permanent_errors_are_never_retried() {
    for code in [
        Code::InvalidArgument,
        Code::Unauthenticated,
        Code::Unimplemented,
        Code::Internal,
    ] {
        lost_at_once(Protocol::Grpc, Answer::Grpc(code, None));
    }
    for status in [400, 401, 404, 413, 500] {
        lost_at_once(Protocol::HttpProtobuf, Answer::Http(status, None));
    }
    lost_at_once(Protocol::HttpProtobuf, Answer::Html);
}

#[test]
fn a_partial_success_counts_the_rejected_records_as_lost() {
    for protocol in BOTH {
        for (rejected, lost) in [(3, 3), (0, 0), (1_000_000, 10), (-1, 0)] {
            let (snapshot, receiver) = one_batch(protocol, &[Answer::Partial(rejected, "too old")]);
            assert_eq!(
                snapshot.lost(LossReason::Rejected),
                lost,
                "{rejected}: {snapshot}"
            );
            assert_eq!(snapshot.exported, 10 - lost, "{rejected}: {snapshot}");
            assert_eq!(receiver.requests(), 1, "a partial success was retried");
        }
    }
}

#[test]
fn a_receiver_that_comes_up_late_gets_everything() {
    for protocol in BOTH {
        let runtime = Runtime::new().unwrap();
        let address = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.local_addr().unwrap()
        };
        let mut agent = Agent::start(&runtime, transport(protocol, address), options());
        for _ in 0..8 {
            agent.push(10);
        }
        agent.wait("a retry", |agent| agent.queue.stats().retries >= 3);
        let receiver = Receiver::start_at(runtime.handle(), protocol, &[], address);
        agent.wait_until_settled();
        let snapshot = agent.close(PATIENCE);
        assert_eq!(snapshot.exported, 80, "{protocol:?}: {snapshot}");
        assert_eq!(receiver.sequence_numbers(), (0..80).collect::<Vec<_>>());
    }
}

#[test]
fn a_receiver_that_hangs_is_asked_again() {
    for protocol in BOTH {
        let runtime = Runtime::new().unwrap();
        let receiver = Receiver::start(runtime.handle(), protocol, &[Answer::Hang, Answer::Hang]);
        let mut config = config(protocol, receiver.address);
        config.timeout = Duration::from_millis(300);
        let mut agent = Agent::start(&runtime, Transport::otlp(&config).unwrap(), options());
        agent.push(10);
        agent.wait_until_settled();
        let snapshot = agent.close(PATIENCE);
        assert_eq!(snapshot.exported, 10, "{protocol:?}: {snapshot}");
        // A loaded machine may let further attempts run into the timeout.
        assert!(receiver.requests() >= 3);
    }
}

#[test]
fn the_retry_budget_ends() {
    for protocol in BOTH {
        let runtime = Runtime::new().unwrap();
        let receiver = Receiver::start(runtime.handle(), protocol, &[]);
        receiver.then(match protocol {
            Protocol::Grpc => Answer::Grpc(Code::Unavailable, None),
            Protocol::HttpProtobuf => Answer::Http(503, None),
        });
        let mut options = options();
        options.retry.give_up = Duration::from_millis(100);
        let mut agent = Agent::start(&runtime, transport(protocol, receiver.address), options);
        agent.push(10);
        agent.wait_until_settled();
        let snapshot = agent.close(PATIENCE);
        assert_eq!(
            snapshot.lost(LossReason::RetriesExhausted),
            10,
            "{protocol:?}: {snapshot}"
        );
        assert!(receiver.requests() > 1);
    }
}

#[test]
fn a_full_queue_gives_batches_back_at_once() {
    let runtime = Runtime::new().unwrap();
    let receiver = Receiver::start(runtime.handle(), Protocol::Grpc, &[Answer::Hang]);
    let options = ExporterOptions {
        queue: QueueLimits {
            bytes: 1 << 20,
            batches: 3,
        },
        in_flight: 1,
        ..options()
    };
    let mut agent = Agent::start(&runtime, transport(Protocol::Grpc, receiver.address), options);
    agent.push(1);
    agent.wait("the first request", |agent| {
        receiver.requests() == 1 && agent.queue.stats().batches == 0
    });
    for _ in 0..5 {
        agent.push(10);
    }
    assert_eq!(agent.ledger.snapshot().lost(LossReason::QueueFull), 20);
    assert_eq!(agent.queue.stats().batches, 3);
    let snapshot = agent.close(Duration::from_millis(50));
    assert_eq!(snapshot.lost(LossReason::QueueFull), 20, "{snapshot}");
    assert_eq!(snapshot.lost(LossReason::Shutdown), 31, "{snapshot}");
}

#[test]
fn the_queue_is_bounded_by_bytes_too_but_takes_one_batch_of_any_size() {
    let runtime = Runtime::new().unwrap();
    let receiver = Receiver::start(runtime.handle(), Protocol::HttpProtobuf, &[Answer::Hang]);
    let options = ExporterOptions {
        queue: QueueLimits {
            bytes: 1,
            batches: 100,
        },
        in_flight: 1,
        ..options()
    };
    let mut agent = Agent::start(
        &runtime,
        transport(Protocol::HttpProtobuf, receiver.address),
        options,
    );
    agent.push(1);
    agent.wait("the first request", |agent| {
        receiver.requests() == 1 && agent.queue.stats().batches == 0
    });
    agent.push(10);
    agent.push(10);
    let snapshot = agent.close(Duration::ZERO);
    assert_eq!(snapshot.lost(LossReason::QueueFull), 10, "{snapshot}");
    assert_eq!(snapshot.lost(LossReason::Shutdown), 11, "{snapshot}");
}

#[test]
fn closing_drains_what_is_queued() {
    for protocol in BOTH {
        let runtime = Runtime::new().unwrap();
        let receiver = Receiver::start(runtime.handle(), protocol, &[]);
        let mut agent = Agent::start(&runtime, transport(protocol, receiver.address), options());
        for _ in 0..100 {
            agent.push(5);
        }
        let snapshot = agent.close(PATIENCE);
        assert_eq!(snapshot.exported, 500, "{snapshot}");
        assert_eq!(receiver.sequence_numbers().len(), 500);
    }
}

#[test]
fn closing_tries_once_more_what_waits_for_its_retry() {
    let runtime = Runtime::new().unwrap();
    let script = [Answer::Grpc(Code::Unavailable, None)];
    let receiver = Receiver::start(runtime.handle(), Protocol::Grpc, &script);
    let retry = RetryPolicy {
        initial: Duration::from_secs(3600),
        max: Duration::from_secs(3600),
        give_up: Duration::from_secs(36_000),
    };
    let options = ExporterOptions { retry, ..options() };
    let mut agent = Agent::start(&runtime, transport(Protocol::Grpc, receiver.address), options);
    agent.push(10);
    agent.wait("the first request", |_| receiver.requests() == 1);
    let snapshot = agent.close(PATIENCE);
    assert_eq!(snapshot.exported, 10, "{snapshot}");
}

#[test]
fn one_success_ends_the_waits_of_the_others() {
    let runtime = Runtime::new().unwrap();
    let script = [Answer::Grpc(Code::Unavailable, None); 2];
    let receiver = Receiver::start(runtime.handle(), Protocol::Grpc, &script);
    let retry = RetryPolicy {
        initial: Duration::from_secs(3600),
        max: Duration::from_secs(3600),
        give_up: Duration::from_secs(36_000),
    };
    let options = ExporterOptions { retry, ..options() };
    let mut agent = Agent::start(&runtime, transport(Protocol::Grpc, receiver.address), options);
    agent.push(1);
    agent.push(1);
    agent.wait("two requests", |_| receiver.requests() == 2);
    // More than one: the first may succeed before the others have begun to wait.
    let start = Instant::now();
    while agent.ledger.snapshot().exported < 3 || agent.ledger.snapshot().in_flight() > 0 {
        assert!(
            start.elapsed() < PATIENCE,
            "still waiting: {}",
            agent.ledger.snapshot()
        );
        agent.push(1);
        std::thread::sleep(Duration::from_millis(10));
    }
    agent.close(PATIENCE);
}

#[test]
fn what_is_pushed_after_the_close_is_lost_to_the_shutdown() {
    let runtime = Runtime::new().unwrap();
    let receiver = Receiver::start(runtime.handle(), Protocol::Grpc, &[]);
    let Agent {
        ledger,
        exporter,
        mut batcher,
        ..
    } = Agent::start(&runtime, transport(Protocol::Grpc, receiver.address), options());
    assert!(exporter.close(PATIENCE));
    batcher.push(&record(0), Instant::now());
    drop(batcher);
    assert_eq!(ledger.snapshot().lost(LossReason::Shutdown), 1);
}

#[test]
fn loss_reports_travel_without_being_counted() {
    let runtime = Runtime::new().unwrap();
    let receiver = Receiver::start(runtime.handle(), Protocol::Grpc, &[]);
    let mut agent = Agent::start(&runtime, transport(Protocol::Grpc, receiver.address), options());
    let loss = Loss {
        observed_unix_nano: 1,
        netns: 2,
        group: 3,
        packets: 4,
        reason: "sequence-gap",
    };
    agent.batcher.push_loss(&loss, Instant::now());
    let snapshot = agent.close(PATIENCE);
    assert_eq!(snapshot.received, 0);
    let records = &receiver.accepted()[0].resource_logs[0].scope_logs[0].log_records;
    assert_eq!(records[0].event_name, "nflog.loss");
}

#[test]
fn a_batch_goes_out_by_size_count_or_age() {
    let runtime = Runtime::new().unwrap();
    let receiver = Receiver::start(runtime.handle(), Protocol::Grpc, &[]);
    let agent = Agent::start(&runtime, transport(Protocol::Grpc, receiver.address), options());
    let batcher = |policy| {
        Batcher::new(
            Box::new(Otlp::new(Resource::new(), &agent.ledger)),
            policy,
            agent.queue.clone(),
        )
    };
    let never = FlushPolicy {
        max_bytes: usize::MAX,
        max_records: u32::MAX,
        max_age: PATIENCE,
    };
    let start = Instant::now();
    let sent = |expected: u64| agent.wait("a request", |agent| agent.queue.stats().requests == expected);

    let mut by_count = batcher(FlushPolicy {
        max_records: 3,
        ..never
    });
    (0..3).for_each(|seq| by_count.push(&record(seq), start));
    assert_eq!(by_count.deadline(), None);
    sent(1);
    let mut by_size = batcher(FlushPolicy {
        max_bytes: size_of_batch(3) + 1,
        ..never
    });
    (3..6).for_each(|seq| by_size.push(&record(seq), start));
    assert!(by_size.deadline().is_some(), "too early");
    by_size.push(&record(6), start);
    sent(2);
    let mut by_age = batcher(never);
    by_age.push(&record(7), start);
    assert_eq!(by_age.deadline(), Some(start + PATIENCE));
    by_age.tick(start + PATIENCE - Duration::from_nanos(1));
    assert_eq!(by_age.deadline(), Some(start + PATIENCE));
    by_age.tick(start + PATIENCE);
    assert_eq!(by_age.deadline(), None);
    sent(3);
    drop((by_count, by_size, by_age));
    let Agent { exporter, ledger, .. } = agent;
    assert!(exporter.close(PATIENCE));
    assert_eq!(ledger.snapshot().exported, 8);
}

fn size_of_batch(records: u32) -> usize {
    let mut encoder = Otlp::new(Resource::new(), &Ledger::new());
    (0..records).for_each(|seq| encoder.push(&record(seq)));
    let size = encoder.bytes();
    encoder.take().lost(LossReason::Shutdown);
    size
}

/// A writer that the test can read.
#[derive(Clone, Default)]
struct Shared(Arc<std::sync::Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Short writes must not lose anything.
        let taken = bytes.len().min(7);
        self.0.lock().unwrap().extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_reach_the_output_in_order() {
    let runtime = Runtime::new().unwrap();
    let output = Shared::default();
    let transport = Transport::pipe(Box::new(output.clone())).unwrap();
    let mut agent = Agent::start_with(&runtime, transport, options(), |ledger| {
        Box::new(Json::new(Resource::new(), ledger))
    });
    for _ in 0..10 {
        agent.push(10);
    }
    let snapshot = agent.close(PATIENCE);
    assert_eq!(snapshot.exported, 100, "{snapshot}");
    let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
    let seqs = text.lines().map(|line| {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        object["attributes"]["nflog.seq"].as_i64().unwrap()
    });
    assert_eq!(seqs.collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_broken_pipe_is_noticed_and_counted() {
    let runtime = Runtime::new().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let transport = Transport::pipe(Box::new(writer)).unwrap();
    let mut agent = Agent::start_with(&runtime, transport, options(), |ledger| {
        Box::new(Console::new(false, ledger))
    });
    agent.push(1);
    agent.wait_until_settled();
    assert!(!agent.queue.sink_gone());
    drop(reader);
    agent.push(2);
    agent.wait("the broken pipe", |agent| agent.queue.sink_gone());
    agent.push(3);
    let snapshot = agent.close(PATIENCE);
    assert_eq!(
        (snapshot.exported, snapshot.lost(LossReason::Pipe)),
        (1, 5),
        "{snapshot}"
    );
}

#[test]
fn a_reader_that_stops_reading_does_not_hold_up_the_end() {
    let runtime = Runtime::new().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let transport = Transport::pipe(Box::new(writer)).unwrap();
    let mut agent = Agent::start_with(&runtime, transport, options(), |ledger| {
        Box::new(Console::new(false, ledger))
    });
    // Far more than a pipe holds.
    for _ in 0..20 {
        agent.push(4000);
    }
    let snapshot = agent.close(Duration::from_millis(100));
    assert!(snapshot.lost(LossReason::Shutdown) > 0, "{snapshot}");
    drop(reader);
}
