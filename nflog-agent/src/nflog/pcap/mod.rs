//! Capture files of link type NFLOG, which tcpdump and Wireshark open: writing them, and reading pcap and pcapng.
//!
//! A record holds the message that the kernel sent: `struct nfgenmsg` and attributes, padded to 4 bytes, the 16-bit lengths and
//! types in the byte order of the file. See <https://www.tcpdump.org/linktypes/LINKTYPE_NFLOG.html>.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//!
//! use nflog_agent::nflog::pcap::{Reader, Writer};
//! use nflog_agent::nflog::{Entry, EntryBuf, Family};
//!
//! let body = EntryBuf { prefix: b"drop".to_vec(), ..EntryBuf::new(Family::Inet, 5) }.encode()?;
//! let mut file = Vec::new();
//! let mut writer = Writer::new(&mut file)?;
//! if let Some(entry) = Entry::decode(&body) {
//!     writer.write(&entry, SystemTime::now())?;
//! }
//! writer.flush()?;
//!
//! let mut reader = Reader::new(&file[..])?;
//! while let Some(record) = reader.next_entry()? {
//!     println!("{:?} {}", record.timestamp, record.entry.prefix_lossy());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Layout
//! `write` puts records into a file. `read` takes them out: `source` reads bytes with a bound, `classic` and `blocks` know the
//! two formats, `byte_order` turns the messages of a machine of the other byte order. Blocks and headers are parsed by the
//! crate pcap-parser.

mod blocks;
mod byte_order;
mod classic;
mod error;
mod read;
mod source;
mod write;

pub use error::{ReadError, WriteError};
pub use read::{Reader, Record};
pub use write::{Precision, Writer};

/// Link type of NFLOG messages.
pub const LINKTYPE_NFLOG: u32 = 239;

/// Longest record in bytes, as in libpcap and Wireshark. No message is longer: an attribute has at most 65,535 bytes, and only
/// the payload comes near that.
pub const SNAPLEN_MAX: u32 = 262_144;
