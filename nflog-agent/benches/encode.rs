//! What one packet record costs until its bytes are handed to the transport: directly (the product), by way of opentelemetry-proto
//! structs and prost, and by the OpenTelemetry SDK's logger, batch processor and OTLP exporter.
//!
//! All three make the same records: the attributes come from decoding what the product's encoder wrote. One benchmark has records of
//! 25 attributes, the other all that a packet of a container's process has.

#[path = "../tests/otlp_receiver/sample.rs"]
#[allow(dead_code, reason = "the benchmark uses a part of the tests' samples")]
mod sample;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nflog_agent::policy::{Engine, Out, PolicyConfig};
use nflog_agent::record::{Encoder as _, Otlp, Record, Resource, Suppressed};
use nflog_agent::telemetry::ledger::{Ledger, Unsettled};
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::{InstrumentationScope, Key};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{LogExporter, Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1 as proto;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_sdk::logs::{BatchConfigBuilder, BatchLogProcessor, SdkLoggerProvider};
use prost::Message as _;
use sample::Sample;

/// Records per batch, as the SDK's default.
const BATCH: u32 = 512;

/// Samples of packets that have an owner.
fn full() -> Vec<Sample> {
    sample::varied()
        .into_iter()
        .filter(|sample| sample.process.is_some())
        .collect()
}

/// A TCP packet with an owner and without its process: 25 attributes.
fn plain() -> Vec<Sample> {
    let mut sample = full().swap_remove(0);
    sample.process = None;
    sample.seq_global = None;
    sample.socket = (None, None);
    vec![sample]
}

fn records(samples: &[Sample]) -> impl Iterator<Item = Record<'_>> {
    samples.iter().cycle().take(BATCH as usize).map(Sample::record)
}

fn direct(encoder: &mut Otlp, samples: &[Sample]) -> usize {
    for record in records(samples) {
        encoder.push(&record);
    }
    let batch = encoder.take();
    let size = batch.payload().len();
    batch.exported(0);
    size
}

/// A record's fields as an SDK user would have them at hand: borrowed.
struct Fields {
    time: u64,
    observed: u64,
    body: String,
    attributes: Vec<(&'static str, Field)>,
}

enum Field {
    Text(String),
    Int(i64),
    Bool(bool),
    List(Vec<String>),
}

fn fields(request: ExportLogsServiceRequest) -> Vec<Fields> {
    let text = |value: Option<proto::AnyValue>| match value.and_then(|value| value.value) {
        Some(proto::any_value::Value::StringValue(text)) => text,
        other => panic!("unexpected {other:?}"),
    };
    let attribute = |attribute: proto::KeyValue| {
        let key: &'static str = attribute.key.leak();
        let value = match attribute.value.and_then(|value| value.value) {
            Some(proto::any_value::Value::StringValue(text)) => Field::Text(text),
            Some(proto::any_value::Value::IntValue(int)) => Field::Int(int),
            Some(proto::any_value::Value::BoolValue(flag)) => Field::Bool(flag),
            Some(proto::any_value::Value::ArrayValue(list)) => {
                Field::List(list.values.into_iter().map(|item| text(Some(item))).collect())
            }
            other => panic!("unexpected {other:?}"),
        };
        (key, value)
    };
    let groups = request
        .resource_logs
        .into_iter()
        .flat_map(|group| group.scope_logs);
    let records = groups.flat_map(|scope| scope.log_records);
    let fields = |record: LogRecord| Fields {
        time: record.time_unix_nano,
        observed: record.observed_time_unix_nano,
        body: text(record.body),
        attributes: record.attributes.into_iter().map(attribute).collect(),
    };
    records.map(fields).collect()
}

fn any(value: proto::any_value::Value) -> Option<proto::AnyValue> {
    Some(proto::AnyValue { value: Some(value) })
}

/// Builds the structs from borrowed fields and encodes them, under one resource.
fn structs(fields: &[Fields], envelope: &ExportLogsServiceRequest) -> usize {
    let log_records = fields.iter().map(|fields| LogRecord {
        time_unix_nano: fields.time,
        observed_time_unix_nano: fields.observed,
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        event_name: "nflog.packet".to_owned(),
        body: any(proto::any_value::Value::StringValue(fields.body.clone())),
        attributes: fields
            .attributes
            .iter()
            .map(|(key, value)| proto::KeyValue {
                key: (*key).to_owned(),
                value: any(match value {
                    Field::Text(text) => proto::any_value::Value::StringValue(text.clone()),
                    Field::Int(int) => proto::any_value::Value::IntValue(*int),
                    Field::Bool(flag) => proto::any_value::Value::BoolValue(*flag),
                    Field::List(items) => proto::any_value::Value::ArrayValue(proto::ArrayValue {
                        values: items
                            .iter()
                            .map(|item| proto::AnyValue {
                                value: Some(proto::any_value::Value::StringValue(item.clone())),
                            })
                            .collect(),
                    }),
                }),
                ..proto::KeyValue::default()
            })
            .collect(),
        ..LogRecord::default()
    });
    let mut request = envelope.clone();
    request.resource_logs[0].scope_logs[0].log_records = log_records.collect();
    request.encode_to_vec().len()
}

/// A transport that takes everything, and sends nothing.
#[derive(Debug)]
struct Null;

#[async_trait::async_trait]
impl HttpClient for Null {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        black_box(request.into_body().len());
        Ok(Response::new(Bytes::new()))
    }
}

/// A logger provider whose batches end in [`Null`].
fn provider() -> SdkLoggerProvider {
    let exporter = LogExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_http_client(Null)
        .build()
        .expect("the default endpoint is valid");
    let batch = BatchConfigBuilder::default()
        .with_max_export_batch_size(BATCH as usize)
        .build();
    let processor = BatchLogProcessor::builder(exporter)
        .with_batch_config(batch)
        .build();
    SdkLoggerProvider::builder().with_log_processor(processor).build()
}

/// One batch, until the exporter has handed it over.
fn sdk(provider: &SdkLoggerProvider, fields: &[Fields]) {
    let scope = InstrumentationScope::builder("nflog-agent").build();
    let logger = provider.logger_with_scope(scope);
    let time = |nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
    for fields in fields {
        let mut record = logger.create_log_record();
        record.set_event_name("nflog.packet");
        record.set_timestamp(time(fields.time));
        record.set_observed_timestamp(time(fields.observed));
        record.set_severity_number(Severity::Info);
        record.set_severity_text("INFO");
        record.set_body(AnyValue::from(fields.body.clone()));
        for (key, value) in &fields.attributes {
            let value = match value {
                Field::Text(text) => AnyValue::from(text.clone()),
                Field::Int(int) => AnyValue::Int(*int),
                Field::Bool(flag) => AnyValue::Boolean(*flag),
                Field::List(items) => items.iter().cloned().collect(),
            };
            record.add_attribute(Key::from_static_str(key), value);
        }
        logger.emit(record);
    }
    provider.force_flush().expect("the exporter takes everything");
}

fn compare(criterion: &mut Criterion, name: &str, samples: &[Sample]) {
    let ledger = Ledger::new();
    let mut encoder = Otlp::new(Resource::new(), &ledger);
    for record in records(samples) {
        encoder.push(&record);
    }
    let batch = encoder.take();
    let mut envelope = ExportLogsServiceRequest::decode(&batch.payload()[..]).expect("valid protobuf");
    batch.exported(0);
    let fields = fields(envelope.clone());
    let attributes: usize = fields.iter().map(|fields| fields.attributes.len()).sum();
    println!(
        "{name}: {} attributes per record on average",
        attributes / fields.len()
    );
    envelope.resource_logs.truncate(1);
    let provider = provider();

    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(BATCH.into()));
    group.bench_function("direct", |bencher| {
        bencher.iter(|| black_box(direct(&mut encoder, samples)));
    });
    group.bench_function("opentelemetry-proto", |bencher| {
        bencher.iter(|| black_box(structs(&fields, &envelope)));
    });
    group.bench_function("sdk", |bencher| bencher.iter(|| sdk(&provider, &fields)));
    group.finish();
}

/// The records of [`plain`] by way of rules, as a reader does it: what the rules cost on top of encoding. With none, and with so many
/// that do not match before one that does.
fn rules(criterion: &mut Criterion) {
    let other = "[[rule]]\nmatch = { prefix = 'other-*', destination-port = '1-9', source-address = '192.0.2.0/24' }\nthen = 'drop'\n";
    let ten = other.repeat(10);
    let aggregate = "[[rule]]\nthen = { aggregate = { interval = '1h' } }\n";
    let limit = "[[rule]]\nthen = { limit = { rate = '1000000/s', burst = 1000000, per = 'source' } }\n";
    let prefix = "[[prefix]]\ntemplate = '{chain}-{action}: '\n";
    let samples = plain();
    let mut group = criterion.benchmark_group("policy");
    group.throughput(Throughput::Elements(BATCH.into()));
    for (name, config) in [
        ("none", String::new()),
        ("a prefix", prefix.to_owned()),
        ("10 rules that do not match", ten.clone()),
        (
            "a prefix, 10 rules, a limit by source",
            format!("{prefix}{ten}{limit}"),
        ),
        ("a flow", aggregate.to_owned()),
    ] {
        let config: PolicyConfig = toml::from_str(&config).expect("TOML");
        let policy = Arc::new(config.compile().expect("valid rules"));
        let ledger = Ledger::new();
        let mut engine = Engine::new(&policy, &policy.counts(), &ledger, 1, Instant::now());
        let mut out = Encoded(Otlp::new(Resource::new(), &ledger));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let now = Instant::now();
                for record in records(&samples) {
                    let rule = engine.logging_rule(record.prefix);
                    let record = Record {
                        rule: rule.as_deref(),
                        ..record
                    };
                    engine.take(&record, now, &mut out);
                }
                out.0.take().exported(0);
            });
        });
        engine.close(Instant::now(), &mut out);
        out.0.take().exported(0);
    }
    group.finish();
}

/// Straight into an encoder.
struct Encoded(Otlp);

impl Out for Encoded {
    fn packet(&mut self, record: &Record<'_>, _: Instant) {
        self.0.push(record);
    }
    fn held(&mut self, record: &Record<'_>, held: &mut Unsettled, _: Instant) {
        self.0.push_held(record, held);
    }
    fn suppressed(&mut self, suppressed: &Suppressed<'_>, _: Instant) {
        self.0.push_suppressed(suppressed);
    }
}

fn encode(criterion: &mut Criterion) {
    compare(criterion, "encode plain", &plain());
    compare(criterion, "encode all", &full());
}

criterion_group!(benches, encode, rules);
criterion_main!(benches);
