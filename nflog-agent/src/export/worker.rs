//! The task that sends batches: several requests in flight, retries, and a bounded end.
//!
//! - A batch is out of the queue while it is sent and retried, so a receiver that is down holds `in_flight` batches and
//!   the queue holds the rest; with a spool, the spool does, while the receiver is down or the queue is more than half full.
//! - What is in the spool is sent when the receiver takes requests again, beside what is new, the oldest first.
//! - A server that names a time (`Retry-After`, `RetryInfo`) gets no request before it, from no batch.
//! - Closing: nothing new is accepted, what is queued is sent, and at the deadline everything left goes to the spool, or is lost
//!   without one ([`LossReason::Shutdown`]).

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::batch::Batch;
use super::queue::{ExportQueue, QueueLimits, Shared};
use super::reply::PartialSuccess;
use super::report::Reporter;
use super::retry::{Backoff, Failure, RetryPolicy, Verdict};
use super::spool::{Spool, SpoolError, SpoolHandle};
use super::transport::Transport;
use crate::telemetry::ledger::LossReason;

/// After the deadline of a close the worker has this long to settle what is left.
const SETTLING: Duration = Duration::from_secs(2);
/// How often to look whether batches should go to the spool, or can leave it.
const LOOK: Duration = Duration::from_millis(50);
/// How often an idle worker shows that it moves: whoever watches it waits for seconds at least.
const TICK: Duration = Duration::from_millis(250);
/// The longest wait that a server is granted.
const MAX_ASKED: Duration = Duration::from_secs(3600);
/// Batches on their way to the disk at once.
const KEPT_AT_ONCE: usize = 8;

/// How much is kept and how hard it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExporterOptions {
    /// Bounds of the queue.
    pub queue: QueueLimits,
    /// Retries of a request.
    pub retry: RetryPolicy,
    /// Requests in flight at once.
    pub in_flight: usize,
}

impl Default for ExporterOptions {
    fn default() -> Self {
        Self {
            queue: QueueLimits::default(),
            retry: RetryPolicy::default(),
            in_flight: 4,
        }
    }
}

/// The running export. Dropping it is closing it with no time to drain.
#[derive(Debug)]
pub struct Exporter {
    stop: watch::Sender<Option<Instant>>,
    done: std_mpsc::Receiver<()>,
}

impl Exporter {
    /// Starts the task on `runtime`, which must outlive it.
    #[must_use]
    pub fn start(transport: Transport, options: ExporterOptions, runtime: &Handle) -> (ExportQueue, Self) {
        let reporter = Arc::new(Reporter::new(transport.name(), transport.hint()));
        Self::launch(transport, options, None, reporter, runtime)
    }

    /// The same with a place for what the receiver does not take.
    ///
    /// # Errors
    /// The spool's thread cannot be started.
    pub fn start_with_spool(
        transport: Transport,
        options: ExporterOptions,
        spool: Spool,
        runtime: &Handle,
    ) -> Result<(ExportQueue, Self), SpoolError> {
        let reporter = Arc::new(Reporter::new(transport.name(), transport.hint()));
        let spool = spool.start(Arc::clone(&reporter))?;
        Ok(Self::launch(transport, options, Some(spool), reporter, runtime))
    }

    fn launch(
        transport: Transport,
        options: ExporterOptions,
        spool: Option<SpoolHandle>,
        reporter: Arc<Reporter>,
        runtime: &Handle,
    ) -> (ExportQueue, Self) {
        let (queue, batches, shared) = ExportQueue::new(options.queue, reporter);
        let (stop, stopped) = watch::channel(None);
        let (ended, done) = std_mpsc::channel();
        let worker = Arc::new(Worker {
            in_flight: transport.in_flight(options.in_flight.max(1)),
            transport,
            retry: options.retry,
            shared,
            stop: Stop(stopped),
            recovered: Notify::new(),
            down: AtomicBool::new(false),
            not_before: Mutex::new(None),
            spool,
            spoke_of_spool: AtomicBool::new(false),
        });
        runtime.spawn(async move {
            worker.run(batches).await;
            // Nobody listens after a drop without a close.
            let _ = ended.send(());
        });
        (queue, Self { stop, done })
    }

    /// Sends what is queued until `deadline` has passed, then settles the rest as lost. Blocks; not for async code.
    /// Whatever is pushed afterwards is refused.
    ///
    /// Returns whether the worker settled everything: `false` means that its runtime is gone or stuck.
    #[must_use]
    pub fn close(self, deadline: Duration) -> bool {
        self.stop.send_replace(Some(Instant::now() + deadline));
        self.done.recv_timeout(deadline + SETTLING).is_ok()
    }
}

/// Tells when to stop.
#[derive(Clone, Debug)]
struct Stop(watch::Receiver<Option<Instant>>);

impl Stop {
    /// Waits for the request to stop. Returns the deadline; a dropped [`Exporter`] leaves none.
    async fn requested(&mut self) -> Instant {
        match self.0.wait_for(Option::is_some).await {
            Ok(deadline) => deadline.unwrap_or_else(Instant::now),
            Err(_) => Instant::now(),
        }
    }

    /// Waits for the deadline.
    async fn expired(mut self) {
        let deadline = self.requested().await;
        tokio::time::sleep_until(deadline).await;
    }
}

struct Worker {
    transport: Transport,
    retry: RetryPolicy,
    in_flight: usize,
    shared: Arc<Shared>,
    stop: Stop,
    /// A request succeeded: others need not wait for the end of their backoff.
    recovered: Notify,
    /// The last request that ended has failed, and is or would be tried again.
    down: AtomicBool,
    /// The server does not want a request earlier.
    not_before: Mutex<Option<Instant>>,
    spool: Option<SpoolHandle>,
    spoke_of_spool: AtomicBool,
}

impl Worker {
    async fn run(self: Arc<Self>, mut batches: mpsc::UnboundedReceiver<Batch>) {
        let mut requests = JoinSet::new();
        let mut keeping = JoinSet::new();
        let mut expired = pin!(self.stop.clone().expired());
        let mut stop = self.stop.clone();
        let mut closing = false;
        let mut spool_is_next = false;
        loop {
            self.shared.beat();
            // With a spool, one request at a time finds out whether the receiver is up again.
            let wait = self.spool.is_some() && self.is_down() && !requests.is_empty();
            let send = requests.len() < self.in_flight && !wait;
            let keep = self.is_spooling() && keeping.len() < KEPT_AT_ONCE;
            if send && !closing && self.has_spooled() && (spool_is_next || batches.is_empty()) {
                requests.spawn(Arc::clone(&self).deliver_spooled());
                spool_is_next = false;
                continue;
            }
            tokio::select! {
                biased;
                () = &mut expired => break,
                _ = stop.requested(), if !closing => {
                    batches.close();
                    closing = true;
                }
                Some(ended) = requests.join_next(), if !requests.is_empty() => check(ended),
                Some(ended) = keeping.join_next(), if !keeping.is_empty() => check(ended),
                batch = batches.recv(), if send || keep => match batch {
                    Some(batch) if send => {
                        self.shared.taken(batch.payload().len());
                        requests.spawn(Arc::clone(&self).deliver(batch));
                        spool_is_next = true;
                    }
                    Some(batch) => {
                        self.shared.taken(batch.payload().len());
                        keeping.spawn(Arc::clone(&self).keep(batch, LossReason::QueueFull, String::new()));
                    }
                    None => break,
                },
                () = self.spool_news(), if !closing => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
        batches.close();
        while let Some(batch) = batches.recv().await {
            self.shared.taken(batch.payload().len());
            let why = "no time left".to_owned();
            Arc::clone(&self).keep(batch, LossReason::Shutdown, why).await;
        }
        for mut tasks in [requests, keeping] {
            while let Some(ended) = tasks.join_next().await {
                check(ended);
            }
        }
        if let Some(spool) = &self.spool {
            spool.sync().await;
        }
    }

    fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Whether batches go to the spool rather than wait in the queue.
    fn is_spooling(&self) -> bool {
        self.spool.is_some() && (self.is_down() || self.shared.is_crowded())
    }

    /// Waits until the loop may have something else to do: the spool has a batch again, or the receiver was found to be down or
    /// the queue to be crowded, for which a look now and then is enough.
    async fn spool_news(&self) {
        match &self.spool {
            Some(spool) => tokio::select! {
                () = spool.news() => {}
                () = tokio::time::sleep(LOOK) => {}
            },
            None => std::future::pending().await,
        }
    }

    fn has_spooled(&self) -> bool {
        self.spool.as_ref().is_some_and(SpoolHandle::pending)
    }

    /// Sends a batch and settles it.
    async fn deliver(self: Arc<Self>, batch: Batch) {
        let body = self.transport.prepare(batch.payload());
        match self.attempts_in_time(&body).await {
            Ok(partial) => self.accepted(batch, &partial),
            Err((reason, why)) if may_be_kept(reason) => Arc::clone(&self).keep(batch, reason, why).await,
            Err((reason, why)) => self.lose(batch, reason, &why),
        }
    }

    /// Sends the oldest batch in the spool.
    async fn deliver_spooled(self: Arc<Self>) {
        let Some(spool) = &self.spool else { return };
        let Some(spooled) = spool.take().await else { return };
        let body = self.transport.prepare(spooled.batch.payload());
        match self.attempts_in_time(&body).await {
            Ok(partial) => spool.settle(spooled, |batch| self.accepted(batch, &partial)),
            Err((reason, _)) if may_be_kept(reason) => spool.give_back(spooled),
            Err((reason, why)) => spool.settle(spooled, |batch| self.lose(batch, reason, &why)),
        }
        if !spool.pending() && self.spoke_of_spool.swap(false, Ordering::Relaxed) {
            tracing::info!("the spool is empty again");
        }
    }

    async fn attempts_in_time(&self, body: &Bytes) -> Result<PartialSuccess, (LossReason, String)> {
        tokio::select! {
            biased;
            outcome = self.attempts(body) => outcome,
            () = self.stop.clone().expired() => Err((LossReason::Shutdown, "no time left".to_owned())),
        }
    }

    /// Puts a batch into the spool; without one, it is lost for `reason`.
    async fn keep(self: Arc<Self>, batch: Batch, reason: LossReason, why: String) {
        let Some(spool) = &self.spool else {
            self.lose(batch, reason, &why);
            return;
        };
        match spool.keep(batch).await {
            Ok(()) => {
                if !self.spoke_of_spool.swap(true, Ordering::Relaxed) {
                    tracing::warn!("records wait in the spool {}", spool.path().display());
                }
            }
            // The spool has said why.
            Err((batch, LossReason::SpoolFailed)) => batch.lost(LossReason::SpoolFailed),
            Err((batch, reason)) => self.lose(batch, reason, ""),
        }
    }

    fn accepted(&self, batch: Batch, partial: &PartialSuccess) {
        if partial.rejected > 0 {
            let rejected = partial.rejected.min(batch.records().into());
            self.shared
                .reporter
                .lost(rejected, LossReason::Rejected, &partial.message);
        } else if !partial.message.is_empty() {
            self.shared.reporter.warning(&partial.message);
        }
        batch.exported(partial.rejected);
    }

    fn lose(&self, batch: Batch, reason: LossReason, why: &str) {
        self.shared.reporter.lost(batch.records().into(), reason, why);
        batch.lost(reason);
    }

    /// Sends until the receiver takes it, or there is a reason not to try again.
    async fn attempts(&self, body: &Bytes) -> Result<PartialSuccess, (LossReason, String)> {
        let mut backoff = Backoff::new(self.retry, RandomState::new().build_hasher().finish());
        let mut failing_since = None;
        let mut hurried = false;
        if let Some(wait) = self.asked_to_wait() {
            self.pause(wait, true, &mut hurried).await;
        }
        loop {
            self.shared.requests.fetch_add(1, Ordering::Relaxed);
            let failure = match self.transport.send(body.clone()).await {
                Ok(partial) => {
                    self.down.store(false, Ordering::Relaxed);
                    *self.not_before() = None;
                    self.shared.reporter.delivered();
                    self.recovered.notify_waiters();
                    return Ok(partial);
                }
                Err(failure) => failure,
            };
            self.shared.failed(failure.kind());
            let Verdict::Retry { after } = failure.verdict() else {
                self.down.store(false, Ordering::Relaxed);
                return Err((self.refusal(&failure), failure.to_string()));
            };
            self.down.store(true, Ordering::Relaxed);
            self.shared.reporter.failed(&failure);
            if let Some(after) = after {
                *self.not_before() = Some(Instant::now() + after.min(MAX_ASKED));
            }
            let since = *failing_since.get_or_insert_with(Instant::now);
            let Some(wait) = backoff.wait(after, since.elapsed()) else {
                return Err((LossReason::RetriesExhausted, failure.to_string()));
            };
            self.pause(wait, after.is_some(), &mut hurried).await;
            self.shared.retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn not_before(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.not_before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the server still wants to be left alone. Matters for a batch that is new, or that comes back from the spool.
    fn asked_to_wait(&self) -> Option<Duration> {
        let until = (*self.not_before())?;
        until.checked_duration_since(Instant::now())
    }

    fn refusal(&self, failure: &Failure) -> LossReason {
        match failure {
            Failure::Output(kind) => {
                // The first failure is the cause; later ones only follow from it.
                let _ = self.shared.sink_error.set(*kind);
                LossReason::Pipe
            }
            _ => LossReason::Permanent,
        }
    }

    /// Waits before a retry. Another request's success ends the wait, unless the server asked for it. So does closing,
    /// once per batch; from then on there is no time for long waits.
    async fn pause(&self, wait: Duration, asked: bool, hurried: &mut bool) {
        let mut stop = self.stop.clone();
        let wait = if *hurried && !asked {
            wait.min(self.retry.initial)
        } else {
            wait
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.recovered.notified(), if !asked => {}
            _ = stop.requested(), if !*hurried => *hurried = true,
        }
    }
}

/// Whether a batch that is not delivered for this reason can still be, later.
const fn may_be_kept(reason: LossReason) -> bool {
    matches!(reason, LossReason::RetriesExhausted | LossReason::Shutdown)
}

/// A request that panicked has settled its batch while unwinding.
fn check(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!("a request ended in a bug: {error}; its records are counted as lost (unsettled)");
    }
}
