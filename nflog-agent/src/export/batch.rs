//! A batch of encoded records, and when an open batch is full enough to go. Time is an argument.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::queue::ExportQueue;
use crate::record::{Account, Encoder, Loss, Record, Suppressed};
use crate::telemetry::ledger::{LossReason, Unsettled};

/// Encoded records and their account.
#[derive(Debug)]
#[must_use = "a batch must be exported or settled as lost"]
pub struct Batch {
    payload: Bytes,
    reports: u32,
    account: Unsettled,
}

impl Batch {
    pub(crate) const fn new(payload: Bytes, reports: u32, account: Unsettled) -> Self {
        Self {
            payload,
            reports,
            account,
        }
    }

    /// The encoded bytes.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Log records of packets.
    #[must_use]
    pub const fn records(&self) -> u32 {
        self.account.records()
    }

    /// Log records that are reports: of losses, of packets that a limit held back, of the account.
    #[must_use]
    pub const fn reports(&self) -> u32 {
        self.reports
    }

    /// No records at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records() == 0 && self.reports == 0
    }

    /// The receiver took the batch, except `rejected` of its records.
    pub fn exported(self, rejected: u64) {
        self.account.partly_exported(rejected);
    }

    /// The spool has taken the batch, and counted it.
    pub(super) fn spooled(self) {
        self.account.spooled();
    }

    /// The spool has the batch again.
    pub(super) fn give_back(self) {
        self.account.give_back();
    }

    /// The batch is given up.
    pub fn lost(self, reason: LossReason) {
        self.account.lost(reason);
    }
}

/// When an open batch goes out: at the first of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushPolicy {
    /// Encoded size, bytes. A batch exceeds it by less than one record.
    pub max_bytes: usize,
    /// Log records.
    pub max_records: u32,
    /// Time since the first record of the batch.
    pub max_age: Duration,
}

impl FlushPolicy {
    /// For collectors: well below the 4 MiB that gRPC servers accept by default, and at most a second late.
    pub const COLLECTOR: Self = Self {
        max_bytes: 1_000_000,
        max_records: 4096,
        max_age: Duration::from_secs(1),
    };

    /// For people: soon enough to look immediate.
    pub const CONSOLE: Self = Self {
        max_bytes: 65_536,
        max_records: 1024,
        max_age: Duration::from_millis(50),
    };

    /// For counts, which take no room in the queue.
    pub const VIEWER: Self = Self {
        max_bytes: usize::MAX,
        max_records: 65_536,
        max_age: Duration::from_millis(100),
    };
}

/// The encoding end of the export: an open batch that goes to a queue when it is due.
///
/// Never blocks. A batch that the queue refuses is lost ([`LossReason::QueueFull`], or [`LossReason::Pipe`] when the
/// reader is gone, or [`LossReason::Shutdown`] when the exporter is closed).
pub struct Batcher {
    encoder: Box<dyn Encoder>,
    policy: FlushPolicy,
    queue: ExportQueue,
    opened: Option<Instant>,
}

impl Batcher {
    /// Starts with an empty batch.
    #[must_use]
    pub fn new(encoder: Box<dyn Encoder>, policy: FlushPolicy, queue: ExportQueue) -> Self {
        Self {
            encoder,
            policy,
            queue,
            opened: None,
        }
    }

    /// Adds a packet; flushes if the batch is full.
    pub fn push(&mut self, record: &Record<'_>, now: Instant) {
        self.encoder.push(record);
        self.pushed(now);
    }

    /// Adds a packet that is on the account `held` so far; flushes if the batch is full.
    pub fn push_held(&mut self, record: &Record<'_>, held: &mut Unsettled, now: Instant) {
        self.encoder.push_held(record, held);
        self.pushed(now);
    }

    /// Adds a report of packets held back; flushes if the batch is full.
    pub fn push_suppressed(&mut self, suppressed: &Suppressed<'_>, now: Instant) {
        self.encoder.push_suppressed(suppressed);
        self.pushed(now);
    }

    /// Adds a loss report; flushes if the batch is full.
    pub fn push_loss(&mut self, loss: &Loss, now: Instant) {
        self.encoder.push_loss(loss);
        self.pushed(now);
    }

    /// Adds the account; flushes if the batch is full.
    pub fn push_account(&mut self, account: &Account<'_>, now: Instant) {
        self.encoder.push_account(account);
        self.pushed(now);
    }

    /// Flushes if the batch is old enough.
    pub fn tick(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            self.flush();
        }
    }

    /// When [`tick`](Self::tick) is due next; `None` while the batch is empty.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.opened.map(|opened| opened + self.policy.max_age)
    }

    /// Sends what there is.
    pub fn flush(&mut self) {
        self.opened = None;
        let batch = self.encoder.take();
        if batch.is_empty() {
            return;
        }
        if let Err(batch) = self.queue.try_push(batch) {
            self.queue.refused(batch);
        }
    }

    fn pushed(&mut self, now: Instant) {
        let opened = *self.opened.get_or_insert(now);
        if self.encoder.bytes() >= self.policy.max_bytes
            || self.encoder.records() >= self.policy.max_records
            || now.saturating_duration_since(opened) >= self.policy.max_age
        {
            self.flush();
        }
    }
}

/// What is in the open batch still goes out.
impl Drop for Batcher {
    fn drop(&mut self) {
        self.flush();
    }
}
