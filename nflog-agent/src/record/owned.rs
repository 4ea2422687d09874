//! A record that owns what it shows, for those that have to wait: the first packets of flows.

use super::{Device, Direction, LoggingRule, Record, TimeSource};
use crate::owner::Attribution;
use crate::packet::Packet;
use crate::workload::Process;
use crate::workload::kubernetes::{Peer, Service};

/// The owned twin of [`Record`].
#[derive(Clone, Debug)]
pub struct RecordBuf {
    time_unix_nano: u64,
    time_source: TimeSource,
    observed_unix_nano: u64,
    netns: u32,
    group: u16,
    family: &'static str,
    hook: &'static str,
    direction: Option<Direction>,
    prefix: Box<str>,
    seq: Option<u32>,
    seq_global: Option<u32>,
    mark: Option<u32>,
    indev: Option<DeviceBuf>,
    outdev: Option<DeviceBuf>,
    physindev: Option<DeviceBuf>,
    physoutdev: Option<DeviceBuf>,
    socket_uid: Option<u32>,
    socket_gid: Option<u32>,
    hwaddr: Option<Box<[u8]>>,
    packet: Packet,
    attribution: Attribution,
    process: Option<Process>,
    peer: Option<Peer>,
    peer_service: Option<Service>,
    rule: Option<LoggingRule>,
    sample_rate: Option<u32>,
    flow: Option<super::Flow>,
}

#[derive(Clone, Debug)]
struct DeviceBuf {
    index: u32,
    name: Option<Box<str>>,
}

impl DeviceBuf {
    fn new(device: Option<Device<'_>>) -> Option<Self> {
        device.map(|device| Self {
            index: device.index,
            name: device.name.map(Box::from),
        })
    }

    fn borrow(device: Option<&Self>) -> Option<Device<'_>> {
        device.map(|device| Device {
            index: device.index,
            name: device.name.as_deref(),
        })
    }
}

impl RecordBuf {
    /// A copy.
    #[must_use]
    pub fn new(record: &Record<'_>) -> Self {
        Self {
            time_unix_nano: record.time_unix_nano,
            time_source: record.time_source,
            observed_unix_nano: record.observed_unix_nano,
            netns: record.netns,
            group: record.group,
            family: record.family,
            hook: record.hook,
            direction: record.direction,
            prefix: record.prefix.into(),
            seq: record.seq,
            seq_global: record.seq_global,
            mark: record.mark,
            indev: DeviceBuf::new(record.indev),
            outdev: DeviceBuf::new(record.outdev),
            physindev: DeviceBuf::new(record.physindev),
            physoutdev: DeviceBuf::new(record.physoutdev),
            socket_uid: record.socket_uid,
            socket_gid: record.socket_gid,
            hwaddr: record.hwaddr.map(Box::from),
            packet: *record.packet,
            attribution: *record.attribution,
            process: record.process.cloned(),
            peer: record.peer.cloned(),
            peer_service: record.peer_service.cloned(),
            rule: record.rule.cloned(),
            sample_rate: record.sample_rate,
            flow: record.flow,
        }
    }

    /// The record.
    #[must_use]
    pub fn as_record(&self) -> Record<'_> {
        Record {
            time_unix_nano: self.time_unix_nano,
            time_source: self.time_source,
            observed_unix_nano: self.observed_unix_nano,
            netns: self.netns,
            group: self.group,
            family: self.family,
            hook: self.hook,
            direction: self.direction,
            prefix: &self.prefix,
            seq: self.seq,
            seq_global: self.seq_global,
            mark: self.mark,
            indev: DeviceBuf::borrow(self.indev.as_ref()),
            outdev: DeviceBuf::borrow(self.outdev.as_ref()),
            physindev: DeviceBuf::borrow(self.physindev.as_ref()),
            physoutdev: DeviceBuf::borrow(self.physoutdev.as_ref()),
            socket_uid: self.socket_uid,
            socket_gid: self.socket_gid,
            hwaddr: self.hwaddr.as_deref(),
            packet: &self.packet,
            attribution: &self.attribution,
            process: self.process.as_ref(),
            peer: self.peer.as_ref(),
            peer_service: self.peer_service.as_ref(),
            rule: self.rule.as_ref(),
            sample_rate: self.sample_rate,
            flow: self.flow,
        }
    }

    /// Its packet, to be changed.
    pub(crate) const fn packet_mut(&mut self) -> &mut Packet {
        &mut self.packet
    }
}
