//! SCTP, whose functions are a module's that may be loaded later: taken at the security hooks that every `connect` and `listen`
//! passes, in process context. One endpoint has many addresses and associations, so it is known by its socket alone.

use aya_ebpf::macros::kprobe;
use aya_ebpf::programs::ProbeContext;
use nflog_common::method;

use crate::registry::stamp;
use crate::sock::{AF_INET, AF_INET6, IPPROTO_SCTP, Sock};

/// Attached to `security_socket_connect` and `security_socket_listen`.
///
/// match-proto: `int security_socket_connect(struct socket *sock, struct sockaddr *address, int addrlen)`
/// match-proto: `int security_socket_listen(struct socket *sock, int backlog)`
#[kprobe]
pub(crate) fn security_socket(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg(0).and_then(Sock::of_socket)
        && let Some(AF_INET | AF_INET6) = sock.family()
        && let Some(IPPROTO_SCTP) = sock.protocol()
    {
        let _ = stamp(sock, method::SOCKET, false, false);
    }
    0
}
