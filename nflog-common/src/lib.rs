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
mod process;
mod socket;
mod stats;

pub use held::{Claim, Held, Holder, state};
pub use key::{Fingerprint, IDENTITY_LEN, PacketKey};
pub use offsets::{Field, ForwardingOffsets, Offsets, ProcessOffsets};
pub use owner::{
    Answer, CGROUP_V1, COMM_LEN, Logged, SocketOwner, continuation, end, method, peer_hash, reason,
};
pub use process::{
    ARGS_MAX, ImageId, PATH_MAX, PATHS_MAX, ProcessEvent, ProcessText, TEXT_MAX, process_event,
};
pub use socket::{PortKey, SocketTuple, TOMBSTONE_NS, Tombstone, TrackedSocket};
pub use stats::Stat;
