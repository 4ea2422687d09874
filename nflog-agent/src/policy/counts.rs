//! How many packets each rule of the configuration matched and withheld, over all namespaces.
//!
//! Counts are by name and never fall: a rule that a reload leaves out keeps what it counted, and one of that name goes on from there.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Policy;
use crate::telemetry::metrics::{CounterFamily, Instrument};

/// Counts by rule.
#[derive(Debug, Default)]
pub struct RuleCounts(Mutex<Vec<Arc<RuleCount>>>);

/// Counts of one rule.
#[derive(Debug)]
pub(super) struct RuleCount {
    name: Box<str>,
    matched: AtomicU64,
    withheld: AtomicU64,
}

impl RuleCount {
    pub(super) fn matched(&self) {
        self.matched.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn withheld(&self) {
        self.withheld.fetch_add(1, Ordering::Relaxed);
    }
}

impl RuleCounts {
    /// Those of a policy's rules, in their order; new ones begin at 0.
    pub(super) fn of(&self, policy: &Policy) -> Box<[Arc<RuleCount>]> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = |name: &str| {
            if let Some(known) = all.iter().find(|count| &*count.name == name) {
                return Arc::clone(known);
            }
            let new = Arc::new(RuleCount {
                name: name.into(),
                matched: AtomicU64::new(0),
                withheld: AtomicU64::new(0),
            });
            all.push(Arc::clone(&new));
            new
        };
        policy.rules.iter().map(|rule| count(&rule.name)).collect()
    }

    /// How many names there are, those of a policy that is not in force yet with them.
    #[must_use]
    pub fn names_with(&self, policy: &Policy) -> usize {
        let all = self.all();
        let known = |name: &str| all.iter().any(|count| &*count.name == name);
        let new = policy.rules.iter().filter(|rule| !known(&rule.name));
        all.len() + new.count()
    }

    /// Whether there are no rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    fn all(&self) -> Vec<Arc<RuleCount>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As metrics.
    #[must_use]
    pub fn metrics(self: &Arc<Self>) -> [CounterFamily; 2] {
        let family = |name, description, count: fn(&RuleCount) -> &AtomicU64| {
            let counts = Arc::clone(self);
            CounterFamily {
                name,
                instrument: Instrument::Counter,
                unit: "{packet}",
                description,
                label: Some("rule"),
                read: Box::new(move |observe| {
                    for rule in counts.all() {
                        observe(&rule.name, count(&rule).load(Ordering::Relaxed));
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
        for (at, rule) in self.all().iter().enumerate() {
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
