//! TCP handshakes, which run in softirq where `current` means nothing: the owner comes from the listener.

use aya_ebpf::macros::{kprobe, kretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use nflog_common::Stat;

use crate::maps::{PARENT, count};
use crate::registry::{inherit, requested};
use crate::sock::Sock;

/// A SYN made a request socket, whose `sock_common` has both ends.
///
/// match-proto: `inet_csk_reqsk_queue_hash_add(struct sock *sk, struct request_sock *req`
#[kprobe]
pub(crate) fn inet_csk_reqsk_queue_hash_add(ctx: ProbeContext) -> u32 {
    if let (Some(listener), Some(request)) = (ctx.arg(0).and_then(Sock::new), ctx.arg(1).and_then(Sock::new))
    {
        let _ = requested(request, listener);
    }
    0
}

/// Attached to `tcp_v4_syn_recv_sock` and `tcp_v6_syn_recv_sock`, which calls the former for v4-mapped peers with the
/// same listener.
///
/// match-proto: `struct sock *tcp_v4_syn_recv_sock(const struct sock *sk,`
/// match-proto: `static struct sock *tcp_v6_syn_recv_sock(const struct sock *sk,`
#[kprobe]
pub(crate) fn syn_recv_sock(ctx: ProbeContext) -> u32 {
    remember_parent(ctx.arg(0));
    0
}

/// At return the child has its addresses. `NULL` if it could not be made.
#[kretprobe]
pub(crate) fn syn_recv_sock_ret(ctx: RetProbeContext) -> u32 {
    let _ = adopt(ctx.ret());
    0
}

#[inline(always)]
fn remember_parent(listener: Option<u64>) {
    match PARENT.get_ptr_mut(0) {
        // SAFETY: this CPU's slot.
        Some(slot) => unsafe { *slot = listener.unwrap_or(0) },
        None => count(Stat::ScratchMapError),
    }
}

#[inline(always)]
fn adopt(child: u64) -> Option<()> {
    let child = Sock::new(child)?;
    // SAFETY: this CPU's slot.
    let listener = Sock::new(unsafe { *PARENT.get_ptr(0)? })?;
    let (port, netns) = (child.local_port()?, child.netns()?);
    if port == listener.local_port()? && netns == listener.netns()? {
        inherit(child, listener)?;
    }
    Some(())
}
