//! The pcap format: a header, then records.

use std::io::Read;
use std::time::Duration;

use pcap_parser::{parse_pcap_frame, parse_pcap_frame_be, parse_pcap_header};

use super::error::ReadError;
use super::read::Found;
use super::source::Source;
use super::{LINKTYPE_NFLOG, SNAPLEN_MAX};

const HEADER: u32 = 24;
const RECORD_HEADER: u32 = 16;
/// The link type in the field that also says whether there are frame check sequences.
const LINKTYPE_MASK: u32 = 0x03ff_ffff;

/// What the header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Classic {
    big_endian: bool,
    nanos: bool,
}

impl Classic {
    /// Reads the header, of which the magic number was read; `None` if it is not one.
    pub(super) fn open<R: Read>(source: &mut Source<R>) -> Result<Option<Self>, ReadError> {
        let magic = source.part().first_chunk().copied().map(u32::from_le_bytes);
        if !matches!(magic, Some(0xa1b2_c3d4 | 0xa1b2_3c4d | 0xd4c3_b2a1 | 0x4d3c_b2a1)) {
            return Ok(None);
        }
        source.extend(HEADER - 4)?;
        let Ok((_, header)) = parse_pcap_header(source.part()) else {
            return Ok(None);
        };
        if (header.version_major, header.version_minor) != (2, 4) {
            return Err(ReadError::Version {
                major: header.version_major,
                minor: header.version_minor,
            });
        }
        let link_type = header.network.0.cast_unsigned() & LINKTYPE_MASK;
        if link_type != LINKTYPE_NFLOG {
            return Err(ReadError::LinkType {
                offset: source.offset(),
                link_type,
            });
        }
        Ok(Some(Self {
            big_endian: header.is_bigendian(),
            nanos: header.is_nanosecond_precision(),
        }))
    }

    /// Reads the next record; its message goes into `body`.
    pub(super) fn next<R: Read>(
        self,
        source: &mut Source<R>,
        body: &mut Vec<u8>,
    ) -> Result<Option<Found>, ReadError> {
        if !source.begin(RECORD_HEADER)? {
            return Ok(None);
        }
        let length = self.u32(source.part(), 8);
        if length > SNAPLEN_MAX {
            return Err(ReadError::TooLong {
                offset: source.offset(),
                length,
                max: SNAPLEN_MAX,
            });
        }
        source.extend(length)?;
        let parse = if self.big_endian {
            parse_pcap_frame_be
        } else {
            parse_pcap_frame
        };
        let Ok((_, frame)) = parse(source.part()) else {
            return Err(ReadError::Truncated {
                offset: source.offset(),
            });
        };
        body.extend(frame.data);
        let fraction = u64::from(frame.ts_usec);
        let fraction = if self.nanos {
            Duration::from_nanos(fraction)
        } else {
            Duration::from_micros(fraction)
        };
        Ok(Some(Found {
            timestamp: Duration::from_secs(frame.ts_sec.into()) + fraction,
            original_length: frame.origlen,
            big_endian: self.big_endian,
        }))
    }

    /// A number of a record's header, which pcap-parser reads only with the record.
    fn u32(self, header: &[u8], at: usize) -> u32 {
        let bytes = header.get(at..).and_then(<[u8]>::first_chunk).copied();
        let convert = if self.big_endian {
            u32::from_be_bytes
        } else {
            u32::from_le_bytes
        };
        bytes.map_or(0, convert)
    }
}
