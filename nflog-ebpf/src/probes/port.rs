//! Datagram sockets get their port: by bind, or by the kernel at connect or first send. Always in process context.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{kprobe, kretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use aya_log_ebpf::debug;
use nflog_common::{Stat, method};

use crate::maps::{SCRATCH, count};
use crate::registry::stamp;
use crate::sock::Sock;
use crate::task::current_tgid;

/// Attached to `udp_lib_get_port` and, for ICMP echo sockets whose port is the identifier, `ping_get_port`.
///
/// match-proto: `int udp_lib_get_port(struct sock *sk, unsigned short snum,`
/// match-proto: `int ping_get_port(struct sock *sk, unsigned short ident)`
#[kprobe]
pub(crate) fn get_port(ctx: ProbeContext) -> u32 {
    remember(ctx.arg(0));
    0
}

/// At return, when the port is known.
#[kretprobe]
pub(crate) fn get_port_ret(ctx: RetProbeContext) -> u32 {
    if let Some(sock) = recall()
        && ctx.ret::<i32>() == 0
    {
        debug!(&ctx, "port taken by {}", current_tgid());
        let _ = stamp(sock, method::SOCKET, false, true);
    }
    0
}

/// Keeps a probed function's socket for its return probe in the same thread.
#[inline(always)]
pub(crate) fn remember(sock: Option<u64>) {
    if let Some(sock) = sock
        && SCRATCH
            .insert(bpf_get_current_pid_tgid(), sock, BPF_ANY.into())
            .is_err()
    {
        count(Stat::ScratchMapError);
    }
}

/// The socket that [`remember`] kept for this thread.
#[inline(always)]
pub(crate) fn recall() -> Option<Sock> {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: the value is copied out at once.
    let address = *unsafe { SCRATCH.get(thread) }?;
    let _ = SCRATCH.remove(thread);
    Sock::new(address)
}
