//! From an NFLOG entry and what was found out about it to the record that leaves. Pure.

use crate::nflog::{Entry, Hook};
use crate::owner::{Attribution, End};
use crate::packet::Packet;
use crate::record::{Device, Direction, LoggingRule, Record, TimeSource};
use crate::workload::Process;
use crate::workload::kubernetes::{Peer, Service};

/// What is known of an entry beside itself.
pub(super) struct Known<'a> {
    /// When it was received, Unix ns.
    pub(super) observed: u64,
    /// Inode of the namespace that it was logged in; 0 if that is not known.
    pub(super) netns: u32,
    pub(super) prefix: &'a str,
    pub(super) packet: &'a Packet,
    pub(super) attribution: &'a Attribution,
    pub(super) process: Option<&'a Process>,
    pub(super) peer: Option<&'a Peer>,
    pub(super) peer_service: Option<&'a Service>,
    pub(super) rule: Option<&'a LoggingRule>,
}

/// The record of an entry. `name`: of a network device.
pub(super) fn record<'a>(
    entry: &Entry<'a>,
    known: &Known<'a>,
    name: impl Fn(u32) -> Option<&'a str>,
) -> Record<'a> {
    let device = |index: Option<u32>| {
        index.map(|index| Device {
            index,
            name: name(index),
        })
    };
    let kernel_time = entry.timestamp_unix_nano();
    Record {
        time_unix_nano: kernel_time.unwrap_or(known.observed),
        time_source: if kernel_time.is_some() {
            TimeSource::Kernel
        } else {
            TimeSource::Agent
        },
        observed_unix_nano: known.observed,
        netns: known.netns,
        group: entry.group(),
        family: entry.family().name(),
        hook: entry.hook().map_or("unknown", Hook::name),
        direction: entry.hook().and_then(direction),
        prefix: known.prefix,
        seq: entry.seq(),
        seq_global: entry.seq_global(),
        mark: entry.mark(),
        indev: device(entry.indev()),
        outdev: device(entry.outdev()),
        physindev: device(entry.physindev()),
        physoutdev: device(entry.physoutdev()),
        socket_uid: entry.uid(),
        socket_gid: entry.gid(),
        hwaddr: entry.hwaddr(),
        packet: known.packet,
        attribution: known.attribution,
        process: known.process,
        peer: known.peer,
        peer_service: known.peer_service,
        rule: known.rule,
        sample_rate: None,
        flow: None,
    }
}

/// The end of a packet that is in the namespace where it is logged.
pub(super) const fn near(hook: Hook) -> Option<End> {
    match direction(hook) {
        Some(Direction::Receive) => Some(End::Destination),
        Some(Direction::Transmit) => Some(End::Source),
        None => None,
    }
}

const fn direction(hook: Hook) -> Option<Direction> {
    match hook {
        Hook::Prerouting | Hook::Input | Hook::Ingress => Some(Direction::Receive),
        Hook::Output | Hook::Postrouting | Hook::Egress => Some(Direction::Transmit),
        Hook::Forward | Hook::Other(_) => None,
    }
}
