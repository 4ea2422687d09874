//! One reader's state: what its rules have seen so far, and what becomes of the next packet.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counts::RuleCount;
use super::flows::Flows;
use super::limit::Limiter;
use super::prefix::Known;
use super::sample::Sampler;
use super::{Decision, Policy, RuleCounts};
use crate::record::{LoggingRule, Record, Suppressed};
use crate::telemetry::ledger::{Ledger, Unsettled, Withheld};

/// How often at most a limit's packets are reported.
const REPORT: Duration = Duration::from_secs(10);

/// Where records go.
pub trait Out {
    /// A packet's record. It is counted as received there.
    fn packet(&mut self, record: &Record<'_>, now: Instant);
    /// A flow's record, which is on an account already.
    fn held(&mut self, record: &Record<'_>, held: &mut Unsettled, now: Instant);
    /// A report of packets that a limit held back.
    fn suppressed(&mut self, suppressed: &Suppressed<'_>, now: Instant);
}

/// Decides on the packets of one network namespace.
#[derive(Debug)]
pub struct Engine {
    policy: Arc<Policy>,
    all_counts: Arc<RuleCounts>,
    /// One for each rule.
    counts: Box<[Arc<RuleCount>]>,
    ledger: Arc<Ledger>,
    netns: u32,
    known: Known,
    states: Vec<State>,
}

/// What a rule has seen.
#[derive(Debug)]
enum State {
    Keep,
    Drop,
    Sample(u32, Sampler),
    Limit(Limiter, Pending),
    Aggregate(Flows),
}

/// Packets held back that are not reported yet.
#[derive(Debug, Default)]
struct Pending {
    packets: u64,
    /// When the first of them came.
    since: Option<Instant>,
    observed_unix_nano: u64,
}

impl Engine {
    /// For the packets of `netns`, settled with `ledger`.
    #[must_use]
    pub fn new(
        policy: &Arc<Policy>,
        counts: &Arc<RuleCounts>,
        ledger: &Arc<Ledger>,
        netns: u32,
        now: Instant,
    ) -> Self {
        Self {
            states: states(policy, ledger, now),
            policy: Arc::clone(policy),
            counts: counts.of(policy),
            all_counts: Arc::clone(counts),
            ledger: Arc::clone(ledger),
            netns,
            known: Known::default(),
        }
    }

    /// Goes on with another policy: flows end and what limits held back is reported, as at the end; limits begin anew.
    pub fn replace(&mut self, policy: &Arc<Policy>, now: Instant, out: &mut impl Out) {
        self.close(now, out);
        self.states = states(policy, &self.ledger, now);
        self.counts = self.all_counts.of(policy);
        self.known = Known::default();
        self.policy = Arc::clone(policy);
    }

    /// What a prefix says of its rule, to be put into the record; `None` if no pattern matches.
    pub fn logging_rule(&mut self, prefix: &str) -> Option<Arc<LoggingRule>> {
        self.known.read(&self.policy.patterns, prefix)
    }

    /// Takes a packet: it goes to `out`, waits here in a flow, or is withheld and counted.
    pub fn take(&mut self, record: &Record<'_>, now: Instant, out: &mut impl Out) {
        let rules = &self.policy.rules;
        let Some(at) = rules.iter().position(|rule| rule.matches.matches(record)) else {
            return out.packet(record, now);
        };
        self.counts[at].matched();
        let withheld = match &mut self.states[at] {
            State::Keep => None,
            State::Drop => Some(Withheld::Filtered),
            State::Sample(n, sampler) => {
                if sampler.take() {
                    let record = Record {
                        sample_rate: Some(*n),
                        ..*record
                    };
                    return out.packet(&record, now);
                }
                Some(Withheld::SampledOut)
            }
            State::Limit(limiter, pending) => {
                let within = limiter.take(record, now);
                (!within).then(|| {
                    pending.packets += 1;
                    pending.since.get_or_insert(now);
                    pending.observed_unix_nano = record.observed_unix_nano;
                    Withheld::Limited
                })
            }
            State::Aggregate(flows) => {
                if !flows.add(record, now, out) {
                    return;
                }
                Some(Withheld::Aggregated)
            }
        };
        match withheld {
            None => out.packet(record, now),
            Some(why) => {
                self.ledger.withhold(why);
                self.counts[at].withheld();
            }
        }
    }

    /// Ends flows, and reports what limits held back, where it is time.
    pub fn tick(&mut self, now: Instant, out: &mut impl Out) {
        for (rule, state) in self.policy.rules.iter().zip(&mut self.states) {
            match state {
                State::Limit(_, pending) if pending.due().is_some_and(|due| now >= due) => {
                    pending.report(self.netns, &rule.name, now, out);
                }
                State::Aggregate(flows) => flows.tick(now, out),
                State::Keep | State::Drop | State::Sample(..) | State::Limit(..) => {}
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do at the earliest; `None` if nothing waits.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let deadlines = self.states.iter().filter_map(|state| match state {
            State::Limit(_, pending) => pending.due(),
            State::Aggregate(flows) => flows.deadline(),
            State::Keep | State::Drop | State::Sample(..) => None,
        });
        deadlines.min()
    }

    /// Ends all flows, and reports all that limits held back.
    pub fn close(&mut self, now: Instant, out: &mut impl Out) {
        for (rule, state) in self.policy.rules.iter().zip(&mut self.states) {
            match state {
                State::Limit(_, pending) => pending.report(self.netns, &rule.name, now, out),
                State::Aggregate(flows) => flows.close(now, out),
                State::Keep | State::Drop | State::Sample(..) => {}
            }
        }
    }
}

fn states(policy: &Policy, ledger: &Arc<Ledger>, now: Instant) -> Vec<State> {
    let state = |(at, decision): (u64, &Decision)| match decision {
        Decision::Keep => State::Keep,
        Decision::Drop => State::Drop,
        Decision::Sample(n) => State::Sample(*n, Sampler::new(*n, RandomState::new().hash_one(at))),
        Decision::Limit(spec) => State::Limit(Limiter::new(*spec), Pending::default()),
        Decision::Aggregate(limits) => State::Aggregate(Flows::new(*limits, ledger.account(), now)),
    };
    let decisions = policy.rules.iter().map(|rule| &rule.decision);
    (0..).zip(decisions).map(state).collect()
}

impl Pending {
    fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + REPORT)
    }

    fn report(&mut self, netns: u32, rule: &str, now: Instant, out: &mut impl Out) {
        if self.packets == 0 {
            return;
        }
        let Self {
            packets,
            observed_unix_nano,
            ..
        } = std::mem::take(self);
        let suppressed = Suppressed {
            observed_unix_nano,
            netns,
            rule,
            packets,
        };
        out.suppressed(&suppressed, now);
    }
}
