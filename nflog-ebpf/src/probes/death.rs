//! The end of a socket: after this its address may be another socket's.

use aya_ebpf::macros::kprobe;
use aya_ebpf::programs::ProbeContext;

use crate::registry::forget;
use crate::sock::Sock;

/// Destructor of every IPv4 and IPv6 socket of any protocol.
///
/// match-proto: `void inet_sock_destruct(struct sock *sk)`
#[kprobe]
pub(crate) fn inet_sock_destruct(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg(0).and_then(Sock::new) {
        let _ = forget(sock);
    }
    0
}
