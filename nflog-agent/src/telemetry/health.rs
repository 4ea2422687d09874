//! Whether the process moves, what it is doing, and what it does without; for `/live`, `/ready` and a metric.
//!
//! - A loop that must not stand still has a [`Beat`] and touches it in each round, which is one store to memory. What it waits for
//!   at most is far below the limit.
//! - Nothing here depends on the receiver of records: an outage is no reason to restart the agent, nor to stop a rollout.
//! - The locks are held for memory operations only, and never taken in a loop's round.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::metrics::{CounterFamily, Instrument};
use crate::named::named;

named! {
    /// What the agent does without, although nobody asked it to.
    pub enum Shortcoming {
        /// No kernel probes: owners come from `inet_diag` and `/proc`, after the fact.
        NoProbes = "no-probes",
        /// Some probes are not attached: some packets have no owner.
        ProbesMissing = "probes-missing",
        /// The probes do not know the sockets that are older than the agent.
        OlderSockets = "older-sockets",
        /// Processes are not followed: executables come from `/proc`.
        Processes = "processes",
        /// The kernel attaches no conntrack entries: owners are missing where addresses are translated.
        NoConntrack = "no-conntrack",
    }
}

/// What the agent is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not all that the configuration names is read yet.
    Starting,
    /// All groups are bound; what and where, for people.
    Reading(String),
    /// Everything is being handed over; the deadline of the stop takes care of what hangs.
    Stopping,
}

/// The state of the process. Shared by all threads.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    loops: Vec<Arc<Loop>>,
    shortcomings: Vec<(Shortcoming, String)>,
}

#[derive(Debug)]
struct Loop {
    name: String,
    limit: Duration,
    /// Since the start of the process, in ms.
    moved: AtomicU64,
}

impl Health {
    /// Of a process that starts now.
    #[must_use]
    pub fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self {
            started: now,
            inner: Mutex::new(Inner {
                phase: Phase::Starting,
                loops: Vec::new(),
                shortcomings: Vec::new(),
            }),
        })
    }

    /// From now on, what the agent is doing.
    pub fn set_phase(&self, phase: Phase) {
        self.inner().phase = phase;
    }

    /// What the agent is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.inner().phase.clone()
    }

    /// The agent does without something; `why` for people. Each kind is said once.
    pub fn lacks(&self, what: Shortcoming, why: impl fmt::Display) {
        let mut inner = self.inner();
        if inner.shortcomings.iter().all(|(known, _)| *known != what) {
            inner.shortcomings.push((what, why.to_string()));
        }
    }

    /// What the agent does without.
    #[must_use]
    pub fn shortcomings(&self) -> Vec<(Shortcoming, String)> {
        self.inner().shortcomings.clone()
    }

    /// A loop that stands still if it has not moved for `limit`. Until its beat is dropped.
    #[must_use]
    pub fn beat(self: &Arc<Self>, name: String, limit: Duration, now: Instant) -> Beat {
        let moving = Arc::new(Loop {
            name,
            limit,
            moved: AtomicU64::new(self.since(now)),
        });
        self.inner().loops.push(Arc::clone(&moving));
        Beat {
            health: Arc::clone(self),
            moving,
        }
    }

    /// The loops that stand still. None while the agent stops.
    #[must_use]
    pub fn stalled(&self, now: Instant) -> Vec<Stalled> {
        self.stalled_for(now, Duration::MAX)
    }

    /// Likewise, with a limit of at most `most` for each.
    #[must_use]
    pub fn stalled_for(&self, now: Instant, most: Duration) -> Vec<Stalled> {
        let now = self.since(now);
        let inner = self.inner();
        if inner.phase == Phase::Stopping {
            return Vec::new();
        }
        let stalled = inner.loops.iter().filter_map(|each| {
            let silent = Duration::from_millis(now.saturating_sub(each.moved.load(Ordering::Relaxed)));
            let limit = each.limit.min(most);
            (silent >= limit).then(|| Stalled {
                name: each.name.clone(),
                silent,
                limit,
            })
        });
        stalled.collect()
    }

    /// As a metric.
    #[must_use]
    pub fn metric(self: &Arc<Self>) -> CounterFamily {
        let health = Arc::clone(self);
        CounterFamily {
            name: "nflog_agent.degraded",
            instrument: Instrument::UpDownCounter,
            unit: "{agent}",
            description: "1 for each thing that the agent does without although nobody asked it to, else 0.",
            label: Some("nflog_agent.shortcoming"),
            read: Box::new(move |observe| {
                let present = health.shortcomings();
                for what in Shortcoming::ALL {
                    let is = present.iter().any(|(known, _)| *known == what);
                    observe(what.name(), u64::from(is));
                }
            }),
        }
    }

    fn since(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A loop that stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// Which one.
    pub name: String,
    /// For how long.
    pub silent: Duration,
    /// How long it may be.
    pub limit: Duration,
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [silent, limit] = [self.silent, self.limit].map(|time| time.as_secs());
        write!(f, "{} has not moved for {silent} s (limit {limit} s)", self.name)
    }
}

/// A loop's sign of life. Dropping it is the orderly end of the loop.
#[derive(Debug)]
pub struct Beat {
    health: Arc<Health>,
    moving: Arc<Loop>,
}

impl Beat {
    /// The loop moves.
    pub fn beat(&self, now: Instant) {
        self.moving.moved.store(self.health.since(now), Ordering::Relaxed);
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        let mut inner = self.health.inner();
        inner.loops.retain(|other| !Arc::ptr_eq(other, &self.moving));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn names(health: &Health, now: Instant) -> Vec<String> {
        let stalled = health.stalled(now);
        stalled.into_iter().map(|each| each.name).collect()
    }

    #[test]
    fn a_loop_stands_still_when_it_has_not_moved_for_its_limit() {
        let start = Instant::now();
        let health = Health::new(start);
        let (one, two) = (
            health.beat("one".to_owned(), LIMIT, start),
            health.beat("two".to_owned(), LIMIT * 2, start),
        );
        assert!(names(&health, start + LIMIT - Duration::from_millis(1)).is_empty());
        assert_eq!(names(&health, start + LIMIT), ["one"]);
        assert_eq!(names(&health, start + LIMIT * 2), ["one", "two"]);
        one.beat(start + LIMIT * 2);
        assert_eq!(
            health.stalled(start + LIMIT * 3 - Duration::from_secs(1))[0].to_string(),
            "two has not moved for 59 s (limit 40 s)"
        );
        drop(two);
        assert!(names(&health, start + LIMIT * 3 - Duration::from_secs(1)).is_empty());
    }

    #[test]
    fn a_loop_that_has_ended_or_an_agent_that_stops_does_not_stand_still() {
        let start = Instant::now();
        let health = Health::new(start);
        let beat = health.beat("one".to_owned(), LIMIT, start);
        health.set_phase(Phase::Stopping);
        assert!(names(&health, start + LIMIT * 9).is_empty());
        health.set_phase(Phase::Reading("group 7".to_owned()));
        assert_eq!(names(&health, start + LIMIT * 9), ["one"]);
        drop(beat);
        assert!(names(&health, start + LIMIT * 9).is_empty());
    }

    #[test]
    fn what_is_lacking_is_said_once_and_is_a_metric() {
        let health = Health::new(Instant::now());
        health.lacks(Shortcoming::NoConntrack, "first");
        health.lacks(Shortcoming::NoConntrack, "second");
        assert_eq!(
            health.shortcomings(),
            [(Shortcoming::NoConntrack, "first".to_owned())]
        );
        let mut seen = Vec::new();
        (health.metric().read)(&mut |name, count| seen.push((name.to_owned(), count)));
        assert_eq!(seen.len(), Shortcoming::ALL.len());
        for (name, count) in seen {
            assert_eq!(count, u64::from(name == "no-conntrack"), "{name}");
        }
    }
}
