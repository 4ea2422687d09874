//! The log probe's part for packets in FORWARD: they have no socket here, but those who sent them or take them can be in other
//! namespaces of this host.
//!
//! The owner is the sender, if it is found; else the receiver. A namespace is asked only if a device proves that the packet is
//! its, see [`far`](crate::far); the packet's addresses alone name nobody, because other networks may use the same ones.

use aya_ebpf::macros::kprobe;
use aya_ebpf::programs::ProbeContext;
use nflog_common::{PacketKey, PortKey, SocketTuple, Stat, continuation::RECEIVER, end, reason};

use super::log::answer;
use crate::far::{Behind, Far, Sought, Walk, behind, hardware_address, is_v4};
use crate::kernel::Pointer;
use crate::lookup::{Found, by_connected_port, by_port, by_request, by_sending_port, by_tombstone, by_tuple};
use crate::maps::{CONTINUATIONS, Ends, WORK, Work, count, offset};
use crate::packet::{LATER_FRAGMENT, TCP_ACK, TCP_SYN};
use crate::sock::IPPROTO_TCP;

const IPPROTO_UDP: u8 = 17;
const IPPROTO_UDPLITE: u8 = 136;
/// `skb->mac_header` when there is none.
const NO_HEADER: u16 = !0;

/// Called by the program on `nf_log_packet`, which has parsed the packet, and returns to that one's caller.
#[kprobe]
pub(crate) fn nf_log_sender(ctx: ProbeContext) -> u32 {
    let _ = sender(&ctx);
    0
}

/// Called by [`nf_log_sender`] if nobody is known to have sent the packet. It is a program of its own for the verifier, which would
/// else follow all of it from each way that leads to it.
#[kprobe]
pub(crate) fn nf_log_receiver(ctx: ProbeContext) -> u32 {
    let _ = receiver(&ctx);
    0
}

#[inline(always)]
fn sender(ctx: &ProbeContext) -> Option<()> {
    let work = WORK.get_ptr_mut(0)?;
    // SAFETY: this CPU's slot, which the calling program has filled in; the kernel runs no second kprobe program meanwhile.
    let work = unsafe { &mut *work };
    let found = sender_of(ctx, work);
    match found {
        Found::Owner { .. } => {
            work.ends.owner = end::SOURCE;
            count(Stat::Attributed);
        }
        Found::Nobody { reason } => {
            work.ends.lack = reason;
            // SAFETY: what has to be done is done, and the other program finds it in `WORK`. Without one this goes on.
            unsafe { CONTINUATIONS.tail_call(ctx, RECEIVER) };
        }
    }
    answer(ctx, work, found);
    Some(())
}

#[inline(always)]
fn receiver(ctx: &ProbeContext) -> Option<()> {
    let work = WORK.get_ptr_mut(0)?;
    // SAFETY: as in `sender`.
    let work = unsafe { &mut *work };
    let lack = work.ends.lack;
    let mut found = receiver_of(ctx, work);
    match found {
        Found::Owner { .. } => {
            work.ends.owner = end::DESTINATION;
            count(Stat::Attributed);
        }
        Found::Nobody { reason } => {
            if reason == reason::FORWARDED || lack == reason::AMBIGUOUS {
                found = Found::nobody(lack);
            }
        }
    }
    answer(ctx, work, found);
    Some(())
}

#[inline(always)]
fn sender_of(ctx: &ProbeContext, work: &mut Work) -> Found {
    let Work {
        logged,
        tuple,
        port,
        detail,
        ends,
        walk,
        ..
    } = work;
    let key = &logged.print.packet;
    if *detail == LATER_FRAGMENT {
        return Found::nobody(reason::FRAGMENT);
    }
    match source(ctx, key, walk) {
        Behind::Namespace(far) => sent(far, key, tuple, port, ends),
        Behind::Several => Found::nobody(reason::AMBIGUOUS),
        Behind::Elsewhere => Found::nobody(reason::FORWARDED),
    }
}

#[inline(always)]
fn receiver_of(ctx: &ProbeContext, work: &mut Work) -> Found {
    let Work {
        logged,
        tuple,
        port,
        detail,
        ends,
        walk,
        ..
    } = work;
    let key = &logged.print.packet;
    if *detail == LATER_FRAGMENT {
        return Found::nobody(reason::FRAGMENT);
    }
    match destination(ctx, key, walk) {
        Behind::Namespace(far) => received(far, key, tuple, port, *detail, ends),
        Behind::Several => Found::nobody(reason::AMBIGUOUS),
        Behind::Elsewhere => Found::nobody(reason::FORWARDED),
    }
}

/// Where the packet comes from: behind the device that it came in on.
#[inline(always)]
fn source(ctx: &ProbeContext, key: &PacketKey, walk: &mut Walk) -> Behind {
    let (Some(device), Some(skb)) = (
        ctx.arg(4).and_then(Pointer::new),
        ctx.arg(3).and_then(Pointer::new),
    ) else {
        return Behind::Elsewhere;
    };
    // Ethernet: destination, then source.
    let start = skb.peek::<u16>(offset!(forwarding.sk_buff_mac_header));
    let hardware = match Pointer::new(skb.peek(offset!(sk_buff_head))) {
        Some(head) if start != NO_HEADER => hardware_address(head.add(start as u64 + 6)),
        _ => 0,
    };
    behind(device, key.netns, Sought::Hardware(hardware), walk)
}

/// Where it goes to: behind the device that it leaves by.
#[inline(always)]
fn destination(ctx: &ProbeContext, key: &PacketKey, walk: &mut Walk) -> Behind {
    match ctx.arg(5).and_then(Pointer::new) {
        Some(device) => behind(device, key.netns, Sought::Address(&key.destination), walk),
        None => Behind::Elsewhere,
    }
}

/// Whose the packet is in the namespace that it comes from.
#[inline(always)]
fn sent(far: Far, key: &PacketKey, tuple: &mut SocketTuple, port: &mut PortKey, ends: &mut Ends) -> Found {
    let v4 = is_v4(&key.source);
    if !far.is_source(v4) {
        return Found::nobody(reason::AMBIGUOUS);
    }
    ends.source_netns = far.netns;
    tuple.netns = far.netns;
    tuple.protocol = key.protocol;
    tuple.pad = 0;
    tuple.pad2 = 0;
    tuple.local_port = key.source_port;
    tuple.remote_port = key.destination_port;
    tuple.local = key.source;
    tuple.remote = key.destination;
    let found = match key.protocol {
        IPPROTO_TCP => of_connection(tuple),
        IPPROTO_UDP | IPPROTO_UDPLITE if far.has_address(&key.source, v4) => by_sending_port(tuple, port),
        _ => None,
    };
    found.unwrap_or(Found::nobody(reason::NO_SOCKET))
}

/// Whose it is in the namespace that it goes to.
#[inline(always)]
fn received(
    far: Far,
    key: &PacketKey,
    tuple: &mut SocketTuple,
    port: &mut PortKey,
    detail: u16,
    ends: &mut Ends,
) -> Found {
    let v4 = is_v4(&key.destination);
    if !far.is_source(v4) {
        return Found::nobody(reason::AMBIGUOUS);
    }
    ends.destination_netns = far.netns;
    tuple.netns = far.netns;
    tuple.protocol = key.protocol;
    tuple.pad = 0;
    tuple.pad2 = 0;
    tuple.local_port = key.destination_port;
    tuple.remote_port = key.source_port;
    tuple.local = key.destination;
    tuple.remote = key.source;
    let new = match key.protocol {
        IPPROTO_TCP => {
            if let Some(found) = by_tuple(tuple) {
                return found;
            }
            detail & (TCP_SYN | TCP_ACK) == TCP_SYN
        }
        IPPROTO_UDP | IPPROTO_UDPLITE => true,
        _ => false,
    };
    let found = if !new {
        if key.protocol == IPPROTO_TCP {
            by_request(tuple).or_else(|| by_tombstone(tuple))
        } else {
            None
        }
    } else if !far.untranslated(v4) {
        // It may be taken to another port there.
        Some(Found::nobody(reason::AMBIGUOUS))
    } else if far.has_address(&key.destination, v4) {
        by_port(tuple, port).or_else(|| {
            if key.protocol == IPPROTO_TCP {
                return None;
            }
            let (found, peer) = by_connected_port(tuple, port)?;
            ends.peer = peer;
            Some(found)
        })
    } else {
        None
    };
    found.unwrap_or(Found::nobody(reason::NO_SOCKET))
}

#[inline(always)]
fn of_connection(tuple: &SocketTuple) -> Option<Found> {
    by_tuple(tuple)
        .or_else(|| by_request(tuple))
        .or_else(|| by_tombstone(tuple))
}
