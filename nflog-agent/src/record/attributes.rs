//! Which attribute holds what: the one place that knows, for every output format.
//!
//! Invariants: a key is given at most once per record; what is unknown is not given.

use super::address::Ends;
use super::semconv::{self, Key};
use super::text;
use super::{Account, Device, Direction, Flow, LoggingRule, Loss, Record, Suppressed, TimeSource};
use crate::owner::Owner;
use crate::packet::{Packet, Problem, Transport};
use crate::telemetry::ledger::LossReason;
use crate::workload::Process;

/// Takes attributes one by one.
pub(super) trait Attributes {
    fn text(&mut self, key: Key, value: &str);
    fn int(&mut self, key: Key, value: i64);
    fn boolean(&mut self, key: Key, value: bool);
    fn texts<'a>(&mut self, key: Key, values: impl Iterator<Item = &'a str> + Clone);

    fn optional_int(&mut self, key: Key, value: Option<impl Into<i64>>) {
        if let Some(value) = value {
            self.int(key, value.into());
        }
    }
}

/// Attributes of a packet's record. `ends` are its addresses.
pub(super) fn of_record(record: &Record<'_>, ends: &Ends, out: &mut impl Attributes) {
    of_packet(record.packet, ends, out);
    of_entry(record, out);
    if let Some(rule) = record.rule {
        of_rule(rule, out);
    }
    out.optional_int(semconv::SAMPLE_RATE, record.sample_rate);
    if let Some(flow) = &record.flow {
        of_flow(flow, out);
    }
    of_devices(record, out);
    out.text(semconv::OWNER_METHOD, record.attribution.method_name());
    if let Some(reason) = record.attribution.reason_name() {
        out.text(semconv::OWNER_REASON, reason);
    }
    if let Some(end) = record.attribution.end() {
        out.text(semconv::OWNER_END, end.name());
    }
    if let Some(owner) = record.attribution.owner() {
        of_owner(owner, record.process, out);
    }
    of_peer(record, out);
}

/// Attributes of a loss record.
pub(super) fn of_loss(loss: &Loss, out: &mut impl Attributes) {
    out.int(semconv::NETNS_INODE, loss.netns.into());
    out.int(semconv::GROUP, loss.group.into());
    out.int(semconv::LOSS_PACKETS, clamped(loss.packets));
    out.text(semconv::LOSS_REASON, loss.reason);
}

/// Attributes of a record about packets that were held back.
pub(super) fn of_suppressed(suppressed: &Suppressed<'_>, out: &mut impl Attributes) {
    netns(suppressed.netns, out);
    out.text(semconv::SUPPRESSED_RULE, suppressed.rule);
    out.int(semconv::SUPPRESSED_PACKETS, clamped(suppressed.packets));
}

fn of_rule(rule: &LoggingRule, out: &mut impl Attributes) {
    for (key, value) in [
        (semconv::RULE_ACTION, &rule.action),
        (semconv::RULE_CHAIN, &rule.chain),
        (semconv::RULE_ID, &rule.id),
        (semconv::RULE_POLICY, &rule.policy),
    ] {
        if let Some(value) = value {
            out.text(key, value);
        }
    }
}

fn of_flow(flow: &Flow, out: &mut impl Attributes) {
    for (key, value) in [
        (semconv::FLOW_PACKETS, flow.packets),
        (semconv::FLOW_BYTES, flow.bytes),
        (semconv::FLOW_START, flow.start_unix_nano),
        (semconv::FLOW_END, flow.end_unix_nano),
    ] {
        out.int(key, clamped(value));
    }
}

fn clamped(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Attributes of an account.
pub(super) fn of_account(account: &Account<'_>, out: &mut impl Attributes) {
    let snapshot = account.snapshot;
    for (key, count) in [
        (semconv::ACCOUNT_RECEIVED, snapshot.received),
        (semconv::ACCOUNT_RECOVERED, snapshot.recovered),
        (semconv::ACCOUNT_EXPORTED, snapshot.exported),
        (semconv::ACCOUNT_SPOOLED, snapshot.spooled),
        (semconv::ACCOUNT_WITHHELD, snapshot.withheld_total()),
        (semconv::ACCOUNT_IN_FLIGHT, snapshot.in_flight()),
        (semconv::ACCOUNT_LOST, snapshot.lost_total()),
        (semconv::ACCOUNT_MISSED, snapshot.gaps),
    ] {
        out.int(key, clamped(count));
    }
    let lost = LossReason::ALL
        .into_iter()
        .filter(|reason| snapshot.lost(*reason) > 0)
        .map(LossReason::name);
    if lost.clone().next().is_some() {
        out.texts(semconv::ACCOUNT_LOST_REASONS, lost);
    }
    if snapshot.loss_pending {
        out.boolean(semconv::ACCOUNT_LOSS_PENDING, true);
    }
}

/// Value of `nflog.packet.problem`.
pub(super) const fn problem_name(problem: Problem) -> &'static str {
    match problem {
        Problem::Truncated => "truncated",
        Problem::Malformed => "malformed",
        Problem::NotIp => "not-ip",
    }
}

fn of_packet(packet: &Packet, ends: &Ends, out: &mut impl Attributes) {
    if let Some(address) = packet.source.or(packet.destination) {
        out.text(
            semconv::NETWORK_TYPE,
            if address.is_ipv4() { "ipv4" } else { "ipv6" },
        );
    }
    if let Some(protocol) = packet.protocol {
        out.text(semconv::NETWORK_TRANSPORT, text::protocol(protocol).as_str());
    }
    for (key, address) in [
        (semconv::SOURCE_ADDRESS, &ends.source),
        (semconv::DESTINATION_ADDRESS, &ends.destination),
    ] {
        if let Some(address) = address {
            out.text(key, address.as_str());
        }
    }
    of_transport(packet.transport, out);
    out.optional_int(semconv::PACKET_LENGTH, packet.length);
    if packet.length.is_none_or(|length| packet.captured < length) {
        out.int(semconv::PACKET_CAPTURED, packet.captured.into());
    }
    out.optional_int(semconv::IP_TTL, packet.ttl);
    if packet.fragment {
        out.boolean(semconv::IP_FRAGMENT, true);
    }
    if let Some(problem) = packet.problem {
        out.text(semconv::PACKET_PROBLEM, problem_name(problem));
    }
}

fn of_transport(transport: Transport, out: &mut impl Attributes) {
    match transport {
        Transport::Absent | Transport::Other => {}
        Transport::Tcp {
            source,
            destination,
            flags,
        } => {
            out.int(semconv::SOURCE_PORT, source.into());
            out.int(semconv::DESTINATION_PORT, destination.into());
            out.text(semconv::TCP_FLAGS, text::tcp_flags(flags).as_str());
        }
        Transport::Ports { source, destination } => {
            out.int(semconv::SOURCE_PORT, source.into());
            out.int(semconv::DESTINATION_PORT, destination.into());
        }
        Transport::Icmp { kind, code, echo_id } => {
            out.int(semconv::ICMP_TYPE, kind.into());
            out.int(semconv::ICMP_CODE, code.into());
            out.optional_int(semconv::ICMP_ECHO_ID, echo_id);
        }
    }
}

fn netns(inode: u32, out: &mut impl Attributes) {
    if inode != 0 {
        out.int(semconv::NETNS_INODE, inode.into());
    }
}

fn of_entry(record: &Record<'_>, out: &mut impl Attributes) {
    netns(record.netns, out);
    out.int(semconv::GROUP, record.group.into());
    if !record.prefix.is_empty() {
        out.text(semconv::PREFIX, record.prefix);
    }
    out.text(semconv::HOOK, record.hook);
    out.text(semconv::FAMILY, record.family);
    out.optional_int(semconv::SEQ, record.seq);
    out.optional_int(semconv::SEQ_GLOBAL, record.seq_global);
    out.optional_int(semconv::MARK, record.mark);
    out.text(
        semconv::TIME_SOURCE,
        match record.time_source {
            TimeSource::Kernel => "kernel",
            TimeSource::Agent => "agent",
        },
    );
    out.optional_int(semconv::SOCKET_UID, record.socket_uid);
    out.optional_int(semconv::SOCKET_GID, record.socket_gid);
    if let Some(address) = record.hwaddr.filter(|address| !address.is_empty()) {
        out.text(semconv::HW_ADDRESS, text::hwaddr(address).as_str());
    }
}

fn of_devices(record: &Record<'_>, out: &mut impl Attributes) {
    let fitting = match record.direction {
        None => None,
        Some(Direction::Receive) => {
            out.text(semconv::NETWORK_IO_DIRECTION, "receive");
            record.indev
        }
        Some(Direction::Transmit) => {
            out.text(semconv::NETWORK_IO_DIRECTION, "transmit");
            record.outdev
        }
    };
    if let Some(name) = fitting.and_then(|device| device.name) {
        out.text(semconv::NETWORK_INTERFACE_NAME, name);
    }
    of_device(record.indev, semconv::INDEV, semconv::INDEV_INDEX, out);
    of_device(record.outdev, semconv::OUTDEV, semconv::OUTDEV_INDEX, out);
    of_device(
        record.physindev,
        semconv::PHYSINDEV,
        semconv::PHYSINDEV_INDEX,
        out,
    );
    of_device(
        record.physoutdev,
        semconv::PHYSOUTDEV,
        semconv::PHYSOUTDEV_INDEX,
        out,
    );
}

fn of_device(device: Option<Device<'_>>, name: Key, index: Key, out: &mut impl Attributes) {
    match device {
        Some(Device {
            name: Some(value), ..
        }) => out.text(name, value),
        Some(Device {
            index: value,
            name: None,
        }) => out.int(index, value.into()),
        None => {}
    }
}

fn of_owner(owner: &Owner, process: Option<&Process>, out: &mut impl Attributes) {
    out.int(semconv::PROCESS_PID, owner.pid.into());
    let path = process.and_then(|process| process.executable.as_deref());
    let name = path.map_or(owner.comm.as_str(), executable_name);
    if !name.is_empty() {
        out.text(semconv::PROCESS_EXECUTABLE_NAME, name);
    }
    if let Some(path) = path {
        out.text(semconv::PROCESS_EXECUTABLE_PATH, path);
    }
    if let Some(process) = process {
        of_program(process, out);
    }
    out.int(semconv::PROCESS_USER_ID, owner.uid.into());
    if let Some(path) = process.and_then(|process| process.cgroup_path.as_deref()) {
        out.text(semconv::PROCESS_LINUX_CGROUP, path);
    }
    // kernfs counts ids up from 1: one that does not fit is not an id.
    out.optional_int(
        semconv::CGROUP_ID,
        owner.cgroup_id.and_then(|id| i64::try_from(id).ok()),
    );
}

fn of_peer(record: &Record<'_>, out: &mut impl Attributes) {
    if let Some(peer) = record.peer {
        out.text(semconv::PEER_POD_NAME, &peer.pod.name);
        out.text(semconv::PEER_POD_UID, &peer.uid);
        out.text(semconv::PEER_SERVICE_NAME, peer.pod.service_name());
    }
    if let Some(service) = record.peer_service {
        out.text(semconv::PEER_K8S_SERVICE_NAME, &service.name);
        out.text(semconv::PEER_K8S_SERVICE_UID, &service.uid);
    }
    let of_pod = record.peer.map(|peer| peer.pod.namespace.as_str());
    if let Some(namespace) = of_pod.or_else(|| Some(&*record.peer_service?.namespace)) {
        out.text(semconv::PEER_NAMESPACE_NAME, namespace);
    }
}

fn of_program(process: &Process, out: &mut impl Attributes) {
    if let Some(parent) = process.parent {
        out.int(semconv::PROCESS_PARENT_PID, parent.pid.into());
        let comm = parent.comm.as_str();
        if !comm.is_empty() {
            out.text(semconv::OWNER_PARENT_COMM, comm);
        }
    }
    if let Some(created) = &process.created {
        out.text(semconv::PROCESS_CREATION_TIME, created);
    }
    if let Some(arguments) = &process.arguments {
        out.texts(semconv::PROCESS_COMMAND_ARGS, arguments.iter());
        if arguments.is_cut() {
            out.boolean(semconv::OWNER_ARGS_TRUNCATED, true);
        }
    }
}

/// Last component of the target of `/proc/PID/exe`, without the mark that the kernel appends to an unlinked file's path.
pub(crate) fn executable_name(path: &str) -> &str {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_name_is_the_last_component() {
        assert_eq!(executable_name("/usr/bin/curl"), "curl");
        assert_eq!(executable_name("/usr/bin/curl (deleted)"), "curl");
        assert_eq!(executable_name("curl"), "curl");
    }
}
