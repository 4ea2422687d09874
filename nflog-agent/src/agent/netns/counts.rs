//! What became of network namespaces; for metrics and the final account.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::metrics::{CounterFamily, Instrument};

/// Counters, shared with the metrics' thread. Namespaces read now are those that appeared less those that vanished.
#[derive(Debug, Default)]
pub(in crate::agent) struct Counts {
    appeared: AtomicU64,
    vanished: AtomicU64,
    refused: AtomicU64,
    over_limit: AtomicU64,
}

impl Counts {
    /// A reader runs.
    pub(super) fn appeared(&self) {
        self.appeared.fetch_add(1, Ordering::Relaxed);
    }

    /// A reader has ended.
    pub(super) fn vanished(&self) {
        self.vanished.fetch_add(1, Ordering::Relaxed);
    }

    /// A namespace cannot be read for now; once however often it is tried.
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Namespaces that `--max-netns` leaves no room for.
    pub(super) fn over_limit(&self, namespaces: usize) {
        self.over_limit.fetch_add(namespaces as u64, Ordering::Relaxed);
    }

    fn events(&self) -> [(&'static str, u64); 4] {
        [
            ("appeared", &self.appeared),
            ("vanished", &self.vanished),
            ("refused", &self.refused),
            ("over-limit", &self.over_limit),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    fn reading(&self) -> u64 {
        // In this order: a namespace that vanishes meanwhile still counts.
        let vanished = self.vanished.load(Ordering::Relaxed);
        self.appeared.load(Ordering::Relaxed).saturating_sub(vanished)
    }

    /// Namespaces read now, and what happened to them.
    pub(in crate::agent) fn metrics(self: &Arc<Self>) -> [CounterFamily; 2] {
        let (now, events) = (Arc::clone(self), Arc::clone(self));
        [
            CounterFamily {
                name: "nflog_agent.netns.reading",
                instrument: Instrument::UpDownCounter,
                unit: "{namespace}",
                description: "Network namespaces that are read now.",
                label: None,
                read: Box::new(move |observe| observe("", now.reading())),
            },
            CounterFamily {
                name: "nflog_agent.netns.events",
                instrument: Instrument::Counter,
                unit: "{namespace}",
                description: "Network namespaces that appeared, vanished, could not be read, or found no room.",
                label: Some("nflog_agent.netns.event"),
                read: Box::new(move |observe| {
                    for (name, count) in events.events() {
                        observe(name, count);
                    }
                }),
            },
        ]
    }
}

/// One line for the final account.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.events().map(|(name, count)| format!("{name} {count}"));
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_read_now_are_those_that_appeared_and_did_not_vanish() {
        let counts = Arc::new(Counts::default());
        for _ in 0..3 {
            counts.appeared();
        }
        counts.vanished();
        counts.over_limit(2);
        let [reading, events] = counts.metrics();
        let mut seen = Vec::new();
        (reading.read)(&mut |_, count| seen.push(count));
        assert_eq!(seen, [2]);
        seen.clear();
        (events.read)(&mut |_, count| seen.push(count));
        assert_eq!(seen, [3, 1, 0, 2]);
        assert_eq!(
            counts.to_string(),
            "appeared 3, vanished 1, refused 0, over-limit 2"
        );
    }
}
