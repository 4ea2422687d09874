//! Signs of life, as long as every loop moves. Pure: time is an argument.
//!
//! A sign is due twice per interval, and goes out only while each loop has moved within half an interval, or whatever less it may rest.

use std::time::{Duration, Instant};

use crate::telemetry::health::Stalled;

/// What [`Watchdog::look`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It is not time yet.
    Early,
    /// All move: tell the manager.
    Sign,
    /// This loop does not move. Said once.
    Stuck(Stalled),
    /// Still so.
    StillStuck,
}

/// When signs of life are due, and whether there is life.
#[derive(Debug)]
pub(crate) struct Watchdog {
    every: Duration,
    due: Instant,
    stuck: bool,
}

impl Watchdog {
    /// For a manager that waits for `interval`.
    pub(crate) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            every: interval / 2,
            due: now,
            stuck: false,
        }
    }

    /// The longest that a loop may do nothing.
    pub(crate) fn longest_rest(interval: Duration) -> Duration {
        interval / 4
    }

    /// `stalled`: a loop that has not moved for the time that it is given.
    pub(crate) fn look(&mut self, now: Instant, stalled: impl FnOnce(Duration) -> Option<Stalled>) -> Life {
        if now < self.due {
            return Life::Early;
        }
        if let Some(stalled) = stalled(self.every) {
            let first = !std::mem::replace(&mut self.stuck, true);
            return if first {
                Life::Stuck(stalled)
            } else {
                Life::StillStuck
            };
        }
        self.stuck = false;
        self.due = now + self.every;
        Life::Sign
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::health::Health;

    #[test]
    fn signs_come_twice_per_interval_and_stop_with_any_loop() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let health = Health::new(start);
        let limit = Duration::from_secs(20);
        let [first, second] = ["first", "second"].map(|name| health.beat(name.to_owned(), limit, start));
        let mut dog = Watchdog::new(Duration::from_secs(10), start);
        let mut look = |seconds| dog.look(at(seconds), |most| health.stalled_for(at(seconds), most).pop());
        assert_eq!((look(0), look(4)), (Life::Sign, Life::Early));
        first.beat(at(4));
        second.beat(at(4));
        assert_eq!(look(5), Life::Sign);
        first.beat(at(9));
        assert_eq!(look(9), Life::Early);
        assert!(matches!(look(10), Life::Stuck(stalled) if stalled.name == "second"));
        assert_eq!(look(11), Life::StillStuck);
        second.beat(at(12));
        assert_eq!((look(12), look(16)), (Life::Sign, Life::Early));
        assert!(matches!(look(17), Life::Stuck(_)));
    }
}
