//! Errors of the NFLOG library. Each names the thing, the value and the remedy.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::Loss;
use super::config::{COPY_RANGE_MAX, NLBUFSIZ_MAX, RECEIVE_BUFFER_MAX, RECEIVE_BUFFER_MIN, TIMEOUT_MAX};

/// A setting that the kernel would refuse or silently ignore.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Nothing to read.
    #[error("no NFLOG group given: name at least one")]
    NoGroup,
    /// A group can be bound once per socket.
    #[error("NFLOG group {group} is given twice: remove one")]
    DuplicateGroup {
        /// The group.
        group: u16,
    },
    /// What the kernel itself logs goes to group 0.
    #[error("generic_group without group 0, which gets what the kernel itself logs: add group 0")]
    GenericGroup,
    /// Zero means the maximum to the kernel, and more than the maximum is cut.
    #[error("copy range {value} is not in 1..={COPY_RANGE_MAX} bytes")]
    CopyRange {
        /// Bytes asked for.
        value: u32,
    },
    /// The kernel acknowledges the value and ignores it.
    #[error("nlbufsiz {value} is not in {minimum}..={NLBUFSIZ_MAX} bytes: the kernel would ignore it")]
    NlBufSiz {
        /// Bytes asked for.
        value: u32,
        /// Smallest value that a kernel with this page size surely applies.
        minimum: u32,
    },
    /// Zero acts as one.
    #[error("qthresh 0 is not a batch: use 1 to get every packet alone")]
    QThresh,
    /// Packets would wait for ever.
    #[error("flush timeout {value:?} is longer than {TIMEOUT_MAX:?}")]
    Timeout {
        /// Timeout asked for.
        value: Duration,
    },
    /// The kernel's limit is an `int`.
    #[error("receive buffer {value} is not in {RECEIVE_BUFFER_MIN}..={RECEIVE_BUFFER_MAX} bytes")]
    ReceiveBuffer {
        /// Bytes asked for.
        value: u32,
    },
    /// Flags outside SEQ, SEQ_GLOBAL and CONNTRACK.
    #[error("unknown NFLOG flags {bits:#x}: known are 1 (SEQ), 2 (SEQ_GLOBAL) and 4 (CONNTRACK)")]
    UnknownFlags {
        /// The unknown bits.
        bits: u16,
    },
    /// A copy mode outside none, meta and packet.
    #[error("unknown NFLOG copy mode {mode}: known are 0 (none), 1 (meta) and 2 (packet)")]
    UnsupportedCopyMode {
        /// The mode.
        mode: u8,
    },
}

/// A network namespace that could not be entered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetnsError {
    /// The file that stands for the namespace cannot be opened.
    #[error(
        "cannot open network namespace {}: {source}; `ip netns list` shows those with a name, /proc/PID/ns/net is a process's",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The file is not a network namespace.
    #[error("{} is not a network namespace: give a path such as /run/netns/NAME or /proc/PID/ns/net", path.display())]
    NotNetns {
        /// The file.
        path: PathBuf,
    },
    /// `setns` needs CAP_SYS_ADMIN here and over the namespace.
    #[error("cannot enter network namespace {}: {source}; CAP_SYS_ADMIN is needed", path.display())]
    Enter {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The thread that enters the namespace could not be started.
    #[error("cannot start a thread for network namespace {}: {source}", path.display())]
    Thread {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// Another socket that reads a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOwner {
    /// Netlink port id of the socket; usually, but not surely, the process id of its owner.
    pub port_id: u32,
    /// The process that holds the socket; `None` if it is not visible from here.
    pub process: Option<OwnerProcess>,
}

/// A process found in `/proc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerProcess {
    /// Process id in our pid namespace.
    pub pid: u32,
    /// `comm`, invalid UTF-8 replaced.
    pub comm: String,
}

impl std::fmt::Display for GroupOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.process {
            Some(OwnerProcess { pid, comm }) => {
                write!(f, "process {pid} ({comm}), netlink port {}", self.port_id)
            }
            None => write!(
                f,
                "netlink port {} of a process that is not visible here",
                self.port_id
            ),
        }
    }
}

/// Why a reader could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel has no netfilter netlink at all.
    #[error("the kernel has no NETLINK_NETFILTER: load the module nfnetlink_log ({source})")]
    NoNfnetlink {
        /// Cause.
        source: io::Error,
    },
    /// The kernel has no NFLOG.
    #[error("the kernel does not know NFLOG: load the module nfnetlink_log")]
    NoNflog,
    /// The netlink socket could not be made.
    #[error("cannot open a netlink socket: {source}")]
    Socket {
        /// Cause.
        source: io::Error,
    },
    /// A socket option was refused.
    #[error("cannot set socket option {option}: {source}")]
    SocketOption {
        /// Name of the option.
        option: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// The kernel refused because of missing rights.
    #[error("no permission to read NFLOG group {group}: CAP_NET_ADMIN is needed in the network namespace")]
    PermissionDenied {
        /// The group.
        group: u16,
    },
    /// Another socket reads the group; a group has one reader per namespace.
    #[error(
        "NFLOG group {group} is already read by {}: stop it, or log to another group",
        owner.as_ref().map_or_else(|| "another socket".to_owned(), ToString::to_string)
    )]
    GroupBusy {
        /// The group.
        group: u16,
        /// Who reads it; `None` if it went away meanwhile or procfs cannot be read.
        owner: Option<GroupOwner>,
    },
    /// The thread of a registration could not be started.
    #[error("cannot start a thread that reads NFLOG: {source}")]
    Thread {
        /// Cause.
        source: io::Error,
    },
    /// The tokio runtime could not watch the socket.
    #[error("the tokio runtime cannot watch the netlink socket: {source}")]
    Runtime {
        /// Cause.
        source: io::Error,
    },
    /// The reader has the group already.
    #[error("NFLOG group {group} is bound by this reader already: unbind it first to start anew")]
    AlreadyBound {
        /// The group.
        group: u16,
    },
    /// NFLOG could not be made the logger of a protocol family, or the logger that it replaces could not be found out.
    #[error("cannot send the kernel's own logging to group 0 (net.netfilter.nf_log.{family}): {source}")]
    GenericGroup {
        /// Protocol family: 2 (IPv4) or 10 (IPv6).
        family: u8,
        /// Cause.
        source: io::Error,
    },
    /// The kernel refused for another reason.
    #[error("the kernel refused to bind NFLOG group {group}: {source}")]
    Refused {
        /// The group.
        group: u16,
        /// The kernel's errno.
        source: io::Error,
    },
    /// The request could not be sent or its answer not be read.
    #[error("cannot talk to NFLOG about group {group}: {source}")]
    Exchange {
        /// The group.
        group: u16,
        /// Cause.
        source: ExchangeError,
    },
}

/// Why the socket of another reader could not be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// It is something else.
    #[error(
        "the descriptor is not a bound NETLINK_NETFILTER socket: pass the one that an earlier reader has left"
    )]
    NotNetfilter,
    /// It reads another namespace.
    #[error(
        "the socket belongs to network namespace {socket}, not to {here}: open a socket of its own there"
    )]
    OtherNetns {
        /// Inode number of the socket's namespace.
        socket: u64,
        /// Inode number of the namespace to read.
        here: u32,
    },
    /// The system refused to tell about it.
    #[error("cannot look at the socket: {source}; CAP_NET_ADMIN is needed in its network namespace")]
    Look {
        /// Cause.
        source: io::Error,
    },
    /// Its groups could not be set.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The request was not sent.
    #[error("sending failed: {0}")]
    Send(#[source] io::Error),
    /// The socket could not be read.
    #[error("receiving failed: {0}")]
    Receive(#[source] io::Error),
    /// The answer did not come, presumably dropped for want of buffer space.
    #[error("no answer from the kernel; the socket receive buffer may be too small for the traffic")]
    NoAnswer,
}

/// Why reading failed. Lost packets are not errors: see [`Loss`](super::Loss).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// `recv` failed.
    #[error("cannot read the netlink socket: {0}")]
    Receive(#[source] io::Error),
    /// `poll` failed.
    #[error("cannot wait for the netlink socket: {0}")]
    Wait(#[source] io::Error),
    /// `SO_MEMINFO` failed.
    #[error("cannot read the drop count of the netlink socket: {0}")]
    Drops(#[source] io::Error),
}

/// Why a group could not be unbound, or a reader not be closed, in order. [`Nflog::close`](super::Nflog::close) closes the
/// socket nevertheless, which ends its groups.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// CAP_NET_ADMIN was dropped since the group was bound: the kernel checks it at each request. What was in the socket has
    /// been handed out; what the kernel logs to the group until the socket is closed is lost.
    #[error("no permission to unbind NFLOG group {group}: CAP_NET_ADMIN is needed in the network namespace")]
    PermissionDenied {
        /// The group; the first of them.
        group: u16,
        /// The account, which does not include what is lost.
        loss: Loss,
    },
    /// The reader does not have the group.
    #[error("NFLOG group {group} is not bound by this reader")]
    NotBound {
        /// The group.
        group: u16,
    },
    /// The logger that NFLOG replaced for the kernel's own logging could not be brought back.
    #[error(
        "cannot bring back the logger {logger} (net.netfilter.nf_log.{family}): {source}; set it with sysctl"
    )]
    GenericGroup {
        /// Protocol family: 2 (IPv4) or 10 (IPv6).
        family: u8,
        /// What was there before, as the sysctl names it.
        logger: String,
        /// Cause.
        source: io::Error,
    },
    /// The thread of a registration could not be told to stop.
    #[error("cannot wake the thread that reads NFLOG: {0}")]
    Wake(#[source] io::Error),
    /// The kernel refused to unbind.
    #[error("the kernel refused to unbind NFLOG group {group}: {source}")]
    Refused {
        /// The group.
        group: u16,
        /// The kernel's errno.
        source: io::Error,
    },
    /// The request could not be sent or its answer not be read.
    #[error("cannot unbind NFLOG group {group}: {source}; entries still in the kernel are lost")]
    Exchange {
        /// The group.
        group: u16,
        /// Cause.
        source: ExchangeError,
    },
    /// The drop count could not be read at the end.
    #[error(transparent)]
    Loss(#[from] RecvError),
}
