//! Token buckets, exact: one token is `period` units, and each nanosecond brings `count` units.

use std::time::Instant;

/// `count` per `period`, and `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) count: u32,
    /// ns; at most an hour.
    pub(super) period: u64,
    /// 1 to 1 000 000: a full bucket fits a u64.
    pub(super) burst: u32,
}

impl Rate {
    const fn full(&self) -> u64 {
        self.period * self.burst as u64
    }

    /// How long an empty bucket takes to be full, ns.
    pub(super) fn filling(&self) -> u64 {
        self.full().div_ceil(self.count.into())
    }
}

/// In any span of `t` it gives at most `burst + t * count / period` tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    units: u64,
    at: Instant,
}

impl Bucket {
    pub(super) const fn full(rate: &Rate, now: Instant) -> Self {
        Self {
            units: rate.full(),
            at: now,
        }
    }

    /// Takes a token, if there is one. A `now` before an earlier one counts as that.
    pub(super) fn take(&mut self, rate: &Rate, now: Instant) -> bool {
        self.fill(rate, now);
        if self.units < rate.period {
            return false;
        }
        self.units -= rate.period;
        true
    }

    /// Whether it is like a new one.
    pub(super) fn is_full(&mut self, rate: &Rate, now: Instant) -> bool {
        self.fill(rate, now);
        self.units == rate.full()
    }

    fn fill(&mut self, rate: &Rate, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let more = elapsed.saturating_mul(rate.count.into());
        self.units = self.units.saturating_add(more).min(rate.full());
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_span_has_more_than_the_burst_and_the_rate(
            count in 1_u32..50, burst in 1_u32..20, steps in prop::collection::vec(0_u64..200_000_000, 1..200)
        ) {
            let rate = Rate { count, period: 1_000_000_000, burst };
            let start = Instant::now();
            let mut bucket = Bucket::full(&rate, start);
            let (mut at, mut given) = (0, Vec::new());
            for step in steps {
                at += step;
                if bucket.take(&rate, start + Duration::from_nanos(at)) {
                    given.push(at);
                }
            }
            for (from, first) in given.iter().enumerate() {
                for (to, last) in given.iter().enumerate().skip(from) {
                    let tokens = (to - from + 1) as u64;
                    let most = u64::from(burst) * rate.period + (last - first) * u64::from(count);
                    prop_assert!(tokens * rate.period <= most);
                }
            }
        }

        #[test]
        fn nothing_is_refused_below_the_rate(count in 1_u32..1000, packets in 1_u64..300) {
            let rate = Rate { count, period: 1_000_000_000, burst: 1 };
            let start = Instant::now();
            let mut bucket = Bucket::full(&rate, start);
            let step = rate.period.div_ceil(count.into());
            for packet in 0..packets {
                prop_assert!(bucket.take(&rate, start + Duration::from_nanos(packet * step)));
            }
        }
    }

    #[test]
    fn the_largest_bucket_does_not_overflow() {
        let rate = Rate {
            count: u32::MAX,
            period: 3_600_000_000_000,
            burst: 1_000_000,
        };
        let now = Instant::now();
        let mut bucket = Bucket::full(&rate, now);
        assert!(bucket.take(&rate, now));
        assert!(bucket.is_full(&rate, now + Duration::from_secs(1_000_000)));
    }
}
