//! IPv6 and its extension headers.

use std::net::IpAddr;

use etherparse::ip_number::{AUTH, IPV6_DEST_OPTIONS, IPV6_FRAG, IPV6_HOP_BY_HOP, IPV6_ROUTE};
use etherparse::{IpNumber, Ipv6FragmentHeaderSlice, Ipv6RawExtHeaderSlice};

use super::authentication::{self, Authentication};
use super::{Packet, Problem, array, be16, cut, transport};

/// Bytes of the fixed header.
const HEADER: usize = 40;

/// Dissects from the IPv6 header on.
pub(super) fn dissect(bytes: &[u8]) -> Packet {
    let Some(&first) = bytes.first() else {
        return Packet::new(0, Some(Problem::Truncated));
    };
    if first >> 4 != 6 {
        return Packet::new(bytes.len(), Some(Problem::Malformed));
    }
    // 0 for a packet larger than 64 KiB (BIG TCP, jumbogram); but also for one without payload.
    let total = be16(bytes, 4)
        .filter(|&payload| payload > 0)
        .map(|payload| HEADER + usize::from(payload));
    let complete = total.is_some_and(|total| bytes.len() >= total);
    // Padding of the link layer may follow.
    let bytes = &bytes[..total.map_or(bytes.len(), |total| bytes.len().min(total))];
    let next = bytes.get(6).copied();
    let mut packet = Packet {
        source: array::<16>(bytes, 8).map(IpAddr::from),
        destination: array::<16>(bytes, 24).map(IpAddr::from),
        protocol: next.filter(|&next| !is_extension(IpNumber(next))),
        // Cannot fail: at most 40 + 65535.
        length: total.and_then(|total| u32::try_from(total).ok()),
        ttl: bytes.get(7).copied(),
        ..Packet::new(bytes.len(), None)
    };
    let Some(data) = bytes.get(HEADER..) else {
        packet.problem = Some(Problem::Truncated);
        return packet;
    };
    let walked = walk(IpNumber(bytes[6]), data);
    packet.fragment = walked.fragment;
    match walked.end {
        End::Transport { protocol, data } => {
            packet.protocol = Some(protocol);
            (packet.transport, packet.problem) = transport::dissect(protocol, data, complete);
        }
        End::LaterFragment { next } => packet.protocol = Some(next.0).filter(|_| !is_extension(next)),
        End::Cut => packet.problem = Some(cut(complete)),
        End::Malformed => packet.problem = Some(Problem::Malformed),
    }
    packet
}

/// What the extension headers lead to.
struct Walked<'a> {
    fragment: bool,
    end: End<'a>,
}

enum End<'a> {
    /// The transport header, or one that is not known here.
    Transport { protocol: u8, data: &'a [u8] },
    /// A fragment without the transport header; `next` is what its first fragment has behind the fragment header.
    LaterFragment { next: IpNumber },
    /// The packet or its capture ends in an extension header.
    Cut,
    /// An extension header contradicts itself or is out of place.
    Malformed,
}

/// Walks the extension headers; each is at least 8 bytes, so this ends.
fn walk(mut next: IpNumber, mut data: &[u8]) -> Walked<'_> {
    let start = data.len();
    let mut fragment = false;
    let end = loop {
        match next {
            // Only directly behind the fixed header.
            IPV6_HOP_BY_HOP if data.len() < start => break End::Malformed,
            IPV6_HOP_BY_HOP | IPV6_DEST_OPTIONS | IPV6_ROUTE => {
                let Ok(header) = Ipv6RawExtHeaderSlice::from_slice(data) else {
                    break End::Cut;
                };
                next = header.next_header();
                data = &data[header.slice().len()..];
            }
            IPV6_FRAG => {
                let Ok(header) = Ipv6FragmentHeaderSlice::from_slice(data) else {
                    break End::Cut;
                };
                fragment |= header.is_fragmenting_payload();
                next = header.next_header();
                if header.fragment_offset().value() > 0 {
                    break End::LaterFragment { next };
                }
                data = &data[header.slice().len()..];
            }
            AUTH => match authentication::skip(data) {
                Authentication::Header {
                    next: following,
                    rest,
                } => (next, data) = (IpNumber(following), rest),
                Authentication::Cut => break End::Cut,
                Authentication::Malformed => break End::Malformed,
            },
            IpNumber(protocol) => break End::Transport { protocol, data },
        }
    };
    Walked { fragment, end }
}

const fn is_extension(number: IpNumber) -> bool {
    matches!(
        number,
        IPV6_HOP_BY_HOP | IPV6_DEST_OPTIONS | IPV6_ROUTE | IPV6_FRAG | AUTH
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Transport;

    const PORTS: Transport = Transport::Ports {
        source: 1000,
        destination: 2000,
    };
    const UDP: [u8; 8] = [0x03, 0xe8, 0x07, 0xd0, 0, 8, 0, 0];

    /// From fd00::1 to fd00::2, hop limit 64.
    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, u8::try_from(payload.len()).unwrap(), next, 64];
        for host in [1, 2] {
            bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
        }
        bytes.extend(payload);
        bytes
    }

    fn address(host: u16) -> Option<IpAddr> {
        Some([0xfd00, 0, 0, 0, 0, 0, 0, host].into())
    }

    #[test]
    fn a_whole_packet_gives_everything() {
        let expected = Packet {
            source: address(1),
            destination: address(2),
            protocol: Some(17),
            transport: PORTS,
            length: Some(48),
            captured: 48,
            ttl: Some(64),
            fragment: false,
            problem: None,
        };
        assert_eq!(dissect(&packet(17, &UDP)), expected);
    }

    #[test]
    fn a_capture_that_ends_in_the_header_gives_what_is_there() {
        let cut = dissect(&packet(17, &UDP)[..30]);
        assert_eq!(cut.problem, Some(Problem::Truncated));
        assert_eq!((cut.source, cut.destination), (address(1), None));
        assert_eq!(
            (cut.protocol, cut.ttl, cut.length),
            (Some(17), Some(64), Some(48))
        );
        assert_eq!(dissect(&[]), Packet::new(0, Some(Problem::Truncated)));
    }

    #[test]
    fn extension_headers_are_walked() {
        let payload = [
            &[60, 0, 1, 4, 0, 0, 0, 0][..],         // hop-by-hop, padding option
            &[43, 1, 1, 12, 0, 0, 0, 0],            // destination options of 16 bytes
            &[0; 8],                                //
            &[51, 0, 0, 0, 0, 0, 0, 0],             // routing
            &[17, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], // authentication, in units of 4 bytes
            &UDP,
        ]
        .concat();
        let bytes = packet(0, &payload);
        let whole = dissect(&bytes);
        assert_eq!(
            (whole.protocol, whole.transport, whole.problem),
            (Some(17), PORTS, None)
        );
        for length in HEADER..bytes.len() - UDP.len() - 1 {
            let cut = dissect(&bytes[..length]);
            assert_eq!(
                (cut.protocol, cut.problem),
                (None, Some(Problem::Truncated)),
                "{length}"
            );
        }
    }

    #[test]
    fn only_the_first_fragment_has_ports() {
        let fragment = |offset_and_more| {
            let payload = [&[17, 0, 0, offset_and_more, 0, 0, 0, 1][..], &UDP].concat();
            dissect(&packet(44, &payload))
        };
        let first = fragment(1);
        assert_eq!((first.fragment, first.transport), (true, PORTS));
        let later = fragment(8);
        assert_eq!((later.fragment, later.transport), (true, Transport::Absent));
        assert_eq!((later.protocol, later.problem), (Some(17), None));
        // An atomic fragment is a whole packet.
        let atomic = fragment(0);
        assert_eq!((atomic.fragment, atomic.transport), (false, PORTS));
    }

    #[test]
    fn the_data_of_a_later_fragment_is_not_read_as_headers() {
        // Its first fragment continues with destination options; here is data that would pass for them.
        let payload = [&[60, 0, 0, 8, 0, 0, 0, 1][..], &[17, 0, 0, 0, 0, 0, 0, 0], &UDP].concat();
        let later = dissect(&packet(44, &payload));
        assert_eq!((later.protocol, later.transport), (None, Transport::Absent));
    }

    #[test]
    fn contradictions_are_malformed() {
        let mut version = packet(17, &UDP);
        version[0] = 0x40;
        let late_hop_by_hop = packet(60, &[0, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0]);
        let no_length = packet(51, &[17, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
        let ends_early = packet(60, &[17, 3, 0, 0, 0, 0, 0, 0]);
        for bytes in [version, late_hop_by_hop, no_length, ends_early] {
            assert_eq!(dissect(&bytes).problem, Some(Problem::Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn a_payload_length_of_0_is_unknown() {
        let mut bytes = packet(17, &UDP);
        bytes[5] = 0;
        let big = dissect(&bytes);
        assert_eq!((big.length, big.captured, big.transport), (None, 48, PORTS));
    }
}
