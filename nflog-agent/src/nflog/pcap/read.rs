//! Reading capture files: pcap and pcapng, of either byte order.
//!
//! Invariants: at most one record is in memory; a file that ends inside a record gives every record before it; no bytes panic;
//! the reader comes to an end on any file that does.

use std::io::Read;
use std::time::Duration;

use super::super::entry::Entry;
use super::blocks::Section;
use super::byte_order;
use super::classic::Classic;
use super::error::ReadError;
use super::source::Source;

/// One record of a capture file.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Record<'a> {
    /// When the packet was seen, since the Unix epoch, by who wrote the file. tcpdump writes when it read the packet; our
    /// [`Writer`](super::Writer) the kernel's timestamp if there is one.
    pub timestamp: Duration,
    /// The entry, in this machine's byte order.
    pub entry: Entry<'a>,
    /// Bytes of the message before the file's snapshot length cut it.
    pub original_length: u32,
}

impl Record<'_> {
    /// Whether the message was cut to the file's snapshot length (`incl_len` < `orig_len`). The attribute that was cut is
    /// missing, and so are those after it.
    #[must_use]
    pub fn truncated(&self) -> bool {
        usize::try_from(self.original_length).is_ok_and(|length| length > self.entry.as_bytes().len())
    }
}

/// Reads a capture file of link type NFLOG: pcap of microseconds or nanoseconds, or pcapng.
///
/// It buffers what it reads. It is no [`Iterator`], because a record borrows the reader.
#[derive(Debug)]
pub struct Reader<R> {
    source: Source<R>,
    format: Format,
    body: Vec<u8>,
    ended: bool,
}

#[derive(Debug)]
enum Format {
    Classic(Classic),
    Blocks(Section),
}

/// What a record says beside its message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) timestamp: Duration,
    pub(super) original_length: u32,
    pub(super) big_endian: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the file's header.
    ///
    /// # Errors
    /// [`ReadError`] if it is no capture file, or a pcap file of another link type. A pcapng file says link types later.
    pub fn new(input: R) -> Result<Self, ReadError> {
        let mut source = Source::new(input);
        if !source.begin(4)? {
            return Err(ReadError::Truncated { offset: 0 });
        }
        let magic = source.part().first_chunk().copied().unwrap_or_default();
        let format = if let Some(classic) = Classic::open(&mut source)? {
            Format::Classic(classic)
        } else if let Some(section) = Section::open(&mut source)? {
            Format::Blocks(section)
        } else {
            return Err(ReadError::Format { magic });
        };
        Ok(Self {
            source,
            format,
            body: Vec::new(),
            ended: false,
        })
    }

    /// The next record; `None` at the end of the file, and after an error that ends it.
    ///
    /// # Errors
    /// [`ReadError`], which says for each error whether records can follow.
    pub fn next_entry(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        self.body.clear();
        let found = match &mut self.format {
            Format::Classic(classic) => classic.next(&mut self.source, &mut self.body),
            Format::Blocks(section) => section.next(&mut self.source, &mut self.body),
        };
        self.ended = match &found {
            Ok(found) => found.is_none(),
            Err(error) => !matches!(error, ReadError::LinkType { .. } | ReadError::PacketBlock { .. }),
        };
        let Some(found) = found? else {
            return Ok(None);
        };
        if found.big_endian != cfg!(target_endian = "big") {
            byte_order::turn(&mut self.body);
        }
        let entry = Entry::decode(&self.body).ok_or_else(|| ReadError::NotAnEntry {
            offset: self.source.offset(),
            length: self.body.len(),
        })?;
        Ok(Some(Record {
            timestamp: found.timestamp,
            entry,
            original_length: found.original_length,
        }))
    }
}
