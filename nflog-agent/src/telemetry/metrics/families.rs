//! What is measured, whatever way it goes out: each family reads counters that exist anyway.
//!
//! OTLP and `/metrics` read the same [`Families`], so that neither has what the other lacks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::export::{ExportQueue, FailureKind, QueueStats};
use crate::telemetry::ledger::{Ledger, LossReason, Snapshot, Withheld};

/// Families of one collection are read within this time.
const COLLECTION: Duration = Duration::from_millis(100);

/// One metric, its values told apart by one attribute.
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
    /// Calls its argument with each attribute value and count. Called at each collection: about once a minute for OTLP, at most
    /// once a second for `/metrics`. Must not wait for anything but memory and the kernel.
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

/// Everything that is measured. Clones share it.
#[derive(Clone)]
pub struct Families(Arc<[CounterFamily]>);

impl Families {
    /// The ledger's and the queue's, which are read from one moment as far as they are records, and `others`.
    #[must_use]
    pub fn new(ledger: &Arc<Ledger>, queue: Option<&ExportQueue>, others: Vec<CounterFamily>) -> Self {
        let mut families = records(ledger);
        families.extend(queue.into_iter().flat_map(requests));
        families.extend(others);
        Self(families.into())
    }

    /// All of them.
    pub(super) fn all(&self) -> &Arc<[CounterFamily]> {
        &self.0
    }
}

/// What became of records.
fn records(ledger: &Arc<Ledger>) -> Vec<CounterFamily> {
    let moment = Arc::new(Moment {
        ledger: Arc::clone(ledger),
        last: Mutex::new(None),
    });
    let mut families: Vec<_> = SINGLE
        .iter()
        .map(|single| {
            let moment = Arc::clone(&moment);
            CounterFamily {
                name: single.name,
                instrument: single.instrument,
                unit: single.unit,
                description: single.description,
                label: None,
                read: Box::new(move |observe| observe("", (single.read)(&moment.snapshot()))),
            }
        })
        .collect();
    let at = Arc::clone(&moment);
    families.push(CounterFamily {
        name: "nflog_agent.records.lost",
        instrument: Instrument::Counter,
        unit: "{record}",
        description: "Records lost after they were received.",
        label: Some("reason"),
        read: Box::new(move |observe| {
            let now = at.snapshot();
            for reason in LossReason::ALL {
                observe(reason.name(), now.lost(reason));
            }
        }),
    });
    families.push(CounterFamily {
        name: "nflog_agent.records.withheld",
        instrument: Instrument::Counter,
        unit: "{record}",
        description: "Packets that became no records of their own because rules of the configuration say so.",
        label: Some("reason"),
        read: Box::new(move |observe| {
            let now = moment.snapshot();
            for why in Withheld::ALL {
                observe(why.name(), now.withheld(why));
            }
        }),
    });
    families
}

/// A count of the ledger.
struct Single<Source: 'static> {
    name: &'static str,
    instrument: Instrument,
    unit: &'static str,
    description: &'static str,
    read: fn(&Source) -> u64,
}

const SINGLE: &[Single<Snapshot>] = &[
    Single {
        name: "nflog_agent.records.received",
        instrument: Instrument::Counter,
        unit: "{record}",
        description: "Packets that became records, or that rules of the configuration withheld.",
        read: |now| now.received,
    },
    Single {
        name: "nflog_agent.records.exported",
        instrument: Instrument::Counter,
        unit: "{record}",
        description: "Records that the receiver took.",
        read: |now| now.exported,
    },
    Single {
        name: "nflog_agent.records.recovered",
        instrument: Instrument::Counter,
        unit: "{record}",
        description: "Records that an earlier process left in the spool.",
        read: |now| now.recovered,
    },
    Single {
        name: "nflog_agent.packets.missed",
        instrument: Instrument::Counter,
        unit: "{packet}",
        description: "Packets that the kernel numbered and that did not arrive.",
        read: |now| now.gaps,
    },
    Single {
        name: "nflog_agent.receive_buffer.overruns",
        instrument: Instrument::Counter,
        unit: "{overrun}",
        description: "Times that the kernel found the receive buffer full.",
        read: |now| now.overruns,
    },
    Single {
        name: "nflog_agent.receive_buffer.dropped",
        instrument: Instrument::Counter,
        unit: "{datagram}",
        description: "Datagrams that the kernel dropped because the receive buffer was full; each held up to a batch of packets.",
        read: |now| now.dropped_datagrams,
    },
    Single {
        name: "nflog_agent.datagrams.truncated",
        instrument: Instrument::Counter,
        unit: "{datagram}",
        description: "Datagrams longer than the agent's buffer; what was cut off shows as missed packets.",
        read: |now| now.truncated,
    },
    Single {
        name: "nflog_agent.datagrams.malformed",
        instrument: Instrument::Counter,
        unit: "{datagram}",
        description: "Datagrams that could not be read to the end.",
        read: |now| now.malformed,
    },
    Single {
        name: "nflog_agent.records.spooled",
        instrument: Instrument::UpDownCounter,
        unit: "{record}",
        description: "Records on disk, for when the receiver takes them again.",
        read: |now| now.spooled,
    },
    Single {
        name: "nflog_agent.records.in_flight",
        instrument: Instrument::UpDownCounter,
        unit: "{record}",
        description: "Records received and neither exported nor lost yet.",
        read: Snapshot::in_flight,
    },
];

/// What became of requests, and what waits to become one.
fn requests(queue: &ExportQueue) -> Vec<CounterFamily> {
    let mut families: Vec<_> = OF_QUEUE
        .iter()
        .map(|single| {
            let queue = queue.clone();
            CounterFamily {
                name: single.name,
                instrument: single.instrument,
                unit: single.unit,
                description: single.description,
                label: None,
                read: Box::new(move |observe| observe("", (single.read)(&queue.stats()))),
            }
        })
        .collect();
    let queue = queue.clone();
    families.push(CounterFamily {
        name: "nflog_agent.export.failures",
        instrument: Instrument::Counter,
        unit: "{request}",
        description: "Requests that failed, by how; what became of their records is in records.lost.",
        label: Some("error.type"),
        read: Box::new(move |observe| {
            let stats = queue.stats();
            for kind in FailureKind::ALL {
                observe(kind.name(), stats.failures[kind as usize]);
            }
        }),
    });
    families
}

const OF_QUEUE: &[Single<QueueStats>] = &[
    Single {
        name: "nflog_agent.export.queue.size",
        instrument: Instrument::UpDownCounter,
        unit: "By",
        description: "Encoded bytes that wait to be sent.",
        read: |now| now.bytes,
    },
    Single {
        name: "nflog_agent.export.queue.limit",
        instrument: Instrument::UpDownCounter,
        unit: "By",
        description: "Encoded bytes that may wait to be sent.",
        read: |now| now.limit,
    },
    Single {
        name: "nflog_agent.export.queue.batches",
        instrument: Instrument::UpDownCounter,
        unit: "{batch}",
        description: "Batches that wait to be sent.",
        read: |now| now.batches,
    },
    Single {
        name: "nflog_agent.export.requests",
        instrument: Instrument::Counter,
        unit: "{request}",
        description: "Requests sent, retries included.",
        read: |now| now.requests,
    },
    Single {
        name: "nflog_agent.export.retries",
        instrument: Instrument::Counter,
        unit: "{request}",
        description: "Requests sent again.",
        read: |now| now.retries,
    },
];

/// One snapshot for all families of a collection.
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
