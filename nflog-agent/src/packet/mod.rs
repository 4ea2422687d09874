//! A logged packet's own headers: addresses, ports, flags. Pure: no I/O, no clock, no allocation.

use std::net::IpAddr;

/// What the captured bytes say. A header that is cut off or malformed leaves its fields `None` and sets a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: Option<IpAddr>,
    /// Destination address.
    pub destination: Option<IpAddr>,
    /// IP protocol number of the transport header, after IPv6 extension headers.
    pub protocol: Option<u8>,
    /// The transport header.
    pub transport: Transport,
    /// Length of the IP packet in bytes as its header states it; `None` when the header says 0 (BIG TCP) or is cut off.
    pub length: Option<u32>,
    /// Bytes of the IP packet that were captured.
    pub captured: u32,
    /// Time to live, or hop limit.
    pub ttl: Option<u8>,
    /// The packet is a fragment.
    pub fragment: bool,
    /// What was wrong, if anything.
    pub problem: Option<Problem>,
}

/// The transport header as far as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Not an IP packet, a later fragment, or cut off before the transport header.
    Absent,
    /// TCP; flags as in byte 13 of the header.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// CWR ECE URG ACK PSH RST SYN FIN, FIN being bit 0.
        flags: u8,
    },
    /// UDP, UDP-Lite, SCTP and DCCP, whose ports are in the same place.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Identifier of an echo request or reply.
        echo_id: Option<u16>,
    },
    /// Another protocol; see [`Packet::protocol`].
    Other,
}

/// Why a packet was not dissected to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The capture ends inside a header.
    Truncated,
    /// A header contradicts itself.
    Malformed,
    /// Neither IPv4 nor IPv6.
    NotIp,
}
