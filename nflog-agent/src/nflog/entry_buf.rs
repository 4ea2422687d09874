//! One logged packet that owns its bytes. Pure.
//!
//! Invariants: every accessor of [`Entry`] has a public field here, of the same meaning; `None` is an attribute that the
//! kernel did not write. Numbers are in host byte order.

use std::borrow::Cow;
use std::time::Duration;

use super::conntrack::Conntrack;
use super::entry::{Entry, Vlan, network_payload};
use super::hook::{Family, Hook};
use super::problems::Problems;

/// A logged packet apart from the receive buffer: what an [`Entry`] says, to keep, send to another thread, write out (feature
/// `serde`) or build by hand.
///
/// Byte strings are `Vec`s and not boxed slices, so that they can be built and changed in place; it costs 8 bytes each.
///
/// ```
/// use nflog_agent::nflog::{Entry, EntryBuf, Family, Hook};
///
/// let sent = EntryBuf {
///     hook: Some(Hook::Output),
///     hw_protocol: Some(0x0800),
///     prefix: b"accept web".to_vec(),
///     uid: Some(1000),
///     ..EntryBuf::new(Family::Inet, 5)
/// };
/// let body = sent.encode()?;
/// assert_eq!(Entry::decode(&body).map(|entry| entry.to_buf()), Some(sent));
/// # Ok::<(), nflog_agent::nflog::EncodeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
pub struct EntryBuf {
    /// Protocol family that logged it (`nfgen_family`).
    pub family: Family,
    /// NFLOG group (`res_id`).
    pub group: u16,
    /// Packets of the group that are missing between the entry before and this one; see [`Entry::lost_before`].
    #[cfg_attr(feature = "serde", serde(default))]
    pub lost_before: u32,
    /// Where it was logged (`NFULA_PACKET_HDR`, with `hw_protocol`).
    #[cfg_attr(feature = "serde", serde(default))]
    pub hook: Option<Hook>,
    /// Ethertype (`NFULA_PACKET_HDR`, with `hook`).
    #[cfg_attr(feature = "serde", serde(default))]
    pub hw_protocol: Option<u16>,
    /// The rule's log prefix without its NUL (`NFULA_PREFIX`); empty if the rule has none.
    #[cfg_attr(
        feature = "serde",
        serde(default, deserialize_with = "super::byte_text::text")
    )]
    pub prefix: Vec<u8>,
    /// Packet mark (`NFULA_MARK`); the kernel leaves it out if it is 0.
    #[cfg_attr(feature = "serde", serde(default))]
    pub mark: Option<u32>,
    /// When the kernel received it, since the Unix epoch, in whole microseconds (`NFULA_TIMESTAMP`).
    #[cfg_attr(feature = "serde", serde(default))]
    pub timestamp: Option<Duration>,
    /// Index of the device it came in on (`NFULA_IFINDEX_INDEV`); for bridge rules the bridge.
    #[cfg_attr(feature = "serde", serde(default))]
    pub indev: Option<u32>,
    /// Index of the device it goes out on (`NFULA_IFINDEX_OUTDEV`); for bridge rules the bridge.
    #[cfg_attr(feature = "serde", serde(default))]
    pub outdev: Option<u32>,
    /// Index of the bridge port it came in on (`NFULA_IFINDEX_PHYSINDEV`).
    #[cfg_attr(feature = "serde", serde(default))]
    pub physindev: Option<u32>,
    /// Index of the bridge port it goes out on (`NFULA_IFINDEX_PHYSOUTDEV`).
    #[cfg_attr(feature = "serde", serde(default))]
    pub physoutdev: Option<u32>,
    /// Source hardware address, up to 8 bytes (`NFULA_HWADDR`).
    #[cfg_attr(
        feature = "serde",
        serde(default, deserialize_with = "super::byte_text::optional")
    )]
    pub hwaddr: Option<Vec<u8>>,
    /// `ARPHRD_*` of the in-device (`NFULA_HWTYPE`).
    #[cfg_attr(feature = "serde", serde(default))]
    pub hwtype: Option<u16>,
    /// Link-layer header (`NFULA_HWHEADER`).
    #[cfg_attr(
        feature = "serde",
        serde(default, deserialize_with = "super::byte_text::optional")
    )]
    pub hwheader: Option<Vec<u8>>,
    /// Length of the link-layer header in bytes (`NFULA_HWLEN`).
    #[cfg_attr(feature = "serde", serde(default))]
    pub hwlen: Option<u16>,
    /// uid that created the socket file (`NFULA_UID`).
    #[cfg_attr(feature = "serde", serde(default))]
    pub uid: Option<u32>,
    /// gid that created the socket file (`NFULA_GID`).
    #[cfg_attr(feature = "serde", serde(default))]
    pub gid: Option<u32>,
    /// Number in the group (`NFULA_SEQ`); wraps at 2^32.
    #[cfg_attr(feature = "serde", serde(default))]
    pub seq: Option<u32>,
    /// Number in the namespace (`NFULA_SEQ_GLOBAL`); wraps at 2^32.
    #[cfg_attr(feature = "serde", serde(default))]
    pub seq_global: Option<u32>,
    /// Attributes of the conntrack entry as ctnetlink writes them (`NFULA_CT`), not decoded.
    #[cfg_attr(
        feature = "serde",
        serde(default, deserialize_with = "super::byte_text::optional")
    )]
    pub ct: Option<Vec<u8>>,
    /// `enum ip_conntrack_info` (`NFULA_CT_INFO`).
    #[cfg_attr(feature = "serde", serde(default))]
    pub ct_info: Option<u32>,
    /// VLAN tag (`NFULA_VLAN`, since Linux 5.4).
    #[cfg_attr(feature = "serde", serde(default))]
    pub vlan: Option<Vlan>,
    /// Link-layer header (`NFULA_L2HDR`, since Linux 5.4).
    #[cfg_attr(
        feature = "serde",
        serde(default, deserialize_with = "super::byte_text::optional")
    )]
    pub l2hdr: Option<Vec<u8>>,
    /// The packet's first bytes (`NFULA_PAYLOAD`), empty if none were copied; see [`Entry::payload`] for where they start.
    #[cfg_attr(
        feature = "serde",
        serde(default, deserialize_with = "super::byte_text::bytes")
    )]
    pub payload: Vec<u8>,
    /// Attributes whose type was not known; they are not kept.
    #[cfg_attr(feature = "serde", serde(default))]
    pub unknown_attributes: u32,
    /// What was wrong with the message.
    #[cfg_attr(feature = "serde", serde(default))]
    pub problems: Problems,
}

impl EntryBuf {
    /// An entry of a family and a group without any attribute, to be filled in.
    #[must_use]
    pub const fn new(family: Family, group: u16) -> Self {
        Self {
            family,
            group,
            lost_before: 0,
            hook: None,
            hw_protocol: None,
            prefix: Vec::new(),
            mark: None,
            timestamp: None,
            indev: None,
            outdev: None,
            physindev: None,
            physoutdev: None,
            hwaddr: None,
            hwtype: None,
            hwheader: None,
            hwlen: None,
            uid: None,
            gid: None,
            seq: None,
            seq_global: None,
            ct: None,
            ct_info: None,
            vlan: None,
            l2hdr: None,
            payload: Vec::new(),
            unknown_attributes: 0,
            problems: Problems::NONE,
        }
    }

    /// The payload from the network header on; see [`Entry::network_payload`].
    #[must_use]
    pub fn network_payload(&self) -> &[u8] {
        network_payload(
            self.family,
            self.hook,
            self.hw_protocol,
            self.l2hdr.as_deref().unwrap_or_default(),
            &self.payload,
        )
    }

    /// The conntrack entry, decoded (`NFULA_CT`); see [`Entry::conntrack`].
    #[must_use]
    pub fn conntrack(&self) -> Option<Conntrack<'_>> {
        self.ct.as_deref().map(Conntrack::decode)
    }

    /// The prefix as text, invalid UTF-8 replaced; allocates only then.
    #[must_use]
    pub fn prefix_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.prefix)
    }
}

impl From<&Entry<'_>> for EntryBuf {
    fn from(entry: &Entry<'_>) -> Self {
        Self {
            family: entry.family(),
            group: entry.group(),
            lost_before: entry.lost_before(),
            hook: entry.hook(),
            hw_protocol: entry.hw_protocol(),
            prefix: entry.prefix().to_vec(),
            mark: entry.mark(),
            timestamp: entry.timestamp(),
            indev: entry.indev(),
            outdev: entry.outdev(),
            physindev: entry.physindev(),
            physoutdev: entry.physoutdev(),
            hwaddr: entry.hwaddr().map(<[u8]>::to_vec),
            hwtype: entry.hwtype(),
            hwheader: entry.hwheader().map(<[u8]>::to_vec),
            hwlen: entry.hwlen(),
            uid: entry.uid(),
            gid: entry.gid(),
            seq: entry.seq(),
            seq_global: entry.seq_global(),
            ct: entry.ct().map(<[u8]>::to_vec),
            ct_info: entry.ct_info(),
            vlan: entry.vlan(),
            l2hdr: entry.l2hdr().map(<[u8]>::to_vec),
            payload: entry.payload().to_vec(),
            unknown_attributes: entry.unknown_attributes(),
            problems: entry.problems(),
        }
    }
}

impl From<Entry<'_>> for EntryBuf {
    fn from(entry: Entry<'_>) -> Self {
        Self::from(&entry)
    }
}
