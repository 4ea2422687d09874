//! What a segment file holds: a head, and one frame for each batch. All numbers little-endian.
//!
//! ```text
//! segment: "nflog-agent spool 1\n" then frames
//! frame:   mark u32 | length u32 | records u32 | loss records u32 | before u64 | written u64 | body crc u32 | head crc u32 | body
//! ```
//! `before` is how many packet records were ever spooled in this directory before the frame: like a sequence number it tells
//! how many were in frames that cannot be read. `written` is in seconds since the Unix epoch. Checksums are CRC-32 (IEEE).
//!
//! Bytes that are no frame are passed over up to the next frame: what follows a broken one is still there.

use std::ops::Range;

/// First bytes of a segment.
pub(super) const SEGMENT_HEAD: &[u8] = b"nflog-agent spool 1\n";
/// Bytes of a frame before its body.
pub(super) const FRAME_HEAD: usize = 40;
/// Longest body. A batch is about 1 MB; anything much longer is a broken length.
pub(super) const BODY_MAX: usize = 64 << 20;
const MARK: [u8; 4] = *b"\xf7NFB";

/// The records of one batch, without the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Packets.
    pub(super) records: u32,
    /// Reports of losses.
    pub(super) reports: u32,
}

/// A frame, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) counts: Counts,
    pub(super) before: u64,
    pub(super) written: u64,
    /// Where its body is in the segment.
    pub(super) body: Range<usize>,
}

impl Frame {
    /// Packet records up to and with this frame.
    pub(super) fn after(&self) -> u64 {
        self.before.saturating_add(self.counts.records.into())
    }
}

/// Appends a frame to `output`. The body is at most [`BODY_MAX`] long.
pub(super) fn encode(body: &[u8], counts: Counts, before: u64, written: u64, output: &mut Vec<u8>) {
    let start = output.len();
    output.extend(MARK);
    output.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    output.extend(counts.records.to_le_bytes());
    output.extend(counts.reports.to_le_bytes());
    output.extend(before.to_le_bytes());
    output.extend(written.to_le_bytes());
    output.extend(crc32fast::hash(body).to_le_bytes());
    let head = crc32fast::hash(&output[start..]);
    output.extend(head.to_le_bytes());
    output.extend(body);
}

/// The frames of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Those whose bodies are whole, in order.
    pub(super) frames: Vec<Frame>,
    /// Bytes that are no whole frame.
    pub(super) broken: usize,
    /// Packet records up to and with the last frame whose head could be read, broken body or not.
    pub(super) after: Option<u64>,
    /// `before` of the first such frame.
    pub(super) before: Option<u64>,
}

/// Reads a segment as far as it can be read.
pub(super) fn scan(segment: &[u8]) -> Scan {
    let mut scan = Scan::default();
    let mut at = if segment.starts_with(SEGMENT_HEAD) {
        SEGMENT_HEAD.len()
    } else {
        0
    };
    while at < segment.len() {
        let Some(frame) = head(segment, at) else {
            let next = next_mark(segment, at + 1);
            scan.broken += next - at;
            at = next;
            continue;
        };
        scan.before.get_or_insert(frame.before);
        scan.after = Some(frame.after());
        // The head is whole, so its length is right: what is inside a broken body is not looked at.
        let end = frame.body.end.min(segment.len());
        let whole = segment
            .get(frame.body.clone())
            .is_some_and(|body| crc32fast::hash(body).to_le_bytes() == segment[at + 32..at + 36]);
        if whole {
            scan.frames.push(frame);
        } else {
            scan.broken += end - at;
        }
        at = end;
    }
    scan
}

/// The frame whose head is at `at`; `None` if there is none, or a broken one.
fn head(segment: &[u8], at: usize) -> Option<Frame> {
    let head: &[u8; FRAME_HEAD] = segment.get(at..at + FRAME_HEAD)?.try_into().ok()?;
    if head[..4] != MARK || crc32fast::hash(&head[..36]).to_le_bytes() != head[36..] {
        return None;
    }
    let u32_at = |at: usize| {
        let [a, b, c, d] = [head[at], head[at + 1], head[at + 2], head[at + 3]];
        u32::from_le_bytes([a, b, c, d])
    };
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let length = usize::try_from(u32_at(4))
        .ok()
        .filter(|length| *length <= BODY_MAX)?;
    let start = at + FRAME_HEAD;
    Some(Frame {
        counts: Counts {
            records: u32_at(8),
            reports: u32_at(12),
        },
        before: u64_at(16),
        written: u64_at(24),
        body: start..start + length,
    })
}

/// Where the next frame may begin, or the end.
fn next_mark(segment: &[u8], from: usize) -> usize {
    let from = from.min(segment.len());
    segment[from..]
        .windows(MARK.len())
        .position(|bytes| bytes == MARK)
        .map_or(segment.len(), |found| from + found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(records: u32) -> Counts {
        Counts { records, reports: 1 }
    }

    /// A segment of these bodies, each with as many records as its place.
    fn segment(bodies: &[&[u8]]) -> Vec<u8> {
        let mut bytes = SEGMENT_HEAD.to_vec();
        let mut before = 0;
        for (at, body) in bodies.iter().enumerate() {
            let counts = counts(u32::try_from(at).unwrap());
            encode(body, counts, before, 77, &mut bytes);
            before += u64::from(counts.records);
        }
        bytes
    }

    fn bodies<'a>(segment: &'a [u8], scan: &Scan) -> Vec<&'a [u8]> {
        scan.frames
            .iter()
            .map(|frame| &segment[frame.body.clone()])
            .collect()
    }

    #[test]
    fn frames_come_back_as_they_were_written() {
        let bytes = segment(&[b"one", b"", b"three"]);
        let scan = scan(&bytes);
        assert_eq!(bodies(&bytes, &scan), [&b"one"[..], b"", b"three"]);
        assert_eq!((scan.broken, scan.before, scan.after), (0, Some(0), Some(3)));
        assert_eq!(scan.frames[2].counts, counts(2));
        assert_eq!((scan.frames[2].before, scan.frames[2].written), (1, 77));
    }

    #[test]
    fn a_torn_tail_costs_the_frame_that_it_tears() {
        let bytes = segment(&[b"one", b"two"]);
        for length in 0..bytes.len() {
            let scan = scan(&bytes[..length]);
            let whole = segment(&[b"one"]).len();
            let expected = usize::from(length >= whole);
            assert_eq!(scan.frames.len(), expected, "cut to {length} bytes");
        }
    }

    #[test]
    fn a_flipped_bit_costs_the_frame_that_it_is_in_and_no_other() {
        let bytes = segment(&[b"one", b"two", b"three"]);
        for at in SEGMENT_HEAD.len()..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let scan = scan(&bytes);
                assert_eq!(scan.frames.len(), 2, "byte {at} bit {bit}");
                assert!(scan.broken > 0);
            }
        }
    }

    #[test]
    fn a_broken_head_of_the_segment_costs_no_frame() {
        let mut bytes = segment(&[b"one", b"two"]);
        bytes[3] ^= 1;
        assert_eq!(scan(&bytes).frames.len(), 2);
    }

    #[test]
    fn a_length_beyond_the_end_is_no_frame() {
        let mut bytes = segment(&[b"one"]);
        bytes.pop();
        let scan = scan(&bytes);
        assert_eq!((scan.frames.len(), scan.after), (0, Some(0)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_the_end(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let scan = scan(&bytes);
            prop_assert!(scan.broken <= bytes.len());
            for frame in &scan.frames {
                prop_assert!(frame.body.end <= bytes.len());
            }
        }

        #[test]
        fn bodies_may_have_any_bytes(
            written in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..6),
        ) {
            let bytes = segment(&written.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let scan = scan(&bytes);
            prop_assert_eq!(bodies(&bytes, &scan), written);
            prop_assert_eq!(scan.broken, 0);
        }
    }
}
