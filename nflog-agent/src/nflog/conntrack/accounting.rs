//! What conntrack counts and times per connection, if it is told to. Pure.

use super::uapi::{
    CTA_COUNTERS_BYTES, CTA_COUNTERS_PACKETS, CTA_COUNTERS_PAD, CTA_COUNTERS32_PACKETS, CTA_TIMESTAMP_PAD,
    CTA_TIMESTAMP_START, CTA_TIMESTAMP_STOP,
};
use super::walk::{Findings, Taken, store};

/// Traffic of one direction (`CTA_COUNTERS_ORIG`, `CTA_COUNTERS_REPLY`). Needs the sysctl
/// `net.netfilter.nf_conntrack_acct` at the connection's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Counters {
    /// Packets so far, the logged one included (`CTA_COUNTERS_PACKETS`).
    pub packets: u64,
    /// Bytes so far, from the network header on (`CTA_COUNTERS_BYTES`).
    pub bytes: u64,
}

impl Counters {
    pub(super) fn read(attributes: &[u8], findings: &mut Findings) -> Option<Self> {
        let (mut packets, mut bytes) = (None, None);
        findings.walk(attributes, |_, attr| match attr.kind {
            CTA_COUNTERS_PACKETS => store(&mut packets, attr.value, u64::from_be_bytes),
            CTA_COUNTERS_BYTES => store(&mut bytes, attr.value, u64::from_be_bytes),
            CTA_COUNTERS32_PACKETS..=CTA_COUNTERS_PAD => Taken::Known,
            _ => Taken::Unknown,
        });
        Some(Self {
            packets: packets?,
            bytes: bytes?,
        })
    }
}

/// When a connection was confirmed and when it ended (`CTA_TIMESTAMP`). Needs the sysctl
/// `net.netfilter.nf_conntrack_timestamp` at the connection's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Timestamps {
    /// Start in ns since the Unix epoch (`CTA_TIMESTAMP_START`); 0 before the first packet has passed all rules.
    pub start_unix_nano: u64,
    /// End in ns since the Unix epoch (`CTA_TIMESTAMP_STOP`).
    pub stop_unix_nano: Option<u64>,
}

impl Timestamps {
    pub(super) fn read(attributes: &[u8], findings: &mut Findings) -> Option<Self> {
        let (mut start, mut stop) = (None, None);
        findings.walk(attributes, |_, attr| match attr.kind {
            CTA_TIMESTAMP_START => store(&mut start, attr.value, u64::from_be_bytes),
            CTA_TIMESTAMP_STOP => store(&mut stop, attr.value, u64::from_be_bytes),
            CTA_TIMESTAMP_PAD => Taken::Known,
            _ => Taken::Unknown,
        });
        Some(Self {
            start_unix_nano: start?,
            stop_unix_nano: stop,
        })
    }
}
