//! The SDK's OTLP exporter, made fit for the SDK's own thread.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{MetricExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use tokio::runtime::Handle;
use tonic::metadata::MetadataMap;

use super::MetricsError;
use crate::export::{Client, Compression, OtlpConfig, Protocol, channel, compress, encoding};

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 1 << 20;

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

/// The packets' own client, for the SDK's exporter: connects, compresses and goes through proxies in the same way.
#[derive(Debug)]
struct OwnClient {
    client: Client,
    compression: Compression,
}

#[tonic::async_trait]
impl HttpClient for OwnClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut head, body) = request.into_parts();
        if let Some(encoding) = encoding(self.compression) {
            head.headers.insert(CONTENT_ENCODING, encoding);
        }
        let body = Full::new(compress(self.compression, &body));
        let answer = self.client.request(Request::from_parts(head, body)).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// The SDK's exporter, set up as for the packets' own.
fn otlp(config: &OtlpConfig) -> Result<MetricExporter, MetricsError> {
    let exporter = match config.protocol {
        Protocol::Grpc => {
            let headers = config.headers.iter().cloned().collect();
            let builder = MetricExporter::builder()
                .with_tonic()
                .with_channel(channel(config)?)
                .with_timeout(config.timeout)
                .with_metadata(MetadataMap::from_headers(headers));
            match config.compression {
                Compression::None => builder.build(),
                Compression::Gzip => builder
                    .with_compression(opentelemetry_otlp::Compression::Gzip)
                    .build(),
                Compression::Zstd => builder
                    .with_compression(opentelemetry_otlp::Compression::Zstd)
                    .build(),
            }
        }
        Protocol::HttpProtobuf => {
            let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let headers: HashMap<_, _> = config
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect();
            MetricExporter::builder()
                .with_http()
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                .with_endpoint(config.endpoint.to_string())
                .with_timeout(config.timeout)
                .with_headers(headers)
                .with_http_client(OwnClient {
                    client: Client::new(config)?,
                    compression: config.compression,
                })
                .build()
        }
    };
    Ok(exporter?)
}
