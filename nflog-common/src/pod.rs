//! Marks the shared types as plain bytes for aya's maps.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

use crate::{
    Answer, LoggedOwner, Offsets, PacketKey, ReceiptKey, SocketOwner, SocketTuple, Tombstone, TrackedSocket,
};

// SAFETY: repr(C), only integers and arrays of them, no padding (asserted by size in each module), any bit pattern valid.
unsafe impl aya::Pod for PacketKey {}
// SAFETY: as above.
unsafe impl aya::Pod for ReceiptKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Answer {}
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
// SAFETY: repr(C), only u16 and structs of u16 and u8 pairs, so no padding.
unsafe impl aya::Pod for Offsets {}
