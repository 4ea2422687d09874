//! A limit on the share of time that something costly may take: a token bucket of time.

use std::time::{Duration, Instant};

/// Lets work of unknown length run at full speed for a burst, and later no more than its share of the time.
#[derive(Debug)]
pub(super) struct Budget {
    /// The share is 1/`divisor`.
    divisor: u32,
    burst: Duration,
    /// Time that may be spent now.
    credit: Duration,
    /// Time spent beyond the credit, paid back before the next run.
    debt: Duration,
    updated: Instant,
}

impl Budget {
    pub(super) fn new(divisor: u32, burst: Duration, now: Instant) -> Self {
        Self {
            divisor,
            burst,
            credit: burst,
            debt: Duration::ZERO,
            updated: now,
        }
    }

    /// Whether work may start at `now`.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.updated) / self.divisor;
        self.updated = now;
        let left = earned.saturating_sub(self.debt);
        self.debt = self.debt.saturating_sub(earned);
        self.credit = (self.credit + left).min(self.burst);
        self.debt.is_zero() && !self.credit.is_zero()
    }

    /// Charges work that took `spent`.
    pub(super) fn charge(&mut self, spent: Duration) {
        self.debt += spent.saturating_sub(self.credit);
        self.credit = self.credit.saturating_sub(spent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn after_the_burst_only_the_share_is_allowed() {
        let start = Instant::now();
        let mut budget = Budget::new(5, 20 * MS, start);
        assert!(budget.allows(start));
        budget.charge(30 * MS);
        assert!(!budget.allows(start));
        assert!(!budget.allows(start + 50 * MS));
        assert!(budget.allows(start + 55 * MS));
    }

    #[test]
    fn idle_time_earns_no_more_than_the_burst() {
        let start = Instant::now();
        let mut budget = Budget::new(5, 20 * MS, start);
        let later = start + 10_000 * MS;
        assert!(budget.allows(later));
        budget.charge(20 * MS);
        assert!(!budget.allows(later));
    }
}
