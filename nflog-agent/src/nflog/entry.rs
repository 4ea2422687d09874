//! One logged packet, borrowed from the receive buffer. Pure.
//!
//! Invariants: decoding walks the attributes once, allocates nothing and never fails: what is wrong is a bit in
//! [`Problems`], and everything else is still there. All numbers are in host byte order.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::attr::{Attr, Attrs};
use super::hook::{Family, Hook};
use super::uapi::{
    NFULA_CT, NFULA_CT_INFO, NFULA_GID, NFULA_HWADDR, NFULA_HWHEADER, NFULA_HWLEN, NFULA_HWTYPE,
    NFULA_IFINDEX_INDEV, NFULA_IFINDEX_OUTDEV, NFULA_IFINDEX_PHYSINDEV, NFULA_IFINDEX_PHYSOUTDEV,
    NFULA_L2HDR, NFULA_MARK, NFULA_PACKET_HDR, NFULA_PAYLOAD, NFULA_PREFIX, NFULA_SEQ, NFULA_SEQ_GLOBAL,
    NFULA_TIMESTAMP, NFULA_UID, NFULA_VLAN, NFULA_VLAN_PROTO, NFULA_VLAN_TCI,
};

/// Bytes of an Ethernet header.
const ETHERNET_HEADER: usize = 14;

/// What was wrong with an entry: a set of bits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Problems(u8);

impl Problems {
    /// An attribute length contradicts the message; the attributes after it are missing.
    pub const BAD_LENGTH: Self = Self(1);
    /// An attribute is shorter than its type, and was left out.
    pub const SHORT_VALUE: Self = Self(2);
    /// There is no `NFULA_PACKET_HDR`, which the kernel always writes: hook and protocol are unknown.
    pub const NO_PACKET_HDR: Self = Self(4);
    /// The prefix has no NUL at its end.
    pub const PREFIX_NOT_TERMINATED: Self = Self(8);
    /// The hardware address claims to be longer than its field.
    pub const HWADDR_TOO_LONG: Self = Self(16);
    /// The timestamp does not fit 64 bits of nanoseconds, and was left out.
    pub const BAD_TIMESTAMP: Self = Self(32);

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    const fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Problems({:#x})", self.0)
    }
}

/// VLAN tag that the device took off the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Ethertype of the tag: 0x8100 or 0x88a8.
    pub proto: u16,
    /// Priority (3 bits), drop eligibility (1 bit) and VLAN id (12 bits).
    pub tci: u16,
}

impl Vlan {
    /// VLAN id.
    #[must_use]
    pub const fn id(self) -> u16 {
        self.tci & 0x0fff
    }
}

/// A logged packet. See the kernel's `nfnetlink_log.h` for each attribute's name and since when it exists.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    family: Family,
    group: u16,
    lost_before: u32,
    /// Bit n: attribute n was there and long enough.
    present: u32,
    unknown: u32,
    problems: Problems,
    hook: u8,
    hw_protocol: u16,
    hwtype: u16,
    hwlen: u16,
    mark: u32,
    indev: u32,
    outdev: u32,
    physindev: u32,
    physoutdev: u32,
    uid: u32,
    gid: u32,
    seq: u32,
    seq_global: u32,
    ct_info: u32,
    timestamp: u64,
    vlan: Vlan,
    hwaddr: &'a [u8],
    hwheader: &'a [u8],
    l2hdr: &'a [u8],
    ct: &'a [u8],
    prefix: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Decodes the body of a message of type `NFULNL_MSG_PACKET`: `struct nfgenmsg` and attributes. `None` if it is shorter
    /// than an nfgenmsg.
    #[must_use]
    pub fn decode(body: &'a [u8]) -> Option<Self> {
        let (&[family, _version, group_high, group_low], attributes) = body.split_first_chunk()?;
        let mut entry = Self {
            family: Family::from(family),
            group: u16::from_be_bytes([group_high, group_low]),
            lost_before: 0,
            present: 0,
            unknown: 0,
            problems: Problems::default(),
            hook: 0,
            hw_protocol: 0,
            hwtype: 0,
            hwlen: 0,
            mark: 0,
            indev: 0,
            outdev: 0,
            physindev: 0,
            physoutdev: 0,
            uid: 0,
            gid: 0,
            seq: 0,
            seq_global: 0,
            ct_info: 0,
            timestamp: 0,
            vlan: Vlan { proto: 0, tci: 0 },
            hwaddr: &[],
            hwheader: &[],
            l2hdr: &[],
            ct: &[],
            prefix: &[],
            payload: &[],
        };
        for attr in Attrs::new(attributes) {
            match attr {
                Ok(attr) => entry.take(attr),
                Err(_) => entry.problems.add(Problems::BAD_LENGTH),
            }
        }
        if !entry.has(NFULA_PACKET_HDR) {
            entry.problems.add(Problems::NO_PACKET_HDR);
        }
        Some(entry)
    }

    fn take(&mut self, attr: Attr<'a>) {
        let value = attr.value;
        let understood = match attr.kind {
            NFULA_PACKET_HDR => self.take_packet_hdr(value),
            NFULA_MARK => set32(&mut self.mark, value),
            NFULA_TIMESTAMP => return self.take_timestamp(value),
            NFULA_IFINDEX_INDEV => set32(&mut self.indev, value),
            NFULA_IFINDEX_OUTDEV => set32(&mut self.outdev, value),
            NFULA_IFINDEX_PHYSINDEV => set32(&mut self.physindev, value),
            NFULA_IFINDEX_PHYSOUTDEV => set32(&mut self.physoutdev, value),
            NFULA_HWADDR => self.take_hwaddr(value),
            NFULA_PAYLOAD => set(&mut self.payload, value),
            NFULA_PREFIX => self.take_prefix(value),
            NFULA_UID => set32(&mut self.uid, value),
            NFULA_SEQ => set32(&mut self.seq, value),
            NFULA_SEQ_GLOBAL => set32(&mut self.seq_global, value),
            NFULA_GID => set32(&mut self.gid, value),
            NFULA_HWTYPE => set16(&mut self.hwtype, value),
            NFULA_HWHEADER => set(&mut self.hwheader, value),
            NFULA_HWLEN => set16(&mut self.hwlen, value),
            NFULA_CT => set(&mut self.ct, value),
            NFULA_CT_INFO => set32(&mut self.ct_info, value),
            NFULA_VLAN => self.take_vlan(value),
            NFULA_L2HDR => set(&mut self.l2hdr, value),
            _ => {
                self.unknown = self.unknown.saturating_add(1);
                return;
            }
        };
        if understood {
            self.present |= 1 << attr.kind;
        } else {
            self.problems.add(Problems::SHORT_VALUE);
        }
    }

    /// be16 `hw_protocol`, u8 hook, u8 padding.
    fn take_packet_hdr(&mut self, value: &[u8]) -> bool {
        let Some(&[high, low, hook, _]) = value.first_chunk() else {
            return false;
        };
        self.hw_protocol = u16::from_be_bytes([high, low]);
        self.hook = hook;
        true
    }

    /// be64 seconds, be64 microseconds.
    fn take_timestamp(&mut self, value: &[u8]) {
        let (Some(&seconds), Some(&micros)) =
            (value.first_chunk(), value.get(8..).and_then(<[u8]>::first_chunk))
        else {
            self.problems.add(Problems::SHORT_VALUE);
            return;
        };
        let nanos = u64::from_be_bytes(seconds)
            .checked_mul(1_000_000_000)
            .zip(u64::from_be_bytes(micros).checked_mul(1000))
            .and_then(|(seconds, micros)| seconds.checked_add(micros));
        if let Some(nanos) = nanos {
            self.timestamp = nanos;
            self.present |= 1 << NFULA_TIMESTAMP;
        } else {
            self.problems.add(Problems::BAD_TIMESTAMP);
        }
    }

    /// be16 length, 2 bytes of padding, 8 bytes of which `length` are used.
    fn take_hwaddr(&mut self, value: &'a [u8]) -> bool {
        let Some((&[high, low, _, _], address)) = value.split_first_chunk() else {
            return false;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > address.len() {
            self.problems.add(Problems::HWADDR_TOO_LONG);
        }
        self.hwaddr = &address[..length.min(address.len())];
        true
    }

    fn take_prefix(&mut self, value: &'a [u8]) -> bool {
        self.prefix = value.strip_suffix(&[0]).unwrap_or_else(|| {
            self.problems.add(Problems::PREFIX_NOT_TERMINATED);
            value
        });
        true
    }

    fn take_vlan(&mut self, value: &[u8]) -> bool {
        let (mut proto, mut tci) = (false, false);
        for attr in Attrs::new(value) {
            match attr {
                Ok(Attr {
                    kind: NFULA_VLAN_PROTO,
                    value,
                }) => proto = set16(&mut self.vlan.proto, value),
                Ok(Attr {
                    kind: NFULA_VLAN_TCI,
                    value,
                }) => tci = set16(&mut self.vlan.tci, value),
                Ok(_) => self.unknown = self.unknown.saturating_add(1),
                Err(_) => self.problems.add(Problems::BAD_LENGTH),
            }
        }
        proto && tci
    }

    const fn has(&self, kind: u16) -> bool {
        self.present & (1 << kind) != 0
    }

    fn get<T>(&self, kind: u16, value: T) -> Option<T> {
        self.has(kind).then_some(value)
    }

    pub(super) const fn set_lost_before(&mut self, lost: u32) {
        self.lost_before = lost;
    }

    /// Protocol family that logged it.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// NFLOG group.
    #[must_use]
    pub const fn group(&self) -> u16 {
        self.group
    }

    /// Packets of the group that are missing between the entry before and this one. Known for entries of a
    /// [`Batch`](super::Batch) whose reader asked for [`Flags::SEQ`](super::Flags::SEQ), else 0.
    #[must_use]
    pub const fn lost_before(&self) -> u32 {
        self.lost_before
    }

    /// Where it was logged (`NFULA_PACKET_HDR`).
    #[must_use]
    pub fn hook(&self) -> Option<Hook> {
        self.get(NFULA_PACKET_HDR, Hook::new(self.family, self.hook))
    }

    /// Ethertype (`NFULA_PACKET_HDR`).
    #[must_use]
    pub fn hw_protocol(&self) -> Option<u16> {
        self.get(NFULA_PACKET_HDR, self.hw_protocol)
    }

    /// Packet mark (`NFULA_MARK`); the kernel leaves it out if it is 0.
    #[must_use]
    pub fn mark(&self) -> Option<u32> {
        self.get(NFULA_MARK, self.mark)
    }

    /// When the kernel received it, since the Unix epoch, in whole microseconds (`NFULA_TIMESTAMP`). Not for packets that
    /// this host sends.
    #[must_use]
    pub fn timestamp(&self) -> Option<Duration> {
        self.timestamp_unix_nano().map(Duration::from_nanos)
    }

    /// [`Entry::timestamp`] in ns.
    #[must_use]
    pub fn timestamp_unix_nano(&self) -> Option<u64> {
        self.get(NFULA_TIMESTAMP, self.timestamp)
    }

    /// Index of the device it came in on (`NFULA_IFINDEX_INDEV`); for bridge rules the bridge.
    #[must_use]
    pub fn indev(&self) -> Option<u32> {
        self.get(NFULA_IFINDEX_INDEV, self.indev)
    }

    /// Index of the device it goes out on (`NFULA_IFINDEX_OUTDEV`); for bridge rules the bridge.
    #[must_use]
    pub fn outdev(&self) -> Option<u32> {
        self.get(NFULA_IFINDEX_OUTDEV, self.outdev)
    }

    /// Index of the bridge port it came in on (`NFULA_IFINDEX_PHYSINDEV`).
    #[must_use]
    pub fn physindev(&self) -> Option<u32> {
        self.get(NFULA_IFINDEX_PHYSINDEV, self.physindev)
    }

    /// Index of the bridge port it goes out on (`NFULA_IFINDEX_PHYSOUTDEV`).
    #[must_use]
    pub fn physoutdev(&self) -> Option<u32> {
        self.get(NFULA_IFINDEX_PHYSOUTDEV, self.physoutdev)
    }

    /// Source hardware address, up to 8 bytes (`NFULA_HWADDR`). Only for packets that came in on a device.
    #[must_use]
    pub fn hwaddr(&self) -> Option<&'a [u8]> {
        self.get(NFULA_HWADDR, self.hwaddr)
    }

    /// `ARPHRD_*` of the in-device (`NFULA_HWTYPE`).
    #[must_use]
    pub fn hwtype(&self) -> Option<u16> {
        self.get(NFULA_HWTYPE, self.hwtype)
    }

    /// Link-layer header (`NFULA_HWHEADER`).
    #[must_use]
    pub fn hwheader(&self) -> Option<&'a [u8]> {
        self.get(NFULA_HWHEADER, self.hwheader)
    }

    /// Length of the link-layer header (`NFULA_HWLEN`).
    #[must_use]
    pub fn hwlen(&self) -> Option<u16> {
        self.get(NFULA_HWLEN, self.hwlen)
    }

    /// The packet's first bytes (`NFULA_PAYLOAD`), empty if none were copied. From the network header on, except in the
    /// egress hook of a device, where they start with the link-layer header: see [`Entry::network_payload`].
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The payload from the network header on (or from an in-band VLAN tag on, if [`Entry::hw_protocol`] says so).
    #[must_use]
    pub fn network_payload(&self) -> &'a [u8] {
        if self.hook() != Some(Hook::Egress) {
            return self.payload;
        }
        let header = if self.l2hdr.is_empty() {
            ETHERNET_HEADER
        } else {
            self.l2hdr.len()
        };
        self.payload.get(header..).unwrap_or_default()
    }

    /// The rule's log prefix (`NFULA_PREFIX`), without its NUL; empty if the rule has none.
    #[must_use]
    pub const fn prefix(&self) -> &'a [u8] {
        self.prefix
    }

    /// The prefix as text, invalid UTF-8 replaced; allocates only then.
    #[must_use]
    pub fn prefix_lossy(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.prefix)
    }

    /// uid that created the socket file (`NFULA_UID`), in the reader's user namespace. Mostly on packets that this host
    /// sends.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.get(NFULA_UID, self.uid)
    }

    /// gid that created the socket file (`NFULA_GID`).
    #[must_use]
    pub fn gid(&self) -> Option<u32> {
        self.get(NFULA_GID, self.gid)
    }

    /// Number in the group, from 0 at its bind (`NFULA_SEQ`). Wraps at 2^32.
    #[must_use]
    pub fn seq(&self) -> Option<u32> {
        self.get(NFULA_SEQ, self.seq)
    }

    /// Number in the namespace, over all groups of all readers (`NFULA_SEQ_GLOBAL`). Wraps at 2^32.
    #[must_use]
    pub fn seq_global(&self) -> Option<u32> {
        self.get(NFULA_SEQ_GLOBAL, self.seq_global)
    }

    /// Attributes of the conntrack entry as ctnetlink writes them (`NFULA_CT`), not decoded.
    #[must_use]
    pub fn ct(&self) -> Option<&'a [u8]> {
        self.get(NFULA_CT, self.ct)
    }

    /// `enum ip_conntrack_info` (`NFULA_CT_INFO`).
    #[must_use]
    pub fn ct_info(&self) -> Option<u32> {
        self.get(NFULA_CT_INFO, self.ct_info)
    }

    /// VLAN tag (`NFULA_VLAN`, since Linux 5.4); only of families netdev and bridge.
    #[must_use]
    pub fn vlan(&self) -> Option<Vlan> {
        self.get(NFULA_VLAN, self.vlan)
    }

    /// Link-layer header (`NFULA_L2HDR`, since Linux 5.4); only of families netdev and bridge.
    #[must_use]
    pub fn l2hdr(&self) -> Option<&'a [u8]> {
        self.get(NFULA_L2HDR, self.l2hdr)
    }

    /// Attributes whose type is not known here.
    #[must_use]
    pub const fn unknown_attributes(&self) -> u32 {
        self.unknown
    }

    /// What was wrong.
    #[must_use]
    pub const fn problems(&self) -> Problems {
        self.problems
    }
}

#[inline]
fn set<'a>(slot: &mut &'a [u8], value: &'a [u8]) -> bool {
    *slot = value;
    true
}

#[inline]
fn set16(slot: &mut u16, value: &[u8]) -> bool {
    let Some(&bytes) = value.first_chunk() else {
        return false;
    };
    *slot = u16::from_be_bytes(bytes);
    true
}

#[inline]
fn set32(slot: &mut u32, value: &[u8]) -> bool {
    let Some(&bytes) = value.first_chunk() else {
        return false;
    };
    *slot = u32::from_be_bytes(bytes);
    true
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("family", &self.family)
            .field("group", &self.group)
            .field("lost_before", &self.lost_before)
            .field("hook", &self.hook())
            .field("hw_protocol", &self.hw_protocol())
            .field("prefix", &self.prefix_lossy())
            .field("mark", &self.mark())
            .field("timestamp", &self.timestamp())
            .field("indev", &self.indev())
            .field("outdev", &self.outdev())
            .field("physindev", &self.physindev())
            .field("physoutdev", &self.physoutdev())
            .field("hwaddr", &self.hwaddr())
            .field("hwtype", &self.hwtype())
            .field("hwheader", &self.hwheader())
            .field("hwlen", &self.hwlen())
            .field("uid", &self.uid())
            .field("gid", &self.gid())
            .field("seq", &self.seq())
            .field("seq_global", &self.seq_global())
            .field("ct", &self.ct())
            .field("ct_info", &self.ct_info())
            .field("vlan", &self.vlan())
            .field("l2hdr", &self.l2hdr())
            .field("payload", &self.payload)
            .field("unknown_attributes", &self.unknown)
            .field("problems", &self.problems)
            .finish()
    }
}
