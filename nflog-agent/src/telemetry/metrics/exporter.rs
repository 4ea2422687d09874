//! The SDK's OTLP exporter, made fit for the SDK's own thread, and for connections that are replaced when they are old.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

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
use crate::export::{
    Aged, Client, Compression, Connector, MAX_AGE, OtlpConfig, Protocol, channel, compress, encoding,
};

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 1 << 20;

/// Runs an exporter that needs a tokio runtime on the SDK's own thread, and tells the operator of failures once.
pub(super) struct OnRuntime {
    config: OtlpConfig,
    way: Way,
    exporter: Aged<Arc<MetricExporter>>,
    temporality: Temporality,
    runtime: Handle,
    failing: AtomicBool,
}

/// What outlives one exporter of the SDK.
enum Way {
    /// Each exporter has a channel of its own.
    Grpc(Connector),
    /// Has connections that are replaced by itself.
    Http(OwnClient),
}

impl OnRuntime {
    pub(super) fn new(config: &OtlpConfig, runtime: &Handle) -> Result<Self, MetricsError> {
        Self::over(config, runtime, MAX_AGE)
    }

    fn over(config: &OtlpConfig, runtime: &Handle, max_age: Duration) -> Result<Self, MetricsError> {
        let way = match config.protocol {
            Protocol::Grpc => Way::Grpc(Connector::new(config)?),
            Protocol::HttpProtobuf => Way::Http(OwnClient {
                client: Arc::new(Client::new(config)?),
                compression: config.compression,
            }),
        };
        // tonic connects through the runtime it is made in.
        let _runtime = runtime.enter();
        let exporter = Aged::new(max_age);
        let first: Arc<MetricExporter> = exporter.try_get(Instant::now(), || otlp(config, &way))?;
        Ok(Self {
            temporality: first.temporality(),
            config: config.clone(),
            way,
            exporter,
            runtime: runtime.clone(),
            failing: AtomicBool::new(false),
        })
    }

    async fn deliver(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let make = || otlp(&self.config, &self.way);
        let exporter = self.exporter.try_get(Instant::now(), make);
        let exporter = exporter.map_err(|error| OTelSdkError::InternalFailure(error.to_string()))?;
        let timeout = self.config.timeout;
        let exported = tokio::time::timeout(timeout, exporter.export(metrics)).await;
        exported.unwrap_or_else(|_| {
            // The peer may be gone for good without a word.
            self.exporter.forget();
            Err(OTelSdkError::Timeout(timeout))
        })
    }

    fn tell(&self, outcome: &OTelSdkResult) {
        let was_failing = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        match outcome {
            Err(error) if !was_failing => {
                tracing::warn!(
                    "cannot deliver metrics to {}: {error}; trying again at the next interval",
                    self.config.target()
                );
            }
            Err(error) => tracing::debug!("cannot deliver metrics to {}: {error}", self.config.target()),
            Ok(()) if was_failing => tracing::info!("delivering metrics to {} again", self.config.target()),
            Ok(()) => {}
        }
    }
}

impl PushMetricExporter for OnRuntime {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let mut delivery = pin!(self.deliver(metrics));
        let outcome = std::future::poll_fn(|context| -> Poll<_> {
            let _runtime = self.runtime.enter();
            delivery.as_mut().poll(context)
        })
        .await;
        self.tell(&outcome);
        // The reader would log it again, every time.
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        // Nothing is kept here.
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.exporter.forget();
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        self.temporality
    }
}

/// The packets' own client, for the SDK's exporter: connects, compresses and goes through proxies in the same way.
#[derive(Clone, Debug)]
struct OwnClient {
    client: Arc<Client>,
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
fn otlp(config: &OtlpConfig, way: &Way) -> Result<Arc<MetricExporter>, MetricsError> {
    let exporter = match way {
        Way::Grpc(connector) => {
            let headers = config.headers.iter().cloned().collect();
            let builder = MetricExporter::builder()
                .with_tonic()
                .with_channel(channel(config, connector.clone()))
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
        Way::Http(client) => {
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
                .with_http_client(client.clone())
                .build()
        }
    };
    Ok(Arc::new(exporter?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Mutex;

    use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
        MetricsService, MetricsServiceServer,
    };
    use opentelemetry_proto::tonic::collector::metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    };
    use tokio::net::TcpListener;
    use tonic::transport::server::TcpIncoming;

    use super::*;

    /// Notes from where requests come.
    #[derive(Clone, Default)]
    struct Peers(Arc<Mutex<BTreeSet<SocketAddr>>>);

    #[tonic::async_trait]
    impl MetricsService for Peers {
        async fn export(
            &self,
            request: tonic::Request<ExportMetricsServiceRequest>,
        ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
            self.0.lock().unwrap().insert(request.remote_addr().unwrap());
            Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
        }
    }

    #[tokio::test]
    async fn a_grpc_connection_that_is_old_is_replaced() {
        for (age, connections) in [(MAX_AGE, 1), (Duration::ZERO, 3)] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let peers = Peers::default();
            let service = MetricsServiceServer::new(peers.clone());
            let server = tonic::transport::Server::builder().add_service(service);
            tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
            let config = OtlpConfig::new(Protocol::Grpc, endpoint.parse().unwrap());
            let exporter = OnRuntime::over(&config, &Handle::current(), age).unwrap();
            for _ in 0..3 {
                exporter.deliver(&ResourceMetrics::default()).await.unwrap();
            }
            assert_eq!(peers.0.lock().unwrap().len(), connections, "{age:?}");
        }
    }
}
