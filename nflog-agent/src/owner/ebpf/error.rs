//! Why the probes cannot be used.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use thiserror::Error;

use super::btf::BtfError;
use crate::causes::causes;

/// Why the probes cannot be used, or why one of them cannot.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The kernel has no kprobes that `perf_event_open` can make.
    #[error(
        "this kernel has no kprobes (CONFIG_KPROBE_EVENTS, CONFIG_BPF_EVENTS): use a distribution kernel"
    )]
    NoKprobes,
    /// The kernel does not describe its own types.
    #[error(
        "cannot read {path}: {source}; the kernel needs CONFIG_DEBUG_INFO_BTF, and the agent a view of the host's /sys"
    )]
    NoBtf {
        /// Where BTF is looked for.
        path: &'static str,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// BTF does not have what is needed.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The loader does not understand BTF.
    #[error("the kernel's BTF: {}", causes(.0))]
    KernelBtf(aya::BtfError),
    /// The object cannot be loaded: maps or globals.
    #[error("the kernel refuses the eBPF maps: {}; the agent needs CAP_BPF and CAP_PERFMON, before 5.8 CAP_SYS_ADMIN", causes(.0))]
    Load(Box<EbpfError>),
    /// The embedded object lacks a map: it was built from other sources.
    #[error("the embedded eBPF object has no map `{name}`: rebuild the agent")]
    NoMap {
        /// Map name.
        name: &'static str,
    },
    /// The embedded object lacks a program: it was built from other sources.
    #[error("the embedded eBPF object has no program `{name}`: rebuild the agent")]
    NoProgram {
        /// Program name.
        name: &'static str,
    },
    /// A map cannot be used.
    #[error("eBPF map: {}", causes(.0))]
    Map(#[from] MapError),
    /// The kernel refuses a program.
    #[error("the kernel refuses the eBPF program `{name}`: {}", causes(.source))]
    Program {
        /// Program name.
        name: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// The kernel refuses a program that it was only asked about.
    #[error("the kernel refuses the eBPF program `{name}`: {}", causes(.source))]
    Refused {
        /// Program name.
        name: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// The embedded object has a program of another kind: it was built from other sources.
    #[error(
        "the embedded eBPF object has the program `{name}`, which is no kprobe, no tracepoint and no iterator: rebuild the agent"
    )]
    Kind {
        /// Program name.
        name: String,
    },
    /// The kernel has no such tracepoint, or refuses the program there.
    #[error("cannot attach to the kernel's tracepoint `{tracepoint}`: {}", causes(.source))]
    Tracepoint {
        /// Name of the tracepoint.
        tracepoint: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// The probed function does not exist or cannot be probed.
    #[error("cannot probe the kernel function `{symbol}`: {}", causes(.source))]
    Attach {
        /// Kernel function.
        symbol: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
}
