//! The agent's own metrics, received by an independent OTLP implementation.
#![cfg(feature = "agent")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::mpsc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use nflog_agent::export::{Compression, Exporter, ExporterOptions, OtlpConfig, Protocol, Transport};
use nflog_agent::nflog::Loss;
use nflog_agent::record::Resource;
use nflog_agent::telemetry::ledger::{Ledger, LossReason, Unsettled};
use nflog_agent::telemetry::metrics::{CounterFamily, Families, Instrument, Metrics, prometheus};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::codec::CompressionEncoding;

const PATIENCE: Duration = Duration::from_secs(30);

struct Service(mpsc::Sender<ExportMetricsServiceRequest>);

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        assert_eq!(request.metadata().get("x-tenant").unwrap(), "blue");
        self.0.send(request.into_inner()).expect("the test listens");
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// Starts a receiver; the requests come through the channel.
fn receive(
    runtime: &Runtime,
    protocol: Protocol,
) -> (SocketAddr, mpsc::Receiver<ExportMetricsServiceRequest>) {
    let (sender, requests) = mpsc::channel();
    let listener = runtime
        .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .unwrap();
    let address = listener.local_addr().unwrap();
    match protocol {
        Protocol::Grpc => {
            let service =
                MetricsServiceServer::new(Service(sender)).accept_compressed(CompressionEncoding::Gzip);
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            let server = tonic::transport::Server::builder().add_service(service);
            runtime.spawn(server.serve_with_incoming(incoming));
        }
        Protocol::HttpProtobuf => {
            runtime.spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let sender = sender.clone();
                    let service = hyper::service::service_fn(move |request| answer(sender.clone(), request));
                    tokio::spawn(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service),
                    );
                }
            });
        }
    }
    (address, requests)
}

async fn answer(
    sender: mpsc::Sender<ExportMetricsServiceRequest>,
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<Full<bytes::Bytes>>, hyper::Error> {
    assert_eq!(request.uri().path(), "/v1/metrics");
    assert_eq!(request.headers()["x-tenant"], "blue");
    assert_eq!(request.headers()["content-encoding"], "zstd");
    let body = request.into_body().collect().await?.to_bytes();
    let inflated = zstd::stream::decode_all(&body[..]).unwrap();
    sender
        .send(ExportMetricsServiceRequest::decode(&inflated[..]).unwrap())
        .expect("the test listens");
    Ok(http::Response::new(Full::default()))
}

fn config(protocol: Protocol, address: SocketAddr) -> OtlpConfig {
    let path = match protocol {
        Protocol::Grpc => "",
        Protocol::HttpProtobuf => "/v1/metrics",
    };
    OtlpConfig {
        headers: vec![(http::HeaderName::from_static("x-tenant"), "blue".parse().unwrap())],
        timeout: PATIENCE,
        compression: match protocol {
            Protocol::Grpc => Compression::Gzip,
            Protocol::HttpProtobuf => Compression::Zstd,
        },
        ..OtlpConfig::new(protocol, format!("http://{address}{path}").parse().unwrap())
    }
}

fn text(attributes: &[KeyValue], name: &str) -> String {
    let attribute = attributes.iter().find(|attribute| attribute.key == name);
    match attribute.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        other => panic!("{name} is {other:?}"),
    }
}

/// `name`, or `name{label}`, with unit: value.
fn points(request: &ExportMetricsServiceRequest) -> BTreeMap<String, i64> {
    let mut points = BTreeMap::new();
    for metric in request
        .resource_metrics
        .iter()
        .flat_map(|r| &r.scope_metrics)
        .flat_map(|s| &s.metrics)
    {
        let Some(metric::Data::Sum(sum)) = &metric.data else {
            panic!("{} is no sum", metric.name)
        };
        for point in &sum.data_points {
            let Some(number_data_point::Value::AsInt(value)) = point.value else {
                panic!("{point:?}")
            };
            let label = point
                .attributes
                .first()
                .map(|attribute| text(&point.attributes, &attribute.key));
            let label = label.map(|label| format!("{{{label}}}")).unwrap_or_default();
            points.insert(format!("{}{label} {}", metric.name, metric.unit), value);
        }
    }
    points
}

/// Names, labels and values by the rules of the specification for Prometheus, from what came over OTLP.
fn in_prometheus(request: &ExportMetricsServiceRequest) -> BTreeMap<String, i64> {
    let mut samples = BTreeMap::new();
    let metrics = request
        .resource_metrics
        .iter()
        .flat_map(|resource| &resource.scope_metrics);
    for metric in metrics.flat_map(|scope| &scope.metrics) {
        let Some(metric::Data::Sum(sum)) = &metric.data else {
            panic!("{} is no sum", metric.name)
        };
        let unit = match metric.unit.as_str() {
            "By" => "_bytes",
            annotation => {
                assert!(
                    annotation.starts_with('{') && annotation.ends_with('}'),
                    "{annotation}"
                );
                ""
            }
        };
        let total = if sum.is_monotonic { "_total" } else { "" };
        let name = format!("{}{unit}{total}", metric.name.replace('.', "_"));
        for point in &sum.data_points {
            let labels: Vec<_> = point
                .attributes
                .iter()
                .map(|attribute| {
                    let value = text(&point.attributes, &attribute.key);
                    format!("{}=\"{value}\"", attribute.key.replace('.', "_"))
                })
                .collect();
            let labels = if labels.is_empty() {
                String::new()
            } else {
                format!("{{{}}}", labels.join(","))
            };
            let Some(number_data_point::Value::AsInt(value)) = point.value else {
                panic!("{point:?}")
            };
            samples.insert(format!("{name}{labels}"), value);
        }
    }
    samples
}

/// What a text for Prometheus has but for the Resource.
fn samples(text: &str) -> BTreeMap<String, i64> {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("target_info"));
    let pairs = lines.map(|line| line.rsplit_once(' ').unwrap());
    pairs
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

fn account(ledger: &std::sync::Arc<Ledger>, records: u32) -> Unsettled {
    let mut account = ledger.account();
    (0..records).for_each(|_| account.receive());
    account
}

#[test]
fn the_ledger_and_the_probes_arrive_as_metrics() {
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let runtime = Runtime::new().unwrap();
        let (address, requests) = receive(&runtime, protocol);
        let ledger = Ledger::new();
        let transport = Transport::pipe(Box::new(std::io::sink())).unwrap();
        let (queue, exporter) = Exporter::start(transport, ExporterOptions::default(), runtime.handle());
        let mut resource = Resource::new();
        resource.set("host.name", "node-1");
        let probes = CounterFamily {
            name: "nflog_agent.probe.events",
            instrument: Instrument::Counter,
            unit: "{event}",
            description: "What the probes counted.",
            label: Some("event"),
            read: Box::new(|observe| {
                observe("logged", 5);
                observe("attributed", 4);
            }),
        };
        let netns = CounterFamily {
            name: "nflog_agent.netns.reading",
            instrument: Instrument::UpDownCounter,
            unit: "{namespace}",
            description: "What rises and falls.",
            label: None,
            read: Box::new(|observe| observe("", 3)),
        };
        let config = config(protocol, address);
        let families = Families::new(&ledger, Some(&queue), vec![probes, netns]);
        let metrics = Metrics::install(&config, &resource, runtime.handle(), &families).unwrap();

        account(&ledger, 10).exported();
        account(&ledger, 3).lost(LossReason::QueueFull);
        let open = account(&ledger, 2);
        ledger.gap(7);
        let mut socket = Loss::default();
        (socket.enobufs, socket.sk_drops) = (1, 4);
        ledger.socket(&socket, &Loss::default());
        metrics.shutdown(PATIENCE);

        let request = requests.recv_timeout(PATIENCE).expect("metrics arrive");
        let attributes = &request.resource_metrics[0].resource.as_ref().unwrap().attributes;
        assert_eq!(text(attributes, "host.name"), "node-1");
        assert_eq!(text(attributes, "service.name"), "nflog-agent");
        assert_eq!(text(attributes, "telemetry.sdk.language"), "rust");
        let points = points(&request);
        for (name, value) in [
            ("nflog_agent.records.received {record}", 15),
            ("nflog_agent.records.exported {record}", 10),
            ("nflog_agent.records.in_flight {record}", 2),
            ("nflog_agent.records.lost{queue-full} {record}", 3),
            ("nflog_agent.records.lost{rejected} {record}", 0),
            ("nflog_agent.packets.missed {packet}", 7),
            ("nflog_agent.receive_buffer.overruns {overrun}", 1),
            ("nflog_agent.receive_buffer.dropped {datagram}", 4),
            ("nflog_agent.export.queue.size By", 0),
            ("nflog_agent.export.queue.batches {batch}", 0),
            ("nflog_agent.export.requests {request}", 0),
            ("nflog_agent.export.retries {request}", 0),
            ("nflog_agent.probe.events{logged} {event}", 5),
            ("nflog_agent.probe.events{attributed} {event}", 4),
            ("nflog_agent.netns.reading {namespace}", 3),
        ] {
            assert_eq!(points.get(name), Some(&value), "{name} in {points:?}");
        }
        assert_eq!(
            in_prometheus(&request),
            samples(&prometheus::text(&families, &resource))
        );
        open.exported();
        assert!(exporter.close(PATIENCE));
    }
}

#[test]
fn a_collector_that_is_down_does_not_hold_up_the_end() {
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let runtime = Runtime::new().unwrap();
        let address = StdListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap();
        let config = config(protocol, address);
        let ledger = Ledger::new();
        let families = Families::new(&ledger, None, Vec::new());
        let metrics = Metrics::install(&config, &Resource::new(), runtime.handle(), &families).unwrap();
        // Hangs, or panics in the SDK's thread, if this is wrong; there is nothing else to see from outside.
        metrics.shutdown(Duration::from_millis(200));
        account(&ledger, 1).exported();
        assert_eq!(ledger.snapshot().exported, 1);
    }
}
