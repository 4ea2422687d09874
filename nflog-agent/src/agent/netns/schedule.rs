//! When to look for namespaces again. Pure: time is an argument.
//!
//! - At least every interval, and soon after something hinted at a change.
//! - A hint can come before the change itself: a cgroup is made before a process is in it, and a process is in it before it has its
//!   namespace. So a hint is followed by several looks with growing pauses.
//! - Looking takes at most a twentieth of the time, whatever the hints.

use std::time::{Duration, Instant};

/// From a hint to the first look: what belongs together usually comes together.
const SETTLE: Duration = Duration::from_millis(50);
/// Pauses grow by this factor after a hint, until they reach the interval.
const GROWTH: u32 = 3;
/// Shortest time from one look to the next.
const PAUSE: Duration = Duration::from_millis(100);
/// A pause is at least as many times as long as the look before.
const SHARE: u32 = 20;

/// The next look.
#[derive(Debug)]
pub(in crate::agent) struct Schedule {
    interval: Duration,
    next: Instant,
    not_before: Instant,
    /// From the next look to the one after it.
    pause: Duration,
}

impl Schedule {
    /// The first look is due `now`.
    pub(in crate::agent) const fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            next: now,
            not_before: now,
            pause: interval,
        }
    }

    /// Another interval; the next look is due `now`.
    pub(in crate::agent) const fn set_interval(&mut self, interval: Duration, now: Instant) {
        self.interval = interval;
        self.pause = interval;
        self.next = now;
    }

    /// Something hints at a change.
    pub(in crate::agent) fn hint(&mut self, now: Instant) {
        self.next = self.next.min(now + SETTLE);
        self.pause = SETTLE * GROWTH;
    }

    /// Whether to look.
    pub(in crate::agent) fn due(&self, now: Instant) -> bool {
        now >= self.next.max(self.not_before)
    }

    /// Looked, from `began` to `now`.
    pub(in crate::agent) fn looked(&mut self, began: Instant, now: Instant) {
        self.not_before = now + PAUSE.max((now - began) * SHARE);
        self.next = now + self.pause.min(self.interval);
        self.pause = (self.pause * GROWTH).min(self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    /// When it looks in a minute, in ms, with hints at these times and looks that take `cost`.
    fn looks(cost: Duration, hinted: impl Fn(u64) -> bool) -> Vec<u64> {
        let start = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, start);
        let mut looks = Vec::new();
        let mut ms = 0;
        while ms < 60_000 {
            let now = start + Duration::from_millis(ms);
            if hinted(ms) {
                schedule.hint(now);
            }
            if schedule.due(now) {
                looks.push(ms);
                schedule.looked(now, now + cost);
                ms += u64::try_from(cost.as_millis()).unwrap();
            }
            ms += 10;
        }
        looks
    }

    #[test]
    fn without_hints_it_looks_once_an_interval() {
        assert_eq!(looks(Duration::ZERO, |_| false)[..3], [0, 5000, 10_000]);
    }

    #[test]
    fn a_hint_brings_looks_with_growing_pauses() {
        let looks = looks(Duration::ZERO, |ms| ms == 7000);
        assert_eq!(looks[..7], [0, 5000, 7050, 7200, 7650, 9000, 13_050]);
    }

    #[test]
    fn a_storm_of_hints_costs_at_most_a_twentieth_of_the_time() {
        let cheap = looks(Duration::ZERO, |_| true);
        assert!((300..=601).contains(&cheap.len()), "{}", cheap.len());
        let dear = looks(Duration::from_millis(200), |_| true);
        assert!((10..=15).contains(&dear.len()), "{}", dear.len());
    }
}
