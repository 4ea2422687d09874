//! A logged packet's own headers: addresses, ports, flags. Pure: no I/O, no clock, no allocation.
//!
//! Invariants: no bytes panic; what a cut capture gives is never contradicted by the whole packet.

mod authentication;
mod ipv4;
mod ipv6;
mod link;
mod transport;

use std::net::IpAddr;

use link::Network;

/// What the captured bytes say. A header that is cut off or malformed leaves its fields `None` and sets a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: Option<IpAddr>,
    /// Destination address.
    pub destination: Option<IpAddr>,
    /// IP protocol number of the transport header, after IPv6 extension headers.
    pub protocol: Option<u8>,
    /// The transport header.
    pub transport: Transport,
    /// Length of the IP packet in bytes as its header states it; `None` when the header says 0 (BIG TCP) or is cut off.
    pub length: Option<u32>,
    /// Bytes of the IP packet that were captured.
    pub captured: u32,
    /// Time to live, or hop limit.
    pub ttl: Option<u8>,
    /// The packet is a fragment.
    pub fragment: bool,
    /// What was wrong, if anything.
    pub problem: Option<Problem>,
}

/// The transport header as far as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Not an IP packet, a later fragment, or cut off before the transport header.
    Absent,
    /// TCP; flags as in byte 13 of the header.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// CWR ECE URG ACK PSH RST SYN FIN, FIN being bit 0.
        flags: u8,
    },
    /// UDP, UDP-Lite, SCTP and DCCP, whose ports are in the same place.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Identifier of an echo request or reply.
        echo_id: Option<u16>,
    },
    /// Another protocol; see [`Packet::protocol`].
    Other,
}

/// Why a packet was not dissected to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The capture ends inside a header.
    Truncated,
    /// A header contradicts itself.
    Malformed,
    /// Neither IPv4 nor IPv6.
    NotIp,
}

impl Packet {
    /// Nothing is known but that `captured` bytes are there.
    fn new(captured: usize, problem: Option<Problem>) -> Self {
        // A netlink attribute holds less than 64 KiB.
        let captured = u32::try_from(captured).unwrap_or(u32::MAX);
        Self {
            source: None,
            destination: None,
            protocol: None,
            transport: Transport::Absent,
            length: None,
            captured,
            ttl: None,
            fragment: false,
            problem,
        }
    }
}

/// Dissects an entry's payload. `hw_protocol` is its ethertype, `family` its `NFPROTO_*` number.
///
/// The payload starts at the network header, or at VLAN tags in front of it if `hw_protocol` says so. For family netdev it
/// may also start at an Ethernet header, as it does in the egress hook.
///
/// Of a TCP header that is cut off before its flags the ports are kept, as [`Transport::Ports`].
#[must_use]
pub fn dissect(hw_protocol: Option<u16>, family: u8, payload: &[u8]) -> Packet {
    match link::network(hw_protocol, family, payload) {
        Network::Ipv4(bytes) => ipv4::dissect(bytes),
        Network::Ipv6(bytes) => ipv6::dissect(bytes),
        Network::Other(bytes) => Packet::new(bytes.len(), Some(Problem::NotIp)),
        Network::Cut => Packet::new(0, Some(Problem::Truncated)),
    }
}

/// Big-endian number at `offset`, if it was captured.
fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_be_bytes)
}

/// Bytes at `offset`, if all were captured.
fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// What a header that ends early means: `complete` if the packet itself ends there, and not only the capture.
const fn cut(complete: bool) -> Problem {
    if complete {
        Problem::Malformed
    } else {
        Problem::Truncated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{LaxSlicedPacket, PacketBuilder, TransportSlice};
    use proptest::prelude::*;

    /// What a part of a packet says must hold for the whole.
    fn check_prefix(part: &Packet, whole: &Packet) -> Result<(), TestCaseError> {
        fn same<T: PartialEq + std::fmt::Debug>(
            part: Option<T>,
            whole: Option<T>,
        ) -> Result<(), TestCaseError> {
            if part.is_some() {
                prop_assert_eq!(part, whole);
            }
            Ok(())
        }
        same(part.source, whole.source)?;
        same(part.destination, whole.destination)?;
        same(part.protocol, whole.protocol)?;
        same(part.length, whole.length)?;
        same(part.ttl, whole.ttl)?;
        prop_assert!(part.captured <= whole.captured);
        prop_assert!(!part.fragment || whole.fragment);
        match (part.transport, whole.transport) {
            (Transport::Absent, _) => {}
            (
                Transport::Ports { source, destination },
                Transport::Tcp {
                    source: whole_source,
                    destination: whole_destination,
                    ..
                },
            ) => prop_assert_eq!((source, destination), (whole_source, whole_destination)),
            (
                Transport::Icmp { kind, code, echo_id },
                Transport::Icmp {
                    kind: whole_kind,
                    code: whole_code,
                    echo_id: whole_id,
                },
            ) => {
                prop_assert_eq!((kind, code), (whole_kind, whole_code));
                same(echo_id, whole_id)?;
            }
            (part, whole) => prop_assert_eq!(part, whole),
        }
        // A part without problem gives all that the whole gives.
        if part.problem.is_none() {
            let captured = part.captured;
            prop_assert_eq!(*part, Packet { captured, ..*whole });
        } else if part.problem != Some(Problem::Truncated) {
            prop_assert_eq!(part.problem, whole.problem);
        }
        Ok(())
    }

    fn check_all_prefixes(hw_protocol: Option<u16>, family: u8, bytes: &[u8]) -> Result<(), TestCaseError> {
        let whole = dissect(hw_protocol, family, bytes);
        for length in 0..bytes.len() {
            check_prefix(&dissect(hw_protocol, family, &bytes[..length]), &whole)?;
        }
        Ok(())
    }

    fn ethertypes() -> impl Strategy<Value = Option<u16>> {
        prop::option::of(prop_oneof![
            Just(0x0800),
            Just(0x86dd),
            Just(0x8100),
            Just(0x0806),
            any::<u16>()
        ])
    }

    fn families() -> impl Strategy<Value = u8> {
        prop_oneof![Just(2), Just(3), Just(5), Just(7), Just(10), any::<u8>()]
    }

    /// Bytes that pass for headers more often than chance.
    fn ip_like() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![Just(0x45), Just(0x46), Just(0x60), Just(0x02), any::<u8>()];
        let numbers = prop_oneof![
            Just(0),
            Just(1),
            Just(6),
            Just(17),
            Just(43),
            Just(44),
            Just(51),
            Just(58),
            Just(60),
            any::<u8>()
        ];
        (first, prop::collection::vec(numbers, 0..120)).prop_map(|(first, mut bytes)| {
            bytes.insert(0, first);
            bytes
        })
    }

    #[derive(Clone, Copy, Debug)]
    enum Kind {
        Tcp,
        Udp,
        Echo,
    }

    /// A well-formed packet of another implementation.
    fn built(v6: bool, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let ip = if v6 {
            PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 61)
        } else {
            PacketBuilder::ipv4([10, 1, 2, 3], [10, 4, 5, 6], 61)
        };
        let mut bytes = Vec::new();
        match (kind, v6) {
            (Kind::Tcp, _) => ip.tcp(1000, 2000, 7, 100).syn().ack(9).write(&mut bytes, payload),
            (Kind::Udp, _) => ip.udp(1000, 2000).write(&mut bytes, payload),
            (Kind::Echo, false) => ip.icmpv4_echo_request(0x1234, 1).write(&mut bytes, payload),
            (Kind::Echo, true) => ip.icmpv6_echo_request(0x1234, 1).write(&mut bytes, payload),
        }
        .unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_no_part_contradicts_the_whole(
            hw_protocol in ethertypes(),
            family in families(),
            bytes in prop::collection::vec(any::<u8>(), 0..160),
        ) {
            check_all_prefixes(hw_protocol, family, &bytes)?;
        }

        #[test]
        fn no_part_of_something_like_a_packet_contradicts_the_whole(
            hw_protocol in ethertypes(),
            family in families(),
            bytes in ip_like(),
        ) {
            check_all_prefixes(hw_protocol, family, &bytes)?;
        }

        #[test]
        fn another_implementation_finds_the_same(
            v6 in any::<bool>(),
            kind in prop_oneof![Just(Kind::Tcp), Just(Kind::Udp), Just(Kind::Echo)],
            payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = built(v6, kind, &payload);
            let packet = dissect(None, if v6 { 10 } else { 2 }, &bytes);
            prop_assert_eq!(packet.problem, None);
            prop_assert_eq!(packet.length.map(|length| length as usize), Some(bytes.len()));
            let oracle = LaxSlicedPacket::from_ip(&bytes).unwrap();
            match oracle.transport.unwrap() {
                TransportSlice::Tcp(tcp) => prop_assert_eq!(packet.transport, Transport::Tcp {
                    source: tcp.source_port(),
                    destination: tcp.destination_port(),
                    flags: tcp.slice()[13],
                }),
                TransportSlice::Udp(udp) => prop_assert_eq!(packet.transport, Transport::Ports {
                    source: udp.source_port(),
                    destination: udp.destination_port(),
                }),
                TransportSlice::Icmpv4(icmp) => prop_assert_eq!(packet.transport, Transport::Icmp {
                    kind: icmp.type_u8(),
                    code: icmp.code_u8(),
                    echo_id: Some(0x1234),
                }),
                TransportSlice::Icmpv6(icmp) => prop_assert_eq!(packet.transport, Transport::Icmp {
                    kind: icmp.type_u8(),
                    code: icmp.code_u8(),
                    echo_id: Some(0x1234),
                }),
                TransportSlice::Igmp(_) => prop_assert!(false, "not built here"),
            }
            check_all_prefixes(None, if v6 { 10 } else { 2 }, &bytes)?;
        }
    }

    #[test]
    fn arp_is_not_ip() {
        let packet = dissect(Some(0x0806), 3, &[0, 1, 8, 0]);
        assert_eq!((packet.problem, packet.captured), (Some(Problem::NotIp), 4));
    }
}
