//! What the operator hears of the export: what makes it fail, each cause once; the recovery; and losses at most every 10 s per reason.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::retry::Failure;
use crate::telemetry::ledger::LossReason;

/// Least time between two messages about the same reason.
const INTERVAL: Duration = Duration::from_secs(10);
/// Causes told from the first failure to the next success: a collector that comes back may fail for another one, as with a
/// certificate that expired meanwhile.
const CAUSES: usize = 4;

#[derive(Debug)]
pub(super) struct Reporter {
    target: String,
    hint: Option<&'static str>,
    failing: AtomicBool,
    /// Causes told since the last success.
    told: Mutex<Vec<String>>,
    losses: [Mutex<Throttle>; LossReason::ALL.len()],
}

#[derive(Debug, Default)]
struct Throttle {
    spoke: Option<Instant>,
    unsaid: u64,
}

impl Throttle {
    /// The records to speak of now; `None`: not yet.
    fn admit(&mut self, records: u64, now: Instant) -> Option<u64> {
        self.unsaid += records;
        if self
            .spoke
            .is_some_and(|spoke| now.saturating_duration_since(spoke) < INTERVAL)
        {
            return None;
        }
        self.spoke = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Reporter {
    pub(super) fn new(target: &str, hint: Option<&'static str>) -> Self {
        Self {
            target: target.to_owned(),
            hint,
            failing: AtomicBool::new(false),
            told: Mutex::default(),
            losses: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// A request failed and will be tried again.
    pub(super) fn failed(&self, failure: &Failure) {
        self.failing.store(true, Ordering::Relaxed);
        if !self.is_news(failure) {
            tracing::debug!(target: "nflog_agent::export", "{}: {failure}", self.target);
            return;
        }
        let (target, hint) = (&self.target, self.hint.unwrap_or_default());
        let separator = if hint.is_empty() { "" } else { "; " };
        tracing::warn!("cannot deliver to {target}: {failure}; trying again{separator}{hint}");
    }

    fn is_news(&self, failure: &Failure) -> bool {
        // Another time or port is no other cause.
        let mut cause = failure.to_string();
        cause.retain(|letter| !letter.is_ascii_digit());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let news = told.len() < CAUSES && !told.contains(&cause);
        if news {
            told.push(cause);
        }
        news
    }

    /// A request succeeded.
    pub(super) fn delivered(&self) {
        if self.failing.load(Ordering::Relaxed) && self.failing.swap(false, Ordering::Relaxed) {
            self.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
            tracing::info!("delivering to {} again", self.target);
        }
    }

    /// The server took a request and had something to say.
    pub(super) fn warning(&self, message: &str) {
        tracing::debug!("{} says: {message}", self.target);
    }

    /// Records were lost.
    pub(super) fn lost(&self, records: u64, reason: LossReason, why: &str) {
        let throttle = &self.losses[reason as usize];
        let admitted = {
            let mut throttle = throttle.lock().unwrap_or_else(PoisonError::into_inner);
            throttle.admit(records, Instant::now())
        };
        let Some(records) = admitted else { return };
        let (target, name) = (&self.target, reason.name());
        match reason {
            LossReason::Pipe => tracing::debug!("lost {records} records: {why}"),
            LossReason::QueueFull => tracing::warn!(
                "lost {records} records ({name}): {target} takes them more slowly than they come, or is down"
            ),
            LossReason::SpoolFull | LossReason::SpoolExpired => tracing::warn!(
                "lost {records} records ({name}): {target} has been down, or too slow, for longer than the spool lasts"
            ),
            LossReason::Rejected
            | LossReason::SpoolFailed
            | LossReason::SpoolUnreadable
            | LossReason::Permanent
            | LossReason::RetriesExhausted
            | LossReason::Shutdown
            | LossReason::Unsettled => {
                let separator = if why.is_empty() { "" } else { ": " };
                tracing::warn!("lost {records} records on the way to {target} ({name}){separator}{why}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_news_once_until_a_request_succeeds_and_only_a_few_are() {
        let reporter = Reporter::new("there", None);
        let failure = |reason: &str| Failure::Connection {
            reason: reason.to_owned(),
        };
        assert!(reporter.is_news(&failure("refused")));
        assert!(!reporter.is_news(&failure("refused")));
        assert!(reporter.is_news(&failure("expired 17 s ago")));
        assert!(!reporter.is_news(&failure("expired 18 s ago")));
        let more = ["a", "b", "c", "d"].map(|reason| reporter.is_news(&failure(reason)));
        assert_eq!(more, [true, true, false, false]);
        reporter.failed(&failure("refused"));
        reporter.delivered();
        assert!(reporter.is_news(&failure("refused")));
    }

    #[test]
    fn losses_are_told_at_once_and_then_summed_up() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        assert_eq!(throttle.admit(3, start), Some(3));
        assert_eq!(throttle.admit(4, start), None);
        assert_eq!(throttle.admit(5, start + INTERVAL / 2), None);
        assert_eq!(throttle.admit(1, start + INTERVAL), Some(10));
    }
}
