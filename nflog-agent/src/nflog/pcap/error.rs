//! Errors of capture files. Each names the thing, the value and the remedy.

use std::io;
use std::time::Duration;

use super::{LINKTYPE_NFLOG, SNAPLEN_MAX};

/// A record that could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The file, pipe or socket below.
    #[error("cannot write the capture: {source}")]
    Io {
        /// Cause.
        #[from]
        source: io::Error,
    },
    /// After [`WriteError::Io`] the last record may be there in part, and nothing can follow it.
    #[error("the capture ended with an earlier error: begin another")]
    Ended,
    /// Records would be empty, or longer than readers accept.
    #[error("snapshot length {value} is not in 1..={SNAPLEN_MAX} bytes")]
    Snaplen {
        /// Bytes asked for.
        value: u32,
    },
    /// The format has 32 bits of seconds.
    #[error("time {timestamp:?} since the Unix epoch does not fit a pcap file, which ends in 2106")]
    Time {
        /// The time.
        timestamp: Duration,
    },
    /// The format counts from the epoch on.
    #[error("the clock is {before:?} before the Unix epoch: set it")]
    BeforeEpoch {
        /// How long before.
        before: Duration,
    },
}

/// A file that is not a capture of NFLOG messages, or not in all its parts. `offset` is the first byte of what is meant.
///
/// After [`LinkType`](Self::LinkType) of a pcapng packet, [`NotAnEntry`](Self::NotAnEntry) and
/// [`PacketBlock`](Self::PacketBlock) the reader goes on with the next record; every other error ends the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file or pipe below.
    #[error("cannot read the capture: {source}")]
    Io {
        /// Cause.
        #[from]
        source: io::Error,
    },
    /// Neither pcap nor pcapng.
    #[error("not a capture file: it begins with {magic:02x?}, which is neither pcap nor pcapng")]
    Format {
        /// First bytes.
        magic: [u8; 4],
    },
    /// The file was cut, or is still being written.
    #[error("the capture ends inside what begins at byte {offset}: everything before it was read")]
    Truncated {
        /// Where the part begins.
        offset: u64,
    },
    /// A format that was never in use, or is newer than this reader.
    #[error("pcap version {major}.{minor} is not 2.4: convert the file with `editcap -F pcap`")]
    Version {
        /// Major number.
        major: u16,
        /// Minor number.
        minor: u16,
    },
    /// Packets of another kind.
    #[error(
        "link type {link_type} at byte {offset} is not {LINKTYPE_NFLOG} (NFLOG): capture with `tcpdump -i nflog:GROUP`"
    )]
    LinkType {
        /// Where it stands: the file's header, or the packet.
        offset: u64,
        /// The link type.
        link_type: u32,
    },
    /// No such message exists; the file is damaged.
    #[error("the record at byte {offset} claims {length} bytes, more than {max}: the file is damaged")]
    TooLong {
        /// Where the record begins.
        offset: u64,
        /// Bytes that it claims.
        length: u32,
        /// Most that is read.
        max: u32,
    },
    /// A block whose lengths contradict each other.
    #[error("the pcapng block at byte {offset} contradicts itself: the file is damaged")]
    Block {
        /// Where the block begins.
        offset: u64,
    },
    /// A packet of an interface that was not described.
    #[error(
        "the packet at byte {offset} is of interface {interface}, which the file does not describe: it is damaged"
    )]
    Interface {
        /// Where the packet begins.
        offset: u64,
        /// The interface's number in its section.
        interface: u32,
    },
    /// More interfaces than are kept.
    #[error("the pcapng section has more than {max} interfaces at byte {offset}: split it with `editcap`")]
    Interfaces {
        /// Where the first one too many is described.
        offset: u64,
        /// Most that are kept.
        max: usize,
    },
    /// Packets without a time or of an obsolete form.
    #[error(
        "the pcapng packet at byte {offset} is in a block of type {kind}, which is not read: convert the file with `editcap`"
    )]
    PacketBlock {
        /// Where the block begins.
        offset: u64,
        /// 2 (obsolete packet block) or 3 (simple packet block).
        kind: u32,
    },
    /// Shorter than a `struct nfgenmsg`.
    #[error(
        "the record at byte {offset} has {length} bytes, which is no NFLOG message: at least 4 are needed"
    )]
    NotAnEntry {
        /// Where the record begins.
        offset: u64,
        /// Bytes in the file.
        length: usize,
    },
}
