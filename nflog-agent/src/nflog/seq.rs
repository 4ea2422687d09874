//! Gaps in the sequence numbers of one group. Pure.
//!
//! The kernel numbers the packets of a group from 0 at each bind, under a lock and in the order of delivery: numbers that
//! are missing belong to packets that were lost after they were numbered.

/// Half the number space: a step of more is a step back.
const HALF: u32 = 1 << 31;

/// Follows the numbers of one group from its bind on, or from where another reader left off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqTracker {
    /// `None`: whatever comes is the first.
    next: Option<u32>,
}

impl Default for SeqTracker {
    fn default() -> Self {
        Self::new()
    }
}

/// What a number says about the packets before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is missing.
    Next,
    /// So many packets are missing. Wraps of the 32-bit number are followed; a loss of 2^31 packets or more at once would
    /// be read as a restart.
    Gap(u32),
    /// The group was bound anew and counts from 0; so many packets are missing since then.
    Restart(u32),
}

impl Step {
    /// Packets missing.
    #[must_use]
    pub const fn lost(self) -> u32 {
        match self {
            Self::Next => 0,
            Self::Gap(lost) | Self::Restart(lost) => lost,
        }
    }
}

impl SeqTracker {
    /// Starts at a bind: the first number should be 0.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: Some(0) }
    }

    /// Goes on where another reader left off; `None` if that is not known: then nothing is missing before the first number.
    #[must_use]
    pub const fn resume(next: Option<u32>) -> Self {
        Self { next }
    }

    /// The number that the next packet should have; `None` if that is not known.
    #[must_use]
    pub const fn next(&self) -> Option<u32> {
        self.next
    }

    /// Takes the number of the next packet received.
    pub const fn observe(&mut self, seq: u32) -> Step {
        let expected = match self.next {
            Some(next) => next,
            None => seq,
        };
        self.next = Some(seq.wrapping_add(1));
        match seq.wrapping_sub(expected) {
            0 => Step::Next,
            ahead if ahead < HALF => Step::Gap(ahead),
            _ => Step::Restart(seq),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_packet_after_the_bind_is_number_0() {
        assert_eq!(SeqTracker::new().observe(0), Step::Next);
        assert_eq!(SeqTracker::new().observe(3), Step::Gap(3));
    }

    #[test]
    fn a_gap_is_counted_once() {
        let mut tracker = SeqTracker::new();
        assert_eq!(tracker.observe(0), Step::Next);
        assert_eq!(tracker.observe(5), Step::Gap(4));
        assert_eq!(tracker.observe(6), Step::Next);
    }

    #[test]
    fn the_wrap_is_no_gap_and_hides_none() {
        let mut tracker = SeqTracker::resume(Some(u32::MAX));
        assert_eq!(tracker.observe(u32::MAX), Step::Next);
        assert_eq!(tracker.observe(0), Step::Next);
        let mut tracker = SeqTracker::resume(Some(u32::MAX));
        assert_eq!(tracker.observe(1), Step::Gap(2));
    }

    #[test]
    fn a_step_back_is_a_new_bind() {
        let mut tracker = SeqTracker::resume(Some(1000));
        assert_eq!(tracker.observe(0), Step::Restart(0));
        assert_eq!(tracker.observe(1), Step::Next);
        let mut tracker = SeqTracker::resume(Some(1000));
        assert_eq!(tracker.observe(2), Step::Restart(2));
    }

    #[test]
    fn a_tracker_that_goes_on_counts_from_where_the_other_left_off() {
        let mut first = SeqTracker::new();
        first.observe(41);
        let mut second = SeqTracker::resume(first.next());
        assert_eq!(second.observe(45), Step::Gap(3));
        let mut unknown = SeqTracker::resume(None);
        assert_eq!(unknown.observe(45), Step::Next);
        assert_eq!(unknown.observe(47), Step::Gap(1));
    }

    proptest! {
        #[test]
        fn received_and_lost_add_up_to_sent(start in any::<u32>(), kept in prop::collection::vec(any::<bool>(), 1..300)) {
            let mut tracker = SeqTracker::resume(Some(start));
            let mut lost = 0_u32;
            let mut received = 0;
            let last = kept.iter().rposition(|&kept| kept).map_or(0, |last| last + 1);
            for (offset, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
                lost += tracker.observe(start.wrapping_add(u32::try_from(offset).unwrap())).lost();
                received += 1;
            }
            prop_assert_eq!(usize::try_from(lost).unwrap() + received, last);
        }
    }
}
