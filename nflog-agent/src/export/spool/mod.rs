//! Batches on disk while the receiver cannot take them: memory first, disk on pressure, outage and shutdown.
//!
//! All file operations are on one thread; the exporter's tasks wait for it, the readers never do. Only whole batches are on
//! disk, and each is on the ledger as spooled until it is handed out again, or given up for a reason.

mod error;
mod frame;
mod fs;
#[cfg(test)]
mod model;
mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

pub use error::SpoolError;
use frame::Counts;
use fs::{Directory, Disk};
use store::{AppendError, Dropped, Store, Stored};
pub use store::{SpoolLimits, WhenFull};

use super::batch::Batch;
use super::report::Reporter;
use crate::telemetry::ledger::{Ledger, LossReason};

/// What was written becomes durable within this time, or when it is this much.
const SYNC_EVERY: Duration = Duration::from_millis(200);
const SYNC_BYTES: u64 = 1 << 20;
/// How often to look for what is too old.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);

/// How much of its room the spool takes; for metrics.
#[derive(Debug)]
pub struct SpoolUsage {
    bytes: AtomicU64,
    limit: u64,
}

impl SpoolUsage {
    /// Bytes of its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that they may have.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }
}

/// A directory of batches, locked and read: what an earlier process has left is on the ledger.
pub struct Spool {
    path: PathBuf,
    store: Store<Disk>,
    ledger: Arc<Ledger>,
    usage: Arc<SpoolUsage>,
    unreadable: u64,
}

impl Spool {
    /// Makes the directory if it is missing, and takes up what is in it.
    ///
    /// # Errors
    /// When another process has it, or it cannot be used.
    pub fn open(path: &Path, limits: SpoolLimits, ledger: &Arc<Ledger>) -> Result<Self, SpoolError> {
        let unusable = |source| SpoolError::Directory {
            path: path.to_owned(),
            source,
        };
        let disk = Disk::open(path)
            .map_err(unusable)?
            .ok_or_else(|| SpoolError::Busy {
                path: path.to_owned(),
            })?;
        let (store, dropped) = Store::open(disk, limits).map_err(unusable)?;
        let given_up = dropped.full + dropped.unreadable;
        ledger.recover(store.records() + given_up);
        ledger.lose_spooled(dropped.unreadable, LossReason::SpoolUnreadable);
        ledger.lose_spooled(dropped.full, LossReason::SpoolFull);
        let usage = Arc::new(SpoolUsage {
            bytes: AtomicU64::new(store.bytes()),
            limit: limits.bytes,
        });
        Ok(Self {
            path: path.to_owned(),
            store,
            ledger: Arc::clone(ledger),
            usage,
            unreadable: dropped.unreadable,
        })
    }

    /// How much of its room it takes, from now on.
    #[must_use]
    pub const fn usage(&self) -> &Arc<SpoolUsage> {
        &self.usage
    }

    /// Starts the thread.
    pub(super) fn start(self, reporter: Arc<Reporter>) -> Result<SpoolHandle, SpoolError> {
        let Self {
            path,
            store,
            ledger,
            usage,
            unreadable,
        } = self;
        if store.records() > 0 {
            tracing::info!(
                "{} records are in the spool {} from before",
                store.records(),
                path.display()
            );
        }
        if unreadable > 0 {
            reporter.lost(unreadable, LossReason::SpoolUnreadable, "the spool is damaged");
        }
        let pending = Arc::new(AtomicBool::new(store.has_next()));
        let news = Arc::new(Notify::new());
        let (jobs, queue) = mpsc::channel();
        let keeper = Keeper {
            store,
            ledger: Arc::clone(&ledger),
            reporter,
            pending: Arc::clone(&pending),
            usage,
            news: Arc::clone(&news),
            unsynced_since: None,
            expired: Instant::now(),
        };
        thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || keeper.run(&queue))
            .map_err(SpoolError::Thread)?;
        Ok(SpoolHandle {
            path,
            jobs,
            pending,
            news,
            ledger,
        })
    }
}

/// What the exporter's tasks have of the spool.
#[derive(Debug)]
pub(super) struct SpoolHandle {
    path: PathBuf,
    jobs: mpsc::Sender<Job>,
    pending: Arc<AtomicBool>,
    news: Arc<Notify>,
    ledger: Arc<Ledger>,
}

#[derive(Debug)]
enum Job {
    Append {
        payload: Bytes,
        counts: Counts,
        done: oneshot::Sender<Result<(), LossReason>>,
    },
    Next(oneshot::Sender<Option<Stored>>),
    Settle(Stored),
    GiveBack(Stored),
    Sync(oneshot::Sender<()>),
}

/// A batch that has come out of the spool.
#[derive(Debug)]
pub(super) struct Spooled {
    pub(super) batch: Batch,
    stored: Stored,
}

impl SpoolHandle {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there may be something to take.
    pub(super) fn pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Waits until there is something to take that was not there before.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Keeps a batch, which is then settled as far as the exporter is concerned.
    ///
    /// # Errors
    /// Gives the batch back with the reason why it is not kept.
    pub(super) async fn keep(&self, batch: Batch) -> Result<(), (Batch, LossReason)> {
        let (done, kept) = oneshot::channel();
        let job = Job::Append {
            payload: batch.payload().clone(),
            counts: Counts {
                records: batch.records(),
                reports: batch.reports(),
            },
            done,
        };
        // The thread ends with the last handle, so it is there; a panic in it is a bug that costs the batch.
        let kept = match self.jobs.send(job) {
            Ok(()) => kept.await.unwrap_or(Err(LossReason::SpoolFailed)),
            Err(_) => Err(LossReason::SpoolFailed),
        };
        match kept {
            Ok(()) => {
                batch.spooled();
                Ok(())
            }
            Err(reason) => Err((batch, reason)),
        }
    }

    /// The next batch, oldest first. It stays on disk until it is settled.
    pub(super) async fn take(&self) -> Option<Spooled> {
        let (answer, next) = oneshot::channel();
        self.jobs.send(Job::Next(answer)).ok()?;
        let stored = next.await.ok()??;
        let account = self.ledger.unspool(stored.counts.records);
        let batch = Batch::new(stored.payload.clone(), stored.counts.reports, account);
        Some(Spooled { batch, stored })
    }

    /// A batch that was taken is settled.
    pub(super) fn settle(&self, spooled: Spooled, settle: impl FnOnce(Batch)) {
        let Spooled { batch, stored } = spooled;
        settle(batch);
        // If the thread is gone the batch comes again at the next start.
        let _ = self.jobs.send(Job::Settle(stored));
    }

    /// A batch that was taken could not be sent.
    pub(super) fn give_back(&self, spooled: Spooled) {
        let Spooled { batch, stored } = spooled;
        batch.give_back();
        let _ = self.jobs.send(Job::GiveBack(stored));
    }

    /// Waits until all that was kept is durable.
    pub(super) async fn sync(&self) {
        let (done, synced) = oneshot::channel();
        if self.jobs.send(Job::Sync(done)).is_ok() {
            // Errors are in the log.
            let _ = synced.await;
        }
    }
}

/// The thread's state.
struct Keeper<D: Directory> {
    store: Store<D>,
    ledger: Arc<Ledger>,
    reporter: Arc<Reporter>,
    pending: Arc<AtomicBool>,
    usage: Arc<SpoolUsage>,
    news: Arc<Notify>,
    unsynced_since: Option<Instant>,
    expired: Instant,
}

impl<D: Directory> Keeper<D> {
    fn run(mut self, queue: &mpsc::Receiver<Job>) {
        loop {
            let job = match queue.recv_timeout(SYNC_EVERY) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if let Some(job) = job {
                self.act(job);
            }
            self.keep_house();
        }
        self.sync();
    }

    /// Answers may find nobody: a task that was waiting may have been given up at the deadline of a shutdown.
    fn act(&mut self, job: Job) {
        match job {
            Job::Append {
                payload,
                counts,
                done,
            } => {
                let kept = self.append(&payload, counts);
                let _ = done.send(kept);
            }
            Job::Next(answer) => {
                let (stored, dropped) = self.store.next();
                self.gave_up(dropped);
                if let Err(Some(unwanted)) = answer.send(stored) {
                    self.store.give_back(unwanted);
                }
            }
            Job::Settle(stored) => self.store.settle(&stored),
            Job::GiveBack(stored) => self.store.give_back(stored),
            Job::Sync(done) => {
                self.sync();
                let _ = done.send(());
            }
        }
        self.tell();
    }

    /// Lets the exporter know whether there is something to take.
    fn tell(&self) {
        self.usage.bytes.store(self.store.bytes(), Ordering::Relaxed);
        let pending = self.store.has_next();
        if !self.pending.swap(pending, Ordering::AcqRel) && pending {
            self.news.notify_one();
        }
    }

    fn append(&mut self, payload: &[u8], counts: Counts) -> Result<(), LossReason> {
        match self.store.append(payload, counts, now()) {
            Ok(dropped) => {
                // Before anybody can take it out.
                self.ledger.spool(counts.records);
                self.gave_up(dropped);
                self.unsynced_since.get_or_insert_with(Instant::now);
                Ok(())
            }
            Err(AppendError::Full(dropped)) => {
                self.gave_up(dropped);
                Err(LossReason::SpoolFull)
            }
            Err(AppendError::Io { source, dropped }) => {
                self.gave_up(dropped);
                self.reporter.lost(
                    u64::from(counts.records),
                    LossReason::SpoolFailed,
                    &source.to_string(),
                );
                Err(LossReason::SpoolFailed)
            }
        }
    }

    /// Puts what the store gave up on the ledger.
    fn gave_up(&self, dropped: Dropped) {
        for (records, reason, why) in [
            (dropped.full, LossReason::SpoolFull, ""),
            (dropped.age, LossReason::SpoolExpired, ""),
            (
                dropped.unreadable,
                LossReason::SpoolUnreadable,
                "the spool is damaged",
            ),
        ] {
            if records > 0 {
                self.ledger.lose_spooled(records, reason);
                self.reporter.lost(records, reason, why);
            }
        }
    }

    fn keep_house(&mut self) {
        let due = self
            .unsynced_since
            .is_some_and(|since| since.elapsed() >= SYNC_EVERY);
        if due || self.store.unsynced() >= SYNC_BYTES {
            self.sync();
        }
        if self.expired.elapsed() >= EXPIRE_EVERY {
            self.expired = Instant::now();
            let dropped = self.store.expire(now());
            self.gave_up(dropped);
            self.tell();
        }
    }

    fn sync(&mut self) {
        self.unsynced_since = None;
        if let Err(error) = self.store.sync() {
            tracing::warn!("the spool is not durable: {error}; a power cut now would cost records");
        }
    }
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    // A clock before 1970 is a clock that is not set.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
