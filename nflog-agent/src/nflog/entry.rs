//! One logged packet, borrowed from the receive buffer. Pure.
//!
//! Invariants: decoding walks the attributes once, allocates nothing and never fails: what is wrong is a bit in
//! [`Problems`], and everything else is still there. All numbers are in host byte order.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::attr::{Attr, Attrs};
use super::conntrack::{Conntrack, CtState};
use super::entry_buf::EntryBuf;
use super::hook::{Family, Hook};
use super::problems::Problems;
use super::uapi::{
    NFULA_CT, NFULA_CT_INFO, NFULA_GID, NFULA_HWADDR, NFULA_HWHEADER, NFULA_HWLEN, NFULA_HWTYPE,
    NFULA_IFINDEX_INDEV, NFULA_IFINDEX_OUTDEV, NFULA_IFINDEX_PHYSINDEV, NFULA_IFINDEX_PHYSOUTDEV,
    NFULA_L2HDR, NFULA_MARK, NFULA_PACKET_HDR, NFULA_PAYLOAD, NFULA_PREFIX, NFULA_SEQ, NFULA_SEQ_GLOBAL,
    NFULA_TIMESTAMP, NFULA_UID, NFULA_VLAN, NFULA_VLAN_PROTO, NFULA_VLAN_TCI,
};

/// Bytes of an Ethernet header.
const ETHERNET_HEADER: usize = 14;
/// Bytes of the address in a `struct nfulnl_msg_packet_hw`.
const HWADDR: usize = 8;

/// VLAN tag that the device took off the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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
    body: &'a [u8],
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
            body,
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
        let address = &address[..address.len().min(HWADDR)];
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

    /// The message that this was decoded from: `struct nfgenmsg` and attributes, in the byte order of who wrote it. It is
    /// what a capture file of link type NFLOG holds.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.body
    }

    /// A copy that does not borrow the receive buffer. Allocates for each byte string that is there.
    #[must_use]
    pub fn to_buf(&self) -> EntryBuf {
        EntryBuf::from(self)
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
    /// egress hook of a device and in the output hook of ARP, where they start with the link-layer header: see
    /// [`Entry::network_payload`].
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The payload from the network header on, or from an in-band VLAN tag on, if [`Entry::hw_protocol`] says so. The link-layer
    /// header of ARP packets that leave is taken to be Ethernet's.
    #[must_use]
    pub fn network_payload(&self) -> &'a [u8] {
        network_payload(
            self.family,
            self.hook(),
            self.hw_protocol(),
            self.l2hdr,
            self.payload,
        )
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

    /// Number in the group, from 0 at its bind (`NFULA_SEQ`). Wraps at 2^32. Packets logged in the instant between the bind
    /// and its flags have none, even if [`Flags::SEQ`](super::Flags::SEQ) was asked for.
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

    /// The conntrack entry, decoded now from [`Entry::ct`]. What is wrong with it is in its own
    /// [`Conntrack::problems`], not in [`Entry::problems`].
    #[must_use]
    pub fn conntrack(&self) -> Option<Conntrack<'a>> {
        self.ct().map(Conntrack::decode)
    }

    /// `enum ip_conntrack_info` (`NFULA_CT_INFO`).
    #[must_use]
    pub fn ct_info(&self) -> Option<u32> {
        self.get(NFULA_CT_INFO, self.ct_info)
    }

    /// How the packet relates to its connection (`NFULA_CT_INFO`).
    #[must_use]
    pub fn ct_state(&self) -> Option<CtState> {
        self.ct_info().map(CtState::from)
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

/// The payload after its link-layer header, where it has one. `l2hdr` is empty if it is not known.
pub(super) fn network_payload<'a>(
    family: Family,
    hook: Option<Hook>,
    hw_protocol: Option<u16>,
    l2hdr: &[u8],
    payload: &'a [u8],
) -> &'a [u8] {
    let header = match (family, hook) {
        // The kernel counts in-band VLAN tags to the header; `hw_protocol` is then the first tag's.
        (_, Some(Hook::Egress)) if ethertype(l2hdr).is_some_and(|kind| Some(kind) == hw_protocol) => {
            ETHERNET_HEADER
        }
        // Empty for devices whose packets have no such header, like tun.
        (_, Some(Hook::Egress)) => l2hdr.len(),
        (Family::Arp, Some(Hook::Output)) if l2hdr.is_empty() => ETHERNET_HEADER,
        (Family::Arp, Some(Hook::Output)) => l2hdr.len(),
        _ => 0,
    };
    payload.get(header..).unwrap_or_default()
}

/// What an Ethernet header says of the bytes after it.
fn ethertype(header: &[u8]) -> Option<u16> {
    let bytes = header.get(ETHERNET_HEADER - 2..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
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

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;
    use netlink_packet_core::ParseableParametrized;
    use netlink_packet_netfilter::nflog::{PacketNla, ULogMessage};
    use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
    use proptest::prelude::*;

    use super::super::uapi::MSG_PACKET;

    /// Bytes of a hexadecimal string; blanks are for the reader.
    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
            .collect()
    }

    /// As Linux 6.18 wrote it: a UDP datagram in the output hook of an inet table, by a root shell.
    const OUTPUT: &str = "02 00 0005
        0800 0100 0800 03 00
        0800 0a00 6f757400
        0800 0500 00000002
        0800 0b00 00000000
        0800 0e00 00000000
        0800 0c00 00000000
        0800 0d00 00000001
        2300 0900 4500001fc87c400040115e3d0a0900010a090002a82b0063000b143168690a 00";

    /// As Linux 6.18 wrote it: a frame with VLAN tag 7 of priority 5 in the ingress hook of a veth device.
    const INGRESS: &str = "05 00 0005
        0800 0100 0800 00 00
        0700 0a00 696e00 00
        0800 0400 00000002
        1000 0800 0006 0000 020000000002 0000
        0600 0f00 0001 0000
        0600 1100 000e 0000
        1200 1000 0200000000010200000000020800 0000
        1400 0300 000000006b05291d 00000000000b0b49
        0800 0b00 00000000
        0800 0e00 00000000
        0800 0c00 00000007
        0800 0d00 00000008
        1400 1480 0600 0200 a007 0000 0600 0100 8100 0000
        1200 1500 0200000000010200000000020800 0000
        2000 0900 4500001c000100004011665d0a0900020a0900010063006300080000";

    /// As Linux 6.18 wrote it: a UDP datagram in the egress hook; the payload has its Ethernet header.
    const EGRESS: &str = "05 00 0005
        0800 0100 0800 01 00
        0700 0a00 656700 00
        0800 0500 00000002
        1400 0300 000000006b05291d 00000000000b037e
        0800 0b00 00000000
        0800 0e00 00000000
        0800 0c00 00000004
        0800 0d00 00000005
        1200 1500 0200000000020200000000010800 0000
        3100 0900 0200000000020200000000010800 4500001fc87c400040115e3d0a0900010a090002a82b0063000b143168690a 000000";

    /// Attributes of the bridge and conntrack, by the uapi header.
    const BRIDGE: &str = "07 00 ffff
        0800 0100 86dd 02 00
        0600 0a00 ff00 0000
        0800 0200 deadbeef
        0800 0400 00000101
        0800 0500 00000102
        0800 0600 00000103
        0800 0700 00000104
        0800 0b00 000003e8
        0800 0e00 000007d0
        0800 0c00 ffffffff
        0800 0d00 00010000
        0c00 1280 0800 0c00 00000005
        0800 1300 00000002
        0800 6300 00000000";

    #[test]
    fn a_packet_that_this_host_sends() {
        let body = hex(OUTPUT);
        let entry = Entry::decode(&body).unwrap();
        assert_eq!((entry.family(), entry.group()), (Family::Inet, 5));
        assert_eq!(entry.hook(), Some(Hook::Output));
        assert_eq!(entry.hw_protocol(), Some(0x0800));
        assert_eq!((entry.prefix(), &*entry.prefix_lossy()), (&b"out"[..], "out"));
        assert_eq!((entry.indev(), entry.outdev()), (None, Some(2)));
        assert_eq!((entry.physindev(), entry.physoutdev()), (None, None));
        assert_eq!((entry.uid(), entry.gid()), (Some(0), Some(0)));
        assert_eq!((entry.seq(), entry.seq_global()), (Some(0), Some(1)));
        assert_eq!((entry.mark(), entry.timestamp()), (None, None));
        assert_eq!((entry.hwaddr(), entry.hwtype()), (None, None));
        assert_eq!((entry.hwheader(), entry.hwlen()), (None, None));
        assert_eq!((entry.ct(), entry.conntrack()), (None, None));
        assert_eq!((entry.ct_info(), entry.ct_state()), (None, None));
        assert_eq!((entry.vlan(), entry.l2hdr()), (None, None));
        assert_eq!(entry.payload().len(), 31);
        assert_eq!(entry.payload()[..4], [0x45, 0, 0, 31]);
        assert_eq!(entry.network_payload(), entry.payload());
        assert_eq!((entry.unknown_attributes(), entry.lost_before()), (0, 0));
        assert!(entry.problems().is_empty());
    }

    #[test]
    fn a_tagged_frame_that_comes_in() {
        let body = hex(INGRESS);
        let entry = Entry::decode(&body).unwrap();
        assert_eq!(entry.family(), Family::Netdev);
        assert_eq!(entry.hook(), Some(Hook::Ingress));
        assert_eq!((entry.indev(), entry.outdev()), (Some(2), None));
        assert_eq!(entry.hwaddr(), Some(&[2, 0, 0, 0, 0, 2][..]));
        assert_eq!((entry.hwtype(), entry.hwlen()), (Some(1), Some(14)));
        let header = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        assert_eq!(entry.hwheader(), Some(&header[..]));
        assert_eq!(entry.l2hdr(), Some(&header[..]));
        assert_eq!(
            entry.timestamp_unix_nano(),
            Some(0x6b05_291d * 1_000_000_000 + 0xb_0b49 * 1000)
        );
        assert_eq!(
            entry.timestamp(),
            Some(Duration::from_micros(0x6b05_291d * 1_000_000 + 0xb_0b49))
        );
        let vlan = entry.vlan().unwrap();
        assert_eq!((vlan.proto, vlan.tci, vlan.id()), (0x8100, 0xa007, 7));
        assert_eq!((entry.seq(), entry.seq_global()), (Some(7), Some(8)));
        assert_eq!(entry.network_payload(), entry.payload());
        assert_eq!(entry.payload()[..2], [0x45, 0]);
        assert!(entry.problems().is_empty());
    }

    #[test]
    fn a_frame_that_goes_out_has_its_ethernet_header_in_the_payload() {
        let body = hex(EGRESS);
        let entry = Entry::decode(&body).unwrap();
        assert_eq!(entry.hook(), Some(Hook::Egress));
        assert_eq!(entry.payload()[..14], *entry.l2hdr().unwrap());
        assert_eq!(entry.network_payload(), &hex(OUTPUT)[64..95]);
        // Cut inside the Ethernet header.
        let cut = hex(
            "05000005 0800 0100 0800 01 00 1200 1500 0200000000020200000000010800 0000 0800 0900 02000000",
        );
        assert_eq!(Entry::decode(&cut).unwrap().network_payload(), b"");
        // Of a device without such a header, like tun.
        let bare = hex("05000005 0800 0100 0800 01 00 0800 0900 45000014");
        assert_eq!(Entry::decode(&bare).unwrap().network_payload(), [0x45, 0, 0, 20]);
        // With an in-band tag, which the kernel counts to the header.
        let tagged = hex(
            "05000005 0800 0100 8100 01 00 1600 1500 020000000002 020000000001 8100 c40a 0800 0000
            1800 0900 020000000002 020000000001 8100 c40a 0800 4500",
        );
        assert_eq!(
            Entry::decode(&tagged).unwrap().network_payload(),
            [0xc4, 0x0a, 0x08, 0x00, 0x45, 0]
        );
    }

    #[test]
    fn bridge_ports_conntrack_and_what_is_not_known() {
        let body = hex(BRIDGE);
        let entry = Entry::decode(&body).unwrap();
        assert_eq!((entry.family(), entry.group()), (Family::Bridge, 65_535));
        assert_eq!(entry.hook(), Some(Hook::Forward));
        assert_eq!(entry.mark(), Some(0xdead_beef));
        assert_eq!((entry.indev(), entry.outdev()), (Some(0x101), Some(0x102)));
        assert_eq!(
            (entry.physindev(), entry.physoutdev()),
            (Some(0x103), Some(0x104))
        );
        assert_eq!((entry.uid(), entry.gid()), (Some(1000), Some(2000)));
        assert_eq!((entry.seq(), entry.seq_global()), (Some(u32::MAX), Some(65_536)));
        assert_eq!(entry.ct(), Some(&hex("0800 0c00 00000005")[..]));
        assert_eq!(entry.conntrack().unwrap().id(), Some(5));
        assert_eq!((entry.ct_info(), entry.ct_state()), (Some(2), Some(CtState::New)));
        assert_eq!(entry.unknown_attributes(), 1);
        assert_eq!(entry.payload(), b"");
        assert_eq!(entry.prefix(), [0xff]);
        assert_eq!(entry.prefix_lossy(), "\u{fffd}");
        assert!(entry.problems().is_empty());
    }

    #[test]
    fn another_implementation_reads_the_same() {
        for text in [OUTPUT, INGRESS, EGRESS, BRIDGE] {
            let body = hex(text);
            let entry = Entry::decode(&body).unwrap();
            let message = NetfilterMessage::parse_with_param(&body[..], MSG_PACKET).unwrap();
            let NetfilterMessageInner::ULog(ULogMessage::Packet(attributes)) = message.inner else {
                panic!("not a packet: {message:?}");
            };
            let mut compared = 0;
            for attribute in attributes {
                compared += 1;
                match attribute {
                    PacketNla::Mark(value) => assert_eq!(entry.mark(), Some(value)),
                    PacketNla::IfIndexInDev(value) => assert_eq!(entry.indev(), Some(value)),
                    PacketNla::IfIndexOutDev(value) => assert_eq!(entry.outdev(), Some(value)),
                    PacketNla::IfIndexPhysInDev(value) => assert_eq!(entry.physindev(), Some(value)),
                    PacketNla::IfIndexPhysOutDev(value) => assert_eq!(entry.physoutdev(), Some(value)),
                    PacketNla::Payload(value) => assert_eq!(entry.payload(), value),
                    PacketNla::Prefix(value) => assert_eq!(entry.prefix(), value.as_bytes()),
                    PacketNla::Uid(value) => assert_eq!(entry.uid(), Some(value)),
                    PacketNla::Gid(value) => assert_eq!(entry.gid(), Some(value)),
                    PacketNla::Seq(value) => assert_eq!(entry.seq(), Some(value)),
                    PacketNla::SeqGlobal(value) => assert_eq!(entry.seq_global(), Some(value)),
                    PacketNla::HwType(value) => assert_eq!(entry.hwtype(), Some(value)),
                    PacketNla::HwHeader(value) => assert_eq!(entry.hwheader(), Some(&value[..])),
                    PacketNla::HwHeaderLen(value) => assert_eq!(entry.hwlen(), Some(value)),
                    // It hides or does not know the rest.
                    _ => compared -= 1,
                }
            }
            assert!(compared >= 7, "{compared} attributes compared in {text}");
        }
    }

    #[test]
    fn a_rule_without_prefix_has_an_empty_one() {
        let body = hex("02000001 0800 0100 0800 03 00 0500 0a00 00 000000");
        let entry = Entry::decode(&body).unwrap();
        assert_eq!(entry.prefix(), b"");
        assert!(entry.problems().is_empty());
    }

    #[test]
    fn each_attribute_that_is_shorter_than_its_type_is_left_out_and_reported() {
        // Type and the length of a value that is one byte too short.
        #[rustfmt::skip]
        let lengths = [
            (1, 3), (2, 3), (3, 15), (4, 3), (5, 3), (6, 3), (7, 3), (8, 3), (11, 3), (12, 3), (13, 3), (14, 3),
            (15, 1), (17, 1), (19, 3), (20, 15),
        ];
        for (kind, length) in lengths {
            let mut body = vec![2, 0, 0, 5, 4 + length, 0, kind, 0];
            body.extend(vec![0; usize::from(length).next_multiple_of(4)]);
            if kind == 20 {
                // Half a VLAN: a whole protocol and a short TCI.
                body[8..].copy_from_slice(&hex("0600 0100 8100 0000 0500 0200 00 000000"));
            }
            let entry = Entry::decode(&body).unwrap();
            assert!(
                entry.problems().contains(Problems::SHORT_VALUE),
                "attribute {kind}"
            );
            // As if it were not there, except for what is reported.
            let mut without = Entry::decode(&[2, 0, 0, 5]).unwrap();
            without.problems = entry.problems();
            assert_eq!(format!("{entry:?}"), format!("{without:?}"), "attribute {kind}");
        }
    }

    #[test]
    fn a_missing_packet_header_is_reported() {
        let entry = Entry::decode(&[2, 0, 0, 5]).unwrap();
        assert_eq!(entry.problems(), Problems::NO_PACKET_HDR);
        assert_eq!((entry.hook(), entry.hw_protocol()), (None, None));
        assert!(Entry::decode(&[2, 0, 0]).is_none());
    }

    #[test]
    fn a_length_beyond_the_message_leaves_what_came_before() {
        for bad in ["ff00 0200 00000001", "0300 0200 00000001", "0800 02"] {
            let body = hex(&format!("02000005 0800 0100 0800 03 00 0800 0c00 00000009 {bad}"));
            let entry = Entry::decode(&body).unwrap();
            assert_eq!(entry.problems(), Problems::BAD_LENGTH, "{bad}");
            assert_eq!((entry.seq(), entry.mark()), (Some(9), None), "{bad}");
        }
    }

    #[test]
    fn impossible_values_are_reported() {
        let header = "02000005 0800 0100 0800 03 00";
        let problems = |attribute: &str| {
            let body = hex(&format!("{header} {attribute}"));
            let entry = Entry::decode(&body).unwrap();
            (
                entry.problems(),
                entry.timestamp(),
                entry.hwaddr().map(<[u8]>::to_vec),
                entry.prefix().to_vec(),
            )
        };
        let late = "1400 0300 ffffffffffffffff 0000000000000000";
        assert_eq!(problems(late), (Problems::BAD_TIMESTAMP, None, None, vec![]));
        let long = "1000 0800 0009 0000 0102030405060708";
        let address = vec![1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(
            problems(long),
            (Problems::HWADDR_TOO_LONG, None, Some(address), vec![])
        );
        let open = "0700 0a00 616263 00";
        assert_eq!(
            problems(open),
            (Problems::PREFIX_NOT_TERMINATED, None, None, b"abc".to_vec())
        );
    }

    #[test]
    fn a_message_cut_anywhere_keeps_what_is_whole() {
        for text in [OUTPUT, INGRESS, EGRESS, BRIDGE] {
            let body = hex(text);
            let whole = Entry::decode(&body).unwrap();
            for length in 4..body.len() {
                let part = Entry::decode(&body[..length]).unwrap();
                assert_eq!(part.present & !whole.present, 0);
                for (part, whole) in [
                    (part.mark(), whole.mark()),
                    (part.indev(), whole.indev()),
                    (part.seq(), whole.seq()),
                    (part.seq_global(), whole.seq_global()),
                ] {
                    assert!(part.is_none() || part == whole, "at {length}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..256)) {
            if let Some(entry) = Entry::decode(&body) {
                let text = format!("{entry:?}");
                prop_assert!(!text.is_empty());
                prop_assert!(entry.network_payload().len() <= entry.payload().len());
            }
        }

        #[test]
        fn no_attributes_panic(attributes in prop::collection::vec((0_u16..24, prop::collection::vec(any::<u8>(), 0..24)), 0..24)) {
            let mut body = vec![5, 0, 0, 5];
            for (kind, value) in &attributes {
                body.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
                body.extend(kind.to_ne_bytes());
                body.extend(value);
                body.resize(body.len().next_multiple_of(4), 0);
            }
            let entry = Entry::decode(&body).unwrap();
            prop_assert!(!entry.problems().contains(Problems::BAD_LENGTH) || attributes.iter().any(|(kind, _)| *kind == 20));
            let unknown = attributes.iter().filter(|(kind, _)| !(1..=21).contains(kind)).count();
            prop_assert!(entry.unknown_attributes() as usize >= unknown);
        }
    }
}
