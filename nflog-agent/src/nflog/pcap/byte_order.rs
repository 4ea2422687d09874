//! Messages of machines of the other byte order. Pure.
//!
//! The kernel writes the length and type of attributes in its own byte order and all values in network order. Invariants: nothing
//! but those headers is changed; never panics; a length that does not fit ends the work there, and decoding reports it.

use netlink_packet_core::{NLA_F_NESTED, NLA_HEADER_SIZE};

/// Nesting in NFLOG messages: conntrack, its tuple, the tuple's protocol, and room.
const DEPTH: u8 = 8;

/// Turns the attribute headers of a message, nested ones too.
pub(super) fn turn(body: &mut [u8]) {
    if let Some((_, attributes)) = body.split_first_chunk_mut::<4>() {
        turn_attributes(attributes, DEPTH);
    }
}

fn turn_attributes(attributes: &mut [u8], depth: u8) {
    let mut rest = attributes;
    while let Some((header, _)) = rest.split_first_chunk_mut::<NLA_HEADER_SIZE>() {
        header.swap(0, 1);
        header.swap(2, 3);
        let [length_0, length_1, kind_0, kind_1] = *header;
        let length = usize::from(u16::from_ne_bytes([length_0, length_1]));
        let nested = u16::from_ne_bytes([kind_0, kind_1]) & NLA_F_NESTED != 0;
        let Some(value) = rest.get_mut(NLA_HEADER_SIZE..length) else {
            return;
        };
        if nested && depth > 0 {
            turn_attributes(value, depth - 1);
        }
        let next = length.next_multiple_of(4).min(rest.len());
        rest = &mut rest[next..];
    }
}
