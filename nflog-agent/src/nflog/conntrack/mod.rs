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
    /// confirmed, the time that it will begin with; 0 before Linux 5.11.
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

/// A tuple, if it is whole, and the zone beside it.
fn take_tuple(
    tuple: &mut Option<Tuple>,
    zone: &mut Option<u16>,
    attributes: &[u8],
    findings: &mut Findings,
) -> Taken {
    let parts = Parts::read(attributes, findings);
    *zone = parts.zone.or(*zone);
    findings.keep(tuple, parts.tuple())
}
