//! Who owns a socket, and whom a logged packet belongs to.

use core::mem::{align_of, size_of};

use crate::Fingerprint;

/// `TASK_COMM_LEN`.
pub const COMM_LEN: usize = 16;

/// Bit of a cgroup id that says of which hierarchy it is. Ids are the kernel's (`kernfs_node.id`, the inode of the cgroup's directory),
/// each hierarchy counts its own from 1 on, and they do not reach this bit.
///
/// Set: the v1 hierarchy of a controller, on hosts that have such and for processes outside of its root, because there container
/// runtimes may make no cgroup of v2. Not set: cgroup v2.
pub const CGROUP_V1: u64 = 1 << 63;

/// The process that a socket belongs to, as it was when it took the socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOwner {
    /// Start of the thread group leader, ns since boot (`task_struct.start_boottime`). 0 if unreadable.
    pub start_boottime: u64,
    /// cgroup id of the process when it took the socket: see [`CGROUP_V1`]. 0 if unknown.
    pub cgroup_id: u64,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Which program of the process: `task_struct.self_exec_id` modulo 2^32, see [`ImageId`](crate::ImageId). 0 if unknown.
    pub exec_id: u32,
    /// Effective uid of the process when it took the socket.
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
    /// `comm` of the thread group leader, NUL padded.
    pub comm: [u8; COMM_LEN],
}

/// Whose a packet is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Valid when `method` is not [`method::NONE`].
    pub owner: SocketOwner,
    /// One of [`method`].
    pub method: u8,
    /// One of [`reason`] when `method` is [`method::NONE`], else 0.
    pub reason: u8,
    /// One of [`end`]: which end of a forwarded packet `owner` is.
    pub end: u8,
    /// Always 0.
    pub pad: u8,
    /// Of a forwarded packet: inode of the namespace that sent it, if that is another one of this host and speaks for itself
    /// alone; else 0.
    pub source_netns: u32,
    /// The same of the namespace that it goes to.
    pub destination_netns: u32,
    /// Not 0: the owner's datagram socket is connected to the peer with this [`peer_hash`], which is not the packet's sender. It takes
    /// the packet only if the sender's address is translated to that one later.
    pub peer: u32,
}

/// Stands for a peer in [`Answer::peer`]; never 0. Address and port as in [`PacketKey`](crate::PacketKey).
#[must_use]
pub const fn peer_hash(address: &[u8; 16], port: u16) -> u32 {
    let words = u128::from_le_bytes(*address);
    #[expect(clippy::cast_possible_truncation, reason = "taken apart")]
    let parts = [words as u64, (words >> 64) as u64, port as u64];
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < parts.len() {
        hash = (hash ^ parts[at]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 32;
        at += 1;
    }
    #[expect(clippy::cast_possible_truncation, reason = "a hash")]
    let hash = (hash >> 16) as u32;
    hash | 1
}

/// Which end of a packet its owner is, where the hook does not tell.
pub mod end {
    /// The hook tells, or there is no owner.
    pub const UNSET: u8 = 0;
    /// The sender.
    pub const SOURCE: u8 = 1;
    /// The receiver.
    pub const DESTINATION: u8 = 2;
}

/// What the log probe leaves for each logged packet, in the order of the log calls (`ANSWERS`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Logged {
    /// `CLOCK_MONOTONIC` ns of the log call.
    pub at: u64,
    /// Whose it is.
    pub answer: Answer,
    /// Which packet.
    pub print: Fingerprint,
    /// Always 0.
    pub pad: u32,
}

/// Where the log probe goes on: indices of the map `CONTINUATIONS`.
pub mod continuation {
    /// Who sent a forwarded packet.
    pub const SENDER: u32 = 0;
    /// Who takes it, if that is not known.
    pub const RECEIVER: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// How an owner was found (`nflog.owner.method`).
pub mod method {
    /// No owner; see the reason.
    pub const NONE: u8 = 0;
    /// The packet's socket, stamped when its process connected, bound or first sent.
    pub const SOCKET: u8 = 1;
    /// The packet's socket was accepted by this process.
    pub const ACCEPTED: u8 = 2;
    /// Connection not accepted yet: the listener's owner.
    pub const INHERITED: u8 = 3;
    /// No connection yet: the process that listens on, or is bound to, the destination port.
    pub const LISTENER: u8 = 4;
    /// The socket of this connection is gone; this process had it.
    pub const TOMBSTONE: u8 = 5;
    /// The packet's socket, handed over to this process (fork, `SCM_RIGHTS`), which sends on it.
    pub const SENDER: u8 = 6;
    /// Only between programs: the socket is the kernel's, which is a reason and not an owner.
    pub const KERNEL: u8 = 7;
    /// The socket is older than the agent; this process held it when the agent started.
    pub const SEEDED: u8 = 8;
}

/// Why there is no owner (`nflog.owner.reason`).
pub mod reason {
    /// Not applicable.
    pub const UNSET: u8 = 0;
    /// The packet is routed through this namespace and belongs to no local socket.
    pub const FORWARDED: u8 = 1;
    /// No local socket that the agent knows of matches the packet.
    pub const NO_SOCKET: u8 = 2;
    /// The connection is in TIME_WAIT: its process has closed it.
    pub const TIME_WAIT: u8 = 3;
    /// The socket belongs to the kernel (NFS, RPC, ..).
    pub const KERNEL_SOCKET: u8 = 4;
    /// The socket was opened before the agent started.
    pub const OLDER_THAN_AGENT: u8 = 5;
    /// Several processes match.
    pub const AMBIGUOUS: u8 = 6;
    /// The packet's headers could not be read where it was logged.
    pub const UNPARSABLE: u8 = 7;
    /// The kernel wrapped a packet into this one (VXLAN, Geneve, GRE, ..).
    pub const KERNEL_TUNNEL: u8 = 8;
    /// The kernel's own part in TCP: a reset for what no socket expects.
    pub const KERNEL_TCP: u8 = 9;
    /// The kernel's own part in ICMP: echo replies, errors, neighbour discovery.
    pub const KERNEL_ICMP: u8 = 10;
    /// A later fragment, which has no ports.
    pub const FRAGMENT: u8 = 11;
    /// A probe did not run that would have seen the socket change hands.
    pub const MISSED: u8 = 12;
    /// There was no room for the socket's owner (`Stat::SocketMapError`).
    pub const MAP_FULL: u8 = 13;
}

const _: () = {
    assert!(size_of::<SocketOwner>() == 48 && align_of::<SocketOwner>() == 8);
    assert!(size_of::<Answer>() == 64 && align_of::<Answer>() == 8);
    assert!(size_of::<Logged>() == 144 && align_of::<Logged>() == 8);
};
