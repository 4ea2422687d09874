//! What the encoders write, read by independent implementations: opentelemetry-proto for OTLP, serde_json for JSON.
//!
//! The expected attributes are built here from the record by rules written down a second time, so a change of a name or
//! of a rule in the encoder alone fails.
#![cfg(feature = "agent")]

mod otlp_receiver;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use nflog_agent::owner::{Attribution, Comm, End, Method, Owner, Reason};
use nflog_agent::packet::{Packet, Problem, Transport};
use nflog_agent::process::{Arguments, Parent};
use nflog_agent::record::{
    Console, Direction, Encoder, Flow, Json, LoggingRule, Loss, Otlp, RecordIds, Resource, Severity, Style,
    Suppressed, packet_line,
};
use nflog_agent::telemetry::ledger::{Ledger, LossReason};
use nflog_agent::workload::kubernetes::{Peer, Pod, Service};
use nflog_agent::workload::{Process, Workload};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use otlp_receiver::expected::{self, Map, Put as _, Value};
use otlp_receiver::sample::{Sample, bare};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use prost::Message as _;

fn decoded(attributes: &[KeyValue]) -> Map {
    let mut map = Map::new();
    for KeyValue { key, value, .. } in attributes {
        let value = match value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(any_value::Value::StringValue(text)) => Value::Text(text.clone()),
            Some(any_value::Value::IntValue(int)) => Value::Int(*int),
            Some(any_value::Value::BoolValue(flag)) => Value::Bool(*flag),
            Some(any_value::Value::ArrayValue(array)) => Value::Texts(
                array
                    .values
                    .iter()
                    .map(|value| text_of(value).to_owned())
                    .collect(),
            ),
            other => panic!("{key} is {other:?}"),
        };
        assert!(map.insert(key.clone(), value).is_none(), "{key} twice");
    }
    map
}

fn parsed(object: &serde_json::Value) -> Map {
    let value = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => Value::Text(text.clone()),
        serde_json::Value::Bool(flag) => Value::Bool(*flag),
        serde_json::Value::Array(list) => Value::Texts(
            list.iter()
                .map(|item| item.as_str().expect("a string").to_owned())
                .collect(),
        ),
        other => Value::Int(other.as_i64().unwrap_or_else(|| panic!("{other} is no int"))),
    };
    let members = object.as_object().expect("an object");
    members
        .iter()
        .map(|(name, member)| (name.clone(), value(member)))
        .collect()
}

fn resource() -> Resource {
    let mut resource = Resource::new();
    resource.set("host.name", "node-1");
    resource
}

fn text_of(AnyValue { value }: &AnyValue) -> &str {
    match value {
        Some(any_value::Value::StringValue(text)) => text,
        other => panic!("{other:?} is no text"),
    }
}

fn body(record: &LogRecord) -> &str {
    text_of(record.body.as_ref().expect("a body"))
}

/// Decodes a batch, and checks what holds for every batch.
fn take(encoder: &mut Otlp) -> Vec<ResourceLogs> {
    let announced = encoder.bytes();
    let batch = encoder.take();
    let payload = batch.payload().clone();
    batch.exported(0);
    assert!(
        payload.len() <= announced,
        "{} bytes were announced as {announced}",
        payload.len()
    );
    let request = ExportLogsServiceRequest::decode(&payload[..]).expect("valid protobuf");
    assert_eq!(request.encode_to_vec(), payload, "prost writes it differently");
    assert_eq!((encoder.records(), encoder.bytes()), (0, 0));
    request.resource_logs
}

const fn event_name(sample: &Sample) -> &'static str {
    if sample.flow.is_some() {
        "nflog.flow"
    } else {
        "nflog.packet"
    }
}

fn severity(sample: &Sample) -> (i32, &'static str) {
    let said = sample.rule.as_ref().and_then(|rule| rule.severity);
    let action = sample.rule.as_ref().and_then(|rule| rule.action.as_deref());
    match (said, action) {
        (Some(Severity::Error), _) => (17, "ERROR"),
        (Some(other), _) => panic!("{other:?} is in no sample"),
        (None, Some("drop" | "reject" | "block")) => (13, "WARN"),
        (None, _) => (9, "INFO"),
    }
}

fn check_record(record: &LogRecord, sample: &Sample) {
    assert_eq!(record.time_unix_nano, sample.time);
    assert_eq!(record.observed_time_unix_nano, sample.observed);
    assert_eq!(
        (record.severity_number, record.severity_text.as_str()),
        severity(sample)
    );
    assert_eq!(record.event_name, event_name(sample));
    assert_eq!(decoded(&record.attributes), expected::attributes(sample));
    let mut line = Vec::new();
    packet_line(&mut line, &sample.record(), Style::default());
    assert_eq!(body(record).as_bytes(), line);
    assert!(
        !body(record).is_empty() && !body(record).contains(char::is_control),
        "{:?}",
        body(record)
    );
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9-]{0,16}",
        any::<String>(),
        "\\PC{0,300}",
        Just("drop: \x1b[2J\r\n\"quoted\\ \u{7f}\u{9b}".to_owned())
    ]
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        Just(Transport::Absent),
        Just(Transport::Other),
        any::<(u16, u16, u8)>().prop_map(|(source, destination, flags)| Transport::Tcp {
            source,
            destination,
            flags
        }),
        any::<(u16, u16)>().prop_map(|(source, destination)| Transport::Ports { source, destination }),
        any::<(u8, u8, Option<u16>)>().prop_map(|(kind, code, echo_id)| Transport::Icmp {
            kind,
            code,
            echo_id
        }),
    ]
}

prop_compose! {
    fn packet()(
        addresses in of(prop_oneof![
            any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
            any::<([u16; 8], [u16; 8])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
        ]),
        protocol in any::<Option<u8>>(),
        transport in transport(),
        length in any::<Option<u32>>(),
        captured in any::<u32>(),
        ttl in any::<Option<u8>>(),
        fragment in any::<bool>(),
        problem in of(prop_oneof![Just(Problem::Truncated), Just(Problem::Malformed), Just(Problem::NotIp)]),
    ) -> Packet {
        Packet {
            source: addresses.map(|(source, _)| source),
            destination: addresses.map(|(_, destination)| destination),
            protocol,
            transport,
            length,
            captured: length.map_or(captured, |length| captured.min(length)),
            ttl,
            fragment,
            problem,
        }
    }
}

fn attribution() -> impl Strategy<Value = Attribution> {
    let owner = any::<(u32, Option<u64>, u32, [u8; 16], Option<u64>)>();
    prop_oneof![
        proptest::sample::select(&Reason::ALL[..]).prop_map(Attribution::Unowned),
        (
            owner,
            proptest::sample::select(&Method::ALL[..]),
            proptest::sample::select(&[End::Source, End::Destination][..])
        )
            .prop_map(|(owner, method, end)| {
                let (pid, start_boottime, uid, comm, cgroup_id) = owner;
                let owner = Owner {
                    pid,
                    start_boottime,
                    exec_id: None,
                    uid,
                    comm: Comm::new(comm),
                    cgroup_id,
                };
                Attribution::Owned { owner, method, end }
            }),
    ]
}

fn process() -> impl Strategy<Value = Process> {
    let runtime = of(proptest::sample::select(
        &["containerd", "cri-o", "docker", "podman"][..],
    ));
    // Few workloads, so that records share them.
    let unit = of(prop_oneof![
        Just("ssh.service".to_owned()),
        Just("session-1.scope".to_owned()),
        text()
    ]);
    let slice = of(Just("system.slice".to_owned()));
    let workload = (of("[0-9a-f]{1}"), runtime, of("[a-b]"), unit, slice);
    let parent = (any::<u32>(), any::<[u8; 16]>()).prop_map(|(pid, comm)| Parent {
        pid,
        comm: Comm::new(comm),
    });
    let arguments = (vec(any::<u8>(), 1..400), any::<bool>())
        .prop_map(|(bytes, cut)| Arc::new(Arguments::new(&bytes, cut)));
    let program = (
        of("/[a-z]{0,20}/[a-z]{1,9}"),
        of(parent),
        of(arguments),
        of(text()),
    );
    (workload, of(text()), program).prop_map(|(workload, cgroup_path, program)| {
        let (executable, parent, arguments, created) = program;
        let (container_id, runtime, pod_uid, unit, slice) = workload;
        let workload = Arc::new(Workload {
            container_id,
            runtime,
            pod_uid,
            unit,
            slice,
            ..Workload::default()
        });
        Process {
            workload,
            cgroup_path,
            executable,
            parent,
            arguments,
            created,
        }
    })
}

prop_compose! {
    fn peer()(uid in "[0-9a-f-]{1,36}", namespace in text(), name in text()) -> Peer {
        Peer::new(&uid, &Arc::new(Pod { namespace, name, ..Pod::default() }))
    }
}

prop_compose! {
    fn peer_service()(uid in "[0-9a-f-]{1,36}", namespace in text(), name in text()) -> Service {
        Service { uid: uid.into(), namespace: namespace.into(), name: name.into() }
    }
}

prop_compose! {
    fn rule()(
        words in proptest::array::uniform3(of("\\PC{0,12}")),
        action in of(prop_oneof![Just("drop".to_owned()), Just("accept".to_owned()), "\\PC{0,12}"]),
        severity in of(Just(Severity::Error)),
    ) -> LoggingRule {
        let [chain, id, policy] = words;
        LoggingRule { action, chain, id, policy, severity }
    }
}

prop_compose! {
    fn flow()(packets in 1..i64::MAX as u64, bytes in 0..i64::MAX as u64, start in 0..i64::MAX as u64, end in 0..i64::MAX as u64) -> Flow {
        Flow { packets, bytes, start_unix_nano: start, end_unix_nano: end }
    }
}

prop_compose! {
    fn sample()(
        time in prop_oneof![Just(0), any::<u64>()],
        observed in any::<u64>(),
        place in any::<(bool, u32, u16)>(),
        direction in of(prop_oneof![Just(Direction::Receive), Just(Direction::Transmit)]),
        prefix in text(),
        numbers in any::<(Option<u32>, Option<u32>, Option<u32>)>(),
        devices in proptest::array::uniform4(of((any::<u32>(), of(text())))),
        socket in any::<(Option<u32>, Option<u32>)>(),
        hwaddr in of(vec(any::<u8>(), 0..=32)),
        packet in packet().boxed(),
        attribution in attribution().boxed(),
        process in of(process()).boxed(),
        peer in of(peer()).boxed(),
        peer_service in of(peer_service()).boxed(),
        rule in of(rule()).boxed(),
        sample_rate in any::<Option<u32>>(),
        flow in of(flow()).boxed(),
    ) -> Sample {
        let (kernel_time, netns, group) = place;
        let (seq, seq_global, mark) = numbers;
        Sample {
            time, kernel_time, observed, netns, group, direction, prefix, seq, seq_global, mark, devices, socket,
            hwaddr, packet, attribution, process, peer, peer_service, rule, sample_rate, flow,
        }
    }
}

proptest! {
    #[test]
    fn otlp_decodes_to_the_records_that_were_pushed(batches in vec(vec(sample(), 1..20), 1..4)) {
        let ledger = Ledger::new();
        let mut encoder = Otlp::new(resource(), &ledger);
        for samples in &batches {
            for sample in samples {
                encoder.push(&sample.record());
            }
            prop_assert_eq!(encoder.records() as usize, samples.len());
            let groups = take(&mut encoder);
            let mut by_workload: Vec<(Map, Vec<&Sample>)> = Vec::new();
            for sample in samples {
                let resource = expected::resource(&sample.workload());
                match by_workload.iter_mut().find(|(other, _)| *other == resource) {
                    Some((_, samples)) => samples.push(sample),
                    None => by_workload.push((resource, vec![sample])),
                }
            }
            // Workloads may differ and still have the same attributes: an empty unit is a unit.
            let mut decoded_groups: Vec<(Map, Vec<&LogRecord>)> = Vec::new();
            for group in &groups {
                prop_assert_eq!(group.scope_logs.len(), 1);
                let scope = group.scope_logs[0].scope.as_ref().unwrap();
                prop_assert_eq!(scope.name.as_str(), "nflog-agent");
                prop_assert_eq!(scope.version.as_str(), env!("CARGO_PKG_VERSION"));
                let resource = decoded(&group.resource.as_ref().unwrap().attributes);
                prop_assert!(decoded_groups.iter().all(|(other, _)| *other != resource), "a resource twice");
                decoded_groups.push((resource, group.scope_logs[0].log_records.iter().collect()));
            }
            prop_assert_eq!(decoded_groups.len(), by_workload.len());
            for (resource, records) in decoded_groups {
                let (_, samples) = by_workload.iter().find(|(other, _)| *other == resource).expect("a known resource");
                prop_assert_eq!(records.len(), samples.len());
                for (record, sample) in records.into_iter().zip(samples) {
                    check_record(record, sample);
                }
            }
        }
        let snapshot = ledger.snapshot();
        prop_assert_eq!(snapshot.exported, batches.iter().map(|batch| batch.len() as u64).sum::<u64>());
        prop_assert_eq!(snapshot.received, snapshot.exported);
    }

    #[test]
    fn json_lines_parse_to_the_records_that_were_pushed(samples in vec(sample(), 1..10)) {
        let ledger = Ledger::new();
        let mut encoder = Json::new(resource(), &ledger);
        for sample in &samples {
            encoder.push(&sample.record());
        }
        let batch = encoder.take();
        let text = String::from_utf8(batch.payload().to_vec()).unwrap();
        batch.exported(0);
        prop_assert_eq!(text.lines().count(), samples.len());
        prop_assert!(text.chars().all(|character| character == '\n' || !character.is_ascii_control()));
        for (line, sample) in text.lines().zip(&samples) {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            prop_assert_eq!(parsed(&object["attributes"]), expected::attributes(sample));
            prop_assert_eq!(parsed(&object["resource"]), expected::resource(&sample.workload()));
            prop_assert_eq!(&object["event_name"], event_name(sample));
            prop_assert_eq!(&object["severity"], severity(sample).1);
            let time = humantime::parse_rfc3339(object["timestamp"].as_str().unwrap()).unwrap();
            let nanos = time.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
            prop_assert_eq!(nanos, u128::from(sample.time));
        }
    }

    #[test]
    fn console_lines_are_one_per_record_whatever_they_contain(samples in vec(sample(), 1..10)) {
        let ledger = Ledger::new();
        let mut encoder = Console::new(false, &ledger);
        for sample in &samples {
            encoder.push(&sample.record());
        }
        let batch = encoder.take();
        let text = String::from_utf8(batch.payload().to_vec()).unwrap();
        batch.exported(0);
        prop_assert_eq!(text.lines().count(), samples.len());
        prop_assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{:?}", text);
    }
}

#[test]
fn a_verbose_console_has_the_same_lines_and_everything_else_below_each() {
    let ledger = Ledger::new();
    let text = |verbose: bool| {
        let mut encoder = Console::new(false, &ledger).verbose(verbose);
        for sample in otlp_receiver::sample::varied() {
            encoder.push(&sample.record());
        }
        let batch = encoder.take();
        let text = String::from_utf8(batch.payload().to_vec()).unwrap();
        batch.exported(0);
        text
    };
    let (brief, verbose) = (text(false), text(true));
    let above: Vec<_> = verbose.lines().filter(|line| !line.starts_with("    ")).collect();
    assert_eq!(above, brief.lines().collect::<Vec<_>>());
    assert!(
        verbose
            .chars()
            .all(|character| character == '\n' || !character.is_control())
    );
    let mut blocks = verbose.lines().fold(Vec::new(), |mut blocks, line| {
        if line.starts_with("    ") {
            let block: &mut String = blocks.last_mut().expect("a line above");
            block.push_str(line);
        } else {
            blocks.push(String::new());
        }
        blocks
    });
    for sample in otlp_receiver::sample::varied() {
        let block = blocks.remove(0);
        for (name, value) in expected::attributes(&sample) {
            assert!(block.contains(&format!(" {name}=")), "no {name} in {block}");
            if let Value::Int(value) = value {
                assert!(block.contains(&format!(" {name}={value}")), "{name} in {block}");
            }
        }
    }
}

#[test]
fn a_record_that_knows_nothing_says_so_and_no_more() {
    let sample = bare();
    let ledger = Ledger::new();
    let mut encoder = Otlp::new(Resource::new(), &ledger);
    encoder.push(&sample.record());
    let groups = take(&mut encoder);
    let record = &groups[0].scope_logs[0].log_records[0];
    check_record(record, &sample);
    assert_eq!(record.attributes.len(), 8, "{:?}", record.attributes);
    assert_eq!(body(record), "output not-ip none(unparsable)");
}

#[test]
fn every_record_has_an_id_of_its_own_and_all_else_as_without() {
    let ledger = Ledger::new();
    let ids = || Some(RecordIds::new().unwrap());
    let mut otlp = Otlp::new(resource(), &ledger).with_ids(ids());
    let mut json = Json::new(resource(), &ledger).with_ids(ids());
    let loss = Loss {
        observed_unix_nano: 1,
        netns: 2,
        group: 3,
        packets: 4,
        reason: LossReason::QueueFull.name(),
    };
    let samples = otlp_receiver::sample::varied();
    for sample in &samples {
        otlp.push(&sample.record());
        json.push(&sample.record());
    }
    otlp.push_loss(&loss);
    json.push_loss(&loss);

    let groups = take(&mut otlp);
    let scopes = groups.iter().flat_map(|group| &group.scope_logs);
    let of_otlp = scopes
        .flat_map(|scope| &scope.log_records)
        .map(|record| decoded(&record.attributes));
    let batch = json.take();
    let lines = String::from_utf8(batch.payload().to_vec()).unwrap();
    batch.exported(0);
    let of_json = lines.lines().map(|line| {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        parsed(&object["attributes"])
    });
    let mut seen = BTreeSet::new();
    for mut attributes in of_otlp.chain(of_json) {
        let Some(Value::Text(id)) = attributes.remove("log.record.uid") else {
            panic!("no id: {attributes:?}");
        };
        assert_eq!(id.len(), 26, "{id}");
        assert!(seen.insert(id), "an id twice");
        let known = attributes.contains_key("nflog.loss.packets")
            || samples
                .iter()
                .any(|sample| attributes == expected::attributes(sample));
        assert!(known, "{attributes:?}");
    }
    assert_eq!(seen.len(), 2 * (samples.len() + 1));
}

#[test]
fn a_loss_is_a_warning_with_its_count_and_reason() {
    let ledger = Ledger::new();
    let mut encoder = Otlp::new(resource(), &ledger);
    let loss = Loss {
        observed_unix_nano: 7,
        netns: 8,
        group: 9,
        packets: 1234,
        reason: "sequence-gap",
    };
    encoder.push_loss(&loss);
    assert_eq!(encoder.records(), 1);
    let groups = take(&mut encoder);
    assert_eq!(
        decoded(&groups[0].resource.as_ref().unwrap().attributes),
        expected::resource(&Workload::default())
    );
    let record = &groups[0].scope_logs[0].log_records[0];
    assert_eq!(
        (record.severity_number, record.severity_text.as_str()),
        (13, "WARN")
    );
    assert_eq!(record.event_name, "nflog.loss");
    assert_eq!((record.time_unix_nano, record.observed_time_unix_nano), (7, 7));
    assert_eq!(body(record), "lost 1234 packets of group 9: sequence-gap");
    let mut attributes = Map::new();
    attributes.put("nflog.netns.inode", 8_u32);
    attributes.put("nflog.group", 9_u16);
    attributes.put("nflog.loss.packets", 1234_u32);
    attributes.put("nflog.loss.reason", "sequence-gap");
    assert_eq!(decoded(&record.attributes), attributes);
    assert_eq!(ledger.snapshot().received, 0, "a loss report is no packet");
}

#[test]
fn idle_workloads_are_forgotten_and_come_back() {
    let ledger = Ledger::new();
    let mut encoder = Otlp::new(resource(), &ledger);
    let of_pod = |uid: &str| {
        let workload = Arc::new(Workload {
            pod_uid: Some(uid.to_owned()),
            ..Workload::default()
        });
        Sample {
            process: Some(Process {
                workload,
                ..Process::default()
            }),
            ..bare()
        }
    };
    let (first, second) = (of_pod("first"), of_pod("second"));
    for _ in 0..2 {
        encoder.push(&first.record());
        assert_eq!(take(&mut encoder).len(), 1);
        for _ in 0..40 {
            encoder.push(&bare().record());
            encoder.push(&second.record());
            let groups = take(&mut encoder);
            let resources: Vec<_> = groups
                .iter()
                .map(|group| decoded(&group.resource.as_ref().unwrap().attributes))
                .collect();
            let expected = [&Workload::default(), &second.workload()].map(expected::resource);
            assert_eq!(resources.len(), 2);
            assert!(
                expected.iter().all(|resource| resources.contains(resource)),
                "{resources:?}"
            );
        }
    }
}

#[test]
fn lines_read_as_the_readme_shows_them() {
    let workload = Arc::new(Workload {
        container_id: Some("4f5e6d7c8b9a0123456789".to_owned()),
        runtime: Some("containerd"),
        pod_uid: Some("0b1c2d3e-aaaa-bbbb-cccc-0123456789ab".to_owned()),
        ..Workload::default()
    });
    let owner = Owner {
        pid: 4242,
        start_boottime: None,
        exec_id: None,
        uid: 1000,
        comm: Comm::new(*b"curl\0\0\0\0\0\0\0\0\0\0\0\0"),
        cgroup_id: None,
    };
    let mut sample = Sample {
        time: 1_767_323_045_123_456_789,
        prefix: "egress-drop: ".to_owned(),
        direction: Some(Direction::Transmit),
        devices: [None, Some((2, Some("eth0".to_owned()))), None, None],
        packet: Packet {
            source: Some(IpAddr::from([10, 1, 2, 3])),
            destination: Some("2001:db8::1".parse().unwrap()),
            protocol: Some(6),
            transport: Transport::Tcp {
                source: 44321,
                destination: 443,
                flags: 2,
            },
            length: Some(60),
            captured: 60,
            ttl: Some(64),
            fragment: false,
            problem: None,
        },
        attribution: Attribution::Owned {
            owner,
            method: Method::Socket,
            end: End::Source,
        },
        process: Some(Process {
            workload,
            ..Process::default()
        }),
        ..bare()
    };
    let line = |sample: &Sample| {
        let mut line = Vec::new();
        packet_line(&mut line, &sample.record(), Style::default());
        String::from_utf8(line).unwrap()
    };
    assert_eq!(
        line(&sample),
        "output egress-drop: >eth0 tcp 10.1.2.3:44321 > [2001:db8::1]:443 SYN len 60 curl[4242] \
         containerd:4f5e6d7c8b9a pod:0b1c2d3e-aaaa-bbbb-cccc-0123456789ab"
    );
    // A packet that is forwarded is neither this host's nor another's.
    let forwarded = Sample {
        direction: None,
        ..sample.clone()
    };
    assert!(line(&forwarded).contains(" len 60 from curl[4242] containerd:"));
    let ledger = Ledger::new();
    let mut encoder = Console::new(true, &ledger);
    encoder.push(&sample.record());
    let batch = encoder.take();
    let text = String::from_utf8(batch.payload().to_vec()).unwrap();
    batch.lost(LossReason::Shutdown);
    assert!(
        text.starts_with("03:04:05.123456Z \x1b[36moutput\x1b[0m      \x1b[33megress-drop:\x1b[0m"),
        "{text:?}"
    );

    sample.devices = [
        Some((3, None)),
        Some((2, Some("br0".to_owned()))),
        None,
        Some((9, Some("veth1".to_owned()))),
    ];
    sample.attribution = Attribution::Unowned(Reason::Forwarded);
    sample.process = None;
    sample.packet.protocol = Some(1);
    sample.packet.transport = Transport::Icmp {
        kind: 8,
        code: 0,
        echo_id: Some(77),
    };
    sample.packet.destination = Some(IpAddr::from([10, 1, 2, 4]));
    assert_eq!(
        line(&sample),
        "output egress-drop: if3>br0(veth1) icmp 10.1.2.3 > 10.1.2.4 type 8 code 0 id 77 len 60 none(forwarded)"
    );
}

#[test]
fn packets_that_were_held_back_are_reported() {
    let suppressed = Suppressed {
        observed_unix_nano: 7,
        netns: 3,
        rule: "scans",
        packets: 12,
    };
    let ledger = Ledger::new();
    let mut encoder = Otlp::new(resource(), &ledger);
    encoder.push_suppressed(&suppressed);
    assert_eq!(encoder.records(), 1);
    let groups = take(&mut encoder);
    let record = &groups[0].scope_logs[0].log_records[0];
    assert_eq!((record.severity_number, record.time_unix_nano), (9, 7));
    assert_eq!(record.event_name, "nflog.suppressed");
    assert_eq!(body(record), "held back 12 packets: limit of scans");
    let attributes = decoded(&record.attributes);
    assert_eq!(attributes["nflog.suppressed.rule"], Value::from("scans"));
    assert_eq!(attributes["nflog.suppressed.packets"], Value::Int(12));
    assert_eq!(ledger.snapshot().received, 0, "a report is no packet");
}
