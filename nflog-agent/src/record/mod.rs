//! The value that leaves: one logged packet with everything known about it, and its encodings.

mod address;
mod attributes;
mod display;
mod encode;
mod owned;
mod resource;
mod rule;
pub mod semconv;
mod severity;
mod text;
mod uid;

pub(crate) use attributes::executable_name;
pub use display::{Style, loss as loss_line, packet as packet_line, suppressed as suppressed_line};
pub(crate) use display::{owner as push_owner, place as push_place};
pub use encode::{Console, Encoder, Json, Otlp};
pub use owned::RecordBuf;
pub use resource::Resource;
pub use rule::{Flow, LoggingRule, Suppressed};
pub use severity::Severity;
pub(crate) use text::{protocol_number, push_escaped};
pub use uid::RecordIds;

use crate::owner::Attribution;
use crate::packet::Packet;
use crate::telemetry::ledger::Snapshot;
use crate::workload::Process;
use crate::workload::kubernetes::{Peer, Service};

/// One NFLOG entry, dissected and attributed. Borrowed throughout: encoding it is the first and only copy.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the packet was logged, ns since the Unix epoch: the kernel's stamp, else the time of receipt.
    pub time_unix_nano: u64,
    /// Where `time_unix_nano` comes from.
    pub time_source: TimeSource,
    /// When the agent received the entry, ns since the Unix epoch.
    pub observed_unix_nano: u64,
    /// Inode of the network namespace that the entry was logged in; 0 if it is not known, as in a capture file.
    pub netns: u32,
    /// NFLOG group.
    pub group: u16,
    /// `inet`, `inet6`, `arp`, `netdev`, `bridge`, or `unknown`.
    pub family: &'static str,
    /// `prerouting`, `input`, `forward`, `output`, `postrouting`, `ingress`, `egress`, or `unknown`.
    pub hook: &'static str,
    /// Seen from this host; `None` for forwarded packets.
    pub direction: Option<Direction>,
    /// The rule's prefix, without its NUL, invalid UTF-8 replaced. Empty if the rule has none.
    pub prefix: &'a str,
    /// Sequence number in the group.
    pub seq: Option<u32>,
    /// Sequence number in the namespace.
    pub seq_global: Option<u32>,
    /// Packet mark, if not 0.
    pub mark: Option<u32>,
    /// Device the packet came in on.
    pub indev: Option<Device<'a>>,
    /// Device the packet goes out on.
    pub outdev: Option<Device<'a>>,
    /// Bridge port it came in on.
    pub physindev: Option<Device<'a>>,
    /// Bridge port it goes out on.
    pub physoutdev: Option<Device<'a>>,
    /// uid that created the socket file (`NFULA_UID`), not necessarily of the running process.
    pub socket_uid: Option<u32>,
    /// gid that created the socket file (`NFULA_GID`).
    pub socket_gid: Option<u32>,
    /// Source hardware address.
    pub hwaddr: Option<&'a [u8]>,
    /// The packet's own headers.
    pub packet: &'a Packet,
    /// Who owns it, or why nobody is named.
    pub attribution: &'a Attribution,
    /// The owner's place; `None` without an owner or when it could not be resolved.
    pub process: Option<&'a Process>,
    /// The pod at the other end, if it is known.
    pub peer: Option<&'a Peer>,
    /// The Service that the other end has the address of, or was reached by, if it is known. In the pod's namespace if both are.
    pub peer_service: Option<&'a Service>,
    /// The rule that logged it, as far as its prefix tells; `None` if no pattern matches.
    pub rule: Option<&'a LoggingRule>,
    /// The record is one of so many of its kind, the others were sampled out; `None` if none were.
    pub sample_rate: Option<u32>,
    /// What the record stands for if it is a flow's: then the rest of it is as in the flow's first packet.
    pub flow: Option<Flow>,
}

impl Record<'_> {
    /// `event_name`.
    pub(crate) const fn event_name(&self) -> &'static str {
        if self.flow.is_some() {
            semconv::EVENT_FLOW
        } else {
            semconv::EVENT_PACKET
        }
    }

    /// As the prefix says, else INFO.
    pub(crate) fn severity(&self) -> Severity {
        self.rule.map_or(Severity::Info, LoggingRule::severity)
    }
}

impl Account<'_> {
    pub(crate) const fn severity(&self) -> Severity {
        if self.worse {
            Severity::Warn
        } else {
            Severity::Info
        }
    }
}

/// Where a record's time comes from (`nflog.time.source`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSource {
    /// `NFULA_TIMESTAMP`.
    Kernel,
    /// Time of receipt; later than the log call by up to the flush timeout and the time in the socket queue.
    Agent,
}

/// `network.io.direction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Into this host.
    Receive,
    /// Out of this host.
    Transmit,
}

/// A network device: the name is absent when it could not be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device<'a> {
    /// ifindex in the namespace of the entry.
    pub index: u32,
    /// Interface name.
    pub name: Option<&'a str>,
}

/// What became of all records since the agent started, as a record of its own.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// When it was drawn up, ns since the Unix epoch.
    pub observed_unix_nano: u64,
    /// The account.
    pub snapshot: &'a Snapshot,
    /// More has been lost since the last one.
    pub worse: bool,
}

/// Packets known to be lost, as a record of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When the loss was noticed, ns since the Unix epoch.
    pub observed_unix_nano: u64,
    /// Namespace of the reader that noticed.
    pub netns: u32,
    /// NFLOG group.
    pub group: u16,
    /// Packets lost since the last loss record.
    pub packets: u64,
    /// What lost them: a loss reason's name.
    pub reason: &'static str,
}
