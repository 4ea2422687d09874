//! The attributes of one message, or of one nested attribute. Pure.
//!
//! Invariants: never panics; the nested and byte-order flags are masked from the type; a length that does not fit ends the
//! iteration with an error.

use netlink_packet_core::{NLA_HEADER_SIZE, NLA_TYPE_MASK, NlaBuffer};

/// One `struct nlattr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr<'a> {
    /// `nla_type` without flags.
    pub kind: u16,
    /// Value without padding.
    pub value: &'a [u8],
}

/// An attribute length that contradicts the message; the attributes after it are unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength;

/// Iterator over attributes.
#[derive(Clone, Debug)]
pub struct Attrs<'a> {
    rest: &'a [u8],
}

impl<'a> Attrs<'a> {
    /// Reads a run of attributes.
    #[must_use]
    pub const fn new(attributes: &'a [u8]) -> Self {
        Self { rest: attributes }
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Result<Attr<'a>, BadLength>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((attr, rest)) = split(self.rest) else {
            self.rest = &[];
            return Some(Err(BadLength));
        };
        self.rest = rest;
        Some(Ok(attr))
    }
}

#[inline]
fn split(attributes: &[u8]) -> Option<(Attr<'_>, &[u8])> {
    let header = NlaBuffer::new(attributes.first_chunk::<NLA_HEADER_SIZE>()?);
    let length = usize::from(header.length());
    let value = attributes.get(NLA_HEADER_SIZE..length)?;
    let next = length.next_multiple_of(4).min(attributes.len());
    let kind = header.kind() & NLA_TYPE_MASK;
    Some((Attr { kind, value }, &attributes[next..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn attributes_are_split_at_four_bytes_and_lose_their_flags() {
        let bytes = [
            5, 0, 1, 0x80, 0xaa, 0, 0, 0, // type 1, nested flag, one byte and padding
            4, 0, 2, 0x40, // type 2, byte-order flag, empty
            6, 0, 3, 0, 1, 2, // type 3, last one without padding
        ];
        let attrs: Vec<_> = Attrs::new(&bytes).collect();
        assert_eq!(
            attrs,
            [
                Ok(Attr {
                    kind: 1,
                    value: &[0xaa]
                }),
                Ok(Attr { kind: 2, value: &[] }),
                Ok(Attr {
                    kind: 3,
                    value: &[1, 2]
                }),
            ]
        );
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_bad_length_ends_the_attributes() {
        for bytes in [
            &[3, 0, 1, 0][..],
            &[0, 0, 1, 0],
            &[9, 0, 1, 0, 1, 2, 3, 4],
            &[5, 0],
        ] {
            let attrs: Vec<_> = Attrs::new(bytes).collect();
            assert_eq!(attrs, [Err(BadLength)], "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(Attrs::new(&bytes).count() <= bytes.len() / NLA_HEADER_SIZE + 1);
        }
    }
}
