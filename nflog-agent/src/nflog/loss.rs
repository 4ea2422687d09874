//! The account of everything that was logged for a reader and did not arrive. Pure.
//!
//! Invariant: for each group with `SEQ`, packets numbered since the bind = numbered entries handed out + gaps + (if
//! `pending`) a rest that the group's next packet reveals.

use super::handover::Handover;
use super::seq::SeqTracker;

/// Totals since the reader was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// Packets missing in the sequence numbers, all groups. Exact; stays 0 without [`Flags::SEQ`](super::Flags::SEQ).
    pub gaps: u64,
    /// ENOBUFS reports, one per episode of congestion; none with `no_enobufs`.
    pub enobufs: u64,
    /// Datagrams longer than the receive buffer; their last messages are missing.
    pub truncated: u64,
    /// Datagrams that could not be read to the end.
    pub malformed: u64,
    /// Datagrams that the kernel dropped because the socket's receive buffer was full. Their packets are in `gaps` once a
    /// later packet of the group arrives.
    pub sk_drops: u64,
    /// Datagrams were dropped, and not every group has had a packet since that would show how many packets were in them. For
    /// good if such a group was unbound: then nothing will show it any more.
    pub pending: bool,
}

/// Whether a group's loss is fully counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    /// All loss known of is in `gaps`.
    No,
    /// Something was dropped; the queue may still hold packets from before it.
    Dropped,
    /// The queue has been empty since: the next packet is from after the drop, and its number tells.
    Drained,
}

#[derive(Clone, Debug)]
struct Group {
    number: u16,
    tracker: SeqTracker,
    gaps: u64,
    pending: Pending,
    /// Nothing more is logged to it; its last packets may still be queued.
    ended: bool,
}

/// Keeps the account of one reader.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// Sorted by number.
    groups: Vec<Group>,
    totals: Loss,
    last_sk_drops: u32,
}

impl Account {
    /// Starts when the groups are bound.
    pub(super) fn new(groups: &[u16]) -> Self {
        let mut account = Self {
            groups: Vec::with_capacity(groups.len()),
            totals: Loss::default(),
            last_sk_drops: 0,
        };
        for &group in groups {
            account.add(group);
        }
        account
    }

    /// Goes on with the account of another reader of the same socket, whose groups follow by [`Account::resume`].
    pub(super) fn of_socket(handover: &Handover) -> Self {
        Self {
            groups: Vec::new(),
            totals: Loss::default(),
            last_sk_drops: handover.drops,
        }
    }

    /// A group was bound: it counts from 0.
    pub(super) fn add(&mut self, number: u16) {
        self.insert(number, SeqTracker::new());
    }

    /// A group was bound by another reader: it counts on.
    pub(super) fn resume(&mut self, number: u16, handover: &Handover) {
        self.insert(number, SeqTracker::resume(handover.next(number)));
        if handover.pending {
            self.dropped();
        }
    }

    /// A group was unbound, and what was logged to it before is still to come.
    pub(super) fn end(&mut self, number: u16) {
        if let Ok(index) = self.index(number) {
            self.groups[index].ended = true;
        }
    }

    fn insert(&mut self, number: u16, tracker: SeqTracker) {
        let index = self.groups.partition_point(|group| group.number < number);
        let group = Group {
            number,
            tracker,
            gaps: 0,
            pending: Pending::No,
            ended: false,
        };
        self.groups.insert(index, group);
    }

    /// Writes down what another reader of this socket needs to go on.
    pub(super) fn hand_over(&self, handover: &mut Handover) {
        handover.drops = self.last_sk_drops;
        handover.pending = self.totals().pending;
        handover.next.clear();
        let numbers = self.groups.iter().filter(|group| !group.ended);
        handover
            .next
            .extend(numbers.filter_map(|group| Some((group.number, group.tracker.next()?))));
    }

    /// A group was unbound, and its last packet taken. Its gaps stay in the totals.
    pub(super) fn remove(&mut self, number: u16) {
        if let Ok(index) = self.index(number) {
            let group = self.groups.remove(index);
            // Kept here, it is never taken back.
            self.totals.pending |= group.pending != Pending::No;
        }
    }

    fn index(&self, number: u16) -> Result<usize, usize> {
        self.groups.binary_search_by_key(&number, |group| group.number)
    }

    /// Takes an entry's number; returns the packets of its group that are missing before it.
    pub(super) fn entry(&mut self, group: u16, seq: Option<u32>) -> u32 {
        let Ok(index) = self.index(group) else {
            return 0;
        };
        let (group, Some(seq)) = (&mut self.groups[index], seq) else {
            return 0;
        };
        let lost = group.tracker.observe(seq).lost();
        group.gaps += u64::from(lost);
        self.totals.gaps += u64::from(lost);
        if group.pending == Pending::Drained {
            group.pending = Pending::No;
        }
        lost
    }

    /// The queue was found empty.
    pub(super) fn empty(&mut self) {
        for group in &mut self.groups {
            if group.pending == Pending::Dropped {
                group.pending = Pending::Drained;
            }
        }
    }

    /// Takes the socket's drop counter; returns whether it has grown.
    pub(super) fn sk_drops(&mut self, drops: u32) -> bool {
        let new = drops.wrapping_sub(self.last_sk_drops);
        if new > 0 {
            self.last_sk_drops = drops;
            self.totals.sk_drops += u64::from(new);
            self.dropped();
        }
        new > 0
    }

    /// ENOBUFS was reported.
    pub(super) fn enobufs(&mut self) {
        self.totals.enobufs += 1;
        self.dropped();
    }

    /// A datagram was cut: the messages that are missing have numbers.
    pub(super) fn truncated(&mut self) {
        self.totals.truncated += 1;
        self.dropped();
    }

    /// A datagram could not be read to the end: likewise.
    pub(super) fn malformed(&mut self) {
        self.totals.malformed += 1;
        self.dropped();
    }

    fn dropped(&mut self) {
        for group in self.groups.iter_mut().filter(|group| !group.ended) {
            group.pending = Pending::Dropped;
        }
    }

    /// The totals.
    pub(super) fn totals(&self) -> Loss {
        Loss {
            pending: self.totals.pending || self.groups.iter().any(|group| group.pending != Pending::No),
            ..self.totals
        }
    }

    /// Packets missing in one group; `None` if it is not ours.
    pub(super) fn gaps(&self, group: u16) -> Option<u64> {
        let index = self.index(group).ok()?;
        Some(self.groups[index].gaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_kept_per_group() {
        let mut account = Account::new(&[9, 4]);
        assert_eq!(account.entry(9, Some(0)), 0);
        assert_eq!(account.entry(4, Some(2)), 2);
        assert_eq!(account.entry(9, Some(4)), 3);
        assert_eq!(account.gaps(9), Some(3));
        assert_eq!(account.gaps(4), Some(2));
        assert_eq!(account.gaps(5), None);
        assert_eq!(account.totals().gaps, 5);
    }

    #[test]
    fn entries_without_number_or_of_another_group_count_nothing() {
        let mut account = Account::new(&[4]);
        assert_eq!(account.entry(4, None), 0);
        assert_eq!(account.entry(5, Some(100)), 0);
        assert_eq!(account.totals(), Loss::default());
    }

    #[test]
    fn drops_stay_pending_until_a_packet_from_after_them() {
        let mut account = Account::new(&[4]);
        assert!(account.sk_drops(3));
        assert!(!account.sk_drops(3));
        assert!(account.totals().pending);
        // Was in the queue before the drop.
        account.entry(4, Some(0));
        assert!(account.totals().pending);
        account.empty();
        assert!(account.totals().pending);
        assert_eq!(account.entry(4, Some(40)), 39);
        let totals = account.totals();
        assert_eq!((totals.sk_drops, totals.gaps, totals.pending), (3, 39, false));
    }

    #[test]
    fn another_group_stays_pending() {
        let mut account = Account::new(&[4, 5]);
        account.enobufs();
        account.empty();
        account.entry(4, Some(1));
        assert!(account.totals().pending);
        account.entry(5, Some(0));
        assert!(!account.totals().pending);
        assert_eq!(account.totals().enobufs, 1);
    }

    #[test]
    fn a_group_that_is_bound_anew_counts_from_0() {
        let mut account = Account::new(&[4, 5]);
        account.entry(4, Some(2));
        account.remove(4);
        assert_eq!(account.gaps(4), None);
        account.add(4);
        // Ahead of the number of before: without the rebind this would be 7 packets.
        assert_eq!(account.entry(4, Some(10)), 10);
        assert_eq!((account.gaps(4), account.totals().gaps), (Some(10), 12));
        assert!(!account.totals().pending);
    }

    #[test]
    fn the_loss_of_a_group_that_is_gone_stays_pending() {
        let mut account = Account::new(&[4, 5]);
        account.sk_drops(1);
        account.empty();
        account.remove(4);
        account.entry(5, Some(0));
        account.add(4);
        account.entry(4, Some(0));
        assert!(account.totals().pending);
    }

    #[test]
    fn the_drop_counter_may_wrap() {
        let mut account = Account::new(&[4]);
        account.sk_drops(u32::MAX);
        account.sk_drops(1);
        assert_eq!(account.totals().sk_drops, u64::from(u32::MAX) + 2);
    }

    #[test]
    fn an_account_that_goes_on_counts_what_was_lost_between_and_nothing_twice() {
        let mut first = Account::new(&[4, 5]);
        first.entry(4, Some(6));
        first.sk_drops(3);
        let mut handover = Handover::default();
        first.hand_over(&mut handover);
        let mut second = Account::of_socket(&handover);
        second.resume(4, &handover);
        second.resume(5, &handover);
        second.add(6);
        assert!(second.totals().pending, "the three datagrams");
        assert!(!second.sk_drops(3));
        assert_eq!(second.entry(4, Some(9)), 2);
        assert_eq!(second.entry(5, Some(1)), 1);
        assert_eq!(second.entry(6, Some(0)), 0);
        assert_eq!(second.totals().gaps, 3);
        assert!(second.sk_drops(4));
        second.end(6);
        second.empty();
        second.entry(4, Some(10));
        second.entry(5, Some(2));
        assert!(
            second.totals().pending,
            "group 6 had not ended when the fourth was dropped"
        );
        second.hand_over(&mut handover);
        assert_eq!((handover.next(4), handover.next(6)), (Some(11), None));
    }

    #[test]
    fn cut_and_unreadable_datagrams_are_counted_apart() {
        let mut account = Account::new(&[4]);
        account.truncated();
        account.malformed();
        let totals = account.totals();
        assert_eq!((totals.truncated, totals.malformed, totals.pending), (1, 1, true));
    }
}
