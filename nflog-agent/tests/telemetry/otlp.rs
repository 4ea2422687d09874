//! What goes out over OTLP and what `/metrics` says, of one running agent.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message as _;

use crate::scrape::{Samples, metrics};
use crate::support::PATIENCE;
use crate::{logging, start};

/// A collector that takes everything; requests for metrics come through the channel.
fn collector() -> (SocketAddr, Receiver<ExportMetricsServiceRequest>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = channel();
    spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            spawn(move || {
                let mut stream = stream.unwrap();
                while let Some((path, body)) = request(&mut stream) {
                    if path == "/v1/metrics" {
                        // The test may have seen enough.
                        let _ = sender.send(ExportMetricsServiceRequest::decode(&body[..]).unwrap());
                    }
                    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    (address, requests)
}

/// The path and the body of the next request.
fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).ok()?;
        if field.trim().is_empty() {
            break;
        }
        if let Some(value) = field.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, body))
}

/// Name in Prometheus and labels of each series, by the rules of the specification.
fn series(request: &ExportMetricsServiceRequest) -> BTreeSet<String> {
    let mut series = BTreeSet::new();
    let metrics = request
        .resource_metrics
        .iter()
        .flat_map(|resource| &resource.scope_metrics);
    for metric in metrics.flat_map(|scope| &scope.metrics) {
        let Some(Data::Sum(sum)) = &metric.data else {
            panic!("{} is no sum", metric.name)
        };
        let bytes = if metric.unit == "By" { "_bytes" } else { "" };
        let total = if sum.is_monotonic { "_total" } else { "" };
        let name = format!("{}{bytes}{total}", metric.name.replace('.', "_"));
        for point in &sum.data_points {
            let labels = point.attributes.iter().map(|attribute| {
                let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
                let Some(Value::StringValue(value)) = value else {
                    panic!("{attribute:?}")
                };
                format!("{}={value}", attribute.key.replace('.', "_"))
            });
            series.insert(format!("{name} {}", labels.collect::<Vec<_>>().join(",")));
        }
    }
    series
}

fn of_text(samples: &Samples) -> BTreeSet<String> {
    let mut series = BTreeSet::new();
    for (name, samples) in samples.iter().filter(|(name, _)| *name != "target_info") {
        for (labels, _) in samples {
            let labels: Vec<_> = labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            series.insert(format!("{name} {}", labels.join(",")));
        }
    }
    series
}

#[test]
fn the_series_are_the_same_over_otlp_and_as_text() {
    let netns = logging("both");
    let (collector, requests) = collector();
    let spool = tempfile::tempdir().unwrap();
    let spool = spool.path().display().to_string();
    let endpoint = format!("http://{collector}");
    let (agent, address) = start(
        &netns,
        &["--spool", &spool],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)],
    );
    let samples = metrics(address);
    assert_eq!(agent.stop().code, Some(0));
    let request = requests.recv_timeout(PATIENCE).expect("metrics at the end");
    let sent = series(&request);
    assert!(sent.len() > 60, "{sent:#?}");
    assert_eq!(of_text(&samples), sent);
    let resource = request.resource_metrics[0].resource.as_ref().unwrap();
    let (info, _) = &samples["target_info"][0];
    for (key, value) in info {
        let dotted = resource
            .attributes
            .iter()
            .find(|attribute| attribute.key.replace('.', "_") == *key);
        let sent = dotted
            .unwrap_or_else(|| panic!("{key} is not in the Resource"))
            .value
            .as_ref();
        assert_eq!(
            sent.and_then(|sent| sent.value.as_ref()),
            Some(&Value::StringValue(value.clone()))
        );
    }
}
