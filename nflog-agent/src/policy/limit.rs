//! Limits by key, with a bound on the keys.
//!
//! A bucket is forgotten only when it is full, for then a new one is the same. While all buckets are in use, keys that have none share
//! one more. So in any span of `t` a rule lets through at most `(max_keys + 1) * (burst + rate * t)` packets of one network namespace, and
//! of one key at most `2 * (burst + rate * t)`: from its own bucket and from the shared one. `per = "rule"`: `burst + rate * t`.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::time::{Duration, Instant};

use super::bucket::{Bucket, Rate};
use super::config::Per;
use crate::record::Record;

/// How often at most full buckets are looked for while there is no room: looking costs as much as there are keys.
const SWEEP: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
pub(super) struct LimitSpec {
    pub(super) rate: Rate,
    pub(super) per: Per,
    pub(super) max_keys: u32,
}

/// The state of one rule.
#[derive(Debug)]
pub(super) struct Limiter {
    spec: LimitSpec,
    /// By a keyed hash of the key: two that have the same share a bucket.
    buckets: HashMap<u64, Bucket>,
    hasher: RandomState,
    /// Of the rule itself; else of the keys for which there is no room.
    shared: Option<Bucket>,
    swept: Option<Instant>,
}

impl Limiter {
    pub(super) fn new(spec: LimitSpec) -> Self {
        Self {
            spec,
            buckets: HashMap::new(),
            hasher: RandomState::new(),
            shared: None,
            swept: None,
        }
    }

    /// Whether the packet is within the limit.
    pub(super) fn take(&mut self, record: &Record<'_>, now: Instant) -> bool {
        if self.spec.per == Per::Rule {
            return self.take_shared(now);
        }
        self.take_of(self.key(record), now)
    }

    fn take_of(&mut self, key: u64, now: Instant) -> bool {
        let rate = self.spec.rate;
        if let Some(bucket) = self.buckets.get_mut(&key) {
            return bucket.take(&rate, now);
        }
        if !self.has_room(now) {
            return self.take_shared(now);
        }
        let bucket = self
            .buckets
            .entry(key)
            .or_insert_with(|| Bucket::full(&rate, now));
        bucket.take(&rate, now)
    }

    fn take_shared(&mut self, now: Instant) -> bool {
        let rate = self.spec.rate;
        let bucket = self.shared.get_or_insert_with(|| Bucket::full(&rate, now));
        bucket.take(&rate, now)
    }

    fn has_room(&mut self, now: Instant) -> bool {
        let most = self.spec.max_keys as usize;
        if self.buckets.len() < most {
            return true;
        }
        let wait = SWEEP.min(Duration::from_nanos(self.spec.rate.filling()));
        if self
            .swept
            .is_some_and(|last| now.saturating_duration_since(last) < wait)
        {
            return false;
        }
        self.swept = Some(now);
        let rate = self.spec.rate;
        self.buckets.retain(|_, bucket| !bucket.is_full(&rate, now));
        self.buckets.len() < most
    }

    fn key(&self, record: &Record<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        match self.spec.per {
            Per::Rule => {}
            Per::Prefix => record.prefix.hash(&mut hasher),
            Per::Source => record.packet.source.hash(&mut hasher),
            Per::Owner => record
                .attribution
                .owner()
                .map(|owner| (owner.pid, owner.start_boottime))
                .hash(&mut hasher),
            Per::Workload => record.process.map(|process| &*process.workload).hash(&mut hasher),
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn neither_a_key_nor_all_together_exceed_what_is_said(
            packets in prop::collection::vec((0_u64..12, 0_u64..40_000_000), 1..400),
            max_keys in 1_u32..5, count in 1_u32..40, burst in 1_u32..5,
        ) {
            let rate = Rate { count, period: 1_000_000_000, burst };
            let mut limiter = Limiter::new(LimitSpec { rate, per: Per::Source, max_keys });
            let start = Instant::now();
            let (mut at, mut of_key, mut all) = (0, HashMap::<u64, u64>::new(), 0_u64);
            for (key, step) in packets {
                at += step;
                if limiter.take_of(key, start + Duration::from_nanos(at)) {
                    *of_key.entry(key).or_default() += 1;
                    all += 1;
                }
                prop_assert!(limiter.buckets.len() <= max_keys as usize);
                // Tokens that one bucket can have given by now, in units.
                let most = u64::from(burst) * rate.period + at * u64::from(count);
                prop_assert!(of_key.values().all(|given| given * rate.period <= 2 * most));
                prop_assert!(all * rate.period <= u64::from(max_keys + 1) * most);
            }
        }
    }
}
