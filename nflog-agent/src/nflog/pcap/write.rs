//! Writing capture files. Pure but for the writer below.
//!
//! Invariants: a record goes to the writer below in one `write_all`, so that a reader of a pipe sees whole records; after an error
//! nothing more is written.

use std::io::Write;
use std::time::{Duration, SystemTime};

use super::super::entry::Entry;
use super::error::WriteError;
use super::read::Record;
use super::{LINKTYPE_NFLOG, SNAPLEN_MAX};

/// Fraction of a second in the times of a pcap file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Microseconds (magic 0xa1b2c3d4): every tool reads it, and the kernel's timestamps have no more.
    Micros,
    /// Nanoseconds (magic 0xa1b23c4d): the default, because it keeps the time of receipt in full. Read by libpcap since
    /// 1.5 (2013), hence tcpdump, and by Wireshark.
    #[default]
    Nanos,
}

/// Writes a pcap file of link type NFLOG, in this machine's byte order.
///
/// Every record is one write to `W`: put a [`std::io::BufWriter`] between a file and this.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    precision: Precision,
    snaplen: usize,
    record: Vec<u8>,
    ended: bool,
}

impl<W: Write> Writer<W> {
    /// Writes the file's header, for nanoseconds and whole records.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub fn new(out: W) -> Result<Self, WriteError> {
        Self::with_options(out, Precision::default(), SNAPLEN_MAX)
    }

    /// Writes the file's header. Of each message at most `snaplen` bytes are kept, up to [`SNAPLEN_MAX`]; what is cut off is
    /// lost to readers, from the attribute on that is cut. The payload comes last.
    ///
    /// # Errors
    /// [`WriteError::Snaplen`] and [`WriteError::Io`].
    pub fn with_options(mut out: W, precision: Precision, snaplen: u32) -> Result<Self, WriteError> {
        let in_range = (1..=SNAPLEN_MAX).contains(&snaplen).then_some(snaplen);
        let length = in_range
            .and_then(|value| usize::try_from(value).ok())
            .ok_or(WriteError::Snaplen { value: snaplen })?;
        let magic: u32 = match precision {
            Precision::Micros => 0xa1b2_c3d4,
            Precision::Nanos => 0xa1b2_3c4d,
        };
        let mut header = Vec::with_capacity(24);
        header.extend(magic.to_ne_bytes());
        header.extend(2_u16.to_ne_bytes());
        header.extend(4_u16.to_ne_bytes());
        // Time zone and accuracy, which nobody uses.
        header.extend([0; 8]);
        header.extend(snaplen.to_ne_bytes());
        header.extend(LINKTYPE_NFLOG.to_ne_bytes());
        out.write_all(&header)?;
        Ok(Self {
            out,
            precision,
            snaplen: length,
            record: header,
            ended: false,
        })
    }

    /// Writes an entry as the kernel sent it. Its time is the kernel's timestamp if it has one, else `received`: packets that
    /// this host sends have none, so that they seem later than they were by the time that the kernel kept them.
    ///
    /// # Errors
    /// [`WriteError`]; after [`WriteError::Io`] the file ends here.
    pub fn write(&mut self, entry: &Entry<'_>, received: SystemTime) -> Result<(), WriteError> {
        let timestamp =
            match entry.timestamp() {
                Some(timestamp) => timestamp,
                None => received.duration_since(SystemTime::UNIX_EPOCH).map_err(|error| {
                    WriteError::BeforeEpoch {
                        before: error.duration(),
                    }
                })?,
            };
        self.put(timestamp, entry.as_bytes(), 0)
    }

    /// Writes a record of another capture with its time and original length.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_record(&mut self, record: &Record<'_>) -> Result<(), WriteError> {
        self.put(record.timestamp, record.entry.as_bytes(), record.original_length)
    }

    /// Flushes the writer below.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub fn flush(&mut self) -> Result<(), WriteError> {
        Ok(self.out.flush()?)
    }

    /// The writer below, flushed.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub fn into_inner(mut self) -> Result<W, WriteError> {
        self.flush()?;
        Ok(self.out)
    }

    fn put(&mut self, timestamp: Duration, body: &[u8], original: u32) -> Result<(), WriteError> {
        if self.ended {
            return Err(WriteError::Ended);
        }
        let seconds = u32::try_from(timestamp.as_secs()).map_err(|_| WriteError::Time { timestamp })?;
        let fraction = match self.precision {
            Precision::Micros => timestamp.subsec_micros(),
            Precision::Nanos => timestamp.subsec_nanos(),
        };
        // A whole message is padded, as the link type wants its attributes, even if its last attribute was not.
        let cut_before = u32_of(body.len()) < original;
        let padding = if cut_before {
            0
        } else {
            body.len().next_multiple_of(4) - body.len()
        };
        let whole = u32_of(body.len() + padding).max(original);
        let kept = self.snaplen.min(body.len() + padding);
        self.record.clear();
        for field in [seconds, fraction, u32_of(kept), whole] {
            self.record.extend(field.to_ne_bytes());
        }
        self.record.extend(body);
        self.record.extend_from_slice(&[0; 3][..padding]);
        self.record.truncate(16 + kept);
        let written = self.out.write_all(&self.record);
        self.ended = written.is_err();
        Ok(written?)
    }
}

/// A length in a record's header; messages are far shorter than 4 GiB.
fn u32_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
