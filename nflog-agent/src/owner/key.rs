//! The key under which the eBPF side files its answer, rebuilt from the NFLOG message. Both sides must agree on every
//! field; see `nflog-ebpf/src/packet.rs`.

use std::net::IpAddr;

use nflog_common::{IDENTITY_LEN, PacketKey, ReceiptKey};

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

/// The key of a receipt for a TCP segment; `None` for other protocols, for IPv6 with extension headers, and when the segment's
/// header was not captured far enough. `payload` starts with the IP header.
pub(super) fn receipt_key(packet: PacketKey, payload: &[u8]) -> Option<ReceiptKey> {
    const TCP: u8 = 6;
    const PART: usize = IDENTITY_LEN / 2;
    let first = payload.first()?;
    let length = match first >> 4 {
        4 => usize::from(first & 0x0f) * 4,
        6 if payload.get(6) == Some(&TCP) => 40,
        _ => return None,
    };
    let header = payload.get(length..).filter(|_| packet.protocol == TCP)?;
    let mut identity = [0; IDENTITY_LEN];
    let (fixed, option) = identity.split_at_mut(PART);
    fixed.copy_from_slice(header.get(4..4 + PART)?);
    if header.get(12)? >> 4 >= 8 {
        option.copy_from_slice(header.get(20..20 + PART)?);
    }
    Some(ReceiptKey { packet, identity })
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
    fn a_receipt_has_the_numbers_of_the_segment_and_its_time_stamp() {
        let key = packet_key(1, 3, &PACKET).unwrap();
        let mut bytes: Vec<u8> = (0..60).collect();
        bytes[0] = 0x45;
        bytes[32] = 0x80;
        let receipt = receipt_key(key, &bytes).unwrap();
        assert_eq!(receipt.identity[..4], [24, 25, 26, 27]);
        assert_eq!(receipt.identity[12..], bytes[40..52]);
        bytes[32] = 0x50;
        assert_eq!(receipt_key(key, &bytes).unwrap().identity[12..], [0; 12]);
        assert_eq!(receipt_key(key, &bytes[..30]), None);
        let udp = PacketKey { protocol: 17, ..key };
        assert_eq!(receipt_key(udp, &bytes), None);
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
