//! Reads struct layouts from BTF, the kernel's own type information. Pure: bytes in, offsets out.
//!
//! Only what the offsets need: structs and unions by name, members by path, anonymous members looked through. Layout of
//! the format: <https://docs.kernel.org/bpf/btf.html>.

use thiserror::Error;

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Anonymous members nest a few levels in `sk_buff`; BTF of a kernel has no cycles, hostile BTF might.
const MAX_DEPTH: u32 = 16;

/// Why BTF does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BtfError {
    /// The data is not BTF of this machine's byte order.
    #[error("not BTF: magic {found:#06x}, expected {MAGIC:#06x}")]
    Magic {
        /// First two bytes.
        found: u16,
    },
    /// The data ends before what its header promises.
    #[error("BTF is cut off at byte {position}")]
    Truncated {
        /// Where the missing bytes would be.
        position: usize,
    },
    /// A type kind newer than this reader.
    #[error("BTF type {id} has unknown kind {kind}")]
    Kind {
        /// Type id.
        id: usize,
        /// `BTF_KIND_*`.
        kind: u32,
    },
    /// The kernel has no such struct or member.
    #[error("the kernel has no `struct {structure}` with a member `{member}`")]
    Missing {
        /// Struct name.
        structure: &'static str,
        /// Member path.
        member: &'static str,
    },
}

/// Position of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Bits from the start of the outermost struct.
    pub(super) bit_offset: u32,
    /// Width of a bit field; 0 for a whole member.
    pub(super) bit_size: u32,
}

/// Parsed BTF: where each type starts.
#[derive(Debug)]
pub(super) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Offset of each type in `types`; index 0 is `void`.
    starts: Vec<usize>,
    /// Structs and unions that have a name, with their ids; in order, so that each is found without a look at all the others: a
    /// kernel has more than ten thousand, and the agent wants a hundred members.
    composites: Vec<(&'a [u8], usize)>,
}

impl<'a> Btf<'a> {
    /// Reads the contents of `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// If it is not BTF, is cut off, or has a type kind that this reader does not know.
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        let found = u16::from_ne_bytes(array(data, 0)?);
        if found != MAGIC {
            return Err(BtfError::Magic { found });
        }
        let header_length = word(data, 4)?;
        let section = |position: usize| -> Result<&'a [u8], BtfError> {
            let start = header_length + word(data, position)?;
            let end = start + word(data, position + 4)?;
            data.get(start..end).ok_or(BtfError::Truncated { position: end })
        };
        let mut btf = Self {
            types: section(8)?,
            strings: section(16)?,
            starts: vec![0],
            composites: Vec::new(),
        };
        let mut position = 0;
        while position < btf.types.len() {
            btf.starts.push(position);
            let id = btf.starts.len() - 1;
            if btf.is_composite(id)
                && let Some(name) = btf.name(id).filter(|name| !name.is_empty())
            {
                btf.composites.push((name, id));
            }
            position += 12 + btf.extra(position, id)?;
        }
        btf.composites.sort_unstable();
        Ok(btf)
    }

    /// Position of `member`, a path such as `u.ulog.group`, in `structure`.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn member(&self, structure: &'static str, member: &'static str) -> Result<Member, BtfError> {
        self.composites(structure)
            .find_map(|id| self.path(id, member))
            .ok_or(BtfError::Missing { structure, member })
    }

    /// Size of `structure`, bytes.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn size(&self, structure: &'static str) -> Result<u32, BtfError> {
        self.composites(structure)
            .find_map(|id| self.raw(self.starts.get(id)? + 8))
            .ok_or(BtfError::Missing {
                structure,
                member: "",
            })
    }

    /// Value of a constant of an `enum`.
    pub(super) fn enumerator(&self, enumeration: &str, constant: &str) -> Option<u32> {
        let ids = 1..self.starts.len();
        ids.filter(|&id| self.name(id) == Some(enumeration.as_bytes()))
            .find_map(|id| {
                let start = *self.starts.get(id)?;
                let info = self.info(start).filter(|&info| kind(info) == KIND_ENUM)?;
                (0..vlen(info)).find_map(|index| {
                    let position = start + 12 + index * 8;
                    let name = self.string(word(self.types, position).ok()?)?;
                    (name == constant.as_bytes()).then(|| self.raw(position + 4))?
                })
            })
    }

    /// Ids of the structs and unions of this name, the first one first.
    fn composites(&self, name: &str) -> impl Iterator<Item = usize> {
        let name = name.as_bytes();
        let first = self.composites.partition_point(|&(other, _)| other < name);
        let from_first = self.composites.get(first..).unwrap_or_default();
        from_first
            .iter()
            .take_while(move |&&(other, _)| other == name)
            .map(|&(_, id)| id)
    }

    fn path(&self, id: usize, path: &str) -> Option<Member> {
        let mut total = Member {
            bit_offset: 0,
            bit_size: 0,
        };
        let mut id = id;
        for name in path.split('.') {
            let (member, type_id) = self.find(self.strip(id)?, name.as_bytes(), 0)?;
            total = Member {
                bit_offset: total.bit_offset + member.bit_offset,
                bit_size: member.bit_size,
            };
            id = type_id;
        }
        Some(total)
    }

    /// A member by name, also inside anonymous structs and unions; with its type.
    fn find(&self, id: usize, name: &[u8], depth: u32) -> Option<(Member, usize)> {
        if depth > MAX_DEPTH || !self.is_composite(id) {
            return None;
        }
        let start = *self.starts.get(id)?;
        let info = self.info(start)?;
        for index in 0..vlen(info) {
            let position = start + 12 + index * 12;
            let type_id = word(self.types, position + 4).ok()?;
            let member = member(self.raw(position + 8)?, info);
            let own_name = self.string(word(self.types, position).ok()?)?;
            if own_name == name {
                return Some((member, type_id));
            }
            if own_name.is_empty()
                && let Some((inner, type_id)) = self.find(self.strip(type_id)?, name, depth + 1)
            {
                let bit_offset = member.bit_offset + inner.bit_offset;
                return Some((Member { bit_offset, ..inner }, type_id));
            }
        }
        None
    }

    /// Looks through typedefs, qualifiers and tags.
    fn strip(&self, id: usize) -> Option<usize> {
        let mut id = id;
        for _ in 0..MAX_DEPTH {
            let start = *self.starts.get(id)?;
            match kind(self.info(start)?) {
                KIND_TYPEDEF..=KIND_RESTRICT | KIND_TYPE_TAG => id = word(self.types, start + 8).ok()?,
                _ => return Some(id),
            }
        }
        None
    }

    fn is_composite(&self, id: usize) -> bool {
        let info = self.starts.get(id).and_then(|&start| self.info(start));
        info.is_some_and(|info| matches!(kind(info), KIND_STRUCT | KIND_UNION))
    }

    fn name(&self, id: usize) -> Option<&'a [u8]> {
        self.string(word(self.types, *self.starts.get(id)?).ok()?)
    }

    fn string(&self, offset: usize) -> Option<&'a [u8]> {
        self.strings.get(offset..)?.split(|&byte| byte == 0).next()
    }

    fn info(&self, start: usize) -> Option<u32> {
        self.raw(start + 4)
    }

    fn raw(&self, position: usize) -> Option<u32> {
        array(self.types, position).ok().map(u32::from_ne_bytes)
    }

    /// Bytes that follow the 12-byte head of the type at `start`.
    fn extra(&self, start: usize, id: usize) -> Result<usize, BtfError> {
        let info = u32::from_ne_bytes(array(self.types, start + 4)?);
        let count = vlen(info);
        Ok(match kind(info) {
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => count * 12,
            KIND_ENUM | KIND_FUNC_PROTO => count * 8,
            // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
            2 | 7..=12 | 16 | KIND_TYPE_TAG => 0,
            kind => return Err(BtfError::Kind { id, kind }),
        })
    }
}

const fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

const fn vlen(info: u32) -> usize {
    (info & 0xffff) as usize
}

/// With the kind flag set, the upper byte of a member's offset is its width as a bit field.
const fn member(raw: u32, info: u32) -> Member {
    if info >> 31 == 1 {
        Member {
            bit_offset: raw & 0x00ff_ffff,
            bit_size: raw >> 24,
        }
    } else {
        Member {
            bit_offset: raw,
            bit_size: 0,
        }
    }
}

fn word(data: &[u8], position: usize) -> Result<usize, BtfError> {
    array(data, position).map(|bytes| u32::from_ne_bytes(bytes) as usize)
}

fn array<const N: usize>(data: &[u8], position: usize) -> Result<[u8; N], BtfError> {
    data.get(position..)
        .and_then(<[u8]>::first_chunk)
        .copied()
        .ok_or(BtfError::Truncated {
            position: position + N,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_kernel_has_the_members_at_plausible_places() {
        let data = std::fs::read("/sys/kernel/btf/vmlinux").expect("this kernel has BTF");
        let btf = Btf::parse(&data).unwrap();
        assert_eq!(
            btf.member("sock", "__sk_common.skc_daddr").unwrap(),
            Member {
                bit_offset: 0,
                bit_size: 0
            }
        );
        assert_eq!(btf.member("nf_loginfo", "type").unwrap().bit_offset, 0);
        assert_eq!(btf.member("nf_loginfo", "u.ulog.group").unwrap().bit_offset, 64);
        assert_eq!(
            btf.member("sock", "__sk_common.skc_ipv6only").unwrap().bit_size,
            1
        );
        // Inside anonymous unions and struct groups.
        assert!(btf.member("sk_buff", "network_header").unwrap().bit_offset > 0);
        assert_eq!(
            btf.member("sock", "no_such_member"),
            Err(BtfError::Missing {
                structure: "sock",
                member: "no_such_member"
            })
        );
    }

    #[test]
    fn every_truncation_is_an_error_or_parses_without_panic() {
        let data = std::fs::read("/sys/kernel/btf/vmlinux").expect("this kernel has BTF");
        assert_eq!(Btf::parse(&[]).unwrap_err(), BtfError::Truncated { position: 2 });
        assert_eq!(
            Btf::parse(&[0, 0, 0, 0]).unwrap_err(),
            BtfError::Magic { found: 0 }
        );
        for length in (0..data.len()).step_by(data.len() / 61) {
            assert!(
                Btf::parse(&data[..length]).is_err(),
                "{length} of {} bytes parsed",
                data.len()
            );
        }
    }
}
