//! A conntrack entry that outlives the receive buffer and can be serialised. Pure.

use super::super::problems::Problems;
use super::{Conntrack, Counters, CtStatus, ProtoInfo, Timestamps, Tuple};

/// Owned twin of [`Conntrack`], for keeping and serialising; its fields are the accessors of the same name, except for what is
/// said here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ConntrackBuf {
    /// [`Conntrack::original`].
    pub original: Option<Tuple>,
    /// [`Conntrack::reply`].
    pub reply: Option<Tuple>,
    /// [`Conntrack::master`].
    pub master: Option<Tuple>,
    /// [`Conntrack::zone`].
    pub zone: Option<u16>,
    /// [`Conntrack::original_zone`].
    pub original_zone: Option<u16>,
    /// [`Conntrack::reply_zone`].
    pub reply_zone: Option<u16>,
    /// [`Conntrack::mark`].
    pub mark: Option<u32>,
    /// [`Conntrack::status`]; serialised as a number.
    pub status: Option<CtStatus>,
    /// [`Conntrack::id`].
    pub id: Option<u32>,
    /// [`Conntrack::use_count`].
    pub use_count: Option<u32>,
    /// [`Conntrack::timeout`] in seconds.
    pub timeout_seconds: Option<u32>,
    /// [`Conntrack::original_counters`].
    pub original_counters: Option<Counters>,
    /// [`Conntrack::reply_counters`].
    pub reply_counters: Option<Counters>,
    /// [`Conntrack::timestamps`].
    pub timestamps: Option<Timestamps>,
    /// [`Conntrack::protoinfo`].
    pub protoinfo: Option<ProtoInfo>,
    /// [`Conntrack::labels`].
    pub labels: Option<Vec<u8>>,
    /// [`Conntrack::helper`] as text, invalid UTF-8 replaced.
    pub helper: Option<String>,
    /// [`Conntrack::secctx`] as text, invalid UTF-8 replaced.
    pub secctx: Option<String>,
    /// [`Conntrack::unknown_attributes`].
    pub unknown_attributes: u32,
    /// [`Conntrack::problems`].
    pub problems: Problems,
}

impl From<&Conntrack<'_>> for ConntrackBuf {
    fn from(entry: &Conntrack<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            original: entry.original,
            reply: entry.reply,
            master: entry.master,
            zone: entry.zone,
            original_zone: entry.original_zone,
            reply_zone: entry.reply_zone,
            mark: entry.mark,
            status: entry.status,
            id: entry.id,
            use_count: entry.use_count,
            timeout_seconds: entry.timeout,
            original_counters: entry.original_counters,
            reply_counters: entry.reply_counters,
            timestamps: entry.timestamps,
            protoinfo: entry.protoinfo,
            labels: entry.labels.map(<[u8]>::to_vec),
            helper: entry.helper.map(text),
            secctx: entry.secctx.map(text),
            unknown_attributes: entry.unknown_attributes(),
            problems: entry.problems(),
        }
    }
}
