//! Transport headers, as far as they name the flow.

use etherparse::ip_number::{DCCP, ICMP, IPV6_ICMP, SCTP, TCP, UDP, UDP_LITE};
use etherparse::{IpNumber, TcpHeader, UdpHeader};

use super::{Problem, Transport, be16, cut};

/// Bytes of an SCTP common header, and of a DCCP generic header without extended sequence number.
const SCTP_HEADER: usize = 12;
/// Offset of the data offset and of the flags in a TCP header.
const TCP_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
/// Bytes of an ICMP echo header, and those that every ICMP header has.
const ICMP_ECHO: usize = 8;
const ICMP_MIN: usize = 4;

/// Dissects a transport header. `complete`: `data` is the whole payload of the IP packet, and not only what was captured.
pub(super) fn dissect(protocol: u8, data: &[u8], complete: bool) -> (Transport, Option<Problem>) {
    match IpNumber(protocol) {
        TCP => tcp(data, complete),
        UDP | UDP_LITE => ports(data, UdpHeader::LEN, complete),
        SCTP | DCCP => ports(data, SCTP_HEADER, complete),
        // Echo reply and echo request.
        ICMP => icmp(data, complete, [0, 8]),
        IPV6_ICMP => icmp(data, complete, [128, 129]),
        _ => (Transport::Other, None),
    }
}

fn tcp(data: &[u8], complete: bool) -> (Transport, Option<Problem>) {
    let Some(&flags) = data.get(TCP_FLAGS) else {
        return ports(data, TcpHeader::MIN_LEN, complete);
    };
    let (Some(source), Some(destination)) = (be16(data, 0), be16(data, 2)) else {
        return (Transport::Absent, Some(cut(complete)));
    };
    let header = usize::from(data[TCP_OFFSET] >> 4) * 4;
    let problem = if header < TcpHeader::MIN_LEN {
        Some(Problem::Malformed)
    } else {
        (data.len() < header).then(|| cut(complete))
    };
    let transport = Transport::Tcp {
        source,
        destination,
        flags,
    };
    (transport, problem)
}

/// Ports at the start of a header of `header` bytes.
fn ports(data: &[u8], header: usize, complete: bool) -> (Transport, Option<Problem>) {
    let problem = (data.len() < header).then(|| cut(complete));
    let transport = match (be16(data, 0), be16(data, 2)) {
        (Some(source), Some(destination)) => Transport::Ports { source, destination },
        _ => Transport::Absent,
    };
    (transport, problem)
}

fn icmp(data: &[u8], complete: bool, echo: [u8; 2]) -> (Transport, Option<Problem>) {
    let &[kind, code, ..] = data else {
        return (Transport::Absent, Some(cut(complete)));
    };
    let is_echo = echo.contains(&kind);
    let header = if is_echo { ICMP_ECHO } else { ICMP_MIN };
    let transport = Transport::Icmp {
        kind,
        code,
        echo_id: if is_echo { be16(data, 4) } else { None },
    };
    (transport, (data.len() < header).then(|| cut(complete)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const TCP_SYN: [u8; 24] = [
        0x03, 0xe8, 0x07, 0xd0, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0,
        2, 4, 5, 0xb4,
    ];
    const SYN: Transport = Transport::Tcp {
        source: 1000,
        destination: 2000,
        flags: 2,
    };
    const PORTS: Transport = Transport::Ports {
        source: 1000,
        destination: 2000,
    };

    #[test]
    fn tcp_gives_ports_and_flags() {
        assert_eq!(dissect(6, &TCP_SYN, true), (SYN, None));
        assert_eq!(dissect(6, &TCP_SYN, false), (SYN, None));
    }

    #[test]
    fn a_cut_tcp_header_gives_what_is_there() {
        let truncated = Some(Problem::Truncated);
        assert_eq!(dissect(6, &TCP_SYN[..23], false), (SYN, truncated));
        assert_eq!(dissect(6, &TCP_SYN[..14], false), (SYN, truncated));
        assert_eq!(dissect(6, &TCP_SYN[..13], false), (PORTS, truncated));
        assert_eq!(dissect(6, &TCP_SYN[..4], false), (PORTS, truncated));
        assert_eq!(dissect(6, &TCP_SYN[..3], false), (Transport::Absent, truncated));
        // The packet itself ends there.
        assert_eq!(dissect(6, &TCP_SYN[..14], true), (SYN, Some(Problem::Malformed)));
    }

    #[test]
    fn a_tcp_header_shorter_than_itself_is_malformed() {
        let mut bytes = TCP_SYN;
        bytes[12] = 0x40;
        assert_eq!(dissect(6, &bytes, false), (SYN, Some(Problem::Malformed)));
    }

    #[test]
    fn udp_udp_lite_sctp_and_dccp_have_their_ports_in_the_same_place() {
        for (protocol, header) in [(17, 8), (136, 8), (132, 12), (33, 12)] {
            assert_eq!(dissect(protocol, &TCP_SYN[..header], true), (PORTS, None));
            let cut = dissect(protocol, &TCP_SYN[..header - 1], false);
            assert_eq!(cut, (PORTS, Some(Problem::Truncated)));
        }
    }

    #[test]
    fn only_echo_has_an_identifier() {
        let icmp = |protocol, kind| dissect(protocol, &[kind, 3, 0, 0, 0x12, 0x34, 0, 1], true);
        for (protocol, kind, echo) in [
            (1, 0, true),
            (1, 8, true),
            (1, 3, false),
            (1, 128, false),
            (58, 128, true),
            (58, 129, true),
            (58, 1, false),
            (58, 8, false),
        ] {
            let expected = Transport::Icmp {
                kind,
                code: 3,
                echo_id: echo.then_some(0x1234),
            };
            assert_eq!(icmp(protocol, kind), (expected, None), "{protocol} {kind}");
        }
        let cut = dissect(1, &[8, 0, 0, 0, 0x12], false);
        let expected = Transport::Icmp {
            kind: 8,
            code: 0,
            echo_id: None,
        };
        assert_eq!(cut, (expected, Some(Problem::Truncated)));
    }

    #[test]
    fn other_protocols_are_left_alone() {
        assert_eq!(dissect(50, &[], false), (Transport::Other, None));
        assert_eq!(dissect(47, &[1], true), (Transport::Other, None));
    }
}
