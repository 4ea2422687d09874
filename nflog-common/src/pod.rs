//! Marks the shared types as plain bytes for aya's maps.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

use crate::{Logged, Offsets, ProcessOffsets, SocketTuple, Tombstone, TrackedSocket};

impl Logged {
    /// From the bytes of a ring buffer's entry; `None` if they are not just that many.
    #[must_use]
    pub const fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: as many bytes as the type has, read without regard to alignment; repr(C), only integers and arrays of
        // them, no padding (asserted by size), any bit pattern valid.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

// SAFETY: repr(C), only integers and arrays of them, no padding (asserted by size in each module), any bit pattern valid.
unsafe impl aya::Pod for SocketTuple {}
// SAFETY: as above.
unsafe impl aya::Pod for TrackedSocket {}
// SAFETY: as above.
unsafe impl aya::Pod for Tombstone {}
// SAFETY: repr(C), only u16 and structs of u16 and u8 pairs, so no padding.
unsafe impl aya::Pod for Offsets {}
// SAFETY: repr(C), only u16, so no padding.
unsafe impl aya::Pod for ProcessOffsets {}
