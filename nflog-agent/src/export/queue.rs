//! The queue between the threads that encode and the task that sends. Bounded by bytes and by batches.
//!
//! Pushing is lock-free: the bounds are atomic counters beside an unbounded channel. A batch counts until the worker
//! takes it; requests in flight are bounded by the worker.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use super::batch::Batch;
use super::report::Reporter;
use crate::telemetry::ledger::LossReason;

/// Bounds of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Encoded bytes.
    pub bytes: usize,
    /// Batches.
    pub batches: usize,
}

impl Default for QueueLimits {
    /// 32 MiB, which is about 50 000 packets, in at most 1024 batches.
    fn default() -> Self {
        Self {
            bytes: 32 << 20,
            batches: 1024,
        }
    }
}

/// What the queue and its worker are doing; for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Bytes waiting.
    pub bytes: u64,
    /// Batches waiting.
    pub batches: u64,
    /// Requests sent, retries included.
    pub requests: u64,
    /// Requests that were sent again.
    pub retries: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    limits: QueueLimits,
    bytes: AtomicUsize,
    batches: AtomicUsize,
    pub(super) requests: AtomicU64,
    pub(super) retries: AtomicU64,
    /// Rounds of the worker's loop.
    pub(super) rounds: AtomicU64,
    /// The reader of the output went away: nothing can be delivered any more.
    pub(super) sink_error: OnceLock<ErrorKind>,
    pub(super) reporter: Arc<Reporter>,
}

impl Shared {
    /// Whether more than half of the room is taken.
    pub(super) fn is_crowded(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.limits.bytes / 2
            || self.batches.load(Ordering::Relaxed) > self.limits.batches / 2
    }

    /// The worker took a batch of this size.
    pub(super) fn taken(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.batches.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The encoding side's end. Clones share the bounds.
#[derive(Clone, Debug)]
pub struct ExportQueue {
    sender: mpsc::UnboundedSender<Batch>,
    shared: Arc<Shared>,
}

impl ExportQueue {
    pub(super) fn new(
        limits: QueueLimits,
        reporter: Arc<Reporter>,
    ) -> (Self, mpsc::UnboundedReceiver<Batch>, Arc<Shared>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            limits,
            bytes: AtomicUsize::new(0),
            batches: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
            sink_error: OnceLock::new(),
            reporter,
        });
        (
            Self {
                sender,
                shared: Arc::clone(&shared),
            },
            receiver,
            shared,
        )
    }

    /// Hands over a batch. Neither blocks nor waits.
    ///
    /// # Errors
    /// Gives the batch back when the queue is full or the exporter is closed.
    pub fn try_push(&self, batch: Batch) -> Result<(), Batch> {
        let size = batch.payload().len();
        let shared = &*self.shared;
        let bytes = shared.bytes.fetch_add(size, Ordering::Relaxed) + size;
        let batches = shared.batches.fetch_add(1, Ordering::Relaxed) + 1;
        // A batch larger than the whole bound may still go through an empty queue.
        if batches > shared.limits.batches || (bytes > shared.limits.bytes && batches > 1) {
            shared.taken(size);
            return Err(batch);
        }
        self.sender.send(batch).map_err(|refused| {
            shared.taken(size);
            refused.0
        })
    }

    /// Settles a batch that [`try_push`](Self::try_push) gave back, and says so in the log.
    pub fn refused(&self, batch: Batch) {
        let reason = if self.sink_gone() {
            LossReason::Pipe
        } else if self.sender.is_closed() {
            LossReason::Shutdown
        } else {
            LossReason::QueueFull
        };
        self.shared.reporter.lost(batch.records().into(), reason, "");
        batch.lost(reason);
    }

    /// Whether more than half of the room is taken: who can wait should.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.shared.is_crowded()
    }

    /// The reader of the output went away: nothing can be delivered any more, and the agent may as well stop.
    #[must_use]
    pub fn sink_gone(&self) -> bool {
        self.sink_error().is_some()
    }

    /// Why the output cannot be written any more; `BrokenPipe` when its reader went away.
    #[must_use]
    pub fn sink_error(&self) -> Option<ErrorKind> {
        self.shared.sink_error.get().copied()
    }

    /// Rounds of the exporter's loop: several per second while it moves.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.shared.rounds.load(Ordering::Relaxed)
    }

    /// What is waiting and what was sent.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        QueueStats {
            bytes: self.shared.bytes.load(Ordering::Relaxed) as u64,
            batches: self.shared.batches.load(Ordering::Relaxed) as u64,
            requests: self.shared.requests.load(Ordering::Relaxed),
            retries: self.shared.retries.load(Ordering::Relaxed),
        }
    }
}
