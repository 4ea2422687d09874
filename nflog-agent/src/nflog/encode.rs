//! Writing entries as the kernel writes them: message bodies for tests, replay and synthetic captures. Pure.
//!
//! Invariants: what is written decodes to the same attributes, or is refused with an error that names the field. Attributes
//! come in the order of the kernel's `__build_packet_message`, padded with zeroes to 4 bytes.

use std::time::Duration;

use netlink_packet_core::NLA_HEADER_SIZE;

use super::entry_buf::EntryBuf;
use super::hook::{Family, Hook};
use super::uapi::{
    NFNETLINK_V0, NFULA_CT, NFULA_CT_INFO, NFULA_GID, NFULA_HWADDR, NFULA_HWHEADER, NFULA_HWLEN,
    NFULA_HWTYPE, NFULA_IFINDEX_INDEV, NFULA_IFINDEX_OUTDEV, NFULA_IFINDEX_PHYSINDEV,
    NFULA_IFINDEX_PHYSOUTDEV, NFULA_L2HDR, NFULA_MARK, NFULA_PACKET_HDR, NFULA_PAYLOAD, NFULA_PREFIX,
    NFULA_SEQ, NFULA_SEQ_GLOBAL, NFULA_TIMESTAMP, NFULA_UID, NFULA_VLAN, NFULA_VLAN_PROTO, NFULA_VLAN_TCI,
    NLA_F_NESTED,
};

/// Bytes of the address in `struct nfulnl_msg_packet_hw`.
const HWADDR_FIELD: usize = 8;

/// An entry that no message says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A number that has a name was given without it, and would be read back with it.
    #[error("family {family:?} has a name: use Family::from({})", family.number())]
    NamedFamily {
        /// The family.
        family: Family,
    },
    /// The family has no such hook, or the hook's number has a name in this family.
    #[error("{hook:?} is not how a hook of family {family:?} is written: use what Hook::new returns")]
    Hook {
        /// The family.
        family: Family,
        /// The hook.
        hook: Hook,
    },
    /// Hook and protocol are one attribute.
    #[error("only one of hook ({hook:?}) and hw_protocol ({hw_protocol:?}) is set: set both or none")]
    HalfPacketHdr {
        /// The hook.
        hook: Option<Hook>,
        /// The protocol.
        hw_protocol: Option<u16>,
    },
    /// The kernel writes whole microseconds, and readers keep 64 bits of nanoseconds.
    #[error("timestamp {timestamp:?} is not whole microseconds below 2^64 ns since the Unix epoch: round it")]
    Timestamp {
        /// The timestamp.
        timestamp: Duration,
    },
    /// An attribute's length is 16 bits wide.
    #[error("attribute {kind} of {length} bytes is longer than {max}: cut it", max = EncodeError::VALUE_MAX)]
    TooLong {
        /// `NFULA_*` number.
        kind: u16,
        /// Bytes of the value.
        length: usize,
    },
}

impl EncodeError {
    /// Most bytes of an attribute's value.
    const VALUE_MAX: usize = u16::MAX as usize - NLA_HEADER_SIZE;
}

impl EntryBuf {
    /// The body of a message of type `NFULNL_MSG_PACKET` that says this: `struct nfgenmsg` and attributes in the kernel's
    /// order, in this machine's byte order; [`Entry::decode`](super::Entry::decode) reads it.
    ///
    /// [`lost_before`](Self::lost_before), [`unknown_attributes`](Self::unknown_attributes) and [`problems`](Self::problems)
    /// are about a message, not in it: they are not written. An empty prefix is written, as the kernel does for rules
    /// without one; an empty payload is not.
    ///
    /// # Errors
    /// [`EncodeError`] if the message would be read back differently.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut body = Vec::new();
        self.encode_into(&mut body)?;
        Ok(body)
    }

    /// [`encode`](Self::encode), appended to `body`, which stays as it was if there is an error.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_into(&self, body: &mut Vec<u8>) -> Result<(), EncodeError> {
        let before = body.len();
        let result = self.put(body);
        if result.is_err() {
            body.truncate(before);
        }
        result
    }

    fn put(&self, body: &mut Vec<u8>) -> Result<(), EncodeError> {
        if Family::from(self.family.number()) != self.family {
            return Err(EncodeError::NamedFamily { family: self.family });
        }
        body.extend([self.family.number(), NFNETLINK_V0]);
        body.extend(self.group.to_be_bytes());
        self.put_packet_hdr(body)?;
        put(body, NFULA_PREFIX, &[&self.prefix, &[0]])?;
        self.put_devices(body);
        put32(body, NFULA_MARK, self.mark);
        self.put_hardware(body)?;
        self.put_timestamp(body)?;
        put32(body, NFULA_UID, self.uid);
        put32(body, NFULA_GID, self.gid);
        put32(body, NFULA_SEQ, self.seq);
        put32(body, NFULA_SEQ_GLOBAL, self.seq_global);
        put_bytes(body, NFULA_CT | NLA_F_NESTED, self.ct.as_deref())?;
        put32(body, NFULA_CT_INFO, self.ct_info);
        self.put_vlan(body);
        put_bytes(body, NFULA_L2HDR, self.l2hdr.as_deref())?;
        let payload = Some(&self.payload[..]).filter(|payload| !payload.is_empty());
        put_bytes(body, NFULA_PAYLOAD, payload)
    }

    fn put_packet_hdr(&self, body: &mut Vec<u8>) -> Result<(), EncodeError> {
        let (hook, hw_protocol) = match (self.hook, self.hw_protocol) {
            (Some(hook), Some(hw_protocol)) => (hook, hw_protocol),
            (None, None) => return Ok(()),
            (hook, hw_protocol) => return Err(EncodeError::HalfPacketHdr { hook, hw_protocol }),
        };
        let family = self.family;
        let number = hook.number(family).ok_or(EncodeError::Hook { family, hook })?;
        let [high, low] = hw_protocol.to_be_bytes();
        put_short(body, NFULA_PACKET_HDR, [high, low, number, 0]);
        Ok(())
    }

    /// In the kernel's order: in a bridge the port is what the hook has, and the bridge is found from it.
    fn put_devices(&self, body: &mut Vec<u8>) {
        let mut devices = [
            (NFULA_IFINDEX_INDEV, self.indev),
            (NFULA_IFINDEX_PHYSINDEV, self.physindev),
            (NFULA_IFINDEX_OUTDEV, self.outdev),
            (NFULA_IFINDEX_PHYSOUTDEV, self.physoutdev),
        ];
        if self.family == Family::Bridge {
            devices.swap(0, 1);
            devices.swap(2, 3);
        }
        for (kind, device) in devices {
            put32(body, kind, device);
        }
    }

    fn put_hardware(&self, body: &mut Vec<u8>) -> Result<(), EncodeError> {
        if let Some(address) = &self.hwaddr {
            // A longer one than the kernel's field fails here only if the attribute cannot hold it.
            let length = u16::try_from(address.len()).map_err(|_| EncodeError::TooLong {
                kind: NFULA_HWADDR,
                length: address.len(),
            })?;
            let unused = &[0; HWADDR_FIELD][address.len().min(HWADDR_FIELD)..];
            put(
                body,
                NFULA_HWADDR,
                &[&length.to_be_bytes(), &[0, 0], address, unused],
            )?;
        }
        put16(body, NFULA_HWTYPE, self.hwtype);
        put16(body, NFULA_HWLEN, self.hwlen);
        put_bytes(body, NFULA_HWHEADER, self.hwheader.as_deref())
    }

    fn put_timestamp(&self, body: &mut Vec<u8>) -> Result<(), EncodeError> {
        let Some(timestamp) = self.timestamp else {
            return Ok(());
        };
        if timestamp.subsec_nanos() % 1000 != 0 || u64::try_from(timestamp.as_nanos()).is_err() {
            return Err(EncodeError::Timestamp { timestamp });
        }
        let micros = u64::from(timestamp.subsec_micros());
        put(
            body,
            NFULA_TIMESTAMP,
            &[&timestamp.as_secs().to_be_bytes(), &micros.to_be_bytes()],
        )
    }

    fn put_vlan(&self, body: &mut Vec<u8>) {
        let Some(vlan) = self.vlan else {
            return;
        };
        header(body, NFULA_VLAN | NLA_F_NESTED, VLAN_NEST);
        put16(body, NFULA_VLAN_TCI, Some(vlan.tci));
        put16(body, NFULA_VLAN_PROTO, Some(vlan.proto));
    }
}

/// Length of the VLAN attribute: its header and two padded 16-bit numbers.
const VLAN_NEST: u16 = 4 + 8 + 8;

fn header(body: &mut Vec<u8>, kind: u16, length: u16) {
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
}

/// Writes an attribute whose value is some pieces, and pads it.
fn put(body: &mut Vec<u8>, kind: u16, pieces: &[&[u8]]) -> Result<(), EncodeError> {
    let value: usize = pieces.iter().map(|piece| piece.len()).sum();
    let Ok(length) = u16::try_from(NLA_HEADER_SIZE + value) else {
        return Err(EncodeError::TooLong {
            kind: kind & !NLA_F_NESTED,
            length: value,
        });
    };
    header(body, kind, length);
    for piece in pieces {
        body.extend_from_slice(piece);
    }
    pad(body, value);
    Ok(())
}

fn pad(body: &mut Vec<u8>, value: usize) {
    let padding = value.next_multiple_of(4) - value;
    body.extend_from_slice(&[0; 3][..padding]);
}

fn put_bytes(body: &mut Vec<u8>, kind: u16, value: Option<&[u8]>) -> Result<(), EncodeError> {
    value.map_or(Ok(()), |value| put(body, kind, &[value]))
}

/// Writes an attribute of 2 or 4 bytes, and pads it.
fn put_short<const N: usize>(body: &mut Vec<u8>, kind: u16, value: [u8; N]) {
    const { assert!(N == 2 || N == 4) };
    header(body, kind, if N == 2 { 6 } else { 8 });
    body.extend(value);
    pad(body, N);
}

fn put16(body: &mut Vec<u8>, kind: u16, value: Option<u16>) {
    if let Some(value) = value {
        put_short(body, kind, value.to_be_bytes());
    }
}

fn put32(body: &mut Vec<u8>, kind: u16, value: Option<u32>) {
    if let Some(value) = value {
        put_short(body, kind, value.to_be_bytes());
    }
}
