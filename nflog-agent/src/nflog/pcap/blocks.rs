//! The pcapng format: sections of blocks, some of which are packets.
//!
//! Invariants: packets are never passed over silently; blocks that are not packets are passed over without being kept.

use std::io::Read;
use std::time::Duration;

use pcap_parser::traits::PcapNGPacketBlock as _;
use pcap_parser::{
    EPB_MAGIC, EnhancedPacketBlock, IDB_MAGIC, InterfaceDescriptionBlock, SHB_MAGIC, SPB_MAGIC,
    parse_enhancedpacketblock_be, parse_enhancedpacketblock_le, parse_interfacedescriptionblock_be,
    parse_interfacedescriptionblock_le,
};

use super::error::ReadError;
use super::read::Found;
use super::source::Source;
use super::{LINKTYPE_NFLOG, SNAPLEN_MAX};

/// Obsolete packet block.
const PACKET_BLOCK: u32 = 2;
/// Byte-order magic of a section header.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Longest block that is kept: a record and options that describe it.
const BLOCK_MAX: u32 = 2 * SNAPLEN_MAX;
/// Most interfaces of a section.
const INTERFACES_MAX: usize = 4096;
/// Type, length, and length again.
const FRAME: u32 = 12;

/// The current section.
#[derive(Debug, Default)]
pub(super) struct Section {
    big_endian: bool,
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: u32,
    resolution: u8,
    /// Seconds to add to every time.
    offset: i64,
}

impl Section {
    /// Begins at a section header, of which the type was read; `None` if it is not one.
    pub(super) fn open<R: Read>(source: &mut Source<R>) -> Result<Option<Self>, ReadError> {
        // The type of section headers reads the same in both byte orders.
        if source.part() != SHB_MAGIC.to_le_bytes() {
            return Ok(None);
        }
        source.extend(4)?;
        let mut section = Self::default();
        section.begin(source)?;
        Ok(Some(section))
    }

    /// Reads on to the next packet; its message goes into `body`.
    pub(super) fn next<R: Read>(
        &mut self,
        source: &mut Source<R>,
        body: &mut Vec<u8>,
    ) -> Result<Option<Found>, ReadError> {
        while source.begin(8)? {
            let offset = source.offset();
            let kind = self.u32(source.part(), 0);
            match kind {
                SHB_MAGIC => self.begin(source)?,
                IDB_MAGIC => self.describe(source)?,
                EPB_MAGIC => return self.packet(source, body).map(Some),
                SPB_MAGIC | PACKET_BLOCK => {
                    self.pass(source)?;
                    return Err(ReadError::PacketBlock { offset, kind });
                }
                _ => self.pass(source)?,
            }
        }
        Ok(None)
    }

    /// A section header, of which type and length were read. Only its byte order matters here.
    fn begin<R: Read>(&mut self, source: &mut Source<R>) -> Result<(), ReadError> {
        source.extend(4)?;
        let magic = source.part().get(8..).and_then(<[u8]>::first_chunk).copied();
        self.big_endian = match magic.map(u32::from_le_bytes) {
            Some(BYTE_ORDER) => false,
            Some(magic) if magic.swap_bytes() == BYTE_ORDER => true,
            _ => return Err(block(source)),
        };
        self.interfaces.clear();
        self.pass(source)
    }

    fn describe<R: Read>(&mut self, source: &mut Source<R>) -> Result<(), ReadError> {
        self.keep(source)?;
        let parse = if self.big_endian {
            parse_interfacedescriptionblock_be
        } else {
            parse_interfacedescriptionblock_le
        };
        let Ok((_, description)) = parse(source.part()) else {
            return Err(block(source));
        };
        if self.interfaces.len() == INTERFACES_MAX {
            return Err(ReadError::Interfaces {
                offset: source.offset(),
                max: INTERFACES_MAX,
            });
        }
        self.interfaces
            .push(Interface::new(&description, self.big_endian));
        Ok(())
    }

    fn packet<R: Read>(&self, source: &mut Source<R>, body: &mut Vec<u8>) -> Result<Found, ReadError> {
        self.keep(source)?;
        let offset = source.offset();
        let parse = if self.big_endian {
            parse_enhancedpacketblock_be
        } else {
            parse_enhancedpacketblock_le
        };
        let Ok((_, packet)) = parse(source.part()) else {
            return Err(block(source));
        };
        let index = usize::try_from(packet.if_id).ok();
        let Some(interface) = index.and_then(|index| self.interfaces.get(index)) else {
            return Err(ReadError::Interface {
                offset,
                interface: packet.if_id,
            });
        };
        if interface.link_type != LINKTYPE_NFLOG {
            return Err(ReadError::LinkType {
                offset,
                link_type: interface.link_type,
            });
        }
        if packet.caplen > SNAPLEN_MAX {
            return Err(ReadError::TooLong {
                offset,
                length: packet.caplen,
                max: SNAPLEN_MAX,
            });
        }
        body.extend(packet.packet_data());
        Ok(Found {
            timestamp: interface.time(&packet).ok_or_else(|| block(source))?,
            original_length: packet.origlen,
            big_endian: self.big_endian,
        })
    }

    /// Reads the rest of a block, of which type and length were read.
    fn keep<R: Read>(&self, source: &mut Source<R>) -> Result<(), ReadError> {
        let length = self.length(source)?;
        if length > BLOCK_MAX {
            return Err(ReadError::TooLong {
                offset: source.offset(),
                length,
                max: BLOCK_MAX,
            });
        }
        source.extend(length - 8)
    }

    /// Passes over the rest of a block.
    fn pass<R: Read>(&self, source: &mut Source<R>) -> Result<(), ReadError> {
        let length = self.length(source)?;
        // 8 bytes of any block were read, 12 of a section header.
        let read = u32::try_from(source.part().len()).unwrap_or(u32::MAX);
        let rest = length
            .checked_sub(read)
            .and_then(|rest| rest.checked_sub(4))
            .ok_or_else(|| block(source))?;
        source.skip(rest)?;
        source.extend(4)?;
        let again = source.part().len() - 4;
        if self.u32(source.part(), again) == length {
            Ok(())
        } else {
            Err(block(source))
        }
    }

    /// Length of a block, of which type and length were read.
    fn length<R: Read>(&self, source: &Source<R>) -> Result<u32, ReadError> {
        let length = self.u32(source.part(), 4);
        if length >= FRAME && length.is_multiple_of(4) {
            Ok(length)
        } else {
            Err(block(source))
        }
    }

    fn u32(&self, part: &[u8], at: usize) -> u32 {
        let bytes = part.get(at..).and_then(<[u8]>::first_chunk).copied();
        let convert = if self.big_endian {
            u32::from_be_bytes
        } else {
            u32::from_le_bytes
        };
        bytes.map_or(0, convert)
    }
}

impl Interface {
    fn new(description: &InterfaceDescriptionBlock<'_>, big_endian: bool) -> Self {
        // pcap-parser 0.16 reads this option as little-endian in every file.
        let offset = if big_endian {
            description.if_tsoffset.swap_bytes()
        } else {
            description.if_tsoffset
        };
        Self {
            link_type: description.linktype.0.cast_unsigned(),
            resolution: description.if_tsresol,
            offset,
        }
    }

    /// When the packet was seen; `None` if no [`Duration`] since the Unix epoch says it.
    ///
    /// Own arithmetic, because pcap-parser 0.16 knows no powers of two and keeps 32 bits of seconds.
    fn time(self, packet: &EnhancedPacketBlock<'_>) -> Option<Duration> {
        let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
        let exponent = u32::from(self.resolution & 0x7f);
        let per_second = if self.resolution & 0x80 == 0 {
            10_u128.checked_pow(exponent)?
        } else {
            1_u128.checked_shl(exponent)?
        };
        let units = u128::from(units);
        let seconds = u64::try_from(units / per_second).ok()?;
        // Below 2^64 units, so that the product has at most 94 bits.
        let nanos = u32::try_from(units % per_second * 1_000_000_000 / per_second).ok()?;
        Some(Duration::new(seconds.checked_add_signed(self.offset)?, nanos))
    }
}

const fn block<R: Read>(source: &Source<R>) -> ReadError {
    ReadError::Block {
        offset: source.offset(),
    }
}
