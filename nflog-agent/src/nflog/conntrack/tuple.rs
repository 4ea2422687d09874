//! A tuple: what identifies the packets of one direction of a connection. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::uapi::{
    CTA_IP_V4_DST, CTA_IP_V4_SRC, CTA_IP_V6_DST, CTA_IP_V6_SRC, CTA_PROTO_DST_PORT, CTA_PROTO_ICMP_CODE,
    CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMPV6_CODE, CTA_PROTO_ICMPV6_ID,
    CTA_PROTO_ICMPV6_TYPE, CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_TUPLE_IP, CTA_TUPLE_PROTO, CTA_TUPLE_ZONE,
};
use super::walk::{Findings, Taken, store};

/// Protocol number of ICMP.
const ICMP: u8 = 1;
/// Protocol number of ICMPv6.
const ICMPV6: u8 = 58;

/// Addresses and protocol of the packets of one direction (`CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_TUPLE_MASTER`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Tuple {
    /// Source address (`CTA_IP_V4_SRC`, `CTA_IP_V6_SRC`).
    pub src: IpAddr,
    /// Destination address (`CTA_IP_V4_DST`, `CTA_IP_V6_DST`), of the same family.
    pub dst: IpAddr,
    /// Protocol number (`CTA_PROTO_NUM`): 6 is TCP, 17 UDP, 1 ICMP, 58 ICMPv6.
    pub protocol: u8,
    /// What the protocol adds.
    pub proto: TupleProto,
}

/// The part of a tuple that depends on the protocol (`CTA_TUPLE_PROTO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum TupleProto {
    /// Ports of TCP, UDP, UDP-Lite, DCCP and SCTP; the call ids of GRE.
    Ports {
        /// Source port (`CTA_PROTO_SRC_PORT`).
        src: u16,
        /// Destination port (`CTA_PROTO_DST_PORT`).
        dst: u16,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// Identifier of an echo request or reply (`CTA_PROTO_ICMP_ID`, `CTA_PROTO_ICMPV6_ID`).
        id: u16,
        /// Type (`CTA_PROTO_ICMP_TYPE`, `CTA_PROTO_ICMPV6_TYPE`).
        kind: u8,
        /// Code (`CTA_PROTO_ICMP_CODE`, `CTA_PROTO_ICMPV6_CODE`).
        code: u8,
    },
    /// Nothing: a protocol that conntrack tells apart by addresses alone.
    None,
}

impl Tuple {
    /// The tuple of the packets that answer this one, as the kernel's `nf_ct_invert_tuple` makes it. Of a connection without
    /// NAT the inverted original tuple is the reply tuple. `None` for an ICMP type that has no answer.
    #[must_use]
    pub const fn inverted(&self) -> Option<Self> {
        let proto = match self.proto {
            TupleProto::Ports { src, dst } => TupleProto::Ports { src: dst, dst: src },
            TupleProto::Icmp { id, kind, code } => {
                let Some(kind) = answer(self.protocol, kind) else {
                    return None;
                };
                TupleProto::Icmp { id, kind, code }
            }
            TupleProto::None => TupleProto::None,
        };
        Some(Self {
            src: self.dst,
            dst: self.src,
            protocol: self.protocol,
            proto,
        })
    }

    /// Source and destination port, of protocols that have ports.
    #[must_use]
    pub const fn ports(&self) -> Option<(u16, u16)> {
        match self.proto {
            TupleProto::Ports { src, dst } => Some((src, dst)),
            TupleProto::Icmp { .. } | TupleProto::None => None,
        }
    }
}

/// ICMP type of the answer: the tables `invmap` of `nf_conntrack_proto_icmp.c` and `nf_conntrack_proto_icmpv6.c`.
const fn answer(protocol: u8, kind: u8) -> Option<u8> {
    match (protocol, kind) {
        // Echo.
        (ICMP, 0) => Some(8),
        (ICMP, 8) => Some(0),
        // Timestamp, information and address mask request; the reply is one more.
        (ICMP, 13 | 15 | 17) => Some(kind + 1),
        (ICMP, 14 | 16 | 18) => Some(kind - 1),
        // Echo and node information request.
        (ICMPV6, 128 | 139) => Some(kind + 1),
        (ICMPV6, 129 | 140) => Some(kind - 1),
        _ => None,
    }
}

/// A tuple and its zone while they are read.
#[derive(Default)]
pub(super) struct Parts {
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    protocol: Option<u8>,
    src_port: Option<u16>,
    dst_port: Option<u16>,
    icmp_id: Option<u16>,
    icmp_type: Option<u8>,
    icmp_code: Option<u8>,
    pub(super) zone: Option<u16>,
}

impl Parts {
    /// Reads the value of a `CTA_TUPLE_*` attribute.
    pub(super) fn read(attributes: &[u8], findings: &mut Findings) -> Self {
        let mut parts = Self::default();
        findings.walk(attributes, |findings, attr| match attr.kind {
            CTA_TUPLE_IP => parts.take_ip(attr.value, findings),
            CTA_TUPLE_PROTO => parts.take_proto(attr.value, findings),
            CTA_TUPLE_ZONE => store(&mut parts.zone, attr.value, u16::from_be_bytes),
            _ => Taken::Unknown,
        });
        parts
    }

    fn take_ip(&mut self, attributes: &[u8], findings: &mut Findings) -> Taken {
        let v4 = |octets: [u8; 4]| IpAddr::V4(Ipv4Addr::from(octets));
        let v6 = |octets: [u8; 16]| IpAddr::V6(Ipv6Addr::from(octets));
        findings.walk(attributes, |_, attr| match attr.kind {
            CTA_IP_V4_SRC => store(&mut self.src, attr.value, v4),
            CTA_IP_V4_DST => store(&mut self.dst, attr.value, v4),
            CTA_IP_V6_SRC => store(&mut self.src, attr.value, v6),
            CTA_IP_V6_DST => store(&mut self.dst, attr.value, v6),
            _ => Taken::Unknown,
        });
        Taken::Known
    }

    fn take_proto(&mut self, attributes: &[u8], findings: &mut Findings) -> Taken {
        findings.walk(attributes, |_, attr| match attr.kind {
            CTA_PROTO_NUM => store(&mut self.protocol, attr.value, u8::from_be_bytes),
            CTA_PROTO_SRC_PORT => store(&mut self.src_port, attr.value, u16::from_be_bytes),
            CTA_PROTO_DST_PORT => store(&mut self.dst_port, attr.value, u16::from_be_bytes),
            CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => {
                store(&mut self.icmp_id, attr.value, u16::from_be_bytes)
            }
            CTA_PROTO_ICMP_TYPE | CTA_PROTO_ICMPV6_TYPE => {
                store(&mut self.icmp_type, attr.value, u8::from_be_bytes)
            }
            CTA_PROTO_ICMP_CODE | CTA_PROTO_ICMPV6_CODE => {
                store(&mut self.icmp_code, attr.value, u8::from_be_bytes)
            }
            _ => Taken::Unknown,
        });
        Taken::Known
    }

    /// The tuple, if it has all its parts: half a tuple would match foreign packets.
    pub(super) fn tuple(&self) -> Option<Tuple> {
        let (src, dst) = (self.src?, self.dst?);
        if src.is_ipv4() != dst.is_ipv4() {
            return None;
        }
        let icmp = (self.icmp_id, self.icmp_type, self.icmp_code);
        let proto = match (self.src_port, self.dst_port, icmp) {
            (Some(src), Some(dst), _) => TupleProto::Ports { src, dst },
            (None, None, (Some(id), Some(kind), Some(code))) => TupleProto::Icmp { id, kind, code },
            (None, None, (None, None, None)) => TupleProto::None,
            _ => return None,
        };
        Some(Tuple {
            src,
            dst,
            protocol: self.protocol?,
            proto,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(protocol: u8, proto: TupleProto) -> Tuple {
        Tuple {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
            protocol,
            proto,
        }
    }

    #[test]
    fn the_answer_to_the_answer_is_the_question() {
        let echo = |kind| TupleProto::Icmp { id: 7, kind, code: 0 };
        let pairs = [
            (
                6,
                TupleProto::Ports { src: 1, dst: 2 },
                TupleProto::Ports { src: 2, dst: 1 },
            ),
            (1, echo(8), echo(0)),
            (1, echo(13), echo(14)),
            (1, echo(15), echo(16)),
            (1, echo(17), echo(18)),
            (58, echo(128), echo(129)),
            (58, echo(139), echo(140)),
            (89, TupleProto::None, TupleProto::None),
        ];
        for (protocol, question, reply) in pairs {
            let question = tuple(protocol, question);
            let answer = question.inverted().unwrap();
            assert_eq!((answer.src, answer.dst), (question.dst, question.src));
            assert_eq!((answer.protocol, answer.proto), (protocol, reply));
            assert_eq!(answer.inverted(), Some(question));
        }
    }

    #[test]
    fn what_has_no_answer_has_no_inverse() {
        for (protocol, kind) in [(1, 3), (58, 1), (58, 8), (1, 128), (6, 8)] {
            let error = TupleProto::Icmp { id: 0, kind, code: 0 };
            assert_eq!(
                tuple(protocol, error).inverted(),
                None,
                "type {kind} of {protocol}"
            );
        }
    }

    #[test]
    fn half_a_tuple_is_none() {
        let whole = || Parts {
            src: Some([10, 0, 0, 1].into()),
            dst: Some([10, 0, 0, 2].into()),
            protocol: Some(6),
            src_port: Some(1),
            dst_port: Some(2),
            ..Parts::default()
        };
        assert_eq!(
            whole().tuple(),
            Some(tuple(6, TupleProto::Ports { src: 1, dst: 2 }))
        );
        let halves = [
            Parts { src: None, ..whole() },
            Parts { dst: None, ..whole() },
            Parts {
                protocol: None,
                ..whole()
            },
            Parts {
                src_port: None,
                ..whole()
            },
            Parts {
                dst_port: None,
                ..whole()
            },
            Parts {
                src: Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
                ..whole()
            },
            Parts {
                src_port: None,
                dst_port: None,
                icmp_id: Some(1),
                ..whole()
            },
        ];
        for (number, half) in halves.iter().enumerate() {
            assert_eq!(half.tuple(), None, "half {number}");
        }
    }
}
