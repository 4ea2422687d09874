//! The export to OTLP receivers that other people wrote: rotel, and grpcio with the Python opentelemetry-proto package.
//!
//! They come from the virtual environment that `cargo xtask setup` makes.
#![cfg(feature = "agent")]

mod otlp_receiver;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nflog_agent::export::{
    Batcher, Compression, Exporter, ExporterOptions, FlushPolicy, OtlpConfig, Protocol, RetryPolicy,
    Transport,
};
use nflog_agent::record::{Encoder as _, Loss, Otlp, Resource};
use nflog_agent::telemetry::ledger::{Ledger, LossReason, Snapshot};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use otlp_receiver::{Receiver, sample};
use prost::Message as _;
use serde_json::Value as Json;
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(60);

/// Everything of a log record that matters, with its resource and scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flat {
    time: u64,
    observed: u64,
    severity: (i64, String),
    event_name: String,
    body: String,
    attributes: BTreeMap<String, String>,
    resource: BTreeMap<String, String>,
    scope: (String, String),
}

fn value(any: Option<&AnyValue>) -> String {
    match any.and_then(|any| any.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => format!("text {text}"),
        Some(any_value::Value::IntValue(int)) => format!("int {int}"),
        Some(any_value::Value::BoolValue(flag)) => format!("bool {flag}"),
        Some(any_value::Value::ArrayValue(array)) => {
            let values: Vec<_> = array.values.iter().map(|item| value(Some(item))).collect();
            format!("array {values:?}")
        }
        other => panic!("unexpected {other:?}"),
    }
}

fn map(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes
        .iter()
        .map(|attribute| (attribute.key.clone(), value(attribute.value.as_ref())))
        .collect()
}

/// The records of requests, sorted: receivers may split, join and reorder.
fn flatten<'a>(requests: impl IntoIterator<Item = &'a ExportLogsServiceRequest>) -> Vec<Flat> {
    let mut all = Vec::new();
    for group in requests.into_iter().flat_map(|request| &request.resource_logs) {
        let resource = map(&group.resource.as_ref().expect("a resource").attributes);
        for scope_logs in &group.scope_logs {
            let scope = scope_logs.scope.as_ref().expect("a scope");
            all.extend(scope_logs.log_records.iter().map(|record| Flat {
                time: record.time_unix_nano,
                observed: record.observed_time_unix_nano,
                severity: (record.severity_number.into(), record.severity_text.clone()),
                event_name: record.event_name.clone(),
                body: value(record.body.as_ref()),
                attributes: map(&record.attributes),
                resource: resource.clone(),
                scope: (scope.name.clone(), scope.version.clone()),
            }));
        }
    }
    all.sort();
    all
}

fn json_value(value: &Json) -> String {
    let (kind, value) = value
        .as_object()
        .expect("an AnyValue")
        .iter()
        .next()
        .expect("a value");
    match kind.as_str() {
        "stringValue" => format!("text {}", value.as_str().unwrap()),
        "intValue" => format!("int {}", value.as_str().unwrap()),
        "boolValue" => format!("bool {}", value.as_bool().unwrap()),
        "arrayValue" => {
            let values: Vec<_> = value["values"]
                .as_array()
                .unwrap()
                .iter()
                .map(json_value)
                .collect();
            format!("array {values:?}")
        }
        _ => panic!("unexpected {kind}"),
    }
}

fn json_map(attributes: &Json) -> BTreeMap<String, String> {
    let pair = |attribute: &Json| {
        (
            attribute["key"].as_str().unwrap().to_owned(),
            json_value(&attribute["value"]),
        )
    };
    attributes
        .as_array()
        .expect("attributes")
        .iter()
        .map(pair)
        .collect()
}

/// The same from OTLP's JSON form.
fn flatten_json(requests: &[Json]) -> Vec<Flat> {
    let number = |value: &Json| value.as_str().unwrap().parse().unwrap();
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    let severity = |name: &Json| match name.as_str().unwrap() {
        "SEVERITY_NUMBER_INFO" => 9,
        "SEVERITY_NUMBER_WARN" => 13,
        other => panic!("unexpected {other}"),
    };
    let mut all = Vec::new();
    for group in requests
        .iter()
        .flat_map(|request| request["resourceLogs"].as_array().unwrap())
    {
        for scope in group["scopeLogs"].as_array().unwrap() {
            for record in scope["logRecords"].as_array().unwrap() {
                all.push(Flat {
                    time: number(&record["timeUnixNano"]),
                    observed: number(&record["observedTimeUnixNano"]),
                    severity: (severity(&record["severityNumber"]), text(&record["severityText"])),
                    event_name: text(&record["eventName"]),
                    body: json_value(&record["body"]),
                    attributes: json_map(&record["attributes"]),
                    resource: json_map(&group["resource"]["attributes"]),
                    scope: (text(&scope["scope"]["name"]), text(&scope["scope"]["version"])),
                });
            }
        }
    }
    all.sort();
    all
}

fn resource() -> Resource {
    let mut resource = Resource::new();
    resource.set("host.name", "node-1");
    resource.set("k8s.cluster.name", "test \u{2713}");
    resource
}

const LOSS: Loss = Loss {
    observed_unix_nano: 5,
    netns: 6,
    group: 7,
    packets: 8,
    reason: "sequence-gap",
};

/// What every receiver must end up with.
fn expected() -> Vec<Flat> {
    let mut encoder = Otlp::new(resource(), &Ledger::new());
    for sample in sample::varied() {
        encoder.push(&sample.record());
    }
    encoder.push_loss(&LOSS);
    let batch = encoder.take();
    let request = ExportLogsServiceRequest::decode(&batch.payload()[..]).unwrap();
    batch.lost(LossReason::Shutdown);
    flatten([&request])
}

/// Sends the varied records in several batches.
fn export(runtime: &Runtime, protocol: Protocol, compression: Compression, address: SocketAddr) -> Snapshot {
    let path = match protocol {
        Protocol::Grpc => "",
        Protocol::HttpProtobuf => "/v1/logs",
    };
    let config = OtlpConfig {
        timeout: PATIENCE,
        compression,
        ..OtlpConfig::new(protocol, format!("http://{address}{path}").parse().unwrap())
    };
    let retry = RetryPolicy {
        initial: Duration::from_millis(50),
        max: Duration::from_millis(200),
        give_up: PATIENCE,
    };
    let options = ExporterOptions {
        retry,
        ..ExporterOptions::default()
    };
    let (queue, exporter) = Exporter::start(Transport::otlp(&config).unwrap(), options, runtime.handle());
    let ledger = Ledger::new();
    let policy = FlushPolicy {
        max_records: 7,
        ..FlushPolicy::COLLECTOR
    };
    let mut batcher = Batcher::new(Box::new(Otlp::new(resource(), &ledger)), policy, queue);
    for sample in sample::varied() {
        batcher.push(&sample.record(), Instant::now());
    }
    batcher.push_loss(&LOSS, Instant::now());
    drop(batcher);
    assert!(exporter.close(PATIENCE));
    ledger.snapshot()
}

fn venv() -> PathBuf {
    let directory = std::env::var_os("NFLOG_TEST_VENV").map_or_else(
        || {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .parent()
                .expect("a workspace")
                .join("target/tools/venv")
        },
        PathBuf::from,
    );
    assert!(
        directory.join("bin/python").exists(),
        "{} has no Python packages: run `cargo xtask setup`, or point NFLOG_TEST_VENV to a virtual environment \
         with rotel, opentelemetry-proto and grpcio",
        directory.display()
    );
    directory
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ports that were free a moment ago, all different.
fn free_ports<const N: usize>() -> [SocketAddr; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().unwrap())
}

fn rotel_binary() -> PathBuf {
    let python = Command::new(venv().join("bin/python"))
        .args([
            "-c",
            "import importlib.util as u; print(u.find_spec('rotel').submodule_search_locations[0])",
        ])
        .output()
        .expect("Python runs");
    let package = String::from_utf8(python.stdout).unwrap();
    let binary = Path::new(package.trim()).join("rotel-agent");
    assert!(
        binary.exists(),
        "{} has no rotel: run `cargo xtask setup`",
        venv().display()
    );
    binary
}

#[test]
fn rotel_passes_on_what_it_got() {
    let expected = expected();
    for (protocol, compression) in [
        (Protocol::Grpc, Compression::None),
        (Protocol::Grpc, Compression::Gzip),
        (Protocol::HttpProtobuf, Compression::None),
        (Protocol::HttpProtobuf, Compression::Gzip),
    ] {
        let runtime = Runtime::new().unwrap();
        let end = Receiver::start(runtime.handle(), Protocol::Grpc, &[]);
        let directory = tempfile::tempdir().unwrap();
        let [grpc, http] = free_ports();
        let log = directory.path().join("rotel.log");
        let output = std::fs::File::create(&log).unwrap();
        let rotel = Command::new(rotel_binary())
            .args(["start", "--exporter", "otlp", "--batch-timeout", "50ms"])
            .args(["--otlp-exporter-endpoint", &format!("http://{}", end.address)])
            .args([
                "--otlp-grpc-endpoint",
                &grpc.to_string(),
                "--otlp-http-endpoint",
                &http.to_string(),
            ])
            .arg("--pid-file")
            .arg(directory.path().join("pid"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .expect("rotel starts");
        let _rotel = Process(rotel);
        let address = match protocol {
            Protocol::Grpc => grpc,
            Protocol::HttpProtobuf => http,
        };
        let snapshot = export(&runtime, protocol, compression, address);
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        assert_eq!(
            snapshot.exported,
            40,
            "{protocol:?} {compression:?}: {snapshot}; rotel says: {}",
            said()
        );
        let start = Instant::now();
        let received = loop {
            let received = flatten(&end.accepted());
            if received.len() >= expected.len() {
                break received;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{} of 41 records; rotel says: {}",
                received.len(),
                said()
            );
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(received, expected, "{protocol:?} {compression:?}");
    }
}

#[test]
fn python_decodes_what_was_sent() {
    let runtime = Runtime::new().unwrap();
    let mut servicer = Command::new(venv().join("bin/python"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/otlp_servicer.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut lines = BufReader::new(servicer.stdout.take().unwrap()).lines();
    let mut servicer = Process(servicer);
    let port = lines.next().expect("the servicer prints its port").unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().unwrap()));
    // Read at once: a pipe holds fewer bytes than the servicer prints.
    let reports = std::thread::spawn(move || -> Vec<Json> {
        lines
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect()
    });
    for compression in [Compression::None, Compression::Gzip] {
        let snapshot = export(&runtime, Protocol::Grpc, compression, address);
        assert_eq!(snapshot.exported, 40, "{snapshot}");
    }
    // Ends the servicer, and with it the lines.
    drop(servicer.0.stdin.take());
    let reports = reports.join().unwrap();
    for report in &reports {
        assert_eq!(
            (&report["unknown_fields"], &report["identical"]),
            (&Json::from(0), &Json::from(true))
        );
    }
    let requests: Vec<Json> = reports
        .into_iter()
        .map(|mut report| report["request"].take())
        .collect();
    let mut twice: Vec<Flat> = expected()
        .into_iter()
        .flat_map(|record| [record.clone(), record])
        .collect();
    twice.sort();
    assert_eq!(flatten_json(&requests), twice);
}
