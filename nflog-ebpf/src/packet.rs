//! The logged packet's own tuple, read from the `sk_buff` as the agent will read it from the NFLOG message.
//!
//! The transport header is found from the network header, because `skb->transport_header` is not set in all hooks.

use nflog_common::{Fingerprint, IDENTITY_LEN, PacketKey, SocketTuple};

use crate::kernel::Pointer;
use crate::maps::offset;
use crate::sock::{AF_INET, AF_INET6, IPPROTO_TCP, map_v4};

pub(crate) const IPPROTO_ICMP: u8 = 1;
pub(crate) const IPPROTO_ICMPV6: u8 = 58;
pub(crate) const TCP_FIN: u16 = 0x01;
pub(crate) const TCP_SYN: u16 = 0x02;
pub(crate) const TCP_RST: u16 = 0x04;
pub(crate) const TCP_ACK: u16 = 0x10;
/// Detail of an ICMP echo reply, the only ICMP message that a socket waits for.
pub(crate) const ECHO_REPLY: u16 = 1;
/// Detail of a later fragment: it has no transport header.
pub(crate) const LATER_FRAGMENT: u16 = 0x100;
const MAX_EXTENSIONS: usize = 6;

/// `NF_INET_*`.
pub(crate) const NF_INET_LOCAL_IN: u8 = 1;
pub(crate) const NF_INET_FORWARD: u8 = 2;
pub(crate) const NF_INET_LOCAL_OUT: u8 = 3;

/// The tuple from the point of view of this host's socket.
#[inline(always)]
pub(crate) fn socket_tuple(key: &PacketKey, tuple: &mut SocketTuple) {
    tuple.netns = key.netns;
    tuple.protocol = key.protocol;
    tuple.pad = 0;
    tuple.pad2 = 0;
    if key.hook > NF_INET_LOCAL_IN {
        tuple.local_port = key.source_port;
        tuple.remote_port = key.destination_port;
        tuple.local = key.source;
        tuple.remote = key.destination;
        return;
    }
    // An echo reply comes back with the identifier that the request went out with: the socket's port on both ways.
    let icmp = key.protocol == IPPROTO_ICMP || key.protocol == IPPROTO_ICMPV6;
    tuple.local_port = if icmp {
        key.source_port
    } else {
        key.destination_port
    };
    tuple.remote_port = if icmp { 0 } else { key.source_port };
    tuple.local = key.destination;
    tuple.remote = key.source;
}

/// Parses the packet of `skb` into `print`. Answers a detail (TCP: the flags, ICMP: [`ECHO_REPLY`] or 0, [`LATER_FRAGMENT`], else
/// 0), or `None` if a header cannot be read or is not IP of that family.
#[inline(always)]
pub(crate) fn parse(skb: Pointer, family: u16, print: &mut Fingerprint) -> Option<u16> {
    let head = skb.follow(offset!(sk_buff_head))?;
    let network = head.add(skb.read::<u16>(offset!(sk_buff_network_header))? as u64);
    let Fingerprint {
        packet: key,
        identity,
    } = print;
    key.source_port = 0;
    key.destination_port = 0;
    key.pad = 0;
    let (header, numbers) = match family {
        AF_INET => (ipv4(network, key)?, network.add(2)),
        AF_INET6 => (ipv6(network, key)?, network),
        _ => return None,
    };
    let Some(header) = header else {
        identify(numbers, None, identity)?;
        return Some(LATER_FRAGMENT);
    };
    let detail = ports(header, key)?;
    match key.protocol {
        IPPROTO_TCP => identify_segment(header, identity)?,
        17 | 33 | 132 | 136 | IPPROTO_ICMP | IPPROTO_ICMPV6 => identify(numbers, Some(header), identity)?,
        _ => identify(numbers, None, identity)?,
    }
    Some(detail)
}

/// What tells a packet that is not TCP from the next one of its tuple: see [`Fingerprint`].
#[inline(always)]
fn identify(numbers: Pointer, transport: Option<Pointer>, identity: &mut [u8; IDENTITY_LEN]) -> Option<()> {
    *identity = [0; IDENTITY_LEN];
    let (network, rest) = identity.split_at_mut(8);
    let network: &mut [u8; 8] = network.try_into().ok()?;
    numbers.read_into(0, network)?;
    let Some(transport) = transport else {
        return Some(());
    };
    let (transports, _) = rest.split_at_mut(4);
    let transports: &mut [u8; 4] = transports.try_into().ok()?;
    transport.read_into(4, transports)
}

/// What tells a TCP segment from the next one of its connection.
#[inline(always)]
fn identify_segment(header: Pointer, identity: &mut [u8; IDENTITY_LEN]) -> Option<()> {
    let (fixed, option) = identity.split_at_mut(IDENTITY_LEN / 2);
    let fixed: &mut [u8; IDENTITY_LEN / 2] = fixed.try_into().ok()?;
    let option: &mut [u8; IDENTITY_LEN / 2] = option.try_into().ok()?;
    header.read_into(4, fixed)?;
    *option = [0; IDENTITY_LEN / 2];
    let [_, _, _, _, _, _, _, _, length, ..] = *fixed;
    if length >> 4 < 8 {
        return Some(());
    }
    header.read_into(20, option)
}

/// Fills in addresses and protocol; answers where the transport header is, or `None` for a later fragment.
#[inline(always)]
fn ipv4(network: Pointer, key: &mut PacketKey) -> Option<Option<Pointer>> {
    let version_length: u8 = network.read(0)?;
    if version_length >> 4 != 4 {
        return None;
    }
    key.protocol = network.read(9)?;
    map_v4(network, 12, &mut key.source)?;
    map_v4(network, 16, &mut key.destination)?;
    let fragment_offset = u16::from_be(network.read(6)?) & 0x1fff;
    let length = ((version_length & 0x0f) as u64) * 4;
    Some((fragment_offset == 0).then(|| network.add(length)))
}

#[inline(always)]
fn ipv6(network: Pointer, key: &mut PacketKey) -> Option<Option<Pointer>> {
    let version: u8 = network.read(0)?;
    if version >> 4 != 6 {
        return None;
    }
    network.read_into(8, &mut key.source)?;
    network.read_into(24, &mut key.destination)?;
    let mut next: u8 = network.read(6)?;
    let mut position = network.add(40);
    for _ in 0..MAX_EXTENSIONS {
        match next {
            // Hop-by-hop, routing, destination options.
            0 | 43 | 60 => {
                let [following, length]: [u8; 2] = position.read(0)?;
                next = following;
                position = position.add((length as u64 + 1) * 8);
            }
            // Fragment.
            44 => {
                let [following, _, high, low]: [u8; 4] = position.read(0)?;
                next = following;
                if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                    key.protocol = next;
                    return Some(None);
                }
                position = position.add(8);
            }
            // Authentication.
            51 => {
                let [following, length]: [u8; 2] = position.read(0)?;
                next = following;
                position = position.add((length as u64 + 2) * 4);
            }
            _ => break,
        }
    }
    key.protocol = next;
    Some(Some(position))
}

/// Fills in the ports; answers the TCP flags, [`ECHO_REPLY`], or 0.
#[inline(always)]
fn ports(header: Pointer, key: &mut PacketKey) -> Option<u16> {
    match key.protocol {
        // TCP, UDP, DCCP, SCTP, UDP-Lite.
        IPPROTO_TCP | 17 | 33 | 132 | 136 => {
            key.source_port = u16::from_be(header.read(0)?);
            key.destination_port = u16::from_be(header.read(2)?);
            if key.protocol != IPPROTO_TCP {
                return Some(0);
            }
            header.read::<u8>(13).map(u16::from)
        }
        IPPROTO_ICMP => echo(header, key, 8, 0),
        IPPROTO_ICMPV6 => echo(header, key, 128, 129),
        _ => Some(0),
    }
}

#[inline(always)]
fn echo(header: Pointer, key: &mut PacketKey, request: u8, reply: u8) -> Option<u16> {
    let kind: u8 = header.read(0)?;
    // Request and reply of a loopback echo have all else in common, and different owners.
    key.destination_port = kind.into();
    if kind != request && kind != reply {
        return Some(0);
    }
    key.source_port = u16::from_be(header.read(4)?);
    Some(if kind == reply { ECHO_REPLY } else { 0 })
}
