//! What the operator wants of the packets: what their rules' prefixes mean, and which records leave.
//!
//! ```toml
//! [[prefix]]                                  # the first that matches a prefix says what it means; see `prefix`
//! preset = "ufw"
//! [[prefix]]
//! template = "{chain}_{action}: "
//!
//! [[rule]]                                    # the first that matches a packet decides; without one it is kept
//! name = "scans"
//! match = { prefix = "scan-*", protocol = "tcp", destination-port = ["22", "8000-8999"] }
//! then = { limit = { rate = "100/s", burst = 200, per = "source" } }
//! [[rule]]
//! match = { action = "accept" }
//! then = { aggregate = { interval = "10s", idle = "3s" } }
//! [[rule]]
//! match = { direction = "receive" }
//! then = { sample = 100 }                     # or "keep", or "drop"
//! ```
//!
//! Without any of that no prefix means anything and every record leaves. Presets are off unless they are named: one that does not fit the
//! firewall would say wrong things.
//!
//! Invariants: reads records and nothing else: no I/O, no clock; a packet leaves, waits in a flow, or is counted as withheld, exactly
//! one of them; records about losses do not pass here, so nothing here hides a loss; after warm-up a packet costs no allocation,
//! unless it begins a flow. Each network namespace has an [`Engine`] of its own: limits and flows are per namespace. They follow the
//! policy that is [`InForce`]; when that is replaced, flows end, what limits held back is reported, and counts go on by name.

mod bucket;
mod compile;
mod config;
mod counts;
mod engine;
mod error;
mod flows;
mod glob;
mod in_force;
mod limit;
mod matches;
mod prefix;
mod presets;
mod sample;
mod schema;

use std::sync::Arc;

pub use config::{
    AggregateConfig, LimitConfig, MatchConfig, Per, PolicyConfig, PrefixConfig, RuleConfig, Then, Values,
};
pub use counts::RuleCounts;
pub use engine::{Engine, Out};
pub use error::{Place, PolicyError, PolicyErrors, PolicyProblem};
pub use in_force::InForce;
pub use presets::{PRESETS, Preset};

use flows::FlowLimits;
use limit::LimitSpec;
use matches::Matches;
use prefix::Pattern;

/// A checked configuration.
#[derive(Debug, Default)]
pub struct Policy {
    patterns: Vec<Pattern>,
    rules: Vec<Rule>,
}

impl Policy {
    /// Whether it changes nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.patterns.is_empty() && self.rules.is_empty()
    }

    /// Counters for its rules.
    #[must_use]
    pub fn counts(&self) -> Arc<RuleCounts> {
        let counts = RuleCounts::default();
        counts.of(self);
        Arc::new(counts)
    }
}

#[derive(Debug)]
struct Rule {
    /// Its name, or `rule N`.
    name: Box<str>,
    matches: Matches,
    decision: Decision,
}

#[derive(Debug)]
enum Decision {
    Keep,
    Drop,
    Sample(u32),
    Limit(LimitSpec),
    Aggregate(FlowLimits),
}
