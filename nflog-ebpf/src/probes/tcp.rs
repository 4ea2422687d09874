//! TCP in process context: connect, listen, accept.

use aya_ebpf::macros::{kprobe, kretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use aya_log_ebpf::debug;
use nflog_common::method;

use super::port::{recall, remember};
use crate::registry::{accepted, stamp};
use crate::sock::{AF_INET, AF_INET6, Sock};
use crate::task::current_tgid;

/// At entry, because the SYN has passed OUTPUT by the time the function returns; addresses and ports are set.
///
/// match-proto: `int tcp_connect(struct sock *sk)`
#[kprobe]
pub(crate) fn tcp_connect(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg(0).and_then(Sock::new) {
        debug!(&ctx, "tcp_connect by {}", current_tgid());
        let _ = stamp(sock, method::SOCKET, true, false);
    }
    0
}

/// match-proto: `int inet_csk_listen_start(struct sock *sk` (5.10 has a second argument)
#[kprobe]
pub(crate) fn inet_csk_listen_start(ctx: ProbeContext) -> u32 {
    remember(ctx.arg(0));
    0
}

/// At return, because a listen without bind gets its port inside.
#[kretprobe]
pub(crate) fn inet_csk_listen_start_ret(ctx: RetProbeContext) -> u32 {
    if let Some(sock) = recall()
        && ctx.ret::<i32>() == 0
    {
        debug!(&ctx, "listen by {}", current_tgid());
        let _ = stamp(sock, method::SOCKET, false, true);
    }
    0
}

/// `sock_graft` gives an accepted connection its `struct socket`, in the process that accepts. Preferred to the return of
/// `inet_csk_accept`: that function blocks, and a kretprobe has only so many instances for callers that wait.
///
/// match-proto: `void security_sock_graft(struct sock *sk, struct socket *parent)`
#[kprobe]
pub(crate) fn security_sock_graft(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg(0).and_then(Sock::new)
        && let Some(AF_INET | AF_INET6) = sock.family()
    {
        debug!(&ctx, "accept by {}", current_tgid());
        accepted(sock);
    }
    0
}

/// The same for kernels built without `CONFIG_SECURITY_NETWORK`.
///
/// match-proto: `struct sock *inet_csk_accept(struct sock *sk,`
#[kretprobe]
pub(crate) fn inet_csk_accept(ctx: RetProbeContext) -> u32 {
    if let Some(sock) = Sock::new(ctx.ret()) {
        debug!(&ctx, "accept by {}", current_tgid());
        accepted(sock);
    }
    0
}
