//! What a logged packet is known by, on both sides.
//!
//! Addresses are 16 bytes: IPv6 as on the wire, IPv4 as `::ffff:a.b.c.d`. Ports are in host byte order.
//! `netns` is the inode number of the network namespace (`ns_common.inum`).

use core::mem::{align_of, size_of};

/// A logged packet as userspace can see it in the NFLOG message: one per netns, hook and L3/L4 tuple.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PacketKey {
    /// Network namespace inode.
    pub netns: u32,
    /// IP protocol number of the transport header.
    pub protocol: u8,
    /// Netfilter hook number (`NF_INET_*`).
    pub hook: u8,
    /// TCP, UDP, UDP-Lite, SCTP, DCCP: source port. ICMP echo: identifier. Else 0.
    pub source_port: u16,
    /// Destination port. ICMP: type. Else 0.
    pub destination_port: u16,
    /// Always 0.
    pub pad: u16,
    /// Source address in the packet.
    pub source: [u8; 16],
    /// Destination address in the packet.
    pub destination: [u8; 16],
}

/// Bytes that tell one packet of a tuple from the next; see [`Fingerprint`].
pub const IDENTITY_LEN: usize = 24;

/// One logged packet, told from the others of its tuple by header bytes that both sides see.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// Its tuple.
    pub packet: PacketKey,
    /// TCP: bytes 4 to 15 of its header (sequence and acknowledgement number, flags, window), then bytes 20 to 31 (the
    /// time stamp option, where it usually is), or zeros if the header is shorter than 32 bytes.
    ///
    /// Else: 8 bytes of the IP header (IPv4: 2 to 9, with length and identification; IPv6: 0 to 7, with flow label and
    /// length); bytes 4 to 7 of a UDP, UDP-Lite, DCCP, SCTP or ICMP header (length and checksum, verification tag, identifier
    /// and sequence number); zeros.
    pub identity: [u8; IDENTITY_LEN],
}

const _: () = assert!(size_of::<Fingerprint>() == 68 && align_of::<Fingerprint>() == 4);
const _: () = assert!(size_of::<PacketKey>() == 44 && align_of::<PacketKey>() == 4);
