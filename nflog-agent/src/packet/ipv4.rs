//! IPv4, and an authentication header behind it.

use std::net::IpAddr;

use etherparse::ip_number::AUTH;

use super::authentication::{self, Authentication};
use super::{Packet, Problem, array, be16, cut, transport};

/// Bytes of a header without options.
const HEADER_MIN: usize = 20;
/// The more-fragments flag and the fragment offset.
const FRAGMENT: u16 = 0x3fff;
/// The fragment offset.
const OFFSET: u16 = 0x1fff;

/// Dissects from the IPv4 header on.
pub(super) fn dissect(bytes: &[u8]) -> Packet {
    let Some(&first) = bytes.first() else {
        return Packet::new(0, Some(Problem::Truncated));
    };
    let header = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header < HEADER_MIN {
        return Packet::new(bytes.len(), Some(Problem::Malformed));
    }
    // 0 for a packet larger than 64 KiB (BIG TCP).
    let total = be16(bytes, 2).filter(|&total| total > 0);
    let complete = total.is_some_and(|total| bytes.len() >= usize::from(total));
    // A total length that ends inside the header cannot be believed; else it leaves out padding of the link layer.
    let believed = total.filter(|&total| usize::from(total) >= header);
    let bytes = &bytes[..believed.map_or(bytes.len(), |total| bytes.len().min(total.into()))];
    let fragment = be16(bytes, 6).unwrap_or_default() & FRAGMENT;
    let mut packet = Packet {
        source: array::<4>(bytes, 12).map(IpAddr::from),
        destination: array::<4>(bytes, 16).map(IpAddr::from),
        protocol: bytes.get(9).copied().filter(|&protocol| protocol != AUTH.0),
        length: total.map(u32::from),
        ttl: bytes.get(8).copied(),
        fragment: fragment != 0,
        ..Packet::new(bytes.len(), None)
    };
    if believed != total {
        packet.problem = Some(Problem::Malformed);
        return packet;
    }
    let Some(data) = bytes.get(header..) else {
        packet.problem = Some(Problem::Truncated);
        return packet;
    };
    // Bytes 0 to 19 are there: `header` is not less.
    let mut protocol = bytes[9];
    let mut data = data;
    if protocol == AUTH.0 {
        // In a later fragment it is not there to tell what it protects.
        if fragment & OFFSET != 0 {
            return packet;
        }
        match authentication::skip(data) {
            Authentication::Header { next, rest } => (protocol, data) = (next, rest),
            Authentication::Cut => packet.problem = Some(cut(complete)),
            Authentication::Malformed => packet.problem = Some(Problem::Malformed),
        }
        if packet.problem.is_some() {
            return packet;
        }
        packet.protocol = Some(protocol);
    }
    // The transport header of a later fragment is in the first one.
    if fragment & OFFSET == 0 {
        (packet.transport, packet.problem) = transport::dissect(protocol, data, complete);
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Transport;

    /// UDP from 10.0.0.1:1000 to 10.0.0.2:2000 with 4 bytes of payload.
    #[rustfmt::skip]
    const UDP: [u8; 32] = [
        0x45, 0, 0, 32, 0, 0, 0x40, 0, 63, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        0x03, 0xe8, 0x07, 0xd0, 0, 12, 0, 0, 1, 2, 3, 4,
    ];
    const PORTS: Transport = Transport::Ports {
        source: 1000,
        destination: 2000,
    };

    fn with(changes: &[(usize, u8)]) -> [u8; 32] {
        let mut bytes = UDP;
        for &(offset, byte) in changes {
            bytes[offset] = byte;
        }
        bytes
    }

    #[test]
    fn a_whole_packet_gives_everything() {
        let expected = Packet {
            source: Some([10, 0, 0, 1].into()),
            destination: Some([10, 0, 0, 2].into()),
            protocol: Some(17),
            transport: PORTS,
            length: Some(32),
            captured: 32,
            ttl: Some(63),
            fragment: false,
            problem: None,
        };
        assert_eq!(dissect(&UDP), expected);
        // Ethernet padding is not the packet's.
        let padded = [&UDP[..], &[0; 14]].concat();
        assert_eq!(dissect(&padded), expected);
    }

    #[test]
    fn a_capture_that_ends_in_the_payload_is_no_problem() {
        let packet = dissect(&UDP[..28]);
        assert_eq!((packet.problem, packet.transport), (None, PORTS));
        assert_eq!((packet.length, packet.captured), (Some(32), 28));
    }

    #[test]
    fn a_capture_that_ends_in_the_header_gives_what_is_there() {
        let packet = dissect(&UDP[..17]);
        assert_eq!(packet.problem, Some(Problem::Truncated));
        assert_eq!(packet.source, Some([10, 0, 0, 1].into()));
        assert_eq!(packet.destination, None);
        assert_eq!((packet.protocol, packet.ttl), (Some(17), Some(63)));
        assert_eq!(packet.transport, Transport::Absent);
        assert_eq!(dissect(&[]), Packet::new(0, Some(Problem::Truncated)));
    }

    #[test]
    fn options_are_skipped_and_may_be_cut() {
        let mut bytes = with(&[(0, 0x46), (3, 36)]).to_vec();
        bytes.splice(20..20, [1, 1, 1, 0]);
        assert_eq!(dissect(&bytes).transport, PORTS);
        let packet = dissect(&bytes[..22]);
        assert_eq!(packet.problem, Some(Problem::Truncated));
        assert_eq!(packet.destination, Some([10, 0, 0, 2].into()));
    }

    #[test]
    fn only_the_first_fragment_has_ports() {
        let first = dissect(&with(&[(6, 0x20)]));
        assert_eq!((first.fragment, first.transport), (true, PORTS));
        let later = dissect(&with(&[(6, 0x00), (7, 0x10)]));
        assert_eq!((later.fragment, later.transport), (true, Transport::Absent));
        assert_eq!((later.protocol, later.problem), (Some(17), None));
    }

    #[test]
    fn contradictions_are_malformed() {
        for changes in [
            // Version 5; header of 16 bytes.
            &[(0, 0x55)][..],
            &[(0, 0x44)],
            // Total length inside the IP header; inside the UDP header.
            &[(3, 19)],
            &[(3, 23)],
        ] {
            let packet = dissect(&with(changes));
            assert_eq!(packet.problem, Some(Problem::Malformed), "{changes:?}");
            assert_eq!(packet.transport, Transport::Absent, "{changes:?}");
        }
    }

    #[test]
    fn a_total_length_of_0_is_unknown() {
        let packet = dissect(&with(&[(3, 0)]));
        assert_eq!((packet.length, packet.captured, packet.problem), (None, 32, None));
        assert_eq!(packet.transport, PORTS);
    }

    #[test]
    fn ports_behind_an_authentication_header_are_found() {
        let mut bytes = with(&[(3, 44), (9, 51)]).to_vec();
        bytes.splice(20..20, [17, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
        let packet = dissect(&bytes);
        assert_eq!((packet.protocol, packet.transport), (Some(17), PORTS));
        let packet = dissect(&bytes[..28]);
        assert_eq!(
            (packet.protocol, packet.problem),
            (None, Some(Problem::Truncated))
        );
    }
}
