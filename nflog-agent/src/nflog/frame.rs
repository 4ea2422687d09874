//! The messages of one datagram. Pure.
//!
//! Invariants: never panics; a message length that does not fit ends the datagram with [`Frame::Malformed`], because
//! where the next message starts is then unknown.

use netlink_packet_core::{NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};

use super::uapi::MSG_PACKET;

/// Bytes of a `struct nlmsghdr`.
const HEADER: usize = 16;

/// One netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame<'a> {
    /// A logged packet: `struct nfgenmsg` and attributes, for [`Entry::decode`](super::Entry::decode).
    Packet(&'a [u8]),
    /// Answer to a request (`NLMSG_ERROR`); 0 is success, else an errno.
    Answer {
        /// Sequence number of the request.
        sequence: u32,
        /// Positive errno, or 0.
        errno: i32,
    },
    /// End of a batch (`NLMSG_DONE`). NFLOG puts an nfgenmsg where other subsystems put an errno: it means nothing.
    Done,
    /// Another message type.
    Other {
        /// `nlmsg_type`.
        kind: u16,
    },
    /// A length that contradicts the datagram, which ends it, or an answer too short for its errno, which does not.
    Malformed {
        /// Bytes of the datagram that could not be read.
        unread: usize,
    },
}

/// Iterator over the messages of a datagram.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Reads a datagram as received from the socket.
    #[must_use]
    pub const fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((header, body, rest)) = split(self.rest) else {
            let unread = self.rest.len();
            self.rest = &[];
            return Some(Frame::Malformed { unread });
        };
        self.rest = rest;
        Some(match header.message_type() {
            MSG_PACKET => Frame::Packet(body),
            NLMSG_DONE => Frame::Done,
            NLMSG_ERROR => match body.first_chunk() {
                Some(&code) => Frame::Answer {
                    sequence: header.sequence_number(),
                    errno: i32::from_ne_bytes(code).saturating_neg(),
                },
                None => Frame::Malformed { unread: body.len() },
            },
            kind => Frame::Other { kind },
        })
    }
}

type Header<'a> = NetlinkBuffer<&'a [u8]>;

/// The first message's header and body, and what follows it.
fn split(datagram: &[u8]) -> Option<(Header<'_>, &[u8], &[u8])> {
    let header = NetlinkBuffer::new(datagram.get(..HEADER)?);
    let length = usize::try_from(header.length()).ok()?;
    let body = datagram.get(HEADER..length)?;
    // The last message need not be padded.
    let next = length.next_multiple_of(4).min(datagram.len());
    Some((header, body, &datagram[next..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = Vec::new();
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_batch_is_its_packets_and_the_end_mark_whose_body_means_nothing() {
        let mut datagram = message(0x0400, 0, &[2, 0, 0, 5]);
        datagram.extend(message(0x0400, 0, &[10, 0, 0, 5, 9]));
        // nfgenmsg of group 5; as an errno it would be 83886080.
        datagram.extend(message(NLMSG_DONE, 0, &[0, 0, 0, 5]));
        let frames: Vec<_> = Frames::new(&datagram).collect();
        assert_eq!(
            frames,
            [
                Frame::Packet(&[2, 0, 0, 5]),
                Frame::Packet(&[10, 0, 0, 5, 9]),
                Frame::Done
            ]
        );
    }

    #[test]
    fn an_answer_carries_its_sequence_number_and_errno() {
        let mut datagram = message(NLMSG_ERROR, 7, &(-1_i32).to_ne_bytes());
        datagram.extend(message(NLMSG_ERROR, 8, &[0; 4]));
        datagram.extend(message(NLMSG_ERROR, 9, &[0; 3]));
        let frames: Vec<_> = Frames::new(&datagram).collect();
        assert_eq!(
            frames,
            [
                Frame::Answer {
                    sequence: 7,
                    errno: 1
                },
                Frame::Answer {
                    sequence: 8,
                    errno: 0
                },
                Frame::Malformed { unread: 3 },
            ]
        );
    }

    #[test]
    fn a_bad_length_ends_the_datagram_after_what_was_good() {
        for length in [0_u32, 15, 1000, u32::MAX] {
            let mut datagram = message(0x0400, 0, &[2, 0, 0, 5]);
            let mut bad = message(0x0400, 0, &[2, 0, 0, 5]);
            bad[..4].copy_from_slice(&length.to_ne_bytes());
            datagram.extend(bad);
            let frames: Vec<_> = Frames::new(&datagram).collect();
            assert_eq!(
                frames,
                [Frame::Packet(&[2, 0, 0, 5]), Frame::Malformed { unread: 20 }],
                "length {length}"
            );
        }
    }

    #[test]
    fn a_tail_shorter_than_a_header_is_malformed() {
        let mut datagram = message(0x0999, 0, &[]);
        datagram.extend([1, 2, 3]);
        let frames: Vec<_> = Frames::new(&datagram).collect();
        assert_eq!(
            frames,
            [Frame::Other { kind: 0x0999 }, Frame::Malformed { unread: 3 }]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_end_after_at_most_one_frame_per_header(datagram in prop::collection::vec(any::<u8>(), 0..512)) {
            let count = Frames::new(&datagram).count();
            prop_assert!(count <= datagram.len() / HEADER + 1);
        }

        #[test]
        fn short_lengths_never_loop(mut datagram in prop::collection::vec(0_u8..40, 0..512)) {
            // Small numbers as lengths, so that many messages are found.
            for word in datagram.chunks_mut(4).filter(|word| word.len() == 4) {
                word[1..].fill(0);
            }
            let count = Frames::new(&datagram).count();
            prop_assert!(count <= datagram.len() / HEADER + 1);
        }
    }
}
