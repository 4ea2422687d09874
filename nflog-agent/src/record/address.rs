//! Addresses as text, without allocation and without the cost of `fmt`.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use super::text::{Ascii, HEX, decimal_into};
use crate::packet::Packet;

/// The longest address text: an IPv4-mapped IPv6 address.
pub(super) type Address = Ascii<45>;

/// The addresses of a packet as text: the line and the attributes show the same.
pub(super) struct Ends {
    pub(super) source: Option<Address>,
    pub(super) destination: Option<Address>,
}

impl Ends {
    pub(super) fn of(packet: &Packet) -> Self {
        Self {
            source: packet.source.map(address),
            destination: packet.destination.map(address),
        }
    }
}

/// Dotted quad, or RFC 5952.
fn address(address: IpAddr) -> Address {
    let mut text = Address::new();
    match address {
        IpAddr::V4(v4) => text.push_ipv4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => {
                text.push_short(b"::ffff:");
                text.push_ipv4(v4);
            }
            None => text.push_ipv6(v6.segments()),
        },
    }
    text
}

impl Address {
    fn push_short(&mut self, text: &[u8]) {
        self.push(text).expect("an address has at most 45 characters");
    }

    fn push_ipv4(&mut self, address: Ipv4Addr) {
        for (at, octet) in address.octets().into_iter().enumerate() {
            if at > 0 {
                self.push_short(b".");
            }
            self.len += decimal_into(&mut self.bytes[self.len..], octet.into());
        }
    }

    fn push_ipv6(&mut self, segments: [u16; 8]) {
        let zeros = longest_zeros(segments);
        for (at, segment) in segments.into_iter().enumerate() {
            if at == zeros.start && zeros.len() > 1 {
                self.push_short(b"::");
            }
            if zeros.len() > 1 && zeros.contains(&at) {
                continue;
            }
            if at > 0 && (at != zeros.end || zeros.len() < 2) {
                self.push_short(b":");
            }
            self.push_hex(segment);
        }
    }

    fn push_hex(&mut self, segment: u16) {
        let digits = 4 - (segment | 1).leading_zeros() / 4;
        for digit in (0..digits).rev() {
            self.push_short(&[HEX[usize::from(segment >> (4 * digit) & 15)]]);
        }
    }
}

/// The first of the longest runs of zeros.
fn longest_zeros(segments: [u16; 8]) -> Range<usize> {
    let (mut longest, mut run) = (0..0, 0..0);
    for (at, segment) in segments.into_iter().enumerate() {
        run = if segment != 0 {
            at + 1..at + 1
        } else {
            run.start..at + 1
        };
        if run.len() > longest.len() {
            longest = run.clone();
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_addresses_are_written_as_the_standard_library_does() {
        for text in ["0.0.0.0", "10.1.22.255", "255.255.255.255"] {
            let parsed: IpAddr = text.parse().unwrap();
            assert_eq!(address(parsed).as_str(), parsed.to_string());
        }
    }

    #[test]
    fn ipv6_addresses_are_written_as_the_standard_library_does() {
        // Every pattern of zeros; segments of each length.
        for pattern in 0..=u8::MAX {
            for value in [1, 0xf, 0x10, 0xabc, 0xffff] {
                let segments: [u16; 8] =
                    std::array::from_fn(|at| if pattern >> at & 1 == 1 { value } else { 0 });
                let expected = IpAddr::from(segments);
                assert_eq!(address(expected).as_str(), expected.to_string());
            }
        }
        let mapped: IpAddr = "::ffff:255.255.255.255".parse().unwrap();
        assert_eq!(address(mapped).as_str(), mapped.to_string());
    }
}
