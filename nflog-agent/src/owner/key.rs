//! What the eBPF side knows a packet by, rebuilt from the NFLOG message. Both sides must agree on every
//! field; see `nflog-ebpf/src/packet.rs`.

use std::net::IpAddr;

use nflog_common::{Fingerprint, IDENTITY_LEN, PacketKey};

use crate::packet::{Packet, Transport};

/// The key of a packet logged in namespace `netns` at `hook`; `None` when its headers were not captured far enough.
pub(super) fn packet_key(netns: u32, hook: u8, packet: &Packet) -> Option<PacketKey> {
    let (source_port, destination_port) = match packet.transport {
        Transport::Tcp {
            source, destination, ..
        }
        | Transport::Ports { source, destination } => (source, destination),
        Transport::Icmp { kind, echo_id, .. } => (echo_id.unwrap_or(0), kind.into()),
        Transport::Other => (0, 0),
        // A later fragment has no ports on either side; anything else without a transport header was cut off.
        Transport::Absent if packet.fragment => (0, 0),
        Transport::Absent => return None,
    };
    Some(PacketKey {
        netns,
        protocol: packet.protocol?,
        hook,
        source_port,
        destination_port,
        pad: 0,
        source: address(packet.source?),
        destination: address(packet.destination?),
    })
}

/// What tells the packet from the others of its tuple; `None` for IPv6 with extension headers, and when its headers were not
/// captured far enough. `payload` starts with the IP header.
pub(super) fn fingerprint(key: PacketKey, packet: &Packet, payload: &[u8]) -> Option<Fingerprint> {
    let first = payload.first()?;
    let (numbers, length) = match first >> 4 {
        4 => (payload.get(2..10)?, usize::from(first & 0x0f) * 4),
        6 if *payload.get(6)? == key.protocol => (payload.get(..8)?, 40),
        _ => return None,
    };
    let mut identity = [0; IDENTITY_LEN];
    match packet.transport {
        Transport::Tcp { .. } => identify_segment(payload.get(length..)?, &mut identity)?,
        Transport::Ports { .. } | Transport::Icmp { .. } => {
            identity[..8].copy_from_slice(numbers);
            identity[8..12].copy_from_slice(payload.get(length + 4..length + 8)?);
        }
        Transport::Other | Transport::Absent => identity[..8].copy_from_slice(numbers),
    }
    Some(Fingerprint {
        packet: key,
        identity,
    })
}

fn identify_segment(header: &[u8], identity: &mut [u8; IDENTITY_LEN]) -> Option<()> {
    const PART: usize = IDENTITY_LEN / 2;
    let (fixed, option) = identity.split_at_mut(PART);
    fixed.copy_from_slice(header.get(4..4 + PART)?);
    if header.get(12)? >> 4 >= 8 {
        option.copy_from_slice(header.get(20..20 + PART)?);
    }
    Some(())
}

/// 16 bytes, IPv4 as `::ffff:a.b.c.d`.
pub(super) const fn address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: Packet = Packet {
        source: Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1))),
        destination: Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2))),
        protocol: Some(6),
        transport: Transport::Tcp {
            source: 40_000,
            destination: 443,
            flags: 2,
        },
        length: Some(60),
        captured: 60,
        ttl: Some(64),
        fragment: false,
        problem: None,
    };

    #[test]
    fn ipv4_addresses_are_mapped_and_ports_kept() {
        let key = packet_key(4_026_531_840, 3, &PACKET).unwrap();
        assert_eq!(
            key.source,
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]
        );
        assert_eq!(
            (key.source_port, key.destination_port, key.protocol, key.hook),
            (40_000, 443, 6, 3)
        );
    }

    #[test]
    fn an_echo_is_filed_under_its_identifier_and_an_icmp_error_under_none() {
        let key = |kind, echo_id| {
            let transport = Transport::Icmp {
                kind,
                code: 0,
                echo_id,
            };
            packet_key(1, 3, &Packet { transport, ..PACKET }).unwrap()
        };
        assert_eq!((key(8, Some(77)).source_port, key(3, None).source_port), (77, 0));
        assert_ne!(key(8, Some(77)), key(0, Some(77)), "request and reply");
    }

    #[test]
    fn a_segment_is_known_by_its_numbers_and_its_time_stamp() {
        let key = packet_key(1, 3, &PACKET).unwrap();
        let mut bytes: Vec<u8> = (0..60).collect();
        bytes[0] = 0x45;
        bytes[32] = 0x80;
        let print = fingerprint(key, &PACKET, &bytes).unwrap();
        assert_eq!(print.identity[..12], bytes[24..36]);
        assert_eq!(print.identity[12..], bytes[40..52]);
        bytes[32] = 0x50;
        assert_eq!(fingerprint(key, &PACKET, &bytes).unwrap().identity[12..], [0; 12]);
        assert_eq!(fingerprint(key, &PACKET, &bytes[..30]), None);
    }

    #[test]
    fn a_datagram_is_known_by_its_length_number_and_checksum() {
        let datagram = Packet {
            protocol: Some(17),
            transport: Transport::Ports {
                source: 1,
                destination: 2,
            },
            ..PACKET
        };
        let key = packet_key(1, 3, &datagram).unwrap();
        let mut bytes: Vec<u8> = (0..48).collect();
        bytes[0] = 0x46;
        let print = fingerprint(key, &datagram, &bytes).unwrap();
        assert_eq!(print.identity[..8], bytes[2..10]);
        assert_eq!(print.identity[8..12], bytes[28..32], "behind 4 bytes of options");
        assert_eq!(print.identity[12..], [0; 12]);
        assert_eq!(fingerprint(key, &datagram, &bytes[..30]), None);
        bytes[0] = 0x60;
        bytes[6] = 17;
        let print = fingerprint(key, &datagram, &bytes).unwrap();
        assert_eq!(
            (&print.identity[..8], &print.identity[8..12]),
            (&bytes[..8], &bytes[44..48])
        );
        bytes[6] = 0;
        assert_eq!(fingerprint(key, &datagram, &bytes), None, "extension headers");
    }

    #[test]
    fn what_has_no_transport_header_is_known_by_its_ip_header() {
        let fragment = Packet {
            transport: Transport::Absent,
            fragment: true,
            ..PACKET
        };
        let key = packet_key(1, 3, &fragment).unwrap();
        let mut bytes: Vec<u8> = (0..28).collect();
        bytes[0] = 0x45;
        let print = fingerprint(key, &fragment, &bytes).unwrap();
        assert_eq!(
            (&print.identity[..8], &print.identity[8..]),
            (&bytes[2..10], &[0; 16][..])
        );
    }

    #[test]
    fn a_cut_off_packet_has_no_key_but_a_later_fragment_has() {
        let cut_off = Packet {
            transport: Transport::Absent,
            ..PACKET
        };
        assert_eq!(packet_key(1, 3, &cut_off), None);
        assert!(
            packet_key(
                1,
                3,
                &Packet {
                    fragment: true,
                    ..cut_off
                }
            )
            .is_some()
        );
    }
}
