//! The task that sends batches: several requests in flight, retries, and a bounded end.
//!
//! - A batch is out of the queue while it is sent and retried, so a receiver that is down holds `in_flight` batches and
//!   the queue holds the rest.
//! - Closing: nothing new is accepted, what is queued is sent, and at the deadline everything left is lost
//!   ([`LossReason::Shutdown`]).

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as std_mpsc;
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
use super::transport::Transport;
use crate::telemetry::ledger::LossReason;

/// After the deadline of a close the worker has this long to settle what is left.
const SETTLING: Duration = Duration::from_secs(2);

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
        let reporter = Reporter::new(transport.name(), transport.hint());
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
}

impl Worker {
    async fn run(self: Arc<Self>, mut batches: mpsc::UnboundedReceiver<Batch>) {
        let mut requests = JoinSet::new();
        let mut expired = pin!(self.stop.clone().expired());
        let mut stop = self.stop.clone();
        let mut closing = false;
        loop {
            tokio::select! {
                biased;
                () = &mut expired => break,
                _ = stop.requested(), if !closing => {
                    batches.close();
                    closing = true;
                }
                Some(ended) = requests.join_next(), if !requests.is_empty() => check(ended),
                batch = batches.recv(), if requests.len() < self.in_flight => match batch {
                    Some(batch) => {
                        self.shared.taken(batch.payload().len());
                        requests.spawn(Arc::clone(&self).deliver(batch));
                    }
                    None => break,
                },
            }
        }
        batches.close();
        while let Some(batch) = batches.recv().await {
            self.shared.taken(batch.payload().len());
            self.lose(batch, LossReason::Shutdown, "no time left");
        }
        while let Some(ended) = requests.join_next().await {
            check(ended);
        }
    }

    /// Sends a batch and settles it.
    async fn deliver(self: Arc<Self>, batch: Batch) {
        let body = self.transport.prepare(batch.payload());
        let outcome = tokio::select! {
            biased;
            outcome = self.attempts(&body) => outcome,
            () = self.stop.clone().expired() => Err((LossReason::Shutdown, "no time left".to_owned())),
        };
        match outcome {
            Ok(partial) => self.accepted(batch, &partial),
            Err((reason, why)) => self.lose(batch, reason, &why),
        }
    }

    fn accepted(&self, batch: Batch, partial: &PartialSuccess) {
        if partial.rejected > 0 {
            let rejected = u32::try_from(partial.rejected)
                .unwrap_or(u32::MAX)
                .min(batch.records());
            self.shared
                .reporter
                .lost(rejected, LossReason::Rejected, &partial.message);
        } else if !partial.message.is_empty() {
            self.shared.reporter.warning(&partial.message);
        }
        batch.exported(partial.rejected);
    }

    fn lose(&self, batch: Batch, reason: LossReason, why: &str) {
        self.shared.reporter.lost(batch.records(), reason, why);
        batch.lost(reason);
    }

    /// Sends until the receiver takes it, or there is a reason not to try again.
    async fn attempts(&self, body: &Bytes) -> Result<PartialSuccess, (LossReason, String)> {
        let mut backoff = Backoff::new(self.retry, RandomState::new().build_hasher().finish());
        let mut failing_since = None;
        let mut hurried = false;
        loop {
            self.shared.requests.fetch_add(1, Ordering::Relaxed);
            let failure = match self.transport.send(body.clone()).await {
                Ok(partial) => {
                    self.shared.reporter.delivered();
                    self.recovered.notify_waiters();
                    return Ok(partial);
                }
                Err(failure) => failure,
            };
            let Verdict::Retry { after } = failure.verdict() else {
                return Err((self.refusal(&failure), failure.to_string()));
            };
            self.shared.reporter.failed(&failure);
            let since = *failing_since.get_or_insert_with(Instant::now);
            let Some(wait) = backoff.wait(after, since.elapsed()) else {
                return Err((LossReason::RetriesExhausted, failure.to_string()));
            };
            self.pause(wait, after.is_some(), &mut hurried).await;
            self.shared.retries.fetch_add(1, Ordering::Relaxed);
        }
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

/// A request that panicked has settled its batch while unwinding.
fn check(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!("a request ended in a bug: {error}; its records are counted as lost (unsettled)");
    }
}
