//! The export with a spool: what the receiver does not take comes later, once, or is counted.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use nflog_agent::export::{ExporterOptions, Protocol, RetryPolicy, Spool, SpoolError, SpoolLimits, WhenFull};
use nflog_agent::telemetry::ledger::{Ledger, LossReason};
use tokio::runtime::Runtime;

use crate::harness::{Agent, BOTH, PATIENCE, options, transport};
use crate::otlp_receiver::{Answer, Receiver};

/// An address at which nobody listens, until a receiver is started there.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

fn limits() -> SpoolLimits {
    SpoolLimits {
        segment: 20_000,
        ..SpoolLimits::default()
    }
}

fn files(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

fn numbers(range: std::ops::Range<i64>) -> Vec<i64> {
    range.collect()
}

#[test]
fn an_outage_costs_nothing_and_leaves_nothing_behind() {
    for protocol in BOTH {
        let runtime = Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let address = nobody();
        let spool = (directory.path(), limits());
        let mut agent = Agent::start_with_spool(&runtime, transport(protocol, address), options(), spool, 0);
        for _ in 0..100 {
            agent.push(10);
        }
        agent.wait("spooling", |agent| agent.ledger.snapshot().spooled >= 900);
        assert!(files(directory.path()) > 1);
        let receiver = Receiver::start_at(runtime.handle(), protocol, &[], address);
        for _ in 0..20 {
            agent.push(10);
        }
        agent.wait("the drain", |agent| agent.ledger.snapshot().exported == 1200);
        assert_eq!(receiver.sequence_numbers(), numbers(0..1200), "each once");
        let snapshot = agent.close(PATIENCE);
        assert_eq!((snapshot.spooled, snapshot.lost_total()), (0, 0), "{snapshot}");
        assert_eq!(files(directory.path()), 0);
    }
}

#[test]
fn what_is_left_at_the_end_is_sent_after_the_next_start() {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let address = nobody();
    let start = |next| {
        let spool = (directory.path(), limits());
        Agent::start_with_spool(
            &runtime,
            transport(Protocol::Grpc, address),
            options(),
            spool,
            next,
        )
    };
    let mut agent = start(0);
    agent.push(500);
    let snapshot = agent.close(Duration::from_millis(100));
    assert_eq!((snapshot.spooled, snapshot.lost_total()), (500, 0), "{snapshot}");

    let receiver = Receiver::start_at(runtime.handle(), Protocol::Grpc, &[], address);
    // The thread of the first one may still hold the lock for an instant.
    let agent = {
        let ledger = Ledger::new();
        while let Err(SpoolError::Busy { .. }) = Spool::open(directory.path(), limits(), &ledger) {
            std::thread::sleep(Duration::from_millis(2));
        }
        start(500)
    };
    assert_eq!(agent.ledger.snapshot().recovered, 500);
    agent.wait("the drain", |agent| agent.ledger.snapshot().exported == 500);
    assert_eq!(receiver.sequence_numbers(), numbers(0..500));
    agent.wait("the end of the file", |_| files(directory.path()) == 0);
}

/// A crash after a request was taken and before its file is removed leaves the file, and its records come again.
#[test]
fn what_a_crash_sends_twice_has_the_same_ids() {
    let runtime = Runtime::new().unwrap();
    let [directory, crashed] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let address = nobody();
    let start = |directory: &Path, next| {
        let spool = (directory, limits());
        Agent::start_with_spool(
            &runtime,
            transport(Protocol::Grpc, address),
            options(),
            spool,
            next,
        )
    };
    let mut agent = start(directory.path(), 0);
    agent.push(500);
    assert_eq!(agent.close(Duration::from_millis(100)).spooled, 500);
    for file in fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), crashed.path().join(file.file_name())).unwrap();
    }

    let receiver = Receiver::start_at(runtime.handle(), Protocol::Grpc, &[], address);
    for directory in [&directory, &crashed] {
        let agent = start(directory.path(), 500);
        agent.wait("the drain", |agent| agent.ledger.snapshot().exported == 500);
    }
    assert_eq!(receiver.sequence_numbers().len(), 1000);
    let ids = receiver.ids();
    assert!(ids.values().all(|ids| ids.len() == 1), "{ids:?}");
    let distinct: BTreeSet<_> = ids.values().flatten().collect();
    assert_eq!((ids.len(), distinct.len()), (500, 500), "an id for each record");
}

#[test]
fn a_receiver_that_is_up_and_refuses_is_not_asked_again() {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let script = [Answer::Http(503, None), Answer::Http(400, None)];
    let receiver = Receiver::start(runtime.handle(), Protocol::HttpProtobuf, &script);
    let spool = (directory.path(), limits());
    let to = transport(Protocol::HttpProtobuf, receiver.address);
    let mut agent = Agent::start_with_spool(&runtime, to, options(), spool, 0);
    agent.push(10);
    agent.wait_until_settled();
    let snapshot = agent.close(PATIENCE);
    assert_eq!(snapshot.lost(LossReason::Permanent), 10, "{snapshot}");
}

#[test]
fn requests_that_are_given_up_go_to_the_spool_and_are_tried_again() {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(runtime.handle(), Protocol::HttpProtobuf, &[]);
    receiver.then(Answer::Http(503, None));
    let impatient = ExporterOptions {
        retry: RetryPolicy {
            initial: Duration::from_millis(5),
            max: Duration::from_millis(5),
            give_up: Duration::from_millis(50),
        },
        ..options()
    };
    let spool = (directory.path(), limits());
    let to = transport(Protocol::HttpProtobuf, receiver.address);
    let mut agent = Agent::start_with_spool(&runtime, to, impatient, spool, 0);
    for _ in 0..10 {
        agent.push(10);
    }
    agent.wait("spooling", |agent| agent.ledger.snapshot().spooled > 50);
    let asked = receiver.requests();
    agent.wait("more attempts", |_| receiver.requests() > asked + 40);
    receiver.then(Answer::Accept);
    agent.wait("the drain", |agent| agent.ledger.snapshot().exported == 100);
    assert_eq!(receiver.sequence_numbers(), numbers(0..100));
    agent.close(PATIENCE);
}

#[test]
fn a_full_spool_gives_up_the_oldest_or_the_newest_and_counts() {
    for when_full in [WhenFull::DropOldest, WhenFull::DropNewest] {
        let runtime = Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let address = nobody();
        let small = SpoolLimits {
            bytes: 60_000,
            when_full,
            ..limits()
        };
        let spool = (directory.path(), small);
        let mut agent =
            Agent::start_with_spool(&runtime, transport(Protocol::Grpc, address), options(), spool, 0);
        for _ in 0..200 {
            agent.push(10);
        }
        agent.wait("overflow", |agent| {
            let snapshot = agent.ledger.snapshot();
            snapshot.lost(LossReason::SpoolFull) > 0 && snapshot.in_flight() <= 40
        });
        let receiver = Receiver::start_at(runtime.handle(), Protocol::Grpc, &[], address);
        agent.wait("the drain", |agent| {
            let snapshot = agent.ledger.snapshot();
            snapshot.spooled == 0 && snapshot.in_flight() == 0
        });
        let snapshot = agent.close(PATIENCE);
        let arrived = receiver.sequence_numbers();
        assert_eq!(arrived.len() as u64, snapshot.exported);
        assert_eq!(
            snapshot.exported + snapshot.lost(LossReason::SpoolFull),
            2000,
            "{snapshot}"
        );
        let newest = arrived.contains(&1999);
        assert_eq!(newest, when_full == WhenFull::DropOldest, "{arrived:?}");
    }
}

#[test]
fn damage_costs_what_is_damaged_and_is_counted() {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let address = nobody();
    let spool = (directory.path(), limits());
    let mut agent =
        Agent::start_with_spool(&runtime, transport(Protocol::Grpc, address), options(), spool, 0);
    for _ in 0..50 {
        agent.push(10);
    }
    let snapshot = agent.close(Duration::from_millis(100));
    assert_eq!(snapshot.spooled, 500);
    let mut paths: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 3, "{paths:?}");
    // One bit in the first, the tail of the second, all of the third.
    let mut first = fs::read(&paths[0]).unwrap();
    let middle = first.len() / 2;
    first[middle] ^= 1;
    fs::write(&paths[0], &first).unwrap();
    let second = fs::read(&paths[1]).unwrap();
    fs::write(&paths[1], &second[..second.len() - 7]).unwrap();
    fs::remove_file(&paths[2]).unwrap();

    let receiver = Receiver::start_at(runtime.handle(), Protocol::Grpc, &[], address);
    let spool = (directory.path(), limits());
    let agent = Agent::start_with_spool(
        &runtime,
        transport(Protocol::Grpc, address),
        options(),
        spool,
        500,
    );
    agent.wait("the drain", |agent| {
        agent.ledger.snapshot().spooled == 0 && agent.ledger.snapshot().in_flight() == 0
    });
    let snapshot = agent.ledger.snapshot();
    let arrived: BTreeSet<i64> = receiver.sequence_numbers().into_iter().collect();
    assert_eq!(arrived.len() as u64, snapshot.exported);
    // All that is gone is counted, by the numbers in what is left.
    assert_eq!(
        snapshot.exported + snapshot.lost(LossReason::SpoolUnreadable),
        500,
        "{snapshot}"
    );
    assert!(snapshot.exported >= 100, "{snapshot}");
}

#[test]
fn a_spool_belongs_to_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::new();
    let _first = Spool::open(directory.path(), limits(), &ledger).unwrap();
    let second = Spool::open(directory.path(), limits(), &ledger);
    let Err(error @ SpoolError::Busy { .. }) = second else {
        panic!("two processes have one spool");
    };
    assert!(
        error.to_string().contains(directory.path().to_str().unwrap()),
        "{error}"
    );
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let Err(error @ SpoolError::Directory { .. }) = Spool::open(&file, limits(), &ledger) else {
        panic!("a file is no directory");
    };
    assert!(error.to_string().contains("must be a directory"), "{error}");
}
