//! Types that the eBPF programs write to maps and the agent reads from them.
//!
//! Both sides are built by different compilers for different targets, so each type is `repr(C)`, has no implicit
//! padding, and has its size and alignment asserted at compile time.
#![no_std]

mod held;
mod key;
mod offsets;
mod owner;
#[cfg(feature = "user")]
mod pod;
mod socket;
mod stats;

pub use held::{Claim, Held, Holder, state};
pub use key::{IDENTITY_LEN, PacketKey, ReceiptKey};
pub use offsets::{Field, ForwardingOffsets, Offsets};
pub use owner::{
    Answer, COMM_LEN, LoggedOwner, QUIET_NS, RECEIPTS_MAX, RECEIPTS_NS, SocketOwner, continuation, end,
    method, peer_hash, reason,
};
pub use socket::{PortKey, SocketTuple, TOMBSTONE_NS, Tombstone, TrackedSocket};
pub use stats::Stat;
