//! Capture files made by hand, in either byte order.

/// Byte order of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    big: bool,
}

pub(crate) const LITTLE: Order = Order { big: false };
pub(crate) const BIG: Order = Order { big: true };

impl Order {
    pub(crate) const NATIVE: Self = Self {
        big: cfg!(target_endian = "big"),
    };

    fn u16(self, value: u16) -> [u8; 2] {
        if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    fn u64(self, value: u64) -> [u8; 8] {
        if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }
}

/// A pcap file of microseconds whose records have these bodies, as they are.
pub(crate) fn pcap(order: Order, link_type: u32, bodies: &[&[u8]]) -> Vec<u8> {
    let mut file = order.u32(0xa1b2_c3d4).to_vec();
    file.extend([order.u16(2), order.u16(4)].concat());
    file.extend([0; 8]);
    file.extend([order.u32(65_536), order.u32(link_type)].concat());
    for body in bodies {
        let length = order.u32(u32::try_from(body.len()).unwrap());
        file.extend([order.u32(1), order.u32(2), length, length].concat());
        file.extend(*body);
    }
    file
}

/// A block of a pcapng file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Block<'a> {
    /// Link type, and the options if_tsresol and if_tsoffset.
    Interface(u32, Option<u8>, Option<i64>),
    /// Interface, time in its units, body.
    Packet(u32, u64, &'a [u8]),
    /// Type and content.
    Other(u32, &'a [u8]),
}

/// A pcapng section.
pub(crate) fn pcapng(order: Order, blocks: &[Block<'_>]) -> Vec<u8> {
    let mut header = [
        order.u32(0x1a2b_3c4d).to_vec(),
        order.u16(1).to_vec(),
        order.u16(0).to_vec(),
    ]
    .concat();
    header.extend([0xff; 8]);
    let mut file = block(order, 0x0a0d_0d0a, &header);
    for content in blocks {
        file.extend(match content {
            Block::Interface(link_type, resolution, offset) => {
                interface(order, *link_type, *resolution, *offset)
            }
            Block::Packet(interface, units, body) => packet(order, *interface, *units, body),
            Block::Other(kind, content) => block(order, *kind, content),
        });
    }
    file
}

fn interface(order: Order, link_type: u32, resolution: Option<u8>, offset: Option<i64>) -> Vec<u8> {
    let mut content = order.u16(u16::try_from(link_type).unwrap()).to_vec();
    content.extend([0; 6]);
    if let Some(resolution) = resolution {
        content.extend([order.u16(9), order.u16(1)].concat());
        content.extend([resolution, 0, 0, 0]);
    }
    if let Some(offset) = offset {
        content.extend([order.u16(14), order.u16(8)].concat());
        content.extend(order.u64(offset.cast_unsigned()));
    }
    block(order, 1, &content)
}

fn packet(order: Order, interface: u32, units: u64, body: &[u8]) -> Vec<u8> {
    let length = order.u32(u32::try_from(body.len()).unwrap());
    let [high, low] = [units >> 32, units & 0xffff_ffff].map(|half| order.u32(u32::try_from(half).unwrap()));
    let mut content = [order.u32(interface), high, low, length, length].concat();
    content.extend(body);
    content.resize(content.len().next_multiple_of(4), 0);
    block(order, 6, &content)
}

fn block(order: Order, kind: u32, content: &[u8]) -> Vec<u8> {
    let length = order.u32(u32::try_from(content.len() + 12).unwrap());
    [&order.u32(kind), &length, content, &length].concat()
}

/// A pcap file of this machine's byte order in the other one.
pub(crate) fn foreign(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    let mut rest = &mut file[..];
    for length in [4, 2, 2, 4, 4, 4, 4] {
        let (field, after) = rest.split_at_mut(length);
        field.reverse();
        rest = after;
    }
    while !rest.is_empty() {
        let (header, after) = rest.split_at_mut(16);
        let length = u32::from_ne_bytes(header[8..12].try_into().unwrap()) as usize;
        for field in header.chunks_mut(4) {
            field.reverse();
        }
        let (body, after) = after.split_at_mut(length);
        turn(&mut body[4..], false);
        rest = after;
    }
    file
}

/// Turns the headers of attributes of this machine's byte order; all the attributes of conntrack that hold attributes say so.
pub(crate) fn turn(attributes: &mut [u8], inside: bool) {
    let mut rest = attributes;
    while !rest.is_empty() {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]);
        rest[..2].reverse();
        rest[2..4].reverse();
        assert!(inside || kind < 0x8000 || matches!(kind, 0x8012 | 0x8014));
        if kind & 0x8000 != 0 {
            turn(&mut rest[4..length], true);
        }
        let next = length.next_multiple_of(4).min(rest.len());
        rest = &mut rest[next..];
    }
}
