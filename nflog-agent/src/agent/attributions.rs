//! How many packets were attributed in which way, and how many were not, why.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::nonzero;
use crate::owner::{Attribution, Method, Reason};
use crate::telemetry::metrics::{CounterFamily, Instrument};

/// Counts of all readers.
#[derive(Debug, Default)]
pub(super) struct Attributions {
    methods: [AtomicU64; Method::ALL.len()],
    reasons: [AtomicU64; Reason::ALL.len()],
}

impl Attributions {
    /// Counts one packet.
    pub(super) fn count(&self, attribution: &Attribution) {
        let counter = match attribution {
            Attribution::Owned { method, .. } => &self.methods[*method as usize],
            Attribution::Unowned(reason) => &self.reasons[*reason as usize],
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// By value of `nflog.owner.method`.
    fn by_method(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let owned = Method::ALL.map(|method| (method.name(), load(&self.methods[method as usize])));
        let unowned = ["kernel", "none"].map(|name| {
            let reasons = Reason::ALL
                .iter()
                .filter(|reason| reason.is_kernel() == (name == "kernel"));
            (
                name,
                reasons.map(|reason| load(&self.reasons[*reason as usize])).sum(),
            )
        });
        owned.into_iter().chain(unowned)
    }

    /// By value of `nflog.owner.reason`.
    fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL
            .into_iter()
            .map(|reason| (reason.name(), load(&self.reasons[reason as usize])))
    }

    /// As metrics.
    pub(super) fn metrics(self: &Arc<Self>) -> [CounterFamily; 2] {
        let (methods, reasons) = (Arc::clone(self), Arc::clone(self));
        [
            CounterFamily {
                name: "nflog_agent.attributions",
                instrument: Instrument::Counter,
                unit: "{packet}",
                description: "Packets by how their owner was found; none and kernel are those that no process owns.",
                label: Some("nflog.owner.method"),
                read: Box::new(move |observe| {
                    methods.by_method().for_each(|(name, count)| observe(name, count));
                }),
            },
            CounterFamily {
                name: "nflog_agent.attributions.without_owner",
                instrument: Instrument::Counter,
                unit: "{packet}",
                description: "Packets that no process owns, or whose owner is not known, by reason.",
                label: Some("nflog.owner.reason"),
                read: Box::new(move |observe| {
                    reasons.by_reason().for_each(|(name, count)| observe(name, count));
                }),
            },
        ]
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// What is not 0: `socket 3, none 2 (no-socket 2)`.
impl fmt::Display for Attributions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (methods, reasons) = (nonzero(self.by_method()), nonzero(self.by_reason()));
        match (methods.is_empty(), reasons.is_empty()) {
            (true, _) => f.write_str("no packets"),
            (false, true) => f.write_str(&methods),
            (false, false) => write!(f, "{methods} ({reasons})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::{Comm, End, Owner};

    #[test]
    fn each_method_and_reason_is_counted_for_itself() {
        let attributions = Attributions::default();
        assert_eq!(attributions.to_string(), "no packets");
        for (at, method) in Method::ALL.into_iter().enumerate() {
            let owner = Owner {
                pid: 1,
                start_boottime: None,
                exec_id: None,
                uid: 0,
                comm: Comm::new([0; 16]),
                cgroup_id: None,
            };
            let end = End::Source;
            (0..=at).for_each(|_| attributions.count(&Attribution::Owned { owner, method, end }));
        }
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            (0..=at).for_each(|_| attributions.count(&Attribution::Unowned(reason)));
        }
        let methods: Vec<_> = attributions.by_method().collect();
        for (at, method) in Method::ALL.into_iter().enumerate() {
            assert_eq!(methods[at], (method.name(), at as u64 + 1));
        }
        let reasons: Vec<_> = attributions.by_reason().collect();
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reasons[at], (reason.name(), at as u64 + 1));
        }
        let total: u64 = reasons.iter().map(|(_, count)| count).sum();
        let unowned: u64 = methods[Method::ALL.len()..].iter().map(|(_, count)| count).sum();
        assert_eq!(total, unowned);
        let text = attributions.to_string();
        assert!(
            text.starts_with("socket 1, accepted 2") && text.contains("(forwarded 1,"),
            "{text}"
        );
    }
}
