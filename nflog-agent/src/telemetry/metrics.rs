//! The agent's own metrics over OTLP, by the OpenTelemetry SDK.
//!
//! - Everything is observed from counters that exist anyway: nothing on the packet path knows of metrics.
//! - Record counts of one export come from one ledger snapshot, so `received = exported + in flight + Σ lost` holds in
//!   the backend too.
//! - A collector that is down costs one log message, and never holds up the agent.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use thiserror::Error;
use tokio::runtime::Handle;
use tonic::metadata::MetadataMap;

use super::ledger::{Ledger, LossReason, Snapshot};
use crate::export::{
    Compression, ExportQueue, OtlpConfig, Protocol, QueueStats, TransportError, channel, connector,
};
use crate::record::{Resource, semconv};

/// Instruments of one collection are read within this time.
const COLLECTION: Duration = Duration::from_millis(100);

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

/// Counters from elsewhere: one metric, told apart by one attribute.
pub struct CounterFamily {
    /// `nflog_agent.…`.
    pub name: &'static str,
    /// UCUM, with annotations as in `{packet}`.
    pub unit: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// Attribute that tells the counters apart.
    pub label: &'static str,
    /// Calls its argument with each attribute value and count. Called from the metrics thread about once a minute.
    pub read: Reader,
}

/// See [`CounterFamily::read`].
pub type Reader = Box<dyn Fn(&mut dyn FnMut(&'static str, u64)) + Send + Sync>;

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
        ledger: &Arc<Ledger>,
        queue: Option<&ExportQueue>,
        families: Vec<CounterFamily>,
    ) -> Result<Self, MetricsError> {
        let exporter = {
            // tonic connects through the runtime it is made in.
            let _runtime = runtime.enter();
            exporter(config)?
        };
        let exporter = OnRuntime {
            exporter,
            runtime: runtime.clone(),
            timeout: config.timeout,
            target: config.endpoint.to_string(),
            failing: AtomicBool::new(false),
        };
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
        observe_ledger(&meter, ledger);
        if let Some(queue) = queue {
            observe_queue(&meter, queue);
        }
        for family in families {
            observe_family(&meter, family);
        }
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

fn exporter(config: &OtlpConfig) -> Result<MetricExporter, MetricsError> {
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

fn observe_ledger(meter: &Meter, ledger: &Arc<Ledger>) {
    let moment = Arc::new(Moment {
        ledger: Arc::clone(ledger),
        last: Mutex::new(None),
    });
    let counter =
        |name: &'static str, unit: &'static str, description: &'static str, read: fn(&Snapshot) -> u64| {
            let moment = Arc::clone(&moment);
            meter
                .u64_observable_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| observer.observe(read(&moment.snapshot()), &[]))
                .build();
        };
    counter(
        "nflog_agent.records.received",
        "{record}",
        "Packets that became records.",
        |now| now.received,
    );
    counter(
        "nflog_agent.records.exported",
        "{record}",
        "Records that the receiver took.",
        |now| now.exported,
    );
    counter(
        "nflog_agent.packets.missed",
        "{packet}",
        "Packets that the kernel numbered and that did not arrive.",
        |now| now.gaps,
    );
    counter(
        "nflog_agent.receive_buffer.overruns",
        "{overrun}",
        "Times that the kernel found the receive buffer full.",
        |now| now.overruns,
    );
    let at = Arc::clone(&moment);
    meter
        .u64_observable_counter("nflog_agent.records.lost")
        .with_unit("{record}")
        .with_description("Records lost after they were received.")
        .with_callback(move |observer| {
            let now = at.snapshot();
            for reason in LossReason::ALL {
                observer.observe(now.lost(reason), &[KeyValue::new("reason", reason.name())]);
            }
        })
        .build();
    meter
        .i64_observable_up_down_counter("nflog_agent.records.in_flight")
        .with_unit("{record}")
        .with_description("Records received and neither exported nor lost yet.")
        .with_callback(move |observer| observer.observe(signed(moment.snapshot().in_flight()), &[]))
        .build();
}

fn observe_queue(meter: &Meter, queue: &ExportQueue) {
    let gauge =
        |name: &'static str, unit: &'static str, description: &'static str, read: fn(&QueueStats) -> u64| {
            let queue = queue.clone();
            meter
                .i64_observable_up_down_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| observer.observe(signed(read(&queue.stats())), &[]))
                .build();
        };
    gauge(
        "nflog_agent.export.queue.size",
        "By",
        "Encoded bytes that wait to be sent.",
        |now| now.bytes,
    );
    gauge(
        "nflog_agent.export.queue.batches",
        "{batch}",
        "Batches that wait to be sent.",
        |now| now.batches,
    );
    let counter = |name: &'static str, description: &'static str, read: fn(&QueueStats) -> u64| {
        let queue = queue.clone();
        meter
            .u64_observable_counter(name)
            .with_unit("{request}")
            .with_description(description)
            .with_callback(move |observer| observer.observe(read(&queue.stats()), &[]))
            .build();
    };
    counter(
        "nflog_agent.export.requests",
        "Requests sent, retries included.",
        |now| now.requests,
    );
    counter("nflog_agent.export.retries", "Requests sent again.", |now| {
        now.retries
    });
}

fn observe_family(meter: &Meter, family: CounterFamily) {
    let CounterFamily {
        name,
        unit,
        description,
        label,
        read,
    } = family;
    meter
        .u64_observable_counter(name)
        .with_unit(unit)
        .with_description(description)
        .with_callback(move |observer| {
            read(&mut |value, count| observer.observe(count, &[KeyValue::new(label, value)]));
        })
        .build();
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// One snapshot for all instruments of a collection.
struct Moment {
    ledger: Arc<Ledger>,
    last: Mutex<Option<(Instant, Snapshot)>>,
}

impl Moment {
    fn snapshot(&self) -> Snapshot {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((taken, snapshot)) if taken.elapsed() < COLLECTION => snapshot,
            _ => {
                let snapshot = self.ledger.snapshot();
                *last = Some((Instant::now(), snapshot));
                snapshot
            }
        }
    }
}

/// Runs an exporter that needs a tokio runtime on the SDK's own thread, and tells the operator of failures once.
struct OnRuntime {
    exporter: MetricExporter,
    runtime: Handle,
    timeout: Duration,
    target: String,
    failing: AtomicBool,
}

impl OnRuntime {
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
