//! The conntrack entry of a logged packet, as ctnetlink writes it. Pure.
//!
//! # What NFLOG attaches
//! With [`Flags::CONNTRACK`](super::Flags::CONNTRACK) the kernel's `__ctnetlink_glue_build`
//! (`net/netfilter/nf_conntrack_netlink.c`) writes into `NFULA_CT`, for packets that belong to a connection:
//! - always: original and reply tuple, id, status, timeout;
//! - zone: only if it is not 0, and at the directions that it is for;
//! - protocol information: of TCP, SCTP and (until Linux 6.16) DCCP;
//! - since Linux 5.15 counters and timestamps, if the sysctls `net.netfilter.nf_conntrack_acct` and
//!   `net.netfilter.nf_conntrack_timestamp` were on when the connection began; before, never;
//! - helper, security context, master tuple (of expected connections), labels: if it has them; a mark of 0 is left out by
//!   some versions;
//! - sequence adjustment and SYN proxy state, which are not decoded here;
//! - never the use count and translation ranges: those are for dumps and events of ctnetlink, whose attributes are the same
//!   ([`Conntrack::decode`] reads them too).
//!
//! Packets without a connection (not tracked, invalid, ARP, or logged before conntrack saw them) have none.
//!
//! # Invariants
//! Decoding walks the attributes once, allocates nothing and never fails: what is wrong is a bit in [`Problems`], what is not
//! known is counted, and everything else is still there. Of an attribute that comes twice the last usable one counts. A
//! tuple is whole or missing. All numbers are in host byte order.

mod accounting;
mod owned;
mod protoinfo;
mod state;
mod status;
mod tcp;
mod tuple;
mod uapi;
mod walk;

use std::time::Duration;

use super::attr::Attr;
use super::problems::Problems;
pub use accounting::{Counters, Timestamps};
pub use owned::ConntrackBuf;
pub use protoinfo::{Dccp, ProtoInfo, Sctp};
pub use state::CtState;
pub use status::CtStatus;
pub use tcp::{Tcp, TcpFlags, TcpState};
use tuple::Parts;
pub use tuple::{Tuple, TupleProto};
use uapi::{
    CTA_COUNTERS_ORIG, CTA_COUNTERS_REPLY, CTA_HELP, CTA_HELP_INFO, CTA_HELP_NAME, CTA_ID, CTA_LABELS,
    CTA_LABELS_MASK, CTA_MARK, CTA_MARK_MASK, CTA_NAT_DST, CTA_NAT_SRC, CTA_PROTOINFO, CTA_SECCTX,
    CTA_SECCTX_NAME, CTA_SECMARK, CTA_SEQ_ADJ_ORIG, CTA_STATUS, CTA_TIMEOUT, CTA_TIMESTAMP,
    CTA_TIMESTAMP_EVENT, CTA_TUPLE_MASTER, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_USE, CTA_ZONE,
};
use walk::{Findings, Taken, store};

/// A conntrack entry: one connection, or the exchange of packets that stands for one. See the module's text for which parts
/// NFLOG gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conntrack<'a> {
    original: Option<Tuple>,
    reply: Option<Tuple>,
    master: Option<Tuple>,
    zone: Option<u16>,
    original_zone: Option<u16>,
    reply_zone: Option<u16>,
    mark: Option<u32>,
    status: Option<CtStatus>,
    id: Option<u32>,
    use_count: Option<u32>,
    timeout: Option<u32>,
    original_counters: Option<Counters>,
    reply_counters: Option<Counters>,
    timestamps: Option<Timestamps>,
    protoinfo: Option<ProtoInfo>,
    labels: Option<&'a [u8]>,
    helper: Option<&'a [u8]>,
    secctx: Option<&'a [u8]>,
    findings: Findings,
}

impl<'a> Conntrack<'a> {
    /// Decodes a run of `CTA_*` attributes: the value of `NFULA_CT`, or what follows the `nfgenmsg` in a dump or event of
    /// ctnetlink.
    #[must_use]
    pub fn decode(attributes: &'a [u8]) -> Self {
        let mut entry = Self::default();
        let mut findings = Findings::default();
        findings.walk(attributes, |findings, attr| entry.take(attr, findings));
        entry.findings = findings;
        entry
    }

    fn take(&mut self, attr: Attr<'a>, findings: &mut Findings) -> Taken {
        let value = attr.value;
        match attr.kind {
            CTA_TUPLE_ORIG => take_tuple(&mut self.original, &mut self.original_zone, value, findings),
            CTA_TUPLE_REPLY => take_tuple(&mut self.reply, &mut self.reply_zone, value, findings),
            CTA_TUPLE_MASTER => take_tuple(&mut self.master, &mut None, value, findings),
            CTA_ZONE => store(&mut self.zone, value, u16::from_be_bytes),
            CTA_MARK => store(&mut self.mark, value, u32::from_be_bytes),
            CTA_STATUS => store(&mut self.status, value, |bits| {
                CtStatus::from_bits(u32::from_be_bytes(bits))
            }),
            CTA_ID => store(&mut self.id, value, u32::from_be_bytes),
            CTA_USE => store(&mut self.use_count, value, u32::from_be_bytes),
            CTA_TIMEOUT => store(&mut self.timeout, value, u32::from_be_bytes),
            CTA_COUNTERS_ORIG => {
                let counters = Counters::read(value, findings);
                findings.keep(&mut self.original_counters, counters)
            }
            CTA_COUNTERS_REPLY => {
                let counters = Counters::read(value, findings);
                findings.keep(&mut self.reply_counters, counters)
            }
            CTA_TIMESTAMP => {
                let timestamps = Timestamps::read(value, findings);
                findings.keep(&mut self.timestamps, timestamps)
            }
            CTA_PROTOINFO => {
                self.protoinfo = ProtoInfo::read(value, findings).or(self.protoinfo);
                Taken::Known
            }
            CTA_LABELS => {
                self.labels = Some(value);
                Taken::Known
            }
            CTA_HELP => self.take_helper(value, findings),
            CTA_SECCTX => self.take_secctx(value, findings),
            CTA_NAT_SRC
            | CTA_NAT_DST
            | CTA_SEQ_ADJ_ORIG..=CTA_SECMARK
            | CTA_MARK_MASK
            | CTA_LABELS_MASK..=CTA_TIMESTAMP_EVENT => Taken::Known,
            _ => Taken::Unknown,
        }
    }

    fn take_helper(&mut self, attributes: &'a [u8], findings: &mut Findings) -> Taken {
        findings.walk(attributes, |findings, attr| match attr.kind {
            CTA_HELP_NAME => findings.name(&mut self.helper, attr.value),
            CTA_HELP_INFO => Taken::Known,
            _ => Taken::Unknown,
        });
        Taken::Known
    }

    fn take_secctx(&mut self, attributes: &'a [u8], findings: &mut Findings) -> Taken {
        findings.walk(attributes, |findings, attr| match attr.kind {
            CTA_SECCTX_NAME => findings.name(&mut self.secctx, attr.value),
            _ => Taken::Unknown,
        });
        Taken::Known
    }

    /// Packets of the original direction, as they are before any translation (`CTA_TUPLE_ORIG`).
    #[must_use]
    pub const fn original(&self) -> Option<Tuple> {
        self.original
    }

    /// Packets of the reply direction, as they are before translation is undone (`CTA_TUPLE_REPLY`): they come from where
    /// DNAT sent the original ones, and go to the address that SNAT gave them.
    #[must_use]
    pub const fn reply(&self) -> Option<Tuple> {
        self.reply
    }

    /// Original tuple of the connection whose helper expected this one (`CTA_TUPLE_MASTER`).
    #[must_use]
    pub const fn master(&self) -> Option<Tuple> {
        self.master
    }

    /// Zone of both directions (`CTA_ZONE`); the kernel leaves it out if it is 0 or for one direction only.
    #[must_use]
    pub const fn zone(&self) -> Option<u16> {
        self.zone
    }

    /// Zone of the original direction only (`CTA_TUPLE_ZONE` in `CTA_TUPLE_ORIG`, since Linux 4.3).
    #[must_use]
    pub const fn original_zone(&self) -> Option<u16> {
        self.original_zone
    }

    /// Zone of the reply direction only (`CTA_TUPLE_ZONE` in `CTA_TUPLE_REPLY`, since Linux 4.3).
    #[must_use]
    pub const fn reply_zone(&self) -> Option<u16> {
        self.reply_zone
    }

    /// Mark of the connection (`CTA_MARK`), not of the packet; some kernels leave it out if it is 0.
    #[must_use]
    pub const fn mark(&self) -> Option<u32> {
        self.mark
    }

    /// Status bits (`CTA_STATUS`).
    #[must_use]
    pub const fn status(&self) -> Option<CtStatus> {
        self.status
    }

    /// Whether the status says that sources of original packets are translated.
    #[must_use]
    pub fn is_snat(&self) -> bool {
        self.status.is_some_and(CtStatus::is_snat)
    }

    /// Whether the status says that destinations of original packets are translated.
    #[must_use]
    pub fn is_dnat(&self) -> bool {
        self.status.is_some_and(CtStatus::is_dnat)
    }

    /// Number that stays the same as long as the entry lives (`CTA_ID`): a keyed hash, and may come again later.
    #[must_use]
    pub const fn id(&self) -> Option<u32> {
        self.id
    }

    /// References to the entry (`CTA_USE`); never in NFLOG.
    #[must_use]
    pub const fn use_count(&self) -> Option<u32> {
        self.use_count
    }

    /// Time after which the entry goes if no packet comes, in whole seconds (`CTA_TIMEOUT`). Of an entry that is not
    /// [confirmed](CtStatus::CONFIRMED), the time that it will begin with, or on old kernels (seen on 5.10, not on 6.12) a
    /// number that means nothing.
    #[must_use]
    pub const fn timeout(&self) -> Option<Duration> {
        match self.timeout {
            Some(seconds) => Some(Duration::from_secs(seconds as u64)),
            None => None,
        }
    }

    /// Traffic of the original direction (`CTA_COUNTERS_ORIG`).
    #[must_use]
    pub const fn original_counters(&self) -> Option<Counters> {
        self.original_counters
    }

    /// Traffic of the reply direction (`CTA_COUNTERS_REPLY`).
    #[must_use]
    pub const fn reply_counters(&self) -> Option<Counters> {
        self.reply_counters
    }

    /// Start and end (`CTA_TIMESTAMP`).
    #[must_use]
    pub const fn timestamps(&self) -> Option<Timestamps> {
        self.timestamps
    }

    /// Protocol state (`CTA_PROTOINFO`).
    #[must_use]
    pub const fn protoinfo(&self) -> Option<ProtoInfo> {
        self.protoinfo
    }

    /// State of a TCP connection, after the logged packet.
    #[must_use]
    pub const fn tcp_state(&self) -> Option<TcpState> {
        match self.protoinfo {
            Some(ProtoInfo::Tcp(tcp)) => tcp.state,
            _ => None,
        }
    }

    /// Label bits (`CTA_LABELS`), 16 bytes in the kernel's own byte order; see [`Conntrack::label_bit`].
    #[must_use]
    pub const fn labels(&self) -> Option<&'a [u8]> {
        self.labels
    }

    /// Whether label `bit` is set, as nft numbers them. The kernel writes an array of `unsigned long`, which is taken to be
    /// 64 bits wide on big-endian machines.
    #[must_use]
    pub fn label_bit(&self, bit: u8) -> bool {
        let byte = usize::from(bit / 8);
        let byte = if cfg!(target_endian = "big") {
            byte ^ 7
        } else {
            byte
        };
        self.labels
            .and_then(|labels| labels.get(byte))
            .is_some_and(|labels| labels & (1 << (bit % 8)) != 0)
    }

    /// Name of the helper (`CTA_HELP_NAME`), such as `ftp`, without its NUL.
    #[must_use]
    pub const fn helper(&self) -> Option<&'a [u8]> {
        self.helper
    }

    /// Security context (`CTA_SECCTX_NAME`), without its NUL.
    #[must_use]
    pub const fn secctx(&self) -> Option<&'a [u8]> {
        self.secctx
    }

    /// Attributes, nested ones included, whose type is not known here.
    #[must_use]
    pub const fn unknown_attributes(&self) -> u32 {
        self.findings.unknown
    }

    /// What was wrong.
    #[must_use]
    pub const fn problems(&self) -> Problems {
        self.findings.problems
    }
}

/// A tuple and its zone, if the tuple is whole.
fn take_tuple(
    tuple: &mut Option<Tuple>,
    zone: &mut Option<u16>,
    attributes: &[u8],
    findings: &mut Findings,
) -> Taken {
    let parts = Parts::read(attributes, findings);
    let whole = parts.tuple();
    if whole.is_some() {
        *zone = parts.zone;
    }
    findings.keep(tuple, whole)
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;
    use netlink_packet_core::{Emitable, ParseableParametrized};
    use netlink_packet_netfilter::conntrack as other;
    use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv6Addr};

    /// Bytes of a hexadecimal string; blanks are for the reader.
    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
            .collect()
    }

    /// As Linux 6.12.117 wrote it: the SYN+ACK of a masqueraded connection.
    const MASQUERADED: &str = "
        3400 0180 1400 0180 0800 0100 0a4d0101 0800 0200 0a4d0202
                  1c00 0280 0500 0100 06 000000 0600 0200 0457 0000 0600 0300 08ae 0000
        3400 0280 1400 0180 0800 0100 0a4d0202 0800 0200 0a4d0201
                  1c00 0280 0500 0100 06 000000 0600 0200 08ae 0000 0600 0300 0457 0000
        0800 0c00 de3ed0a2
        0800 0300 0000019a
        0800 0700 0000003c
        3000 0480 2c00 0180 0500 0100 02 000000 0500 0200 07 000000 0500 0300 07 000000
                            0600 0400 0300 0000 0600 0500 2300 0000
        0800 0800 00000000";

    /// As Linux 7.3.4 wrote it: the reply to a datagram over IPv6, with counters and timestamps on.
    const COUNTED: &str = "
        4c00 0180 2c00 0180 1400 0300 fd770000000000010000000000000001
                            1400 0400 fd770000000000020000000000000002
                  1c00 0280 0500 0100 11 000000 0600 0200 0457 0000 0600 0300 08ae 0000
        4c00 0280 2c00 0180 1400 0300 fd770000000000020000000000000002
                            1400 0400 fd770000000000010000000000000001
                  1c00 0280 0500 0100 11 000000 0600 0200 08ae 0000 0600 0300 0457 0000
        0800 0c00 d3bd3eea
        0800 0300 0000000a
        0800 0700 0000001e
        1c00 0980 0c00 0100 0000000000000001 0c00 0200 0000000000000035
        1c00 0a80 0c00 0100 0000000000000001 0c00 0200 0000000000000036
        1000 1480 0c00 0100 18eaf695dcde433d
        0800 0800 00000000";

    /// As Linux 5.10.0-46 wrote it: a first datagram with label 5, in zone 9 of the original direction.
    const LABELLED: &str = "
        3c00 0180 1400 0180 0800 0100 0a4d0101 0800 0200 0a4d0202
                  1c00 0280 0500 0100 11 000000 0600 0200 0457 0000 0600 0300 07d6 0000
                  0600 0300 0009 0000
        3400 0280 1400 0180 0800 0100 0a4d0202 0800 0200 0a4d0101
                  1c00 0280 0500 0100 11 000000 0600 0200 07d6 0000 0600 0300 0457 0000
        0800 0c00 84cc29cb
        0800 0300 00000000
        0800 0700 0000012d
        0800 0800 00000000
        1400 1600 20000000000000000000000000000000";

    /// As Linux 6.12.117 wrote it: a masqueraded echo reply of ICMPv6.
    const ECHO: &str = "
        5400 0180 2c00 0180 1400 0300 fd770000000000010000000000000001
                            1400 0400 fd770000000000020000000000000002
                  2400 0280 0500 0100 3a 000000
                            0600 0700 4321 0000 0500 0800 80 000000 0500 0900 00 000000
        5400 0280 2c00 0180 1400 0300 fd770000000000020000000000000002
                            1400 0400 fd770000000000020000000000000001
                  2400 0280 0500 0100 3a 000000
                            0600 0700 4321 0000 0500 0800 81 000000 0500 0900 00 000000
        0800 0c00 898cd691
        0800 0300 0000019a
        0800 0700 0000001e
        0800 0800 00000000";

    /// By the uapi header: what the captures do not have, and one attribute of each level that is not known.
    const REST: &str = "
        3400 0e80 1400 0180 0800 0100 0a000001 0800 0200 0a000002
                  1c00 0280 0500 0100 84 000000 0600 0200 0102 0000 0600 0300 0304 0000
        5000 0280 1800 0180 0800 0100 0a000001 0800 0200 0a000002 0400 0500
                  2800 0280 0500 0100 01 000000 0400 0a00
                            0600 0400 4321 0000 0500 0500 08 000000 0500 0600 07 000000
                  0600 0300 000b 0000 0400 0400
        2000 0480 1c00 0380 0500 0100 04 000000 0800 0200 01020304 0800 0300 05060708
        1400 0580 0800 0100 66747000 0400 0200 0400 0300
        1400 1380 0c00 0100 6c6162656c207800 0400 0200
        0600 1200 0007 0000
        0800 0b00 00000003
        2000 1480 0c00 0100 0000000000000001 0c00 0200 0000000000000002 0400 0300
        0400 0600 0400 0d00 0400 0f80 0400 1080 0800 1100 00000001
        0400 1500 0400 1700 0400 1880 0400 1980 0400 1a00 0400 1b00
        0400 1c00 0400 0000";

    const GOLDEN: [&str; 5] = [MASQUERADED, COUNTED, LABELLED, ECHO, REST];

    fn ports(protocol: u8, src: (impl Into<IpAddr>, u16), dst: (impl Into<IpAddr>, u16)) -> Option<Tuple> {
        Some(Tuple {
            src: src.0.into(),
            dst: dst.0.into(),
            protocol,
            proto: TupleProto::Ports {
                src: src.1,
                dst: dst.1,
            },
        })
    }

    #[test]
    fn a_masqueraded_connection() {
        let bytes = hex(MASQUERADED);
        let entry = Conntrack::decode(&bytes);
        let (client, server, router) = ([10, 77, 1, 1], [10, 77, 2, 2], [10, 77, 2, 1]);
        assert_eq!(entry.original(), ports(6, (client, 1111), (server, 2222)));
        assert_eq!(entry.reply(), ports(6, (server, 2222), (router, 1111)));
        assert_eq!(entry.original().unwrap().ports(), Some((1111, 2222)));
        assert_eq!(entry.id(), Some(0xde3e_d0a2));
        assert_eq!((entry.is_snat(), entry.is_dnat()), (true, false));
        let names: Vec<_> = entry.status().unwrap().names().collect();
        assert_eq!(
            names,
            [
                "SEEN_REPLY",
                "CONFIRMED",
                "SRC_NAT",
                "SRC_NAT_DONE",
                "DST_NAT_DONE"
            ]
        );
        assert_eq!(entry.timeout(), Some(Duration::from_secs(60)));
        assert_eq!(entry.mark(), Some(0));
        assert_eq!(entry.tcp_state(), Some(TcpState::SynRecv));
        let tcp = Tcp {
            state: Some(TcpState::SynRecv),
            wscale_original: Some(7),
            wscale_reply: Some(7),
            flags_original: Some(TcpFlags::from_bits(3)),
            flags_reply: Some(TcpFlags::from_bits(0x23)),
        };
        assert_eq!(entry.protoinfo(), Some(ProtoInfo::Tcp(tcp)));
        assert_eq!((entry.original_counters(), entry.timestamps()), (None, None));
        assert_eq!(
            (entry.unknown_attributes(), entry.problems()),
            (0, Problems::default())
        );
    }

    #[test]
    fn counters_and_timestamps() {
        let bytes = hex(COUNTED);
        let entry = Conntrack::decode(&bytes);
        let client = Ipv6Addr::new(0xfd77, 0, 0, 1, 0, 0, 0, 1);
        let server = Ipv6Addr::new(0xfd77, 0, 0, 2, 0, 0, 0, 2);
        assert_eq!(entry.original(), ports(17, (client, 1111), (server, 2222)));
        assert_eq!(entry.reply(), entry.original().unwrap().inverted());
        let counters = |bytes| Some(Counters { packets: 1, bytes });
        assert_eq!(
            (entry.original_counters(), entry.reply_counters()),
            (counters(53), counters(54))
        );
        let timestamps = entry.timestamps().unwrap();
        assert_eq!(timestamps.start_unix_nano, 0x18ea_f695_dcde_433d);
        assert_eq!(timestamps.stop_unix_nano, None);
        assert_eq!(
            (entry.is_snat(), entry.protoinfo(), entry.tcp_state()),
            (false, None, None)
        );
        assert_eq!(
            (entry.unknown_attributes(), entry.problems()),
            (0, Problems::default())
        );
    }

    #[test]
    fn labels_and_the_zone_of_a_direction() {
        let bytes = hex(LABELLED);
        let entry = Conntrack::decode(&bytes);
        assert_eq!(
            (entry.zone(), entry.original_zone(), entry.reply_zone()),
            (None, Some(9), None)
        );
        assert_eq!(entry.labels().map(<[u8]>::len), Some(16));
        let set: Vec<_> = (0..=u8::MAX).filter(|&bit| entry.label_bit(bit)).collect();
        assert_eq!(set, [5]);
        assert_eq!(entry.status(), Some(CtStatus::default()));
        assert_eq!(
            (entry.unknown_attributes(), entry.problems()),
            (0, Problems::default())
        );
    }

    #[test]
    fn an_echo_over_icmpv6() {
        let bytes = hex(ECHO);
        let entry = Conntrack::decode(&bytes);
        let original = entry.original().unwrap();
        let echo = |kind| TupleProto::Icmp {
            id: 0x4321,
            kind,
            code: 0,
        };
        assert_eq!(
            (original.protocol, original.proto, original.ports()),
            (58, echo(128), None)
        );
        assert_eq!(entry.reply().unwrap().proto, echo(129));
        assert_eq!(
            (entry.unknown_attributes(), entry.problems()),
            (0, Problems::default())
        );
    }

    #[test]
    fn what_the_captures_do_not_have_and_what_is_not_known() {
        let bytes = hex(REST);
        let entry = Conntrack::decode(&bytes);
        assert_eq!(
            entry.master(),
            ports(132, ([10, 0, 0, 1], 0x0102), ([10, 0, 0, 2], 0x0304))
        );
        let icmp = TupleProto::Icmp {
            id: 0x4321,
            kind: 8,
            code: 7,
        };
        assert_eq!(entry.reply().map(|tuple| tuple.proto), Some(icmp));
        assert_eq!((entry.zone(), entry.reply_zone()), (Some(7), Some(11)));
        let sctp = Sctp {
            state: Some(4),
            vtag_original: Some(0x0102_0304),
            vtag_reply: Some(0x0506_0708),
        };
        assert_eq!(entry.protoinfo(), Some(ProtoInfo::Sctp(sctp)));
        assert_eq!(entry.helper(), Some(&b"ftp"[..]));
        assert_eq!(entry.secctx(), Some(&b"label x"[..]));
        assert_eq!(entry.use_count(), Some(3));
        let timestamps = Timestamps {
            start_unix_nano: 1,
            stop_unix_nano: Some(2),
        };
        assert_eq!(entry.timestamps(), Some(timestamps));
        // CTA_IP, CTA_PROTO, CTA_TUPLE, CTA_HELP, CTA_SECCTX, and two of the top level.
        assert_eq!(entry.unknown_attributes(), 7);
        assert_eq!(entry.problems(), Problems::default());
        let absent = (
            entry.original(),
            entry.mark(),
            entry.status(),
            entry.id(),
            entry.timeout(),
        );
        assert_eq!(absent, (None, None, None, None, None));
    }

    #[test]
    fn a_dccp_connection() {
        // By the uapi header; not seen on a live kernel.
        let bytes = hex("2400 0480 2000 0280 0500 0100 03 000000 0500 0200 01 000000
            0c00 0300 0000010203040506");
        let dccp = Dccp {
            state: Some(3),
            role: Some(1),
            handshake_seq: Some(0x0102_0304_0506),
        };
        assert_eq!(Conntrack::decode(&bytes).protoinfo(), Some(ProtoInfo::Dccp(dccp)));
    }

    #[test]
    fn short_values_and_halves_are_left_out_and_reported() {
        // Attributes, one byte too short or with a part missing, and what is said.
        let cases = [
            ("0700 0300 000000 00", Problems::SHORT_VALUE),
            ("0700 0700 000000 00", Problems::SHORT_VALUE),
            ("0700 0800 000000 00", Problems::SHORT_VALUE),
            ("0700 0b00 000000 00", Problems::SHORT_VALUE),
            ("0700 0c00 000000 00", Problems::SHORT_VALUE),
            ("0500 1200 00 000000", Problems::SHORT_VALUE),
            ("0400 0180", Problems::CT_INCOMPLETE),
            ("0400 0280", Problems::CT_INCOMPLETE),
            ("0400 0e80", Problems::CT_INCOMPLETE),
            ("1000 0980 0c00 0100 0000000000000001", Problems::CT_INCOMPLETE),
            ("1000 0a80 0c00 0200 0000000000000001", Problems::CT_INCOMPLETE),
            ("1000 1480 0c00 0200 0000000000000001", Problems::CT_INCOMPLETE),
            ("0300 0300", Problems::BAD_LENGTH),
        ];
        for (text, problem) in cases {
            let bytes = hex(text);
            let entry = Conntrack::decode(&bytes);
            assert_eq!(entry.problems(), problem, "{text}");
            let mut nothing = Conntrack::default();
            nothing.findings.problems = problem;
            assert_eq!(entry, nothing, "{text}");
        }
        let open = hex("0c00 0580 0700 0100 667470 00");
        let entry = Conntrack::decode(&open);
        assert_eq!(
            (entry.helper(), entry.problems()),
            (Some(&b"ftp"[..]), Problems::NAME_NOT_TERMINATED)
        );
    }

    #[test]
    fn an_entry_cut_anywhere_keeps_what_is_whole() {
        for text in GOLDEN {
            let bytes = hex(text);
            let whole = Conntrack::decode(&bytes);
            for length in 0..bytes.len() {
                let part = Conntrack::decode(&bytes[..length]);
                assert!(part.original().is_none() || part.original() == whole.original());
                assert!(part.reply().is_none() || part.reply() == whole.reply());
                assert!(part.id().is_none() || part.id() == whole.id());
                assert!(part.status().is_none() || part.status() == whole.status());
                assert!(part.unknown_attributes() <= whole.unknown_attributes());
            }
        }
    }

    /// Attributes as another implementation reads them.
    fn read_by_other(bytes: &[u8]) -> Vec<ConntrackAttribute> {
        match ConntrackMessage::parse_with_param(bytes, 0).unwrap() {
            ConntrackMessage::New(attributes) => attributes,
            message => panic!("{message:?}"),
        }
    }

    /// Source and destination addresses, protocol, source and destination ports.
    type Fields = ([Option<IpAddr>; 2], Option<u8>, [Option<u16>; 2]);

    fn tuple_of_other(parts: &[other::Tuple]) -> Fields {
        let (mut addresses, mut protocol, mut ports) = ([None; 2], None, [None; 2]);
        for part in parts {
            match part {
                other::Tuple::Ip(fields) => {
                    for field in fields {
                        match field {
                            other::IPTuple::SourceAddress(address) => addresses[0] = Some(*address),
                            other::IPTuple::DestinationAddress(address) => addresses[1] = Some(*address),
                            _ => {}
                        }
                    }
                }
                other::Tuple::Proto(fields) => {
                    for field in fields {
                        match field {
                            other::ProtoTuple::Protocol(number) => protocol = Some(u8::from(*number)),
                            other::ProtoTuple::SourcePort(port) => ports[0] = Some(*port),
                            other::ProtoTuple::DestinationPort(port) => ports[1] = Some(*port),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        (addresses, protocol, ports)
    }

    #[track_caller]
    fn check_tuple(ours: Option<Tuple>, theirs: &[other::Tuple]) {
        let ours = ours.unwrap();
        let ports = ours
            .ports()
            .map_or([None; 2], |(src, dst)| [Some(src), Some(dst)]);
        let ours = ([Some(ours.src), Some(ours.dst)], Some(ours.protocol), ports);
        assert_eq!(ours, tuple_of_other(theirs));
    }

    #[track_caller]
    fn check_tcp(ours: Option<ProtoInfo>, theirs: &[other::ProtoInfo]) {
        for info in theirs {
            let other::ProtoInfo::TCP(fields) = info else {
                continue;
            };
            let Some(ProtoInfo::Tcp(tcp)) = ours else {
                panic!("not TCP: {ours:?}");
            };
            assert_eq!(fields.len(), 5);
            for field in fields {
                match field {
                    other::ProtoInfoTCP::State(state) => assert_eq!(tcp.state, Some((*state).into())),
                    other::ProtoInfoTCP::OriginalWindowScale(scale) => {
                        assert_eq!(tcp.wscale_original, Some(*scale));
                    }
                    other::ProtoInfoTCP::ReplyWindowScale(scale) => {
                        assert_eq!(tcp.wscale_reply, Some(*scale));
                    }
                    other::ProtoInfoTCP::OriginalFlags(flags) => {
                        assert_eq!(tcp.flags_original.map(TcpFlags::bits), Some(flags.flags));
                    }
                    other::ProtoInfoTCP::ReplyFlags(flags) => {
                        assert_eq!(tcp.flags_reply.map(TcpFlags::bits), Some(flags.flags));
                    }
                    field => panic!("{field:?}"),
                }
            }
        }
    }

    #[test]
    fn another_implementation_reads_and_writes_the_same() {
        for text in GOLDEN {
            let bytes = hex(text);
            let attributes = read_by_other(&bytes);
            let mut written = vec![0; attributes.as_slice().buffer_len()];
            attributes.as_slice().emit(&mut written);
            for bytes in [&bytes, &written] {
                let entry = Conntrack::decode(bytes);
                let mut compared = 0;
                for attribute in &attributes {
                    compared += 1;
                    match attribute {
                        ConntrackAttribute::CtaTupleOrig(parts) => check_tuple(entry.original(), parts),
                        ConntrackAttribute::CtaTupleReply(parts) => check_tuple(entry.reply(), parts),
                        ConntrackAttribute::CtaProtoInfo(info) => check_tcp(entry.protoinfo(), info),
                        ConntrackAttribute::CtaStatus(status) => {
                            assert_eq!(entry.status().map(CtStatus::bits), Some(status.bits()));
                        }
                        ConntrackAttribute::CtaTimeout(seconds) => {
                            assert_eq!(entry.timeout(), Some(Duration::from_secs((*seconds).into())));
                        }
                        ConntrackAttribute::CtaMark(mark) => assert_eq!(entry.mark(), Some(*mark)),
                        // It does not know the rest.
                        _ => compared -= 1,
                    }
                }
                assert!(compared >= 2, "{compared} attributes compared in {text}");
            }
        }
    }

    fn attr(kind: u16, value: impl AsRef<[u8]>) -> Vec<u8> {
        let value = value.as_ref();
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn nest(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
        attr(kind | 0x8000, parts.concat())
    }

    fn encode_tuple(kind: u16, tuple: Option<Tuple>, zone: Option<u16>) -> Option<Vec<u8>> {
        let tuple = tuple?;
        let address = |address: IpAddr, kind: u16| match address {
            IpAddr::V4(address) => attr(kind, address.octets()),
            IpAddr::V6(address) => attr(kind + 2, address.octets()),
        };
        let mut proto = vec![attr(1, [tuple.protocol])];
        match tuple.proto {
            TupleProto::Ports { src, dst } => {
                proto.extend([attr(3, dst.to_be_bytes()), attr(2, src.to_be_bytes())]);
            }
            TupleProto::Icmp { id, kind, code } => {
                let first = if tuple.protocol == 58 { 7 } else { 4 };
                proto.extend([
                    attr(first, id.to_be_bytes()),
                    attr(first + 1, [kind]),
                    attr(first + 2, [code]),
                ]);
            }
            TupleProto::None => {}
        }
        let mut parts = vec![
            nest(2, &proto),
            nest(1, &[address(tuple.dst, 2), address(tuple.src, 1)]),
        ];
        parts.extend(zone.map(|zone| attr(3, zone.to_be_bytes())));
        Some(nest(kind, &parts))
    }

    fn encode_protoinfo(info: ProtoInfo) -> Vec<u8> {
        let byte = |kind, value: Option<u8>| value.map(|value| attr(kind, [value]));
        let flags = |kind, flags: Option<TcpFlags>| flags.map(|flags| attr(kind, [flags.bits(), 0xff]));
        let word = |kind, value: Option<u32>| value.map(|value| attr(kind, value.to_be_bytes()));
        let (kind, parts) = match info {
            ProtoInfo::Tcp(tcp) => (
                1,
                vec![
                    byte(1, tcp.state.map(TcpState::number)),
                    byte(2, tcp.wscale_original),
                    byte(3, tcp.wscale_reply),
                    flags(4, tcp.flags_original),
                    flags(5, tcp.flags_reply),
                ],
            ),
            ProtoInfo::Dccp(dccp) => (
                2,
                vec![
                    byte(1, dccp.state),
                    byte(2, dccp.role),
                    dccp.handshake_seq.map(|number| attr(3, number.to_be_bytes())),
                ],
            ),
            ProtoInfo::Sctp(sctp) => (
                3,
                vec![
                    byte(1, sctp.state),
                    word(2, sctp.vtag_original),
                    word(3, sctp.vtag_reply),
                ],
            ),
        };
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        nest(4, &[nest(kind, &parts)])
    }

    /// Attributes of an entry, each whole.
    fn encode(entry: &ConntrackBuf) -> Vec<Vec<u8>> {
        let word = |kind, value: Option<u32>| value.map(|value| attr(kind, value.to_be_bytes()));
        let name = |kind, name: &Option<String>| {
            name.as_ref()
                .map(|name| nest(kind, &[attr(1, [name.as_bytes(), &[0]].concat())]))
        };
        let counters = |kind, counters: Option<Counters>| {
            counters.map(|Counters { packets, bytes }| {
                nest(
                    kind,
                    &[attr(2, bytes.to_be_bytes()), attr(1, packets.to_be_bytes())],
                )
            })
        };
        let timestamps = entry.timestamps.map(|times| {
            let mut parts = vec![attr(1, times.start_unix_nano.to_be_bytes())];
            parts.extend(times.stop_unix_nano.map(|stop| attr(2, stop.to_be_bytes())));
            nest(20, &parts)
        });
        [
            encode_tuple(1, entry.original, entry.original_zone),
            encode_tuple(2, entry.reply, entry.reply_zone),
            encode_tuple(14, entry.master, None),
            entry.zone.map(|zone| attr(18, zone.to_be_bytes())),
            word(3, entry.status.map(CtStatus::bits)),
            word(7, entry.timeout_seconds),
            word(8, entry.mark),
            word(11, entry.use_count),
            word(12, entry.id),
            counters(9, entry.original_counters),
            counters(10, entry.reply_counters),
            timestamps,
            entry.protoinfo.map(encode_protoinfo),
            entry.labels.as_ref().map(|labels| attr(22, labels)),
            name(5, &entry.helper),
            name(19, &entry.secctx),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn any_tuple() -> BoxedStrategy<Tuple> {
        let addresses = prop_oneof![
            any::<([u8; 4], [u8; 4])>().prop_map(|(src, dst)| (IpAddr::from(src), IpAddr::from(dst))),
            any::<([u8; 16], [u8; 16])>().prop_map(|(src, dst)| (IpAddr::from(src), IpAddr::from(dst))),
        ];
        let proto = prop_oneof![
            any::<(u16, u16)>().prop_map(|(src, dst)| TupleProto::Ports { src, dst }),
            any::<(u16, u8, u8)>().prop_map(|(id, kind, code)| TupleProto::Icmp { id, kind, code }),
            Just(TupleProto::None),
        ];
        (addresses, prop_oneof![Just(58), any::<u8>()], proto)
            .prop_map(|((src, dst), protocol, proto)| Tuple {
                src,
                dst,
                protocol,
                proto,
            })
            .boxed()
    }

    fn any_protoinfo() -> BoxedStrategy<ProtoInfo> {
        type Byte = Option<u8>;
        prop_oneof![
            any::<(Byte, Byte, Byte, Byte, Byte)>().prop_map(|(state, original, reply, from, to)| {
                ProtoInfo::Tcp(Tcp {
                    state: state.map(TcpState::from),
                    wscale_original: original,
                    wscale_reply: reply,
                    flags_original: from.map(TcpFlags::from_bits),
                    flags_reply: to.map(TcpFlags::from_bits),
                })
            }),
            any::<(Byte, Byte, Option<u64>)>().prop_map(|(state, role, handshake_seq)| {
                ProtoInfo::Dccp(Dccp {
                    state,
                    role,
                    handshake_seq,
                })
            }),
            any::<(Byte, Option<u32>, Option<u32>)>().prop_map(|(state, vtag_original, vtag_reply)| {
                ProtoInfo::Sctp(Sctp {
                    state,
                    vtag_original,
                    vtag_reply,
                })
            }),
        ]
        .boxed()
    }

    prop_compose! {
        /// Any entry; a zone of a direction is in the tuple of it.
        fn any_entry()(
            (original, reply, master) in (
                prop::option::of(any_tuple()),
                prop::option::of(any_tuple()),
                prop::option::of(any_tuple()),
            ),
            (zone, original_zone, reply_zone) in any::<(Option<u16>, Option<u16>, Option<u16>)>(),
            (status, timeout_seconds, mark, use_count, id) in
                any::<(Option<u32>, Option<u32>, Option<u32>, Option<u32>, Option<u32>)>(),
            (sent, received, times) in any::<(Option<(u64, u64)>, Option<(u64, u64)>, Option<(u64, Option<u64>)>)>(),
            protoinfo in prop::option::of(any_protoinfo()),
            labels in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
            helper in prop::option::of("[a-z]{0,15}"),
            secctx in prop::option::of("[a-z:_]{0,40}"),
        ) -> ConntrackBuf {
            let counters = |(packets, bytes)| Counters { packets, bytes };
            ConntrackBuf {
                original,
                reply,
                master,
                zone,
                original_zone: original_zone.filter(|_| original.is_some()),
                reply_zone: reply_zone.filter(|_| reply.is_some()),
                mark,
                status: status.map(CtStatus::from_bits),
                id,
                use_count,
                timeout_seconds,
                original_counters: sent.map(counters),
                reply_counters: received.map(counters),
                timestamps: times.map(|(start_unix_nano, stop_unix_nano)| Timestamps {
                    start_unix_nano,
                    stop_unix_nano,
                }),
                protoinfo,
                labels,
                helper,
                secctx,
                unknown_attributes: 0,
                problems: Problems::NONE,
            }
        }
    }

    /// `last`, and of `first` what `last` does not have.
    fn merged(first: ConntrackBuf, last: ConntrackBuf, unknown_attributes: u32) -> ConntrackBuf {
        ConntrackBuf {
            original_zone: last.original.map_or(first.original_zone, |_| last.original_zone),
            reply_zone: last.reply.map_or(first.reply_zone, |_| last.reply_zone),
            original: last.original.or(first.original),
            reply: last.reply.or(first.reply),
            master: last.master.or(first.master),
            zone: last.zone.or(first.zone),
            mark: last.mark.or(first.mark),
            status: last.status.or(first.status),
            id: last.id.or(first.id),
            use_count: last.use_count.or(first.use_count),
            timeout_seconds: last.timeout_seconds.or(first.timeout_seconds),
            original_counters: last.original_counters.or(first.original_counters),
            reply_counters: last.reply_counters.or(first.reply_counters),
            timestamps: last.timestamps.or(first.timestamps),
            protoinfo: last.protoinfo.or(first.protoinfo),
            labels: last.labels.or(first.labels),
            helper: last.helper.or(first.helper),
            secctx: last.secctx.or(first.secctx),
            unknown_attributes,
            problems: Problems::NONE,
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let entry = Conntrack::decode(&bytes);
            let text = format!("{entry:?} {:?} {}", ConntrackBuf::from(&entry), entry.label_bit(255));
            prop_assert!(!text.is_empty());
        }

        #[test]
        fn no_nested_attributes_panic(
            attributes in prop::collection::vec(
                (0_u16..30, 0_u16..8, 0_u16..12, prop::collection::vec(any::<u8>(), 0..20)),
                0..12,
            ),
        ) {
            let bytes: Vec<_> = attributes
                .iter()
                .flat_map(|(outer, middle, inner, value)| {
                    nest(*outer, &[nest(*middle, &[attr(*inner, value)])])
                })
                .collect();
            let entry = Conntrack::decode(&bytes);
            let unknown = attributes.iter().filter(|(kind, ..)| !(1..=27).contains(kind)).count();
            prop_assert!(entry.unknown_attributes() as usize >= unknown);
            for bit in 0..=u8::MAX {
                prop_assert!(!entry.label_bit(bit) || entry.labels().is_some());
            }
        }

        #[test]
        fn what_is_written_in_any_order_is_read_again_and_of_two_the_last(
            first in any_entry().boxed(),
            (last, shuffled) in any_entry().boxed().prop_flat_map(|entry| {
                let mut attributes = encode(&entry);
                attributes.extend([attr(28, []), attr(0x3fff, [1, 2, 3])]);
                (Just(entry), Just(attributes).prop_shuffle())
            }),
        ) {
            let bytes: Vec<_> = encode(&first).into_iter().chain(shuffled).flatten().collect();
            let entry = Conntrack::decode(&bytes);
            prop_assert_eq!(ConntrackBuf::from(&entry), merged(first, last, 2));
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn an_owned_entry_is_serialised() {
        let bytes = hex(MASQUERADED);
        let entry = ConntrackBuf::from(&Conntrack::decode(&bytes));
        let value = serde_json::to_value(&entry).unwrap();
        assert_eq!(value["original"]["src"], "10.77.1.1");
        assert_eq!(value["reply"]["proto"]["ports"]["dst"], 1111);
        assert_eq!(value["protoinfo"]["tcp"]["state"], "SYN_RECV");
        assert_eq!(value["status"], 0x19a);
        assert_eq!(value["zone"], serde_json::Value::Null);
        let bytes = hex(LABELLED);
        let entry = ConntrackBuf::from(&Conntrack::decode(&bytes));
        let value = serde_json::to_value(&entry).unwrap();
        assert_eq!(value["labels"][0], 0x20);
    }
}
