//! How many packets each rule of the configuration matched and withheld, over all namespaces.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::metrics::{CounterFamily, Instrument};

/// Counts by rule.
#[derive(Debug)]
pub struct RuleCounts(Vec<Counts>);

#[derive(Debug)]
struct Counts {
    name: Box<str>,
    matched: AtomicU64,
    withheld: AtomicU64,
}

impl RuleCounts {
    pub(super) fn new(names: Vec<Box<str>>) -> Self {
        let counts = |name| Counts {
            name,
            matched: AtomicU64::new(0),
            withheld: AtomicU64::new(0),
        };
        Self(names.into_iter().map(counts).collect())
    }

    pub(super) fn matched(&self, rule: usize) {
        self.0[rule].matched.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn withheld(&self, rule: usize) {
        self.0[rule].withheld.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether there are no rules.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As metrics.
    #[must_use]
    pub fn metrics(self: &Arc<Self>) -> [CounterFamily; 2] {
        let family = |name, description, count: fn(&Counts) -> &AtomicU64| {
            let counts = Arc::clone(self);
            CounterFamily {
                name,
                instrument: Instrument::Counter,
                unit: "{packet}",
                description,
                label: Some("rule"),
                read: Box::new(move |observe| {
                    for rule in &counts.0 {
                        observe(&rule.name, count(rule).load(Ordering::Relaxed));
                    }
                }),
            }
        };
        [
            family(
                "nflog_agent.policy.matched",
                "Packets by the rule of the configuration that decided on them.",
                |rule| &rule.matched,
            ),
            family(
                "nflog_agent.policy.withheld",
                "Packets that a rule of the configuration withheld: dropped, sampled out, above its limit, or in a flow's record.",
                |rule| &rule.withheld,
            ),
        ]
    }
}

/// `scans: 12 matched, 3 withheld; rule 2: 0 matched, 0 withheld`.
impl fmt::Display for RuleCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, rule) in self.0.iter().enumerate() {
            write!(
                f,
                "{}{}: {} matched, {} withheld",
                if at == 0 { "" } else { "; " },
                rule.name,
                rule.matched.load(Ordering::Relaxed),
                rule.withheld.load(Ordering::Relaxed)
            )?;
        }
        Ok(())
    }
}
