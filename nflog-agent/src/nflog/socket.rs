//! System calls: the netlink socket, its options, waiting, and entering a namespace. The library's only `unsafe`.
//!
//! Invariants: nothing here knows what the bytes mean; no call blocks but [`NetlinkSocket::wait`].
#![expect(
    unsafe_code,
    reason = "poll, setns, eventfd and socket options that netlink-sys does not offer"
)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// `SIOCGSKNS` (`uapi/linux/sockios.h`): a file of the network namespace that a socket is in.
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// Word of `SO_MEMINFO` that is the drop count; the last one we read.
const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;

/// A non-blocking `NETLINK_NETFILTER` socket.
#[derive(Debug)]
pub(super) struct NetlinkSocket {
    socket: Socket,
    port_id: u32,
}

/// Outcome of one [`NetlinkSocket::recv`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// A datagram; `len` bytes of it are in the buffer.
    Datagram {
        /// Bytes in the buffer.
        len: usize,
        /// The datagram was longer than the buffer.
        truncated: bool,
    },
    /// Nothing to read.
    Empty,
    /// ENOBUFS: datagrams were dropped since the last report.
    Overrun,
}

impl NetlinkSocket {
    /// Opens and binds a socket in the namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.set_non_blocking(true)?;
        let address = socket.bind_auto()?;
        Ok(Self {
            socket,
            port_id: address.port_number(),
        })
    }

    /// Takes over a socket that another reader has bound. `None`: it is another kind of socket, or not bound.
    pub(super) fn adopt(fd: OwnedFd) -> io::Result<Option<Self>> {
        for (option, expected) in [
            (libc::SO_DOMAIN, libc::AF_NETLINK),
            (libc::SO_PROTOCOL, libc::NETLINK_NETFILTER),
        ] {
            if get_option(fd.as_fd(), option)? != expected {
                return Ok(None);
            }
        }
        // SAFETY: the descriptor is owned, and given up here.
        let socket = unsafe { Socket::from_raw_fd(fd.into_raw_fd()) };
        socket.set_non_blocking(true)?;
        let mut address = SocketAddr::new(0, 0);
        socket.get_address(&mut address)?;
        let port_id = address.port_number();
        Ok((port_id != 0).then_some(Self { socket, port_id }))
    }

    /// Inode number of the namespace that the socket is in. Needs CAP_NET_ADMIN there.
    pub(super) fn netns_inode(&self) -> io::Result<u64> {
        // SAFETY: this request takes no argument, and returns a new descriptor.
        let fd = check(unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCGSKNS) })?;
        // SAFETY: the descriptor was just made, and nothing else owns it.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(file.metadata()?.ino())
    }

    /// Netlink port id: what procfs calls portid, pid or peer.
    pub(super) const fn port_id(&self) -> u32 {
        self.port_id
    }

    /// Asks for a receive buffer of `bytes` as the kernel counts it; returns what is in effect.
    pub(super) fn set_receive_buffer(&self, bytes: u32) -> io::Result<u32> {
        // The kernel doubles what it is given.
        let half = libc::c_int::try_from(bytes / 2).unwrap_or(libc::c_int::MAX);
        if self
            .set_option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, half)
            .is_err()
        {
            // Without CAP_NET_ADMIN in the initial user namespace; limited by net.core.rmem_max.
            self.socket.set_rx_buf_sz(half)?;
        }
        let effective = self.socket.get_rx_buf_sz()?;
        Ok(u32::try_from(effective).unwrap_or(u32::MAX))
    }

    /// Sets `NETLINK_NO_ENOBUFS`.
    pub(super) fn set_no_enobufs(&self, on: bool) -> io::Result<()> {
        self.socket.set_no_enobufs(on)
    }

    /// Sets `NETLINK_CAP_ACK`: answers do not repeat the request.
    pub(super) fn set_cap_ack(&self) -> io::Result<()> {
        self.socket.set_cap_ack(true)
    }

    fn set_option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        // SAFETY: the pointer and length are those of `value`, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                socklen(&value),
            )
        };
        check(result).map(drop)
    }

    /// Sends a request to the kernel, which handles it and queues its answer before this returns.
    pub(super) fn send(&self, request: &[u8]) -> io::Result<()> {
        retry(|| self.socket.send_to(request, &SocketAddr::new(0, 0), 0)).map(drop)
    }

    /// Takes one datagram off the queue, if there is one. Datagrams that are not from the kernel are skipped.
    pub(super) fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            let received = retry(|| {
                // With MSG_TRUNC the result is the length of the datagram, even if it exceeds the buffer.
                let mut space = &mut *buffer;
                self.socket
                    .recv_from(&mut space, libc::MSG_DONTWAIT | libc::MSG_TRUNC)
            });
            match received {
                Ok((length, sender)) => {
                    if sender.port_number() == 0 {
                        return Ok(Received::Datagram {
                            len: length.min(buffer.len()),
                            truncated: length > buffer.len(),
                        });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Empty),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Received::Overrun),
                Err(error) => return Err(error),
            }
        }
    }

    /// Datagrams that the kernel dropped because the receive buffer was full, since the socket exists; wraps at 2^32.
    pub(super) fn drops(&self) -> io::Result<u32> {
        let mut words = [0_u32; DROPS + 1];
        let mut length = socklen(&words);
        // SAFETY: the kernel writes at most `length` bytes to `words`, and the new length to `length`.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                words.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        check(result)?;
        Ok(words[DROPS])
    }

    /// Waits until the socket or `wake` is readable, or `timeout` is over. `None` waits for ever. May return early.
    pub(super) fn wait(&self, wake: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map_or(-1, |timeout| {
            // Rounded up, or the last fraction of a millisecond would be a busy loop.
            libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
        });
        let mut fds = [self.socket.as_raw_fd(), wake.as_raw_fd()].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: `fds` is an array of the length given, and outlives the call.
        let result = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout) };
        match check(result) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An eventfd.
#[derive(Debug)]
pub(super) struct EventFd(File);

impl EventFd {
    /// A non-blocking eventfd with count 0.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the descriptor was just made, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(fd.into()))
    }

    /// Makes it readable.
    pub(super) fn signal(&self) -> io::Result<()> {
        match (&self.0).write(&1_u64.to_ne_bytes()) {
            // The count is at its maximum: readable as well.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result.map(drop),
        }
    }

    /// Makes it unreadable.
    pub(super) fn clear(&self) -> io::Result<()> {
        match (&self.0).read(&mut [0; 8]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result.map(drop),
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets the tokio runtime of the calling task watch a descriptor.
#[cfg(feature = "async")]
pub(super) fn watch(
    fd: OwnedFd,
    interest: tokio::io::Interest,
) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd gives the same open descriptor for as long as it lives, and the AsyncFd owns it.
    let watched = unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, interest) };
    watched.map_err(|error| error.into_parts().1)
}

/// Moves the calling thread into a network namespace.
pub(super) fn enter_netns(netns: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: setns takes no pointers; it changes this thread only.
    check(unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Now, in ns of CLOCK_MONOTONIC.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes to `now`. The call cannot fail for this clock; if it did, `now` would stay 0.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    // Both are positive.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Bytes of a page.
pub(super) fn page_size() -> usize {
    // SAFETY: sysconf takes no pointers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// A socket option of the level `SOL_SOCKET` that is an `int`.
fn get_option(fd: BorrowedFd<'_>, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = socklen(&value);
    // SAFETY: the kernel writes at most `length` bytes to `value`, and the new length to `length`.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    check(result).map(|_| value)
}

fn socklen<T>(value: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of_val(value)).unwrap_or(libc::socklen_t::MAX)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signalled_eventfd_ends_a_wait_and_a_cleared_one_does_not() {
        let socket = NetlinkSocket::open().unwrap();
        let event = EventFd::new().unwrap();
        event.signal().unwrap();
        // Would block for ever if the signal did not count.
        socket.wait(event.as_fd(), None).unwrap();
        event.clear().unwrap();
        event.clear().unwrap();
        socket
            .wait(event.as_fd(), Some(Duration::from_micros(1)))
            .unwrap();
        assert_eq!(socket.recv(&mut [0; 64]).unwrap(), Received::Empty);
    }

    #[test]
    fn a_fresh_socket_has_a_port_and_no_drops() {
        let socket = NetlinkSocket::open().unwrap();
        assert_ne!(socket.port_id(), 0);
        assert_eq!(socket.drops().unwrap(), 0);
        assert!(socket.set_receive_buffer(64 * 1024).unwrap() >= 4096);
    }

    #[test]
    fn only_a_bound_netfilter_socket_can_be_taken_over() {
        let socket = NetlinkSocket::open().unwrap();
        let copy = socket.as_fd().try_clone_to_owned().unwrap();
        let adopted = NetlinkSocket::adopt(copy).unwrap().expect("it is one");
        assert_eq!(adopted.port_id(), socket.port_id());
        let here = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_eq!(adopted.netns_inode().unwrap(), here);
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(NetlinkSocket::adopt(udp.into()).unwrap().is_none());
        // 0: NETLINK_ROUTE.
        let route = Socket::new(0).unwrap().as_fd().try_clone_to_owned().unwrap();
        assert!(NetlinkSocket::adopt(route).unwrap().is_none());
        let unbound = Socket::new(NETLINK_NETFILTER).unwrap();
        let unbound = unbound.as_fd().try_clone_to_owned().unwrap();
        assert!(NetlinkSocket::adopt(unbound).unwrap().is_none());
        let file = File::open("/proc/self/status").unwrap();
        let error = NetlinkSocket::adopt(file.into()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
    }

    #[test]
    fn the_monotonic_clock_runs() {
        let first = monotonic_ns();
        assert!(first > 0);
        assert!(monotonic_ns() >= first);
    }
}
