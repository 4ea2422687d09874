//! The answer to "whose packet is this", with how it was found or why it was not.

use std::fmt;

use crate::named::named;

/// Owner of a packet, or the reason why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribution {
    /// A process owns the packet.
    Owned {
        /// The process.
        owner: Owner,
        /// How it was found.
        method: Method,
        /// Which end of the packet it is.
        end: End,
    },
    /// No process can be named.
    Unowned(Reason),
}

impl Attribution {
    /// The owner, if there is one.
    #[must_use]
    pub const fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Owned { owner, .. } => Some(owner),
            Self::Unowned(_) => None,
        }
    }

    /// Value of `nflog.owner.method`.
    #[must_use]
    pub const fn method_name(&self) -> &'static str {
        match self {
            Self::Owned { method, .. } => method.name(),
            Self::Unowned(reason) if reason.is_kernel() => "kernel",
            Self::Unowned(_) => "none",
        }
    }

    /// Which end of the packet the owner is; `None` when there is no owner.
    #[must_use]
    pub const fn end(&self) -> Option<End> {
        match self {
            Self::Owned { end, .. } => Some(*end),
            Self::Unowned(_) => None,
        }
    }

    /// Why there is no owner; `None` when there is one.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Owned { .. } => None,
            Self::Unowned(reason) => Some(*reason),
        }
    }

    /// Value of `nflog.owner.reason`; `None` when there is an owner.
    #[must_use]
    pub const fn reason_name(&self) -> Option<&'static str> {
        match self {
            Self::Owned { .. } => None,
            Self::Unowned(reason) => Some(reason.name()),
        }
    }
}

/// One end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The owner sent it.
    Source,
    /// It is for the owner.
    Destination,
}

impl End {
    /// The end that is in the namespace where a packet is logged; `hook` is `NF_INET_*`. In FORWARD it is neither: there the
    /// owner says which end it is.
    #[must_use]
    pub const fn at_hook(hook: u8) -> Self {
        const LOCAL_IN: u8 = 1;
        if hook <= LOCAL_IN {
            Self::Destination
        } else {
            Self::Source
        }
    }

    /// Value of `nflog.owner.end`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// A process, as it was when it took the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Process id (thread group id) in the initial pid namespace.
    pub pid: u32,
    /// Start time, ns since boot; `None` if unknown. Together with `pid` it names one process for the life of the boot.
    pub start_boottime: Option<u64>,
    /// Which program of the process, as the kernel counts execs (`task_struct.self_exec_id` modulo 2^32); `None` if unknown.
    pub exec_id: Option<u32>,
    /// Effective user id.
    pub uid: u32,
    /// `comm` of the main thread.
    pub comm: Comm,
    /// cgroup v2 id (inode of the cgroup directory); `None` if unknown.
    pub cgroup_id: Option<u64>,
}

/// A `comm`: up to 15 bytes, not necessarily UTF-8.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Comm([u8; 16]);

impl Comm {
    /// From a NUL-padded kernel buffer; the last byte is ignored, as the kernel keeps it NUL.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes before the first NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(15);
        &self.0[..end]
    }

    /// The longest prefix that is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match std::str::from_utf8(self.as_bytes()) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&self.as_bytes()[..error.valid_up_to()]).unwrap_or_default(),
        }
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

named! {
    /// How an owner was found.
    pub enum Method {
        /// The packet's own socket, stamped when its process connected, bound or first sent.
        Socket = "socket",
        /// The packet's own socket, accepted by this process.
        Accepted = "accepted",
        /// A connection that is not accepted yet: its listener's owner.
        Inherited = "inherited",
        /// No connection yet: the process that listens on, or is bound to, the destination port.
        Listener = "listener",
        /// The socket of this connection is gone (the kernel finishes the close, or TIME_WAIT); this process had it.
        Tombstone = "tombstone",
        /// The packet's own socket, handed over to this process (fork, `SCM_RIGHTS`), which sends on it.
        Sender = "sender",
        /// The packet's socket, or the listener it is for, is older than the agent; this process held it when the agent started.
        Seeded = "seeded",
        /// The socket of the packet's connection, found by the addresses that it had before or has after translation (NAT).
        Conntrack = "conntrack",
        /// Asked of the kernel after the fact (`inet_diag` and `/proc`).
        SockDiag = "sockdiag",
    }
}

named! {
    /// Why no process is named.
    pub enum Reason {
        /// Routed through this namespace; belongs to no local socket.
        Forwarded = "forwarded",
        /// No local socket that the agent knows of matches.
        NoSocket = "no-socket",
        /// The connection is in TIME_WAIT.
        TimeWait = "time-wait",
        /// The socket belongs to the kernel (NFS, RPC, ..).
        KernelSocket = "kernel-socket",
        /// The kernel wrapped a packet into this one (VXLAN, Geneve, GRE, ..).
        KernelTunnel = "kernel-tunnel",
        /// The kernel's own part in TCP: a reset for what no socket expects.
        KernelTcp = "kernel-tcp",
        /// The kernel's own part in ICMP: echo replies, errors, neighbour discovery.
        KernelIcmp = "kernel-icmp",
        /// The socket was opened before the agent started.
        OlderThanAgent = "older-than-agent",
        /// There was no room for the socket's owner: more sockets are open than `--max-sockets`.
        MapFull = "map-full",
        /// It was logged, or may have been, before the agent started: while none ran it waited in the kernel.
        BeforeStart = "before-start",
        /// Several processes match, or the owner changed while the packet was in flight.
        Ambiguous = "ambiguous",
        /// The headers needed for the lookup were not captured or not understood.
        Unparsable = "unparsable",
        /// The answer of the kernel side was gone, or never there, when the entry was read; or a probe did not run.
        Missed = "missed",
        /// The hook's family (`netdev`, `bridge`, `arp`) has no socket lookup.
        UnsupportedFamily = "unsupported-family",
        /// A later fragment, which has no ports.
        Fragment = "fragment",
        /// A socket matches, but no process holds it any more.
        ProcessGone = "process-gone",
        /// The packet was read from a capture file; its socket is history.
        Replayed = "replayed",
    }
}

impl Reason {
    /// Whether the kernel itself sent or takes the packet (`nflog.owner.method` is `kernel`); the reason says which part of it.
    #[must_use]
    pub const fn is_kernel(self) -> bool {
        matches!(
            self,
            Self::KernelSocket | Self::KernelTunnel | Self::KernelTcp | Self::KernelIcmp
        )
    }
}
