//! Which program goes on which kernel function, and what is lost without it.

use std::path::Path;

use aya::Ebpf;
use aya::maps::ProgramArray;
use aya::programs::{KProbe, ProgramError};

use nflog_common::continuation;

use super::OpenError;
use super::process::TRACEPOINTS;

/// One program on one kernel function.
struct Probe {
    program: &'static str,
    symbol: &'static str,
    need: Need,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Without it nothing can be answered, or answers could be wrong.
    Required,
    /// Without it some packets get no owner.
    Optional,
    /// Only if the named symbol could not be probed.
    InsteadOf(&'static str),
}

const fn probe(program: &'static str, symbol: &'static str, need: Need) -> Probe {
    Probe {
        program,
        symbol,
        need,
    }
}

/// Feeders first: when the log probe starts to answer, the stores are already kept up.
const PROBES: &[Probe] = &[
    probe("inet_sock_destruct", "inet_sock_destruct", Need::Required),
    probe("tcp_connect", "tcp_connect", Need::Required),
    probe("inet_csk_listen_start", "inet_csk_listen_start", Need::Required),
    probe(
        "inet_csk_listen_start_ret",
        "inet_csk_listen_start",
        Need::Required,
    ),
    probe("security_sock_graft", "security_sock_graft", Need::Optional),
    probe(
        "inet_csk_accept",
        "inet_csk_accept",
        Need::InsteadOf("security_sock_graft"),
    ),
    probe(
        "inet_csk_reqsk_queue_hash_add",
        "inet_csk_reqsk_queue_hash_add",
        Need::Optional,
    ),
    probe("syn_recv_sock", "tcp_v4_syn_recv_sock", Need::Optional),
    probe("syn_recv_sock_ret", "tcp_v4_syn_recv_sock", Need::Optional),
    probe("syn_recv_sock", "tcp_v6_syn_recv_sock", Need::Optional),
    probe("syn_recv_sock_ret", "tcp_v6_syn_recv_sock", Need::Optional),
    probe("get_port", "udp_lib_get_port", Need::Optional),
    probe("get_port_ret", "udp_lib_get_port", Need::Optional),
    probe("get_port", "ping_get_port", Need::Optional),
    probe("get_port_ret", "ping_get_port", Need::Optional),
    probe("sendmsg", "udp_sendmsg", Need::Required),
    probe("sendmsg", "udpv6_sendmsg", Need::Optional),
    probe("sendmsg", "ping_v4_sendmsg", Need::Optional),
    probe("sendmsg", "ping_v6_sendmsg", Need::Optional),
    probe("sendmsg", "raw_sendmsg", Need::Optional),
    probe("sendmsg", "rawv6_sendmsg", Need::Optional),
    probe("security_socket", "security_socket_connect", Need::Optional),
    probe("security_socket", "security_socket_listen", Need::Optional),
    probe("nf_log_packet", "nf_log_packet", Need::Required),
];

/// Loads and attaches every program; answers which optional ones could not be.
pub(super) fn attach_all(ebpf: &mut Ebpf) -> Result<Vec<OpenError>, OpenError> {
    let mut missing = Vec::new();
    let mut failed = Vec::new();
    for Probe {
        program,
        symbol,
        need,
    } in PROBES
    {
        if let Need::InsteadOf(other) = need
            && !failed.contains(other)
        {
            continue;
        }
        match attach(ebpf, program, symbol) {
            Ok(()) => {}
            Err(error) if *need == Need::Required => return Err(error),
            Err(error) => {
                failed.push(symbol);
                missing.push(error);
            }
        }
    }
    Ok(missing)
}

/// The programs that the log probe goes on in for forwarded packets.
const CONTINUATIONS: [(u32, &str); 2] = [
    (continuation::SENDER, "nf_log_sender"),
    (continuation::RECEIVER, "nf_log_receiver"),
];

/// Lets the log probe go on in other programs for forwarded packets, which have no owner without them.
pub(super) fn continue_log_probe(ebpf: &mut Ebpf) -> Result<(), OpenError> {
    const MAP: &str = "CONTINUATIONS";
    for (index, name) in CONTINUATIONS {
        let program = kprobe(ebpf, name)?;
        program.load().map_err(|source| refused(name, source))?;
        let fd = program
            .fd()
            .and_then(|fd| Ok(fd.try_clone()?))
            .map_err(|source| refused(name, source))?;
        let map = ebpf.map_mut(MAP).ok_or(OpenError::NoMap { name: MAP })?;
        ProgramArray::try_from(map)?.set(index, &fd, 0)?;
    }
    Ok(())
}

/// Kernel ids and names of the programs that are loaded, each once.
pub(super) fn loaded(ebpf: &Ebpf) -> Vec<(u32, &'static str)> {
    let mut loaded: Vec<(u32, &str)> = Vec::new();
    let attached = PROBES.iter().map(|probe| probe.program);
    let tracepoints = TRACEPOINTS.iter().map(|(program, _)| *program);
    let continued = CONTINUATIONS.map(|(_, name)| name);
    for name in attached.chain(tracepoints).chain(continued) {
        // One that stands in for another may not be loaded: it has no information then.
        if loaded.iter().all(|(_, known)| *known != name)
            && let Some(program) = ebpf.program(name)
            && let Ok(info) = program.info()
        {
            loaded.push((info.id(), name));
        }
    }
    loaded
}

fn attach(ebpf: &mut Ebpf, name: &'static str, symbol: &'static str) -> Result<(), OpenError> {
    let program = kprobe(ebpf, name)?;
    if program.fd().is_err() {
        program.load().map_err(|source| refused(name, source))?;
    }
    program.attach(symbol, 0).map_err(|source| OpenError::Attach {
        symbol,
        source: Box::new(source),
    })?;
    Ok(())
}

fn kprobe<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut KProbe, OpenError> {
    let program = ebpf.program_mut(name).ok_or(OpenError::NoProgram { name })?;
    program.try_into().map_err(|source| refused(name, source))
}

fn refused(name: &'static str, source: ProgramError) -> OpenError {
    OpenError::Program {
        name,
        source: Box::new(source),
    }
}

/// A kernel with kprobes shows their PMU (4.17 and later) or the tracefs file; one without shows neither.
pub(super) fn require_kprobes(sys: &Path) -> Result<(), OpenError> {
    let places = [
        "bus/event_source/devices/kprobe/type",
        "kernel/tracing/kprobe_events",
        "kernel/debug/tracing/kprobe_events",
    ];
    if places.iter().any(|place| sys.join(place).exists()) {
        Ok(())
    } else {
        Err(OpenError::NoKprobes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_kprobes_is_told_from_one_with() {
        let sys = tempfile::tempdir().unwrap();
        assert!(matches!(require_kprobes(sys.path()), Err(OpenError::NoKprobes)));
        let pmu = sys.path().join("bus/event_source/devices/kprobe");
        std::fs::create_dir_all(&pmu).unwrap();
        std::fs::write(pmu.join("type"), "8\n").unwrap();
        assert!(require_kprobes(sys.path()).is_ok());
    }

    #[test]
    fn a_replacement_follows_what_it_replaces() {
        for (position, probe) in PROBES.iter().enumerate() {
            if let Need::InsteadOf(other) = probe.need {
                assert!(PROBES[..position].iter().any(|earlier| earlier.symbol == other));
            }
        }
    }
}
