//! The entries of one datagram.

use super::entry::Entry;
use super::frame::{Frame, Frames};
use super::loss::Account;

/// Iterator over the entries of one datagram. What is left when it is dropped still counts as received.
#[derive(Debug)]
pub struct Batch<'a> {
    frames: Frames<'a>,
    account: &'a mut Account,
    received_ns: u64,
    last_empty_ns: Option<u64>,
}

impl<'a> Batch<'a> {
    pub(super) const fn new(
        datagram: &'a [u8],
        account: &'a mut Account,
        received_ns: u64,
        last_empty_ns: Option<u64>,
    ) -> Self {
        Self {
            frames: Frames::new(datagram),
            account,
            received_ns,
            last_empty_ns,
        }
    }

    /// When the datagram was read, in ns of CLOCK_MONOTONIC (`bpf_ktime_get_ns`).
    #[must_use]
    pub const fn received_ns(&self) -> u64 {
        self.received_ns
    }

    /// A time at which the socket was empty, in ns of CLOCK_MONOTONIC: the batch was delivered to the socket after it, so
    /// its packets were logged after it less the flush timeout. `None` if the socket was never found empty.
    #[must_use]
    pub const fn last_empty_ns(&self) -> Option<u64> {
        self.last_empty_ns
    }
}

impl<'a> Iterator for Batch<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            match self.frames.next()? {
                Frame::Packet(body) => {
                    if let Some(mut entry) = Entry::decode(body) {
                        let lost = self.account.entry(entry.group(), entry.seq());
                        entry.set_lost_before(lost);
                        return Some(entry);
                    }
                    self.account.malformed();
                }
                Frame::Malformed { .. } => self.account.malformed(),
                // The end of the batch, or an answer to a request that was answered twice.
                Frame::Done | Frame::Answer { .. } | Frame::Other { .. } => {}
            }
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for _ in self.by_ref() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(group: u8, seq: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(28_u32.to_ne_bytes());
        bytes.extend(0x0400_u16.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([2, 0, 0, group]);
        bytes.extend(8_u16.to_ne_bytes());
        bytes.extend(12_u16.to_ne_bytes());
        bytes.extend(seq.to_be_bytes());
        bytes
    }

    #[test]
    fn each_entry_tells_what_is_missing_before_it() {
        let mut account = Account::new(&[5, 6]);
        let datagram = [packet(5, 0), packet(5, 3), packet(6, 1), packet(5, 4)].concat();
        let batch = Batch::new(&datagram, &mut account, 20, Some(10));
        assert_eq!((batch.received_ns(), batch.last_empty_ns()), (20, Some(10)));
        let lost: Vec<_> = batch.map(|entry| (entry.group(), entry.lost_before())).collect();
        assert_eq!(lost, [(5, 0), (5, 2), (6, 1), (5, 0)]);
        assert_eq!(account.totals().gaps, 3);
    }

    #[test]
    fn a_batch_that_is_dropped_early_leaves_no_gap() {
        let mut account = Account::new(&[5]);
        let first = [packet(5, 0), packet(5, 1), packet(5, 2)].concat();
        assert!(Batch::new(&first, &mut account, 0, None).next().is_some());
        let second = packet(5, 3);
        let mut batch = Batch::new(&second, &mut account, 0, None);
        assert_eq!(batch.next().unwrap().lost_before(), 0);
    }

    #[test]
    fn entries_before_a_bad_length_are_handed_out_and_the_datagram_is_counted() {
        let mut account = Account::new(&[5]);
        let mut datagram = packet(5, 0);
        datagram.extend([0xff; 20]);
        assert_eq!(Batch::new(&datagram, &mut account, 0, None).count(), 1);
        assert_eq!(account.totals().malformed, 1);
    }
}
