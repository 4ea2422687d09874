//! A logged packet seen from this host: which end is local, and in which role.

use std::net::IpAddr;

use crate::owner::Reason;
use crate::packet::{Packet, Transport};

pub(super) const IPPROTO_TCP: u8 = 6;
pub(super) const IPPROTO_UDP: u8 = 17;
const IPPROTO_UDPLITE: u8 = 136;

const NF_INET_PRE_ROUTING: u8 = 0;
const NF_INET_LOCAL_IN: u8 = 1;
const NF_INET_FORWARD: u8 = 2;
const NF_INET_LOCAL_OUT: u8 = 3;
const NF_INET_POST_ROUTING: u8 = 4;
const NF_INET_INGRESS: u8 = 5;

/// Where a packet was logged. A hook number alone converts into it, with the devices unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// `NF_INET_*` of the tables of families ip, ip6 and inet.
    pub hook: u8,
    /// ifindex of the device the packet came in on: finds sockets bound to a device, and tells forwarded packets from
    /// local ones in POSTROUTING (since Linux 5.7).
    pub indev: Option<u32>,
    /// ifindex of the device the packet goes out on.
    pub outdev: Option<u32>,
}

impl From<u8> for Place {
    fn from(hook: u8) -> Self {
        Self {
            hook,
            indev: None,
            outdev: None,
        }
    }
}

/// What the local socket does with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Receives,
    Sends,
}

/// The packet's tuple, from the local socket's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) role: Role,
    pub(super) protocol: u8,
    pub(super) local: IpAddr,
    /// For ICMP the echo identifier.
    pub(super) local_port: u16,
    pub(super) remote: IpAddr,
    pub(super) remote_port: u16,
    /// ifindex on the local side; 0 if unknown.
    pub(super) device: u32,
    /// The hook does not say whether the packet is for, or from, this host: the local address must be checked.
    pub(super) may_be_routed: bool,
    pub(super) kind: Kind,
}

/// What the lookup depends on beyond the tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// TCP flags as in byte 13 of the header.
    Tcp(u8),
    Udp,
    /// ICMP type of an echo request or reply.
    Echo(u8),
}

impl Flow {
    /// # Errors
    ///
    /// The reason why the packet cannot be looked up.
    pub(super) fn new(place: Place, packet: &Packet) -> Result<Self, Reason> {
        let (role, may_be_routed) = match place.hook {
            NF_INET_PRE_ROUTING | NF_INET_INGRESS => (Role::Receives, true),
            NF_INET_LOCAL_IN => (Role::Receives, false),
            NF_INET_LOCAL_OUT => (Role::Sends, false),
            NF_INET_POST_ROUTING if place.indev.is_none() => (Role::Sends, true),
            NF_INET_FORWARD | NF_INET_POST_ROUTING => return Err(Reason::Forwarded),
            _ => return Err(Reason::Missed),
        };
        let (Some(source), Some(destination), Some(protocol)) =
            (packet.source, packet.destination, packet.protocol)
        else {
            return Err(Reason::Unparsable);
        };
        let (source_port, destination_port, kind) = ports(packet.transport, protocol)?;
        let (local, local_port, remote, remote_port, device) = match role {
            Role::Sends => (source, source_port, destination, destination_port, place.outdev),
            Role::Receives => (destination, destination_port, source, source_port, place.indev),
        };
        Ok(Self {
            role,
            protocol,
            local,
            local_port,
            remote,
            remote_port,
            device: device.unwrap_or(0),
            may_be_routed,
            kind,
        })
    }

    /// The same local end without a peer: what a listener is found by.
    pub(super) fn without_peer(&self) -> Self {
        let any = match self.local {
            IpAddr::V4(_) => IpAddr::from([0; 4]),
            IpAddr::V6(_) => IpAddr::from([0; 16]),
        };
        Self {
            remote: any,
            remote_port: 0,
            ..*self
        }
    }
}

fn ports(transport: Transport, protocol: u8) -> Result<(u16, u16, Kind), Reason> {
    match transport {
        Transport::Absent => Err(Reason::Unparsable),
        Transport::Tcp {
            source,
            destination,
            flags,
        } => Ok((source, destination, Kind::Tcp(flags))),
        Transport::Ports { source, destination } if matches!(protocol, IPPROTO_UDP | IPPROTO_UDPLITE) => {
            Ok((source, destination, Kind::Udp))
        }
        Transport::Icmp {
            kind,
            echo_id: Some(id),
            ..
        } => Ok((id, id, Kind::Echo(kind))),
        // An error or a neighbour discovery message: the kernel's own, or of a raw socket, which has no port to match.
        Transport::Icmp { .. } => Err(Reason::NoSocket),
        // SCTP, DCCP and portless protocols are not asked for.
        Transport::Ports { .. } | Transport::Other => Err(Reason::Missed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(transport: Transport) -> Packet {
        Packet {
            source: Some("10.0.0.1".parse().unwrap()),
            destination: Some("10.0.0.2".parse().unwrap()),
            protocol: Some(6),
            transport,
            length: Some(60),
            captured: 60,
            ttl: Some(64),
            fragment: false,
            problem: None,
        }
    }

    const SYN: Transport = Transport::Tcp {
        source: 1000,
        destination: 80,
        flags: 2,
    };

    #[test]
    fn the_hook_selects_the_local_end() {
        for (hook, role, local) in [
            (NF_INET_PRE_ROUTING, Role::Receives, 80),
            (NF_INET_LOCAL_IN, Role::Receives, 80),
            (NF_INET_LOCAL_OUT, Role::Sends, 1000),
            (NF_INET_POST_ROUTING, Role::Sends, 1000),
        ] {
            let flow = Flow::new(hook.into(), &packet(SYN)).unwrap();
            assert_eq!((flow.role, flow.local_port), (role, local), "hook {hook}");
        }
    }

    #[test]
    fn forwarded_packets_have_no_local_end() {
        assert_eq!(
            Flow::new(NF_INET_FORWARD.into(), &packet(SYN)),
            Err(Reason::Forwarded)
        );
        let routed = Place {
            hook: NF_INET_POST_ROUTING,
            indev: Some(2),
            outdev: Some(3),
        };
        assert_eq!(Flow::new(routed, &packet(SYN)), Err(Reason::Forwarded));
    }

    #[test]
    fn a_packet_without_its_transport_header_is_unparsable() {
        assert_eq!(
            Flow::new(NF_INET_LOCAL_IN.into(), &packet(Transport::Absent)),
            Err(Reason::Unparsable)
        );
        let mut headless = packet(SYN);
        headless.source = None;
        assert_eq!(
            Flow::new(NF_INET_LOCAL_IN.into(), &headless),
            Err(Reason::Unparsable)
        );
    }

    #[test]
    fn the_device_is_the_one_on_the_local_side() {
        let place = Place {
            hook: NF_INET_LOCAL_IN,
            indev: Some(4),
            outdev: None,
        };
        assert_eq!(Flow::new(place, &packet(SYN)).unwrap().device, 4);
    }
}
