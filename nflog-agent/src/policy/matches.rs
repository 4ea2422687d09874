//! Which packets a rule is for.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::glob::Glob;
use crate::packet::Transport;
use crate::record::{Device, Direction, LoggingRule, Record, executable_name};
use crate::workload::{Process, Workload};

/// An address and how many of its first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) address: IpAddr,
    pub(super) bits: u32,
}

impl Network {
    pub(super) fn contains(self, address: IpAddr) -> bool {
        let differs = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits())
                .checked_shr(32 - self.bits)
                .unwrap_or(0)
                .into(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits())
                .checked_shr(128 - self.bits)
                .unwrap_or(0),
            _ => return false,
        };
        differs == 0_u128
    }
}

/// All of these lists must match; an empty one does, another one if one of it does.
#[derive(Clone, Debug, Default)]
pub(super) struct Matches {
    pub(super) group: Vec<u16>,
    pub(super) prefix: Vec<Glob>,
    pub(super) action: Vec<String>,
    pub(super) chain: Vec<Glob>,
    pub(super) id: Vec<Glob>,
    pub(super) policy: Vec<Glob>,
    pub(super) hook: Vec<String>,
    pub(super) direction: Vec<Direction>,
    pub(super) family: Vec<String>,
    pub(super) protocol: Vec<u8>,
    pub(super) source: Vec<Network>,
    pub(super) destination: Vec<Network>,
    pub(super) source_port: Vec<RangeInclusive<u16>>,
    pub(super) destination_port: Vec<RangeInclusive<u16>>,
    pub(super) in_interface: Vec<Glob>,
    pub(super) out_interface: Vec<Glob>,
    pub(super) owner_method: Vec<String>,
    pub(super) owner_reason: Vec<String>,
    pub(super) process_name: Vec<Glob>,
    pub(super) executable: Vec<Glob>,
    pub(super) cgroup: Vec<Glob>,
    pub(super) container_id: Vec<Glob>,
    pub(super) pod_uid: Vec<Glob>,
    pub(super) unit: Vec<Glob>,
    pub(super) uid: Vec<u32>,
    pub(super) netns: Vec<u32>,
}

impl Matches {
    pub(super) fn matches(&self, record: &Record<'_>) -> bool {
        any(&self.group, |group| *group == record.group)
            && any(&self.netns, |netns| *netns == record.netns)
            && word(&self.hook, Some(record.hook))
            && word(&self.family, Some(record.family))
            && any(&self.direction, |direction| Some(*direction) == record.direction)
            && any(&self.prefix, |glob| glob.matches(record.prefix.trim_end()))
            && self.matches_rule(record.rule)
            && self.matches_packet(record)
            && glob(&self.in_interface, [record.indev, record.physindev].map(name))
            && glob(&self.out_interface, [record.outdev, record.physoutdev].map(name))
            && self.matches_owner(record)
    }

    fn matches_rule(&self, rule: Option<&LoggingRule>) -> bool {
        word(&self.action, rule.and_then(|rule| rule.action.as_deref()))
            && glob(&self.chain, [rule.and_then(|rule| rule.chain.as_deref())])
            && glob(&self.id, [rule.and_then(|rule| rule.id.as_deref())])
            && glob(&self.policy, [rule.and_then(|rule| rule.policy.as_deref())])
    }

    fn matches_packet(&self, record: &Record<'_>) -> bool {
        let packet = record.packet;
        let (source, destination) = match packet.transport {
            Transport::Tcp {
                source, destination, ..
            }
            | Transport::Ports { source, destination } => (Some(source), Some(destination)),
            Transport::Icmp { .. } | Transport::Absent | Transport::Other => (None, None),
        };
        any(&self.protocol, |protocol| Some(*protocol) == packet.protocol)
            && address(&self.source, packet.source)
            && address(&self.destination, packet.destination)
            && port(&self.source_port, source)
            && port(&self.destination_port, destination)
    }

    fn matches_owner(&self, record: &Record<'_>) -> bool {
        let owner = record.attribution.owner();
        let process: Option<&Process> = record.process;
        let workload: Option<&Workload> = process.map(|process| &*process.workload);
        let path = process.and_then(|process| process.executable.as_deref());
        let name = || {
            path.map_or_else(
                || owner.map(|owner| owner.comm.as_str()),
                |path| Some(executable_name(path)),
            )
        };
        word(&self.owner_method, Some(record.attribution.method_name()))
            && word(&self.owner_reason, record.attribution.reason_name())
            && any(&self.uid, |uid| owner.is_some_and(|owner| owner.uid == *uid))
            && (self.process_name.is_empty() || glob(&self.process_name, [name()]))
            && glob(&self.executable, [path])
            && glob(
                &self.cgroup,
                [process.and_then(|process| process.cgroup_path.as_deref())],
            )
            && glob(
                &self.container_id,
                [workload.and_then(|workload| workload.container_id.as_deref())],
            )
            && glob(
                &self.pod_uid,
                [workload.and_then(|workload| workload.pod_uid.as_deref())],
            )
            && glob(
                &self.unit,
                [workload.and_then(|workload| workload.unit.as_deref())],
            )
    }
}

fn name(device: Option<Device<'_>>) -> Option<&str> {
    device.and_then(|device| device.name)
}

fn any<T>(list: &[T], matches: impl FnMut(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(matches)
}

fn word(list: &[String], value: Option<&str>) -> bool {
    any(list, |wanted| Some(wanted.as_str()) == value)
}

/// One of the patterns matches one of the values.
fn glob<const N: usize>(list: &[Glob], values: [Option<&str>; N]) -> bool {
    any(list, |glob| {
        values.iter().flatten().any(|value| glob.matches(value))
    })
}

fn address(list: &[Network], value: Option<IpAddr>) -> bool {
    any(list, |network| {
        value.is_some_and(|address| network.contains(address))
    })
}

fn port(list: &[RangeInclusive<u16>], value: Option<u16>) -> bool {
    any(list, |range| value.is_some_and(|port| range.contains(&port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_its_first_bits() {
        let network = |address: &str, bits| Network {
            address: address.parse().unwrap(),
            bits,
        };
        let contains = |network: Network, address: &str| network.contains(address.parse().unwrap());
        assert!(contains(network("10.1.0.0", 16), "10.1.255.1"));
        assert!(!contains(network("10.1.0.0", 16), "10.2.0.0"));
        assert!(contains(network("0.0.0.0", 0), "255.0.0.1"));
        assert!(!contains(network("0.0.0.0", 0), "::1"));
        assert!(contains(network("10.0.0.1", 32), "10.0.0.1"));
        assert!(!contains(network("10.0.0.1", 32), "10.0.0.0"));
        assert!(contains(network("2001:db8::", 32), "2001:db8:ffff::1"));
        assert!(!contains(network("2001:db8::", 32), "2001:db9::"));
        assert!(contains(network("::", 0), "ffff::"));
        assert!(!contains(network("::1", 128), "::2"));
    }
}
