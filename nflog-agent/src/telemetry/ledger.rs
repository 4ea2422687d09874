//! What became of every record.
//!
//! - `received + recovered = exported + spooled + in flight + Σ withheld + Σ lost(reason)` at every moment; sequence gaps are counted beside
//!   it, because those packets never arrived. What is recovered is what an earlier process left in the spool.
//! - A record is received and settled through an [`Unsettled`] account, which only its batch holds: settling consumes
//!   it, so nothing is settled twice, and an account that is dropped with records in it is counted as lost and, in debug
//!   builds, a panic.
//! - Withheld is what the operator's rules ask for: filtered, sampled out, limited, aggregated. A flow counts as one record, that of its
//!   first packet, which is in flight until the flow ends; each further packet of it is aggregated.
//! - Loss reports are not records here: they carry what is already counted.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::named::named;
use crate::nflog::Loss;

named! {
    /// Why packets became no records of their own although nothing was lost: the operator's rules say so.
    pub enum Withheld {
        /// A rule drops them.
        Filtered = "filtered",
        /// Others stand for them.
        SampledOut = "sampled-out",
        /// They were more than a rule's limit.
        Limited = "limited",
        /// They are in a flow's record, beside the packet that it counts as.
        Aggregated = "aggregated",
    }
}

/// Why records were lost after they were received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossReason {
    /// The export queue was full.
    QueueFull,
    /// The collector accepted the request, but not these records (partial success).
    Rejected,
    /// The collector refused the request with a code that must not be retried.
    Permanent,
    /// The retry budget ended.
    RetriesExhausted,
    /// The agent stopped before the records could be delivered.
    Shutdown,
    /// The reader of the output went away.
    Pipe,
    /// The spool had no room.
    SpoolFull,
    /// The records were in the spool for too long.
    SpoolExpired,
    /// The spool could not be written.
    SpoolFailed,
    /// What was in the spool cannot be read.
    SpoolUnreadable,
    /// An account was dropped without being settled: a bug in the agent.
    Unsettled,
}

impl LossReason {
    /// All reasons, in index order.
    pub const ALL: [Self; 11] = [
        Self::QueueFull,
        Self::Rejected,
        Self::Permanent,
        Self::RetriesExhausted,
        Self::Shutdown,
        Self::Pipe,
        Self::SpoolFull,
        Self::SpoolExpired,
        Self::SpoolFailed,
        Self::SpoolUnreadable,
        Self::Unsettled,
    ];

    /// Label value in metrics and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::Rejected => "rejected",
            Self::Permanent => "permanent",
            Self::RetriesExhausted => "retries-exhausted",
            Self::Shutdown => "shutdown",
            Self::Pipe => "pipe",
            Self::SpoolFull => "spool-full",
            Self::SpoolExpired => "spool-expired",
            Self::SpoolFailed => "spool-failed",
            Self::SpoolUnreadable => "spool-unreadable",
            Self::Unsettled => "unsettled",
        }
    }
}

/// The counters. Shared by all threads.
#[derive(Debug, Default)]
pub struct Ledger {
    received: AtomicU64,
    recovered: AtomicU64,
    exported: AtomicU64,
    spooled: AtomicU64,
    withheld: [AtomicU64; Withheld::ALL.len()],
    lost: [AtomicU64; LossReason::ALL.len()],
    gaps: AtomicU64,
    overruns: AtomicU64,
    dropped_datagrams: AtomicU64,
    truncated: AtomicU64,
    malformed: AtomicU64,
    /// Readers whose last loss is not counted in full yet.
    pending: AtomicU64,
}

impl Ledger {
    /// All zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// An empty account on this ledger.
    pub fn account(self: &Arc<Self>) -> Unsettled {
        Unsettled {
            ledger: Arc::clone(self),
            records: 0,
        }
    }

    /// Counts records that an earlier process left in the spool.
    pub(crate) fn recover(&self, records: u64) {
        self.recovered.fetch_add(records, Ordering::Release);
        self.spooled.fetch_add(records, Ordering::Release);
    }

    /// Records are in the spool now.
    pub(crate) fn spool(&self, records: u32) {
        self.spooled.fetch_add(records.into(), Ordering::Release);
    }

    /// Takes records out of the spool, to be settled.
    pub(crate) fn unspool(self: &Arc<Self>, records: u32) -> Unsettled {
        self.spooled.fetch_sub(records.into(), Ordering::Release);
        Unsettled {
            ledger: Arc::clone(self),
            records,
        }
    }

    /// Records in the spool are lost.
    pub(crate) fn lose_spooled(&self, records: u64, reason: LossReason) {
        self.spooled.fetch_sub(records, Ordering::Release);
        self.lose(records, reason);
    }

    /// Counts one packet as received, and as withheld.
    pub fn withhold(&self, why: Withheld) {
        self.received.fetch_add(1, Ordering::Release);
        self.withheld[why as usize].fetch_add(1, Ordering::Release);
    }

    /// Counts packets that the kernel numbered and that did not arrive.
    pub fn gap(&self, packets: u64) {
        self.gaps.fetch_add(packets, Ordering::Relaxed);
    }

    /// Counts what a reader's socket counted between `seen` and `now`: signs of loss that are not counts of packets. How
    /// many packets they cost shows as a gap, once another packet arrives.
    pub fn socket(&self, now: &Loss, seen: &Loss) {
        self.overruns
            .fetch_add(now.enobufs - seen.enobufs, Ordering::Relaxed);
        self.dropped_datagrams
            .fetch_add(now.sk_drops - seen.sk_drops, Ordering::Relaxed);
        self.truncated
            .fetch_add(now.truncated - seen.truncated, Ordering::Relaxed);
        self.malformed
            .fetch_add(now.malformed - seen.malformed, Ordering::Relaxed);
        match (seen.pending, now.pending) {
            (false, true) => self.pending.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.pending.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    /// The counters at one moment: no record is in none of them or in two.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        // A record is received before it is settled, so what was received is read last. If the settled counts are then
        // still the same, all were true at once. They change per batch, so that is nearly always so; otherwise records
        // received meanwhile show as in flight, a moment early.
        let mut settled = self.settled();
        let mut received = self.received.load(Ordering::Acquire);
        for _ in 0..8 {
            let again = self.settled();
            if again == settled {
                break;
            }
            settled = again;
            received = self.received.load(Ordering::Acquire);
        }
        let (withheld, exported, spooled, lost) = settled;
        Snapshot {
            received,
            recovered: self.recovered.load(Ordering::Acquire),
            exported,
            spooled,
            withheld,
            lost,
            gaps: self.gaps.load(Ordering::Relaxed),
            overruns: self.overruns.load(Ordering::Relaxed),
            dropped_datagrams: self.dropped_datagrams.load(Ordering::Relaxed),
            truncated: self.truncated.load(Ordering::Relaxed),
            malformed: self.malformed.load(Ordering::Relaxed),
            loss_pending: self.pending.load(Ordering::Relaxed) > 0,
        }
    }

    /// Withheld, exported, spooled and lost. What leaves the spool is exported or lost later, so the spool is read last: a record on its
    /// way shows in neither, and never in two.
    fn settled(&self) -> Settled {
        let withheld = Withheld::ALL.map(|why| self.withheld[why as usize].load(Ordering::Acquire));
        let lost = LossReason::ALL.map(|reason| self.lost[reason as usize].load(Ordering::Acquire));
        let exported = self.exported.load(Ordering::Acquire);
        (withheld, exported, self.spooled.load(Ordering::Acquire), lost)
    }

    fn lose(&self, records: u64, reason: LossReason) {
        self.lost[reason as usize].fetch_add(records, Ordering::Release);
    }
}

/// Withheld, exported, spooled, lost.
type Settled = ([u64; Withheld::ALL.len()], u64, u64, [u64; LossReason::ALL.len()]);

/// Records that were received and are not settled yet.
#[derive(Debug)]
#[must_use = "records must be settled as exported or lost"]
pub struct Unsettled {
    ledger: Arc<Ledger>,
    records: u32,
}

impl Unsettled {
    /// Counts one record as received, on this account.
    pub fn receive(&mut self) {
        self.records += 1;
        self.ledger.received.fetch_add(1, Ordering::Release);
    }

    /// Records on this account.
    #[must_use]
    pub const fn records(&self) -> u32 {
        self.records
    }

    /// Moves all records to a new account.
    pub fn take(&mut self) -> Self {
        Self {
            ledger: Arc::clone(&self.ledger),
            records: std::mem::take(&mut self.records),
        }
    }

    /// Moves one record from another account to this one. Nothing is received by that.
    pub fn adopt(&mut self, from: &mut Self) {
        debug_assert!(from.records > 0, "the record is on the other account");
        if from.records > 0 {
            from.records -= 1;
            self.records += 1;
        }
    }

    /// All records were delivered.
    pub fn exported(self) {
        self.partly_exported(0);
    }

    /// All records were delivered, but the receiver rejected some of them. A server that claims to reject more than it
    /// got rejects all.
    pub fn partly_exported(mut self, rejected: u64) {
        let records = u64::from(std::mem::take(&mut self.records));
        let rejected = rejected.min(records);
        self.ledger.lose(rejected, LossReason::Rejected);
        self.ledger
            .exported
            .fetch_add(records - rejected, Ordering::Release);
    }

    /// All records are in the spool, and [`Ledger::spool`] has counted them there.
    pub(crate) fn spooled(mut self) {
        self.records = 0;
    }

    /// All records are in the spool again.
    pub(crate) fn give_back(self) {
        self.ledger.spool(self.records);
        self.spooled();
    }

    /// All records are lost.
    pub fn lost(mut self, reason: LossReason) {
        self.ledger.lose(std::mem::take(&mut self.records).into(), reason);
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if self.records > 0 {
            self.ledger.lose(self.records.into(), LossReason::Unsettled);
            debug_assert!(
                std::thread::panicking(),
                "{} records were dropped without being settled",
                self.records
            );
        }
    }
}

/// The ledger at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Packets that became records, or were withheld.
    pub received: u64,
    /// Records that an earlier process left in the spool.
    pub recovered: u64,
    /// Records that the collector, or the reader of the output, took.
    pub exported: u64,
    /// Records on disk, for later.
    pub spooled: u64,
    withheld: [u64; Withheld::ALL.len()],
    lost: [u64; LossReason::ALL.len()],
    /// Packets that the kernel numbered and that did not arrive.
    pub gaps: u64,
    /// Episodes of a full receive buffer (`ENOBUFS`).
    pub overruns: u64,
    /// Datagrams that the kernel dropped for a full receive buffer (`SK_MEMINFO_DROPS`); each held up to a batch of packets.
    pub dropped_datagrams: u64,
    /// Datagrams longer than the agent's buffer.
    pub truncated: u64,
    /// Datagrams that could not be read to the end.
    pub malformed: u64,
    /// A socket dropped datagrams and no packet has arrived since that would show how many packets were in them.
    pub loss_pending: bool,
}

impl Snapshot {
    /// Records lost for one reason.
    #[must_use]
    pub const fn lost(&self, reason: LossReason) -> u64 {
        self.lost[reason as usize]
    }

    /// Records lost for any reason.
    #[must_use]
    pub fn lost_total(&self) -> u64 {
        self.lost.iter().sum()
    }

    /// Packets withheld for one reason.
    #[must_use]
    pub const fn withheld(&self, why: Withheld) -> u64 {
        self.withheld[why as usize]
    }

    /// Packets withheld for any reason.
    #[must_use]
    pub fn withheld_total(&self) -> u64 {
        self.withheld.iter().sum()
    }

    /// Records received and not settled yet.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let settled = self.exported + self.spooled + self.withheld_total() + self.lost_total();
        self.received + self.recovered - settled
    }
}

/// One line for the final summary.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} received", self.received)?;
        if self.recovered > 0 {
            write!(f, " + {} recovered", self.recovered)?;
        }
        write!(f, " = {} exported", self.exported)?;
        if self.spooled > 0 {
            write!(f, " + {} spooled", self.spooled)?;
        }
        for why in Withheld::ALL {
            if self.withheld(why) > 0 {
                write!(f, " + {} {}", self.withheld(why), why.name())?;
            }
        }
        if self.in_flight() > 0 {
            write!(f, " + {} in flight", self.in_flight())?;
        }
        write!(f, " + {} lost", self.lost_total())?;
        let mut separator = " (";
        for reason in LossReason::ALL {
            if self.lost(reason) > 0 {
                write!(f, "{separator}{} {}", reason.name(), self.lost(reason))?;
                separator = ", ";
            }
        }
        if separator == ", " {
            f.write_str(")")?;
        }
        write!(f, "; {} missed before receipt (sequence gaps)", self.gaps)?;
        for (count, what) in [
            (self.overruns, "times ENOBUFS"),
            (self.dropped_datagrams, "datagrams dropped by the socket"),
            (self.truncated, "datagrams truncated"),
            (self.malformed, "datagrams malformed"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if self.loss_pending {
            f.write_str("; more were missed at the end than could be counted")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(ledger: &Arc<Ledger>, records: u32) -> Unsettled {
        let mut account = ledger.account();
        (0..records).for_each(|_| account.receive());
        account
    }

    #[test]
    fn reasons_are_in_index_order() {
        for (at, reason) in LossReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
    }

    #[test]
    fn every_record_is_settled_once() {
        let ledger = Ledger::new();
        account(&ledger, 3).exported();
        account(&ledger, 5).lost(LossReason::QueueFull);
        account(&ledger, 7).partly_exported(2);
        account(&ledger, 1).partly_exported(100);
        let mut open = account(&ledger, 11);
        let moved = open.take();
        assert_eq!(open.records(), 0);
        let snapshot = ledger.snapshot();
        assert_eq!(snapshot.received, 27);
        assert_eq!(snapshot.exported, 8);
        assert_eq!(snapshot.lost(LossReason::QueueFull), 5);
        assert_eq!(snapshot.lost(LossReason::Rejected), 3);
        assert_eq!(snapshot.in_flight(), 11);
        moved.exported();
        assert_eq!(ledger.snapshot().in_flight(), 0);
    }

    #[test]
    fn a_spooled_record_is_kept_until_it_is_settled_or_lost() {
        let ledger = Ledger::new();
        ledger.spool(5);
        account(&ledger, 5).spooled();
        ledger.recover(7);
        let snapshot = ledger.snapshot();
        assert_eq!(
            (snapshot.spooled, snapshot.recovered, snapshot.in_flight()),
            (12, 7, 0)
        );
        ledger.unspool(4).exported();
        ledger.lose_spooled(6, LossReason::SpoolFull);
        let out = ledger.unspool(2);
        let snapshot = ledger.snapshot();
        assert_eq!(
            (snapshot.spooled, snapshot.exported, snapshot.in_flight()),
            (0, 4, 2)
        );
        assert_eq!(
            snapshot.to_string().split(';').next(),
            Some("5 received + 7 recovered = 4 exported + 2 in flight + 6 lost (spool-full 6)")
        );
        out.give_back();
        assert_eq!(ledger.snapshot().spooled, 2);
    }

    #[test]
    fn what_is_withheld_is_received_and_settled() {
        let ledger = Ledger::new();
        for (times, why) in (1..).zip(Withheld::ALL) {
            (0..times).for_each(|_| ledger.withhold(why));
        }
        let mut held = account(&ledger, 2);
        let mut open = account(&ledger, 1);
        open.adopt(&mut held);
        assert_eq!((open.records(), held.records()), (2, 1));
        open.exported();
        let snapshot = ledger.snapshot();
        assert_eq!(
            snapshot.to_string().split(';').next(),
            Some(
                "13 received = 2 exported + 1 filtered + 2 sampled-out + 3 limited + 4 aggregated + 1 in flight + 0 lost"
            )
        );
        held.lost(LossReason::Shutdown);
        assert_eq!(ledger.snapshot().in_flight(), 0);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "2 records were dropped without being settled")]
    fn dropping_records_is_a_bug() {
        drop(account(&Ledger::new(), 2));
    }

    #[test]
    fn an_account_lost_in_a_panic_is_counted() {
        let ledger = Ledger::new();
        let account = account(&ledger, 2);
        let thread = std::thread::spawn(move || {
            let _account = account;
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert_eq!(ledger.snapshot().lost(LossReason::Unsettled), 2);
        assert_eq!(ledger.snapshot().in_flight(), 0);
    }

    #[test]
    fn snapshots_taken_meanwhile_never_settle_more_than_was_received() {
        let ledger = Ledger::new();
        let worker = std::thread::spawn({
            let ledger = Arc::clone(&ledger);
            move || (0..20_000).for_each(|_| account(&ledger, 1).exported())
        });
        while !worker.is_finished() {
            // Would underflow.
            assert!(ledger.snapshot().in_flight() <= 20_000);
        }
        worker.join().unwrap();
        assert_eq!(ledger.snapshot().exported, 20_000);
    }

    #[test]
    fn the_summary_states_the_identity() {
        let ledger = Ledger::new();
        account(&ledger, 4).exported();
        ledger.gap(2);
        assert_eq!(
            ledger.snapshot().to_string(),
            "4 received = 4 exported + 0 lost; 2 missed before receipt (sequence gaps)"
        );
        account(&ledger, 3).lost(LossReason::Shutdown);
        ledger.socket(
            &Loss {
                enobufs: 3,
                sk_drops: 5,
                ..Loss::default()
            },
            &Loss {
                enobufs: 2,
                ..Loss::default()
            },
        );
        assert_eq!(
            ledger.snapshot().to_string(),
            "7 received = 4 exported + 3 lost (shutdown 3); 2 missed before receipt (sequence gaps), \
             1 times ENOBUFS, 5 datagrams dropped by the socket"
        );
    }
}
