//! What is measured: each instrument reads a counter that exists anyway.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use crate::export::{ExportQueue, QueueStats};
use crate::telemetry::ledger::{Ledger, LossReason, Snapshot, Withheld};

/// Instruments of one collection are read within this time.
const COLLECTION: Duration = Duration::from_millis(100);

/// Counters from elsewhere: one metric, told apart by one attribute.
pub struct CounterFamily {
    /// `nflog_agent.…`.
    pub name: &'static str,
    /// Whether they only rise.
    pub instrument: Instrument,
    /// UCUM, with annotations as in `{packet}`.
    pub unit: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// Attribute that tells the counters apart; `None` for a single one.
    pub label: Option<&'static str>,
    /// Calls its argument with each attribute value and count. Called from the metrics thread about once a minute.
    pub read: Reader,
}

/// See [`CounterFamily::instrument`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instrument {
    /// Rises only.
    Counter,
    /// Rises and falls.
    UpDownCounter,
}

/// See [`CounterFamily::read`].
pub type Reader = Box<dyn Fn(&mut dyn FnMut(&str, u64)) + Send + Sync>;

pub(super) fn ledger(meter: &Meter, ledger: &Arc<Ledger>) {
    let moment = Arc::new(Moment {
        ledger: Arc::clone(ledger),
        last: Mutex::new(None),
    });
    let counter =
        |name: &'static str, unit: &'static str, description: &'static str, read: fn(&Snapshot) -> u64| {
            let moment = Arc::clone(&moment);
            meter
                .u64_observable_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| observer.observe(read(&moment.snapshot()), &[]))
                .build();
        };
    counter(
        "nflog_agent.records.received",
        "{record}",
        "Packets that became records, or that rules of the configuration withheld.",
        |now| now.received,
    );
    counter(
        "nflog_agent.records.exported",
        "{record}",
        "Records that the receiver took.",
        |now| now.exported,
    );
    counter(
        "nflog_agent.records.recovered",
        "{record}",
        "Records that an earlier process left in the spool.",
        |now| now.recovered,
    );
    counter(
        "nflog_agent.packets.missed",
        "{packet}",
        "Packets that the kernel numbered and that did not arrive.",
        |now| now.gaps,
    );
    counter(
        "nflog_agent.receive_buffer.overruns",
        "{overrun}",
        "Times that the kernel found the receive buffer full.",
        |now| now.overruns,
    );
    counter(
        "nflog_agent.receive_buffer.dropped",
        "{datagram}",
        "Datagrams that the kernel dropped because the receive buffer was full; each held up to a batch of packets.",
        |now| now.dropped_datagrams,
    );
    let at = Arc::clone(&moment);
    meter
        .u64_observable_counter("nflog_agent.records.lost")
        .with_unit("{record}")
        .with_description("Records lost after they were received.")
        .with_callback(move |observer| {
            let now = at.snapshot();
            for reason in LossReason::ALL {
                observer.observe(now.lost(reason), &[KeyValue::new("reason", reason.name())]);
            }
        })
        .build();
    let at = Arc::clone(&moment);
    meter
        .u64_observable_counter("nflog_agent.records.withheld")
        .with_unit("{record}")
        .with_description(
            "Packets that became no records of their own because rules of the configuration say so.",
        )
        .with_callback(move |observer| {
            let now = at.snapshot();
            for why in Withheld::ALL {
                observer.observe(now.withheld(why), &[KeyValue::new("reason", why.name())]);
            }
        })
        .build();
    let at = Arc::clone(&moment);
    meter
        .i64_observable_up_down_counter("nflog_agent.records.spooled")
        .with_unit("{record}")
        .with_description("Records on disk, for when the receiver takes them again.")
        .with_callback(move |observer| observer.observe(signed(at.snapshot().spooled), &[]))
        .build();
    meter
        .i64_observable_up_down_counter("nflog_agent.records.in_flight")
        .with_unit("{record}")
        .with_description("Records received and neither exported nor lost yet.")
        .with_callback(move |observer| observer.observe(signed(moment.snapshot().in_flight()), &[]))
        .build();
}

pub(super) fn queue(meter: &Meter, queue: &ExportQueue) {
    let gauge =
        |name: &'static str, unit: &'static str, description: &'static str, read: fn(&QueueStats) -> u64| {
            let queue = queue.clone();
            meter
                .i64_observable_up_down_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| observer.observe(signed(read(&queue.stats())), &[]))
                .build();
        };
    gauge(
        "nflog_agent.export.queue.size",
        "By",
        "Encoded bytes that wait to be sent.",
        |now| now.bytes,
    );
    gauge(
        "nflog_agent.export.queue.batches",
        "{batch}",
        "Batches that wait to be sent.",
        |now| now.batches,
    );
    let counter = |name: &'static str, description: &'static str, read: fn(&QueueStats) -> u64| {
        let queue = queue.clone();
        meter
            .u64_observable_counter(name)
            .with_unit("{request}")
            .with_description(description)
            .with_callback(move |observer| observer.observe(read(&queue.stats()), &[]))
            .build();
    };
    counter(
        "nflog_agent.export.requests",
        "Requests sent, retries included.",
        |now| now.requests,
    );
    counter("nflog_agent.export.retries", "Requests sent again.", |now| {
        now.retries
    });
}

pub(super) fn family(meter: &Meter, family: CounterFamily) {
    let CounterFamily {
        name,
        instrument,
        unit,
        description,
        label,
        read,
    } = family;
    let attributes = move |value: &str| label.map(|label| KeyValue::new(label, value.to_owned()));
    match instrument {
        Instrument::Counter => {
            meter
                .u64_observable_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| {
                    read(&mut |value, count| observer.observe(count, attributes(value).as_slice()));
                })
                .build();
        }
        Instrument::UpDownCounter => {
            meter
                .i64_observable_up_down_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| {
                    read(&mut |value, count| observer.observe(signed(count), attributes(value).as_slice()));
                })
                .build();
        }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// One snapshot for all instruments of a collection.
struct Moment {
    ledger: Arc<Ledger>,
    last: Mutex<Option<(Instant, Snapshot)>>,
}

impl Moment {
    fn snapshot(&self) -> Snapshot {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((taken, snapshot)) if taken.elapsed() < COLLECTION => snapshot,
            _ => {
                let snapshot = self.ledger.snapshot();
                *last = Some((Instant::now(), snapshot));
                snapshot
            }
        }
    }
}
