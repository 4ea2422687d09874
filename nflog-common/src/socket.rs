//! What the socket probes know of live and lately closed sockets. The log probe asks it by the packet's own socket or tuple,
//! the agent by the tuples of a packet's connection.
//!
//! Addresses and ports as in [`PacketKey`](crate::PacketKey).

use core::mem::{align_of, size_of};

use crate::SocketOwner;

/// The two ends of a connection, seen from the socket: key of the maps `TUPLES` and `TOMBSTONES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketTuple {
    /// Network namespace inode.
    pub netns: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0.
    pub pad: u8,
    /// Always 0.
    pub pad2: u16,
    /// The socket's port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
    /// The socket's address.
    pub local: [u8; 16],
    /// The peer's address.
    pub remote: [u8; 16],
}

/// A bound or listening port. The unspecified address is `::` for an IPv6 socket, `::ffff:0.0.0.0` for IPv4.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortKey {
    /// Network namespace inode.
    pub netns: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0.
    pub pad: u8,
    /// The port.
    pub port: u16,
    /// The address that it is bound to.
    pub address: [u8; 16],
}

/// A socket whose owner is known, with the keys to take out of the other maps when it dies: value of the map `SOCKETS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackedSocket {
    /// Its process.
    pub owner: SocketOwner,
    /// `CLOCK_MONOTONIC` ns. Since then what this entry's tuple or port stands for is this owner's; before, it was another
    /// process's, or nobody listened. 0 if no other owner of the tuple is known.
    pub since: u64,
    /// `protocol` is 0 if the socket is not in `TUPLES`.
    pub tuple: SocketTuple,
    /// `protocol` is 0 if the socket is not in `PORTS`.
    pub port: PortKey,
    /// One of [`method`](crate::method).
    pub method: u8,
    /// Not 0: processes share it of which none stands for all, and `owner` is an arbitrary one, or who sent last.
    pub shared: u8,
    /// Not 0: made by a handshake, and not seen to be accepted.
    pub inherited: u8,
    /// Always 0.
    pub pad: u8,
}

/// A connection that died with its close still under way.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Its last process.
    pub owner: SocketOwner,
    /// `CLOCK_MONOTONIC` ns.
    pub died_at: u64,
    /// As in [`TrackedSocket`].
    pub since: u64,
}

/// A closed connection's packets (last ACK, TIME_WAIT, RST) come within `TCP_TIMEWAIT_LEN`, 60 s, in ns.
pub const TOMBSTONE_NS: u64 = 60_000_000_000;

const _: () = {
    assert!(size_of::<SocketTuple>() == 44 && align_of::<SocketTuple>() == 4);
    assert!(size_of::<PortKey>() == 24 && align_of::<PortKey>() == 4);
    assert!(size_of::<TrackedSocket>() == 128 && align_of::<TrackedSocket>() == 8);
    assert!(size_of::<Tombstone>() == 64 && align_of::<Tombstone>() == 8);
};
