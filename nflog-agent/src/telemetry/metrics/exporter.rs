//! The SDK's OTLP exporter, made fit for the SDK's own thread.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{MetricExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use tokio::runtime::Handle;
use tonic::metadata::MetadataMap;

use super::MetricsError;
use crate::export::{Compression, OtlpConfig, Protocol, channel, connector};

/// Runs an exporter that needs a tokio runtime on the SDK's own thread, and tells the operator of failures once.
pub(super) struct OnRuntime {
    exporter: MetricExporter,
    runtime: Handle,
    timeout: Duration,
    target: String,
    failing: AtomicBool,
}

impl OnRuntime {
    pub(super) fn new(config: &OtlpConfig, runtime: &Handle) -> Result<Self, MetricsError> {
        // tonic connects through the runtime it is made in.
        let _runtime = runtime.enter();
        Ok(Self {
            exporter: otlp(config)?,
            runtime: runtime.clone(),
            timeout: config.timeout,
            target: config.target(),
            failing: AtomicBool::new(false),
        })
    }

    fn tell(&self, outcome: &OTelSdkResult) {
        let was_failing = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        match outcome {
            Err(error) if !was_failing => {
                tracing::warn!(
                    "cannot deliver metrics to {}: {error}; trying again at the next interval",
                    self.target
                );
            }
            Err(error) => tracing::debug!("cannot deliver metrics to {}: {error}", self.target),
            Ok(()) if was_failing => tracing::info!("delivering metrics to {} again", self.target),
            Ok(()) => {}
        }
    }
}

impl PushMetricExporter for OnRuntime {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let timeout = {
            let _runtime = self.runtime.enter();
            tokio::time::timeout(self.timeout, self.exporter.export(metrics))
        };
        let mut export = pin!(timeout);
        let outcome = std::future::poll_fn(|context| -> Poll<_> {
            let _runtime = self.runtime.enter();
            export.as_mut().poll(context)
        })
        .await
        .unwrap_or(Err(OTelSdkError::Timeout(self.timeout)));
        self.tell(&outcome);
        // The reader would log it again, every time.
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

/// The SDK's exporter, set up as for the packets' own.
fn otlp(config: &OtlpConfig) -> Result<MetricExporter, MetricsError> {
    let gzip = config.compression == Compression::Gzip;
    let exporter = match config.protocol {
        Protocol::Grpc => {
            let headers = config.headers.iter().cloned().collect();
            let builder = MetricExporter::builder()
                .with_tonic()
                .with_channel(channel(config)?)
                .with_timeout(config.timeout)
                .with_metadata(MetadataMap::from_headers(headers));
            let builder = if gzip {
                builder.with_compression(opentelemetry_otlp::Compression::Gzip)
            } else {
                builder
            };
            builder.build()
        }
        Protocol::HttpProtobuf => {
            let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let headers: HashMap<_, _> = config
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect();
            let builder = MetricExporter::builder()
                .with_http()
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                .with_endpoint(config.endpoint.to_string())
                .with_timeout(config.timeout)
                .with_headers(headers)
                .with_http_client(HyperClient::new(connector(config)?, config.timeout, None));
            let builder = if gzip {
                builder.with_compression(opentelemetry_otlp::Compression::Gzip)
            } else {
                builder
            };
            builder.build()
        }
    };
    Ok(exporter?)
}
