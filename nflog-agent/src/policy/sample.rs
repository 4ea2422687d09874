//! One of `n`: of each `n` packets that a rule matches, exactly one, at a place that cannot be foreseen.
//!
//! Why not every n-th: what repeats with a period that shares a factor with `n` would be seen always or never. Why not by a hash of the
//! tuple: that samples connections, and one large one kept or not makes counts times `n` far too large or too small. Why not each by
//! itself with probability `1/n`: the number kept would vary by its square root. Here every packet has the chance `1/n`, so that
//! counts times `n` are right on average, and they are never off by as much as `n`.

/// The state of one rule.
#[derive(Clone, Debug)]
pub(super) struct Sampler {
    n: u32,
    /// Packets of the current `n` that were seen.
    seen: u32,
    /// Which of them is kept.
    kept: u32,
    random: u64,
}

impl Sampler {
    /// `seed`: other rules and namespaces keep others.
    pub(super) fn new(n: u32, seed: u64) -> Self {
        let mut sampler = Self {
            n: n.max(1),
            seen: 0,
            kept: 0,
            random: seed,
        };
        sampler.choose();
        sampler
    }

    /// Whether the next packet is kept.
    pub(super) fn take(&mut self) -> bool {
        let kept = self.seen == self.kept;
        self.seen += 1;
        if self.seen == self.n {
            self.seen = 0;
            self.choose();
        }
        kept
    }

    /// SplitMix64, scaled to `0..n`.
    fn choose(&mut self) {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let scaled = (u128::from(bits) * u128::from(self.n)) >> 64;
        self.kept = u32::try_from(scaled).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn exactly_one_of_each_n_is_kept(n in 1_u32..50, seed: u64, strata in 1_u32..20) {
            let mut sampler = Sampler::new(n, seed);
            for _ in 0..strata {
                prop_assert_eq!((0..n).filter(|_| sampler.take()).count(), 1);
            }
        }
    }

    #[test]
    fn each_place_is_kept_about_equally_often() {
        let (n, strata) = (10, 10_000_u32);
        let mut sampler = Sampler::new(n, 7);
        let mut kept = [0_u32; 10];
        for _ in 0..strata {
            for count in &mut kept {
                *count += u32::from(sampler.take());
            }
        }
        // 1000 expected, standard deviation 30.
        assert!(kept.iter().all(|count| (800..1200).contains(count)), "{kept:?}");
    }
}
