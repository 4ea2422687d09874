//! Marks the shared types as plain bytes for aya's maps.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

use crate::{LoggedOwner, Offsets, PacketKey, SocketOwner, SocketTuple, Tombstone, TrackedSocket};

// SAFETY: repr(C), only integers and arrays of them, no padding (asserted by size in each module), any bit pattern valid.
unsafe impl aya::Pod for PacketKey {}
// SAFETY: as above.
unsafe impl aya::Pod for SocketOwner {}
// SAFETY: as above.
unsafe impl aya::Pod for LoggedOwner {}
// SAFETY: as above.
unsafe impl aya::Pod for SocketTuple {}
// SAFETY: as above.
unsafe impl aya::Pod for TrackedSocket {}
// SAFETY: as above.
unsafe impl aya::Pod for Tombstone {}
// SAFETY: repr(C), u16 and u8 only, no padding: 21 u16, one 4-byte Field at offset 42, 2 u16.
unsafe impl aya::Pod for Offsets {}
