//! Opening the socket and binding the groups, and finding out why the kernel refused.

use std::collections::VecDeque;
use std::io;

use super::command;
use super::config::Config;
use super::error::{ExchangeError, OpenError};
use super::exchange::{Answer, Link, Seen, exchange};
use super::flags::Flags;
use super::netns::Home;
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

/// How often to ask again for a group that vanished while it was being bound.
const AGAIN: usize = 3;

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

/// Binds every group of `config`.
pub(super) fn bind_groups(
    link: &impl Link,
    config: &Config,
    home: &Home,
    buffer: &mut [u8],
) -> Result<Bound, OpenError> {
    let mut bound = Bound {
        flags: config.flags(),
        ..Bound::default()
    };
    for &group in config.groups() {
        bind_group(link, config, home, group, buffer, &mut bound)?;
    }
    Ok(bound)
}

/// Binds one group with one message.
pub(super) fn bind_group(
    link: &impl Link,
    config: &Config,
    home: &Home,
    group: u16,
    buffer: &mut [u8],
    bound: &mut Bound,
) -> Result<(), OpenError> {
    let mut errno = set(link, command::bind, config, group, buffer, bound)?;
    // When a socket is closed its port id is free before its groups are: if this socket has got that id, the end of the other
    // one's takes this one's group along, in the middle of the request.
    for _ in 0..AGAIN {
        if errno != libc::ENODEV {
            break;
        }
        errno = set(link, command::bind, config, group, buffer, bound)?;
    }
    match errno {
        0 => Ok(()),
        errno => Err(refusal(link, home, group, errno, buffer, bound)),
    }
}

/// Gives the groups of `config` on a socket that another reader has left its settings, and binds those that are missing. Returns the
/// groups that were there.
pub(super) fn adopt_groups(
    link: &impl Link,
    config: &Config,
    home: &Home,
    buffer: &mut [u8],
    bound: &mut Bound,
) -> Result<Vec<u16>, OpenError> {
    let mut there = Vec::new();
    for &group in config.groups() {
        match set(link, command::configure, config, group, buffer, bound)? {
            0 => there.push(group),
            libc::ENODEV => bind_group(link, config, home, group, buffer, bound)?,
            errno => return Err(refusal(link, home, group, errno, buffer, bound)),
        }
    }
    Ok(there)
}

/// Unbinds a group that another reader has left, if it is bound.
pub(super) fn leave_group(
    link: &impl Link,
    group: u16,
    buffer: &mut [u8],
    bound: &mut Bound,
) -> Result<(), OpenError> {
    let answer = ask(link, buffer, bound, |sequence| command::unbind(group, sequence))
        .map_err(|source| OpenError::Exchange { group, source })?;
    match answer.errno {
        // EPERM: it is another socket's by now.
        0 | libc::ENODEV | libc::EPERM => Ok(()),
        errno => Err(OpenError::Refused {
            group,
            source: io::Error::from_raw_os_error(errno),
        }),
    }
}

/// Sends a group's settings; returns the kernel's errno. A kernel that cannot attach conntrack entries is asked again without.
fn set(
    link: &impl Link,
    request: fn(&Config, u16, Flags, u32) -> Vec<u8>,
    config: &Config,
    group: u16,
    buffer: &mut [u8],
    bound: &mut Bound,
) -> Result<i32, OpenError> {
    loop {
        let flags = bound.flags;
        let answer = ask(link, buffer, bound, |sequence| {
            request(config, group, flags, sequence)
        });
        let answer = answer.map_err(|source| OpenError::Exchange { group, source })?;
        match answer.errno {
            libc::EOPNOTSUPP if flags.contains(Flags::CONNTRACK) => {
                bound.flags = flags.without(Flags::CONNTRACK);
            }
            // This socket has bound it: by the first request, whose answer was dropped.
            libc::EBUSY if answer.repeated => return Ok(0),
            errno => return Ok(errno),
        }
    }
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
fn refusal(
    link: &impl Link,
    home: &Home,
    group: u16,
    errno: i32,
    buffer: &mut [u8],
    bound: &mut Bound,
) -> OpenError {
    let busy = || OpenError::GroupBusy {
        group,
        owner: home.run(|| procfs::owner(group)).ok().flatten(),
    };
    let source = io::Error::from_raw_os_error(errno);
    match errno {
        // No permission, or another socket's group: the same errno. Without the capability the probe gets it as well.
        libc::EPERM => match ask(link, buffer, bound, command::probe_permission) {
            Ok(Answer {
                errno: libc::EPERM, ..
            }) => OpenError::PermissionDenied { group },
            Ok(_) => busy(),
            Err(source) => OpenError::Exchange { group, source },
        },
        // Another socket bound it at the same moment.
        libc::EEXIST => busy(),
        // nfnetlink says so for a subsystem that is not loaded.
        libc::EINVAL if matches!(home.run(procfs::instances), Ok(Err(_))) => OpenError::NoNflog,
        _ => OpenError::Refused { group, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    use super::super::socket::Received;

    /// A kernel that answers each request with the next errno; `None` is an answer that gets lost.
    struct Kernel {
        errnos: RefCell<VecDeque<Option<i32>>>,
        requests: RefCell<Vec<Vec<u8>>>,
        /// errno and sequence number of the answer in the queue.
        queue: Cell<Option<(i32, u32)>>,
    }

    impl Kernel {
        fn new(errnos: impl IntoIterator<Item = Option<i32>>) -> Self {
            Self {
                errnos: RefCell::new(errnos.into_iter().collect()),
                requests: RefCell::default(),
                queue: Cell::new(None),
            }
        }

        /// Binds groups 5 and 6, asking for conntrack; returns the flags that were accepted.
        fn bind(&self) -> Result<Flags, OpenError> {
            let flags = Flags::SEQ | Flags::CONNTRACK;
            let config = Config::builder().groups([5, 6]).flags(flags).build().unwrap();
            let home = Home::current().unwrap();
            bind_groups(self, &config, &home, &mut [0; 64]).map(|bound| bound.flags)
        }

        /// Flags of each request that has some: the last two bytes before the padding.
        fn flags_sent(&self) -> Vec<u8> {
            let requests = self.requests.borrow();
            requests
                .iter()
                .map(|request| request[request.len() - 3])
                .collect()
        }
    }

    impl Link for Kernel {
        fn send(&self, request: &[u8]) -> io::Result<()> {
            let sequence = u32::from_ne_bytes(request[8..12].try_into().unwrap());
            let errno = self.errnos.borrow_mut().pop_front().expect("no more requests");
            self.queue.set(errno.map(|errno| (errno, sequence)));
            self.requests.borrow_mut().push(request.to_vec());
            Ok(())
        }

        fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
            let Some((errno, sequence)) = self.queue.take() else {
                return Ok(Received::Empty);
            };
            let words = [20, 2, sequence, 0, (-errno).cast_unsigned()];
            let bytes = words.map(u32::to_ne_bytes).concat();
            buffer[..20].copy_from_slice(&bytes);
            Ok(Received::Datagram {
                len: 20,
                truncated: false,
            })
        }
    }

    #[test]
    fn conntrack_is_given_up_once_for_all_groups() {
        let kernel = Kernel::new([Some(libc::EOPNOTSUPP), Some(0), Some(0)]);
        assert_eq!(kernel.bind().unwrap(), Flags::SEQ);
        assert_eq!(kernel.flags_sent(), [5, 1, 1]);
    }

    #[test]
    fn a_kernel_that_can_attach_conntrack_does() {
        let kernel = Kernel::new([Some(0), Some(0)]);
        assert_eq!(kernel.bind().unwrap(), Flags::SEQ | Flags::CONNTRACK);
        assert_eq!(kernel.flags_sent(), [5, 5]);
    }

    #[test]
    fn a_group_bound_by_a_request_whose_answer_got_lost_is_bound() {
        let kernel = Kernel::new([None, Some(libc::EBUSY), Some(0)]);
        assert!(kernel.bind().is_ok());
        // But not if nothing got lost.
        let kernel = Kernel::new([Some(libc::EBUSY)]);
        assert!(matches!(kernel.bind(), Err(OpenError::Refused { group: 5, .. })));
    }

    #[test]
    fn a_group_that_vanishes_while_it_is_bound_is_asked_for_again() {
        let kernel = Kernel::new([Some(libc::ENODEV), Some(libc::ENODEV), Some(0), Some(0)]);
        assert!(kernel.bind().is_ok());
        let kernel = Kernel::new([Some(libc::ENODEV); AGAIN + 1]);
        assert!(matches!(kernel.bind(), Err(OpenError::Refused { group: 5, .. })));
    }

    #[test]
    fn a_missing_capability_and_a_busy_group_are_told_apart_by_the_probe() {
        let kernel = Kernel::new([Some(0), Some(libc::EPERM), Some(libc::EPERM)]);
        assert!(matches!(
            kernel.bind(),
            Err(OpenError::PermissionDenied { group: 6 })
        ));
        let kernel = Kernel::new([Some(0), Some(libc::EPERM), Some(libc::EINVAL)]);
        assert!(matches!(
            kernel.bind(),
            Err(OpenError::GroupBusy { group: 6, .. })
        ));
        let kernel = Kernel::new([Some(libc::EEXIST)]);
        assert!(matches!(
            kernel.bind(),
            Err(OpenError::GroupBusy { group: 5, .. })
        ));
    }
}
