//! The attributes that a record and its workload must have, by rules written down a second time.

use std::collections::BTreeMap;

use nflog_agent::owner::{End, Owner};
use nflog_agent::packet::{Packet, Problem, Transport};
use nflog_agent::record::{Device, Direction};
use nflog_agent::workload::{Process, Workload};

use super::sample::Sample;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Int(i64),
    Bool(bool),
    Texts(Vec<String>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u32> for Value {
    fn from(int: u32) -> Self {
        Self::Int(int.into())
    }
}

impl From<u16> for Value {
    fn from(int: u16) -> Self {
        Self::Int(int.into())
    }
}

impl From<u8> for Value {
    fn from(int: u8) -> Self {
        Self::Int(int.into())
    }
}

pub(crate) type Map = BTreeMap<String, Value>;

pub(crate) trait Put {
    /// Puts a value once.
    fn put(&mut self, name: &str, value: impl Into<Value>);

    /// Puts what is known.
    fn known(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }
}

impl Put for Map {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        assert!(
            self.insert(name.to_owned(), value.into()).is_none(),
            "{name} twice"
        );
    }
}

pub(crate) fn attributes(sample: &Sample) -> Map {
    let mut map = Map::new();
    expected_packet(&sample.packet, &mut map);
    if sample.netns != 0 {
        map.put("nflog.netns.inode", sample.netns);
    }
    map.put("nflog.group", sample.group);
    map.known(
        "nflog.prefix",
        (!sample.prefix.is_empty()).then_some(sample.prefix.as_str()),
    );
    if let Some(rule) = &sample.rule {
        map.known("nflog.rule.action", rule.action.as_deref());
        map.known("nflog.rule.chain", rule.chain.as_deref());
        map.known("nflog.rule.id", rule.id.as_deref());
        map.known("nflog.rule.policy", rule.policy.as_deref());
    }
    map.known("nflog.sample.rate", sample.sample_rate);
    if let Some(flow) = &sample.flow {
        map.put("nflog.flow.packets", Value::Int(flow.packets.try_into().unwrap()));
        map.put("nflog.flow.bytes", Value::Int(flow.bytes.try_into().unwrap()));
        map.put(
            "nflog.flow.start",
            Value::Int(flow.start_unix_nano.try_into().unwrap()),
        );
        map.put(
            "nflog.flow.end",
            Value::Int(flow.end_unix_nano.try_into().unwrap()),
        );
    }
    map.put("nflog.hook", "output");
    map.put("nflog.family", "inet");
    map.known("nflog.seq", sample.seq);
    map.known("nflog.seq_global", sample.seq_global);
    map.known("nflog.mark", sample.mark);
    map.put(
        "nflog.time.source",
        if sample.kernel_time { "kernel" } else { "agent" },
    );
    map.known("nflog.socket.uid", sample.socket.0);
    map.known("nflog.socket.gid", sample.socket.1);
    let hwaddr = sample.hwaddr.as_ref().filter(|bytes| !bytes.is_empty());
    let hwaddr = hwaddr.map(|bytes| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .join(":")
    });
    map.known("nflog.hw.address", hwaddr.as_deref());
    for (at, name) in ["indev", "outdev", "physindev", "physoutdev"]
        .into_iter()
        .enumerate()
    {
        match sample.device(at) {
            Some(Device {
                name: Some(device), ..
            }) => map.put(&format!("nflog.{name}"), device),
            Some(Device { index, .. }) => map.put(&format!("nflog.{name}.index"), index),
            None => {}
        }
    }
    if let Some(direction) = sample.direction {
        let (name, device) = match direction {
            Direction::Receive => ("receive", sample.device(0)),
            Direction::Transmit => ("transmit", sample.device(1)),
        };
        map.put("network.io.direction", name);
        map.known("network.interface.name", device.and_then(|device| device.name));
    }
    map.put("nflog.owner.method", sample.attribution.method_name());
    map.known("nflog.owner.reason", sample.attribution.reason_name());
    map.known("nflog.owner.end", sample.attribution.end().map(End::name));
    if let Some(owner) = sample.attribution.owner() {
        expected_owner(owner, sample.process.as_ref(), &mut map);
    }
    if let Some(peer) = &sample.peer {
        map.put("nflog.peer.k8s.pod.name", peer.pod.name.as_str());
        map.put("nflog.peer.k8s.pod.uid", &*peer.uid);
        map.put("nflog.peer.k8s.namespace.name", peer.pod.namespace.as_str());
        map.put("nflog.peer.service.name", peer.pod.name.as_str());
    }
    if let Some(service) = &sample.peer_service {
        map.put("nflog.peer.k8s.service.name", &*service.name);
        map.put("nflog.peer.k8s.service.uid", &*service.uid);
        // The agent names none of another namespace than the pod's.
        if sample.peer.is_none() {
            map.put("nflog.peer.k8s.namespace.name", &*service.namespace);
        }
    }
    map
}

fn expected_packet(packet: &Packet, map: &mut Map) {
    let any_address = packet.source.or(packet.destination);
    map.known(
        "network.type",
        any_address.map(|address| if address.is_ipv4() { "ipv4" } else { "ipv6" }),
    );
    let transport = packet.protocol.map(|protocol| match protocol {
        1 => "icmp".to_owned(),
        2 => "igmp".to_owned(),
        4 => "ipv4".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        33 => "dccp".to_owned(),
        41 => "ipv6".to_owned(),
        47 => "gre".to_owned(),
        50 => "esp".to_owned(),
        51 => "ah".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        132 => "sctp".to_owned(),
        136 => "udplite".to_owned(),
        other => format!("proto-{other}"),
    });
    map.known("network.transport", transport.as_deref());
    map.known(
        "source.address",
        packet.source.map(|address| address.to_string()).as_deref(),
    );
    map.known(
        "destination.address",
        packet.destination.map(|address| address.to_string()).as_deref(),
    );
    match packet.transport {
        Transport::Tcp {
            source,
            destination,
            flags,
        } => {
            map.put("source.port", source);
            map.put("destination.port", destination);
            let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
            let set: Vec<_> = (0..8)
                .filter(|bit| flags & 1 << bit != 0)
                .map(|bit| names[bit])
                .collect();
            let flags = if set.is_empty() {
                "NONE".to_owned()
            } else {
                set.join(",")
            };
            map.put("nflog.tcp.flags", flags.as_str());
        }
        Transport::Ports { source, destination } => {
            map.put("source.port", source);
            map.put("destination.port", destination);
        }
        Transport::Icmp { kind, code, echo_id } => {
            map.put("nflog.icmp.type", kind);
            map.put("nflog.icmp.code", code);
            map.known("nflog.icmp.echo_id", echo_id);
        }
        Transport::Absent | Transport::Other => {}
    }
    map.known("nflog.packet.length", packet.length);
    map.known(
        "nflog.packet.captured",
        (packet.length != Some(packet.captured)).then_some(packet.captured),
    );
    map.known("nflog.ip.ttl", packet.ttl);
    if packet.fragment {
        map.insert("nflog.ip.fragment".to_owned(), Value::Bool(true));
    }
    map.known(
        "nflog.packet.problem",
        packet.problem.map(|problem| match problem {
            Problem::Truncated => "truncated",
            Problem::Malformed => "malformed",
            Problem::NotIp => "not-ip",
        }),
    );
}

fn expected_owner(owner: &Owner, process: Option<&Process>, map: &mut Map) {
    map.put("process.pid", owner.pid);
    map.put("process.user.id", owner.uid);
    let executable = process.and_then(|process| process.executable.as_deref());
    let name = executable.map_or(owner.comm.as_str(), |path| {
        let file = path.rsplit('/').next().unwrap();
        // An executable that has been replaced.
        file.strip_suffix(" (deleted)").unwrap_or(file)
    });
    map.known("process.executable.name", (!name.is_empty()).then_some(name));
    map.known("process.executable.path", executable);
    if let Some(process) = process {
        expected_program(process, map);
    }
    map.known(
        "process.linux.cgroup",
        process.and_then(|process| process.cgroup_path.as_deref()),
    );
    if let Some(id) = owner.cgroup_id.and_then(|id| i64::try_from(id).ok()) {
        map.insert("nflog.cgroup.id".to_owned(), Value::Int(id));
    }
}

fn expected_program(process: &Process, map: &mut Map) {
    map.known("process.parent_pid", process.parent.map(|parent| parent.pid));
    let comm = process.parent.as_ref().map(|parent| parent.comm.as_str());
    map.known("nflog.owner.parent.comm", comm.filter(|comm| !comm.is_empty()));
    map.known("process.creation.time", process.created.as_deref());
    if let Some(arguments) = &process.arguments {
        let list = arguments.iter().map(str::to_owned).collect();
        map.insert("process.command_args".to_owned(), Value::Texts(list));
        if arguments.is_cut() {
            map.insert("nflog.owner.args.truncated".to_owned(), Value::Bool(true));
        }
    }
}

pub(crate) fn resource(workload: &Workload) -> Map {
    let mut map = Map::new();
    map.put("host.name", "node-1");
    map.known("container.id", workload.container_id.as_deref());
    map.known("container.runtime.name", workload.runtime);
    map.known("k8s.pod.uid", workload.pod_uid.as_deref());
    map.known("nflog.systemd.unit", workload.unit.as_deref());
    map.known("nflog.systemd.slice", workload.slice.as_deref());
    let containerised = workload.container_id.is_some() || workload.pod_uid.is_some();
    let unit = workload.unit.as_deref().filter(|_| !containerised);
    let service = unit
        .and_then(|unit| unit.strip_suffix(".service"))
        .filter(|name| !name.is_empty());
    map.put("service.name", service.unwrap_or("nflog-agent"));
    map
}
