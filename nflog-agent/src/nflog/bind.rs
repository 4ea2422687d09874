//! Opening the socket and binding the groups, and finding out why the kernel refused.

use std::collections::VecDeque;
use std::io;

use super::command;
use super::config::{Config, Flags};
use super::error::{ExchangeError, OpenError};
use super::exchange::{Answer, Link, Seen, exchange};
use super::procfs;
use super::socket::NetlinkSocket;

/// A datagram that came while groups were still being bound.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) bytes: Box<[u8]>,
    pub(super) truncated: bool,
}

/// The groups are bound.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// What came meanwhile.
    pub(super) early: VecDeque<Early>,
    /// ENOBUFS reports meanwhile.
    pub(super) overruns: u64,
    /// Flags that the kernel accepted.
    pub(super) flags: Flags,
    /// Last sequence number used.
    pub(super) sequence: u32,
}

impl Bound {
    fn keep(&mut self, seen: Seen<'_>) {
        match seen {
            Seen::Datagram { bytes, truncated } => self.early.push_back(Early {
                bytes: bytes.into(),
                truncated,
            }),
            Seen::Overrun => self.overruns += 1,
        }
    }
}

/// Opens a socket in the namespace of the calling thread.
pub(super) fn open_socket() -> Result<NetlinkSocket, OpenError> {
    NetlinkSocket::open().map_err(|source| match source.raw_os_error() {
        Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => OpenError::NoNfnetlink { source },
        _ => OpenError::Socket { source },
    })
}

/// Sets the socket options; returns the receive buffer in effect.
pub(super) fn set_options(socket: &NetlinkSocket, config: &Config) -> Result<u32, OpenError> {
    let refused = |option| move |source| OpenError::SocketOption { option, source };
    socket.set_cap_ack().map_err(refused("NETLINK_CAP_ACK"))?;
    socket
        .set_no_enobufs(config.no_enobufs())
        .map_err(refused("NETLINK_NO_ENOBUFS"))?;
    socket
        .set_receive_buffer(config.receive_buffer())
        .map_err(refused("SO_RCVBUF"))
}

/// Binds every group, each with one message. A kernel that cannot attach conntrack entries is asked again without.
pub(super) fn bind_groups(link: &impl Link, config: &Config, buffer: &mut [u8]) -> Result<Bound, OpenError> {
    let mut bound = Bound {
        flags: config.flags(),
        ..Bound::default()
    };
    for &group in config.groups() {
        let mut errno = bind_group(link, config, group, buffer, &mut bound)?;
        if errno == libc::EOPNOTSUPP && bound.flags.contains(Flags::CONNTRACK) {
            bound.flags = bound.flags.without(Flags::CONNTRACK);
            errno = bind_group(link, config, group, buffer, &mut bound)?;
        }
        if errno != 0 {
            return Err(refusal(link, group, errno, buffer, &mut bound));
        }
    }
    Ok(bound)
}

/// Binds one group; returns the kernel's errno.
fn bind_group(
    link: &impl Link,
    config: &Config,
    group: u16,
    buffer: &mut [u8],
    bound: &mut Bound,
) -> Result<i32, OpenError> {
    let flags = bound.flags;
    let answer = ask(link, buffer, bound, |sequence| {
        command::bind(config, group, flags, sequence)
    })
    .map_err(|source| OpenError::Exchange { group, source })?;
    Ok(match answer.errno {
        // This socket has bound it: by the first request, whose answer was dropped.
        libc::EBUSY if answer.repeated => 0,
        errno => errno,
    })
}

fn ask(
    link: &impl Link,
    buffer: &mut [u8],
    bound: &mut Bound,
    request: impl Fn(u32) -> Vec<u8>,
) -> Result<Answer, ExchangeError> {
    let mut sequence = bound.sequence;
    let result = exchange(link, &mut sequence, buffer, request, &mut |seen| bound.keep(seen));
    bound.sequence = sequence;
    result
}

/// Says what an errno means here.
fn refusal(link: &impl Link, group: u16, errno: i32, buffer: &mut [u8], bound: &mut Bound) -> OpenError {
    let source = io::Error::from_raw_os_error(errno);
    match errno {
        // No permission, or another socket's group: the same errno. Without the capability the probe gets it as well.
        libc::EPERM => match ask(link, buffer, bound, command::probe_permission) {
            Ok(Answer {
                errno: libc::EPERM, ..
            }) => OpenError::PermissionDenied { group },
            Ok(_) => OpenError::GroupBusy {
                group,
                owner: procfs::owner(group),
            },
            Err(source) => OpenError::Exchange { group, source },
        },
        // Another socket bound it at the same moment.
        libc::EEXIST => OpenError::GroupBusy {
            group,
            owner: procfs::owner(group),
        },
        // nfnetlink says so for a subsystem that is not loaded.
        libc::EINVAL if procfs::instances().is_err() => OpenError::NoNflog,
        _ => OpenError::Refused { group, source },
    }
}
