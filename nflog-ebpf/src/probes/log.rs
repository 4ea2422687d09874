//! The log call itself: before the NFLOG message exists, write down whose packet it is.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::macros::kprobe;
use aya_ebpf::programs::ProbeContext;
use aya_log_ebpf::debug;
use nflog_common::{
    Answer, Fingerprint, Logged, PacketKey, PortKey, SocketTuple, Stat, continuation, end, method, reason,
};

use crate::kernel::{Pointer, monotonic};
use crate::lookup::{
    Found, by_closing, by_exact_port, by_listener, by_port, by_request, by_socket, by_tombstone, by_tuple,
};
use crate::maps::{ANSWERS, CONTINUATIONS, Ends, GROUPS, NAMESPACES, REFUSED, WORK, Work, count, offset};
use crate::packet::{
    ECHO_REPLY, IPPROTO_ICMP, IPPROTO_ICMPV6, LATER_FRAGMENT, NF_INET_FORWARD, NF_INET_LOCAL_IN,
    NF_INET_LOCAL_OUT, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, parse, socket_tuple,
};
use crate::registry::{NOBODY, Sender, cookie, transmits};
use crate::sock::{
    AF_INET, AF_INET6, Holder, IPPROTO_SCTP, IPPROTO_TCP, Sock, TCP_NEW_SYN_RECV, TCP_TIME_WAIT,
};

/// `NF_LOG_TYPE_ULOG`: the rule logs to NFLOG, not to the kernel log.
const NF_LOG_TYPE_ULOG: u8 = 1;

/// Variadic, so fentry cannot attach. Called by `xt_NFLOG` and by nft's `log group`.
///
/// match-proto: `void nf_log_packet(struct net *net, u_int8_t pf, unsigned int hooknum, const struct sk_buff *skb,`
#[kprobe]
pub(crate) fn nf_log_packet(ctx: ProbeContext) -> u32 {
    let _ = logged(&ctx);
    0
}

#[inline(always)]
fn logged(ctx: &ProbeContext) -> Option<()> {
    if !is_ours(loginfo(ctx)?)? {
        return Some(());
    }
    let family: u8 = ctx.arg(1)?;
    let hook: u8 = ctx.arg(2)?;
    let skb = Pointer::new(ctx.arg(3)?)?;
    let family = u16::from(family);
    if family != AF_INET && family != AF_INET6 {
        // netdev, bridge and arp hooks see no local socket; the agent knows that from the message.
        return Some(());
    }
    let netns: u32 = Pointer::new(ctx.arg(0)?)?.read(offset!(net_ns_inum))?;
    // SAFETY: only whether there is one.
    if unsafe { NAMESPACES.get(netns) }.is_none() {
        return Some(());
    }
    count(Stat::Logged);
    let work = WORK.get_ptr_mut(0)?;
    // SAFETY: this CPU's slot; the kernel runs no second kprobe program on a CPU while one is running.
    let work = unsafe { &mut *work };
    let print = &mut work.logged.print;
    print.packet.netns = netns;
    print.packet.hook = hook;
    let Some(detail) = parse(skb, family, print) else {
        count(Stat::Unparsable);
        return None;
    };
    work.detail = detail;
    work.ends = Ends {
        source_netns: 0,
        destination_netns: 0,
        peer: 0,
        owner: end::UNSET,
        lack: reason::UNSET,
    };
    if hook == NF_INET_FORWARD {
        // SAFETY: what has to be done is done, and the other program finds it in `WORK`. Without one this goes on.
        unsafe { CONTINUATIONS.tail_call(ctx, continuation::SENDER) };
    }
    let found = find(skb, work, detail).unwrap_or(Found::nobody(reason::NO_SOCKET));
    if let Found::Owner { .. } = found {
        count(Stat::Attributed);
    }
    answer(ctx, work, found);
    Some(())
}

/// The 7th argument: on the stack on x86-64, above the return address.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
fn loginfo(ctx: &ProbeContext) -> Option<Pointer> {
    // SAFETY: the kernel hands a kprobe program a valid pt_regs.
    let stack = Pointer::new(unsafe { (*ctx.regs).rsp })?;
    stack.follow(8)
}

#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
fn loginfo(ctx: &ProbeContext) -> Option<Pointer> {
    Pointer::new(ctx.arg(6)?)
}

/// Whether the rule logs to an NFLOG group that the agent listens to.
#[inline(always)]
fn is_ours(loginfo: Pointer) -> Option<bool> {
    if loginfo.read::<u8>(offset!(nf_loginfo_type))? != NF_LOG_TYPE_ULOG {
        return Some(false);
    }
    let group: u16 = loginfo.read(offset!(nf_loginfo_ulog_group))?;
    let word = GROUPS.get(u32::from(group >> 6))?;
    Some(word & (1 << (group & 63)) != 0)
}

#[inline(always)]
fn find(skb: Pointer, work: &mut Work, detail: u16) -> Option<Found> {
    let Work {
        logged: Logged {
            print: Fingerprint { packet: key, .. },
            ..
        },
        tuple,
        port,
        ..
    } = work;
    if key.hook == NF_INET_FORWARD {
        return Some(Found::nobody(reason::FORWARDED));
    }
    socket_tuple(key, tuple);
    let tcp = key.protocol == IPPROTO_TCP;
    // A packet keeps its socket when a tunnel of its namespace wraps it; the outer packet is not the socket's.
    if key.hook > NF_INET_LOCAL_IN && skb.read_or_zero::<u16>(offset!(sk_buff_inner_network_header)) != 0 {
        return Some(Found::nobody(reason::KERNEL_TUNNEL));
    }
    let Some(sock) = Sock::new(skb.read(offset!(sk_buff_sk))?) else {
        if detail == LATER_FRAGMENT {
            return Some(Found::nobody(reason::FRAGMENT));
        }
        return if key.hook > NF_INET_LOCAL_IN {
            sent_without_socket(key, tuple, port, detail)
        } else {
            received_without_socket(key, tuple, port, detail)
        };
    };
    match sock.state()? {
        TCP_NEW_SYN_RECV if tcp => sock
            .listener()
            .and_then(|listener| by_listener(listener, tuple.local_port)),
        TCP_TIME_WAIT if tcp => by_closing(tuple).or(Some(Found::nobody(reason::TIME_WAIT))),
        _ => with_socket(sock, key, tuple, detail),
    }
}

/// The kernel sends without a socket: the SYN-ACK of a SYN cookie, the end of a closed connection, tunnels.
#[inline(always)]
fn sent_without_socket(
    key: &PacketKey,
    tuple: &SocketTuple,
    port: &mut PortKey,
    detail: u16,
) -> Option<Found> {
    match key.protocol {
        IPPROTO_TCP => {
            if key.hook == NF_INET_LOCAL_OUT && detail & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK {
                let found = by_port(tuple, port)?;
                let _ = cookie(tuple, port);
                return Some(found);
            }
            let reset = detail & TCP_RST != 0;
            by_tombstone(tuple).or_else(|| reset.then(|| Found::nobody(reason::KERNEL_TCP)))
        }
        IPPROTO_ICMP | IPPROTO_ICMPV6 => Some(Found::nobody(reason::KERNEL_ICMP)),
        _ => None,
    }
}

#[inline(always)]
fn received_without_socket(
    key: &PacketKey,
    tuple: &SocketTuple,
    port: &mut PortKey,
    detail: u16,
) -> Option<Found> {
    match key.protocol {
        IPPROTO_TCP => {
            if let Some(found) = by_tuple(tuple) {
                return Some(found);
            }
            if detail & (TCP_SYN | TCP_ACK) != TCP_SYN {
                return by_request(tuple).or_else(|| by_tombstone(tuple));
            }
        }
        IPPROTO_SCTP => return by_tuple(tuple),
        // The kernel itself answers requests and takes note of errors and neighbours.
        IPPROTO_ICMP | IPPROTO_ICMPV6 if detail != ECHO_REPLY => {
            return Some(Found::nobody(reason::KERNEL_ICMP));
        }
        _ => {}
    }
    if key.hook == NF_INET_LOCAL_IN {
        by_port(tuple, port)
    } else {
        by_exact_port(tuple, port)
    }
}

#[inline(always)]
fn with_socket(sock: Sock, key: &PacketKey, tuple: &SocketTuple, detail: u16) -> Option<Found> {
    let tcp = key.protocol == IPPROTO_TCP;
    let outgoing = key.hook > NF_INET_LOCAL_IN;
    // SCTP, like TCP, also sends from softirqs and timers.
    let mut sends = outgoing && !tcp && key.protocol != IPPROTO_SCTP;
    if tcp && outgoing && detail & (TCP_SYN | TCP_FIN | TCP_RST) == 0 {
        match transmits(sock) {
            Some(Sender::Current) => sends = true,
            Some(Sender::Unknown) => return Some(Found::nobody(reason::AMBIGUOUS)),
            None => {}
        }
    }
    if let Some(found) = by_socket(sock, tuple, sends) {
        return Some(found);
    }
    match sock.holder() {
        // The per-CPU control socket sends resets and TIME_WAIT ACKs on behalf of connections.
        Holder::Kernel if tcp => by_closing(tuple).or(Some(Found::nobody(reason::KERNEL_TCP))),
        Holder::Kernel => Some(Found::nobody(match key.protocol {
            IPPROTO_ICMP | IPPROTO_ICMPV6 => reason::KERNEL_ICMP,
            _ => reason::KERNEL_SOCKET,
        })),
        _ => Some(Found::nobody(unknown(sock))),
    }
}

/// Why nothing is known of a process's socket.
#[inline(always)]
fn unknown(sock: Sock) -> u8 {
    // SAFETY: only whether there is one.
    if unsafe { REFUSED.get(sock.address()) }.is_some() {
        reason::MAP_FULL
    } else {
        reason::OLDER_THAN_AGENT
    }
}

/// Hands the answer to the agent.
#[inline(always)]
pub(super) fn answer(ctx: &ProbeContext, work: &mut Work, found: Found) {
    let Work { logged, ends, .. } = work;
    fill(&mut logged.answer, found, ends);
    logged.at = monotonic();
    logged.pad = 0;
    let answer = &logged.answer;
    debug!(
        ctx,
        "packet of {} found by method {} reason {}", answer.owner.tgid, answer.method, answer.reason
    );
    // The agent is woken by the NFLOG message, which comes after this.
    if ANSWERS
        .output::<Logged>(&*logged, BPF_RB_NO_WAKEUP.into())
        .is_err()
    {
        count(Stat::AnswerLost);
    }
}

#[inline(always)]
fn fill(answer: &mut Answer, found: Found, ends: &Ends) {
    answer.pad = 0;
    answer.peer = ends.peer;
    answer.end = ends.owner;
    answer.source_netns = ends.source_netns;
    answer.destination_netns = ends.destination_netns;
    match found {
        Found::Owner { owner, method } => {
            // SAFETY: points into a live map value.
            answer.owner = unsafe { *owner };
            answer.method = method;
            answer.reason = reason::UNSET;
        }
        Found::Nobody { reason } => {
            answer.owner = NOBODY;
            answer.method = method::NONE;
            answer.reason = reason;
        }
    }
}
