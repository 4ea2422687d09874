//! The agent's own metrics: over OTLP by the OpenTelemetry SDK, and as text for Prometheus. Both read the same families.
//!
//! - Everything is observed from counters that exist anyway: nothing on the packet path knows of metrics.
//! - Record counts of one export come from one ledger snapshot, so `received = exported + in flight + Σ lost` holds in
//!   the backend too.
//! - A collector that is down costs one log message, and never holds up the agent.

mod exporter;
mod families;
mod instruments;
pub mod prometheus;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use thiserror::Error;
use tokio::runtime::Handle;

use crate::export::{OtlpConfig, TransportError};
use crate::record::{Resource, semconv};
use exporter::OnRuntime;
pub use families::{CounterFamily, Families, Instrument, Reader};

/// The metrics' exporter cannot be set up.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// The endpoint needs what is not supported.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The SDK refuses the configuration.
    #[error("cannot export metrics: {0}; check OTEL_EXPORTER_OTLP_*, or unset the endpoint")]
    Build(#[from] ExporterBuildError),
}

/// The running metrics export.
#[derive(Debug)]
pub struct Metrics {
    provider: SdkMeterProvider,
}

impl Metrics {
    /// Starts exporting to the collector of `config`, every 60 s or as `OTEL_METRIC_EXPORT_INTERVAL` says.
    ///
    /// # Errors
    /// The exporter cannot be set up.
    pub fn install(
        config: &OtlpConfig,
        resource: &Resource,
        runtime: &Handle,
        families: &Families,
    ) -> Result<Self, MetricsError> {
        let exporter = OnRuntime::new(config, runtime)?;
        let attributes = resource
            .of_agent()
            .map(|(name, value)| KeyValue::new(name.to_owned(), value.to_owned()));
        let provider = SdkMeterProvider::builder()
            .with_resource(
                opentelemetry_sdk::Resource::builder_empty()
                    .with_detector(Box::new(TelemetryResourceDetector))
                    .with_schema_url(attributes.collect::<Vec<_>>(), semconv::SCHEMA_URL)
                    .build(),
            )
            .with_reader(PeriodicReader::builder(exporter).build())
            .build();
        let meter = provider.meter(semconv::SCOPE);
        instruments::register(&meter, families);
        Ok(Self { provider })
    }

    /// Exports once more and stops, within `deadline`. Blocks; not for async code.
    pub fn shutdown(self, deadline: Duration) {
        let (done, ended) = mpsc::channel();
        // The SDK waits 5 s, whatever it is asked.
        let spawned = thread::Builder::new()
            .name("metrics end".to_owned())
            .spawn(move || {
                let outcome = self.provider.shutdown();
                // Nobody waits after the deadline.
                let _ = done.send(outcome);
            });
        let outcome = spawned.map(|_| ended.recv_timeout(deadline));
        match outcome {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::debug!("the last metrics were not delivered: {error}"),
            Ok(Err(_)) => tracing::debug!("the last metrics were not delivered in time"),
            Err(error) => tracing::debug!("the last metrics were not delivered: {error}"),
        }
    }
}
