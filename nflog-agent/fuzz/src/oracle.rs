//! The oracle: netlink-packet-netfilter, an independent decoder of the same messages.
//!
//! It refuses a message with one bad attribute, where ours keeps the rest; so only what both read is compared, in both
//! directions: an attribute that only one of them sees is a difference too. Of a repeated attribute the last one counts.

use netlink_packet_core::{Nla, ParseableParametrized as _};
use netlink_packet_netfilter::nflog::{PacketNla, ULogMessage};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use nflog_agent::nflog::{Entry, Hook};

/// Type of a packet message: `NFNL_SUBSYS_ULOG` and `NFULNL_MSG_PACKET`.
const MSG_PACKET: u16 = 0x0400;

/// What both implementations know of a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    family: u8,
    group: u16,
    hw_protocol: Option<u16>,
    hook: Option<Hook>,
    mark: Option<u32>,
    timestamp: Option<u64>,
    indev: Option<u32>,
    outdev: Option<u32>,
    physindev: Option<u32>,
    physoutdev: Option<u32>,
    hwaddr: Option<Vec<u8>>,
    payload: Vec<u8>,
    prefix: Vec<u8>,
    uid: Option<u32>,
    gid: Option<u32>,
    seq: Option<u32>,
    seq_global: Option<u32>,
    hwtype: Option<u16>,
    hwheader: Option<Vec<u8>>,
    hwlen: Option<u16>,
}

impl Reading {
    /// Ours.
    pub(crate) fn of_entry(entry: &Entry<'_>) -> Self {
        Self {
            family: entry.family().number(),
            group: entry.group(),
            hw_protocol: entry.hw_protocol(),
            hook: entry.hook(),
            mark: entry.mark(),
            timestamp: entry.timestamp_unix_nano(),
            indev: entry.indev(),
            outdev: entry.outdev(),
            physindev: entry.physindev(),
            physoutdev: entry.physoutdev(),
            hwaddr: entry.hwaddr().map(<[u8]>::to_vec),
            payload: entry.payload().to_vec(),
            prefix: entry.prefix().to_vec(),
            uid: entry.uid(),
            gid: entry.gid(),
            seq: entry.seq(),
            seq_global: entry.seq_global(),
            hwtype: entry.hwtype(),
            hwheader: entry.hwheader().map(<[u8]>::to_vec),
            hwlen: entry.hwlen(),
        }
    }

    /// The oracle's, if it reads the message at all.
    pub(crate) fn of_oracle(body: &[u8]) -> Option<Self> {
        let message = NetfilterMessage::parse_with_param(body, MSG_PACKET).ok()?;
        let NetfilterMessageInner::ULog(ULogMessage::Packet(attributes)) = message.inner else {
            panic!("not a packet: {message:?}");
        };
        let mut reading = Self {
            family: message.header.family.into(),
            group: message.header.res_id,
            ..Self::default()
        };
        for attribute in attributes {
            reading.take(attribute);
        }
        Some(reading)
    }

    fn take(&mut self, attribute: PacketNla) {
        match attribute {
            PacketNla::Mark(value) => self.mark = Some(value),
            PacketNla::IfIndexInDev(value) => self.indev = Some(value),
            PacketNla::IfIndexOutDev(value) => self.outdev = Some(value),
            PacketNla::IfIndexPhysInDev(value) => self.physindev = Some(value),
            PacketNla::IfIndexPhysOutDev(value) => self.physoutdev = Some(value),
            PacketNla::Payload(value) => self.payload = value,
            PacketNla::Prefix(value) => self.prefix = value.into_bytes(),
            PacketNla::Uid(value) => self.uid = Some(value),
            PacketNla::Gid(value) => self.gid = Some(value),
            PacketNla::Seq(value) => self.seq = Some(value),
            PacketNla::SeqGlobal(value) => self.seq_global = Some(value),
            PacketNla::HwType(value) => self.hwtype = Some(value),
            PacketNla::HwHeader(value) => self.hwheader = Some(value),
            PacketNla::HwHeaderLen(value) => self.hwlen = Some(value),
            PacketNla::PacketHdr(value) => {
                let [high, low, hook, _] = bytes(&value);
                self.hw_protocol = Some(u16::from_be_bytes([high, low]));
                self.hook = Some(Hook::new(self.family.into(), hook));
            }
            PacketNla::Timestamp(value) => self.take_timestamp(u128::from_be_bytes(bytes(&value))),
            PacketNla::HwAddr(value) => {
                let [high, low, _, _, address @ ..] = bytes::<12>(&value);
                let length = usize::from(u16::from_be_bytes([high, low]));
                self.hwaddr = Some(address[..length.min(address.len())].to_vec());
            }
            // Attributes that it does not know.
            _ => {}
        }
    }

    /// Seconds in the upper half, microseconds in the lower. Ours leaves out what does not fit 64 bits of nanoseconds.
    fn take_timestamp(&mut self, value: u128) {
        let (seconds, micros) = (value >> 64, value & u128::from(u64::MAX));
        if let Ok(nanos) = u64::try_from(seconds * 1_000_000_000 + micros * 1000) {
            self.timestamp = Some(nanos);
        }
    }
}

/// The value that it hides in private fields, as it would write it.
fn bytes<const N: usize>(attribute: &impl Nla) -> [u8; N] {
    let mut bytes = [0; N];
    attribute.emit_value(&mut bytes);
    bytes
}
