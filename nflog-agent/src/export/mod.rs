//! Batches of encoded records to a collector or a console.
//!
//! - The thread that encodes never waits: [`ExportQueue::try_push`] takes a batch or gives it back at once.
//! - Every batch is settled on the ledger exactly once, whatever the collector does.
//! - Only what the OTLP specification calls retryable is retried, with backoff, for a bounded time.

mod aged;
mod batch;
mod compress;
mod config;
mod connect;
mod grpc;
mod http;
mod names;
mod percent;
mod pipe;
mod queue;
mod reply;
mod report;
mod resource;
mod retry;
mod spool;
mod tls;
mod transport;
pub(crate) mod trial;
mod worker;

pub(crate) use aged::{Aged, MAX_AGE};
pub use batch::{Batch, Batcher, FlushPolicy};
pub(crate) use compress::{compress, encoding};
pub use config::{Compression, ConfigError, OtlpConfig, Protocol, Proxy, Signal, TlsFiles};
pub(crate) use connect::Connector;
pub(crate) use grpc::channel;
pub(crate) use http::Client;
pub use queue::{ExportQueue, QueueLimits, QueueStats};
pub use resource::detect as detect_resource;
pub use retry::{FailureKind, RetryPolicy};
pub use spool::{Spool, SpoolError, SpoolLimits, SpoolUsage, WhenFull};
pub use tls::TlsError;
pub use transport::{Transport, TransportError};
pub use worker::{Exporter, ExporterOptions};
