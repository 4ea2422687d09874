//! Signs of life, as long as every loop moves. Pure: time is an argument.
//!
//! Each loop counts its rounds. A sign is due twice per interval, and goes out only when every loop has gone round since the last one;
//! loops go round twice as often when they have nothing to do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The rounds of one loop. Clones count the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// One more round.
    pub(crate) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Rounds so far.
    pub(crate) fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What [`Watchdog::look`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It is not time yet.
    Early,
    /// All move: tell the manager.
    Sign,
    /// This loop does not move. Said once.
    Stuck(u32),
    /// Still so.
    StillStuck,
}

/// When signs of life are due, and whether there is life.
#[derive(Debug)]
pub(crate) struct Watchdog {
    every: Duration,
    due: Instant,
    /// Rounds of each loop at the last sign.
    seen: HashMap<u32, u64>,
    stuck: bool,
}

impl Watchdog {
    /// For a manager that waits for `interval`.
    pub(crate) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            every: interval / 2,
            due: now,
            seen: HashMap::new(),
            stuck: false,
        }
    }

    /// The longest that a loop may do nothing.
    pub(crate) fn longest_rest(interval: Duration) -> Duration {
        interval / 4
    }

    /// Compares with the last sign. `loops`: each loop's number, and its rounds.
    pub(crate) fn look(&mut self, now: Instant, loops: impl Iterator<Item = (u32, u64)>) -> Life {
        if now < self.due {
            return Life::Early;
        }
        let rounds: HashMap<_, _> = loops.collect();
        let still = rounds
            .iter()
            .find(|(number, rounds)| self.seen.get(number) == Some(rounds));
        if let Some((&number, _)) = still {
            let first = !std::mem::replace(&mut self.stuck, true);
            return if first {
                Life::Stuck(number)
            } else {
                Life::StillStuck
            };
        }
        self.stuck = false;
        self.seen = rounds;
        self.due = now + self.every;
        Life::Sign
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_come_twice_per_interval_and_stop_with_any_loop() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (first, second) = (Pulse::default(), Pulse::default());
        let mut dog = Watchdog::new(Duration::from_secs(10), start);
        let mut look = |seconds| {
            let loops = [(1, first.beats()), (2, second.beats())];
            dog.look(at(seconds), loops.into_iter())
        };
        assert_eq!((look(0), look(4)), (Life::Sign, Life::Early));
        first.beat();
        second.beat();
        assert_eq!(look(5), Life::Sign);
        first.beat();
        assert_eq!(
            (look(9), look(10), look(11)),
            (Life::Early, Life::Stuck(2), Life::StillStuck)
        );
        second.clone().beat();
        assert_eq!((look(12), look(16)), (Life::Sign, Life::Early));
        assert!(matches!(look(17), Life::Stuck(_)));
    }

    #[test]
    fn a_loop_that_is_new_or_gone_is_no_loop_that_is_stuck() {
        let start = Instant::now();
        let mut dog = Watchdog::new(Duration::from_secs(2), start);
        assert_eq!(dog.look(start, [(1, 0)].into_iter()), Life::Sign);
        let later = start + Duration::from_secs(1);
        assert_eq!(dog.look(later, [(2, 0)].into_iter()), Life::Sign);
    }
}
