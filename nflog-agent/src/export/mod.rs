//! Batches of encoded records to a collector or a console.
//!
//! - The thread that encodes never waits: [`ExportQueue::try_push`] takes a batch or gives it back at once.
//! - Every batch is settled on the ledger exactly once, whatever the collector does.
//! - Only what the OTLP specification calls retryable is retried, with backoff, for a bounded time.

mod batch;
mod config;
mod grpc;
mod http;
mod percent;
mod pipe;
mod queue;
mod reply;
mod report;
mod resource;
mod retry;
mod spool;
mod transport;
mod worker;

pub use batch::{Batch, Batcher, FlushPolicy};
pub use config::{Compression, ConfigError, OtlpConfig, Protocol, Signal};
pub(crate) use grpc::channel;
pub(crate) use http::connector;
pub use queue::{ExportQueue, QueueLimits, QueueStats};
pub use resource::detect as detect_resource;
pub use retry::RetryPolicy;
pub use spool::{Spool, SpoolError, SpoolLimits, WhenFull};
pub use transport::{Transport, TransportError};
pub use worker::{Exporter, ExporterOptions};
