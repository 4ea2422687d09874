//! Target `frames`: a datagram as it comes from the socket, split into messages; each packet goes on to target `entry`.

use nflog_agent::nflog::{Frame, Frames};

/// Bytes of a `struct nlmsghdr`.
const HEADER: usize = 16;

/// Walks the messages of a datagram.
///
/// # Panics
/// If the walk leaves the datagram, does not advance, or goes on after a bad length.
pub fn frames(datagram: &[u8]) {
    let start = datagram.as_ptr().addr();
    // Where the next message's body may start.
    let mut earliest = HEADER;
    let mut frames = Frames::new(datagram);
    let mut count = 0;
    while let Some(frame) = frames.next() {
        count += 1;
        match frame {
            Frame::Packet(body) => {
                let offset = body.as_ptr().addr() - start;
                assert!(offset >= earliest, "{offset} is in the message before");
                assert!(offset + body.len() <= datagram.len());
                earliest = offset + body.len() + HEADER;
                crate::entry(body);
            }
            Frame::Malformed { unread } => {
                assert!(unread <= datagram.len());
                // Fewer bytes than an errno has can be an answer's, after which the next message is found.
                assert!(
                    unread < 4 || frames.clone().next().is_none(),
                    "{frame:?} is not the last"
                );
            }
            _ => {}
        }
    }
    assert!(count <= datagram.len() / HEADER + 1, "{count} messages");
}
