//! Datagram sends, in the context of the sender. The first one stamps sockets that were bound before the agent started;
//! later ones notice a socket that changed hands (fork, `SCM_RIGHTS`).

use aya_ebpf::macros::kprobe;
use aya_ebpf::programs::ProbeContext;

use crate::registry::sends;
use crate::sock::Sock;

/// Attached to `udp_sendmsg`, `udpv6_sendmsg`, `ping_v4_sendmsg`, `ping_v6_sendmsg`, `raw_sendmsg`, `rawv6_sendmsg`.
///
/// match-proto: `_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)`
#[kprobe]
pub(crate) fn sendmsg(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg(0).and_then(Sock::new) {
        let _ = sends(sock);
    }
    0
}
