//! Marks the shared types as plain bytes for aya's maps.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

use crate::{LoggedOwner, Offsets, PacketKey, SocketOwner};

// SAFETY: repr(C), only integers and arrays of them, no padding (asserted by size in each module), any bit pattern valid.
unsafe impl aya::Pod for PacketKey {}
// SAFETY: as above.
unsafe impl aya::Pod for SocketOwner {}
// SAFETY: as above.
unsafe impl aya::Pod for LoggedOwner {}
// SAFETY: repr(C), u16 and u8 only, no padding: every member is aligned to 2 and as long as a multiple of it.
unsafe impl aya::Pod for Offsets {}
