//! Errors of opening the fallback source. A failed lookup is not an error: it is a `Reason`.

use std::io;
use std::path::PathBuf;

/// Why [`SockDiag::open`](super::SockDiag::open) failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The namespace file does not open.
    #[error("cannot open network namespace {}: {source}; give a file under /run/netns or /proc/PID/ns/net", path.display())]
    Namespace {
        /// The namespace file.
        path: PathBuf,
        /// Error of `open`.
        source: io::Error,
    },
    /// `setns` was refused.
    #[error("cannot enter network namespace {}: {source}; the agent needs CAP_SYS_ADMIN for namespaces other than its own", path.display())]
    Enter {
        /// The namespace file.
        path: PathBuf,
        /// Error of `setns`.
        source: io::Error,
    },
    /// The thread that enters the namespace could not be started.
    #[error(
        "cannot start the thread that enters a network namespace: {source}; raise the limit on threads (ulimit -u)"
    )]
    Thread {
        /// Error of `clone`.
        source: io::Error,
    },
    /// A netlink socket could not be made.
    #[error(
        "cannot open a {family} netlink socket: {source}; is the address family AF_NETLINK blocked (seccomp, RestrictAddressFamilies)?"
    )]
    Socket {
        /// `NETLINK_SOCK_DIAG` or `NETLINK_ROUTE`.
        family: &'static str,
        /// Error of `socket` or `bind`.
        source: io::Error,
    },
    /// The kernel has no socket diagnostics for a protocol.
    #[error(
        "the kernel answers no inet_diag requests for {protocol}: {source}; load module {module} or build it in"
    )]
    Unsupported {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The kernel module that answers.
        module: &'static str,
        /// The kernel's answer.
        source: QueryError,
    },
    /// `/proc` is not readable.
    #[error("cannot open {}: {source}; mount procfs there", path.display())]
    Proc {
        /// The procfs root.
        path: PathBuf,
        /// Error of `open`.
        source: io::Error,
    },
}

/// Why a netlink request got no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The kernel refused the request with this errno.
    #[error("the kernel refused the request: {0}")]
    Refused(io::Error),
    /// Sending or receiving failed; `WouldBlock` means that no answer was queued.
    #[error("netlink: {0}")]
    Io(#[from] io::Error),
    /// The answer is not well-formed netlink, or longer than the receive buffer.
    #[error("the kernel's answer cannot be decoded")]
    Malformed,
    /// The answer is longer than a lookup may read.
    #[error("the kernel's answer is too long to read while packets wait")]
    TooLong,
}

impl QueryError {
    /// Whether the kernel said that there is no such object.
    #[must_use]
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(error) if error.raw_os_error() == Some(libc::ENOENT))
    }
}
