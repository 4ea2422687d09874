//! `struct sock` as the probes see it. Works on full sockets; [`Sock::family`], [`Sock::state`] and the addresses also on
//! request and TIME_WAIT sockets, which share `struct sock_common`.

use nflog_common::{PortKey, SocketTuple};

use crate::kernel::Pointer;
use crate::maps::offset;

pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;
pub(crate) const TCP_TIME_WAIT: u8 = 6;
pub(crate) const TCP_LISTEN: u8 = 10;
pub(crate) const TCP_NEW_SYN_RECV: u8 = 12;
pub(crate) const IPPROTO_TCP: u8 = 6;
pub(crate) const IPPROTO_SCTP: u8 = 132;
pub(crate) const TCP_CLOSE: u8 = 7;
pub(crate) const SOCK_DGRAM: u16 = 2;
const SOCK_DEAD: u64 = 1;
const SOCK_STREAM: u16 = 1;

/// Reads an IPv4 address as `::ffff:a.b.c.d`.
#[inline(always)]
pub(crate) fn map_v4(base: Pointer, offset: u16, address: &mut [u8; 16]) -> Option<()> {
    let [a, b, c, d]: [u8; 4] = base.read(offset)?;
    *address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
    Some(())
}

#[derive(Clone, Copy)]
pub(crate) struct Sock(Pointer);

impl Sock {
    #[inline(always)]
    pub(crate) const fn new(address: u64) -> Option<Self> {
        match Pointer::new(address) {
            Some(pointer) => Some(Self(pointer)),
            None => None,
        }
    }

    /// The socket behind a `struct socket`.
    #[inline(always)]
    pub(crate) fn of_socket(socket: u64) -> Option<Self> {
        Pointer::new(socket)?.follow(offset!(socket_sk)).map(Self)
    }

    #[inline(always)]
    pub(crate) const fn address(self) -> u64 {
        self.0.address()
    }

    #[inline(always)]
    pub(crate) fn family(self) -> Option<u16> {
        self.0.read(offset!(sock_family))
    }

    /// `TCP_*`, also for other protocols.
    #[inline(always)]
    pub(crate) fn state(self) -> Option<u8> {
        self.0.read(offset!(sock_state))
    }

    /// IP protocol. `sk_protocol` is a `u16` since 5.6, for `IPPROTO_MPTCP` (262), whose low byte is TCP's number.
    #[inline(always)]
    pub(crate) fn protocol(self) -> Option<u8> {
        self.0
            .read::<u16>(offset!(sock_protocol))
            .map(|protocol| protocol as u8)
    }

    /// `SOCK_STREAM`, `SOCK_DGRAM`, ...
    #[inline(always)]
    pub(crate) fn kind(self) -> Option<u16> {
        self.0.read(offset!(sock_type))
    }

    /// Local port, host order; 0 when unbound.
    #[inline(always)]
    pub(crate) fn local_port(self) -> Option<u16> {
        self.0.read(offset!(sock_num))
    }

    /// Remote port, host order; 0 when not connected.
    #[inline(always)]
    pub(crate) fn remote_port(self) -> Option<u16> {
        self.0.read::<u16>(offset!(sock_dport)).map(u16::from_be)
    }

    #[inline(always)]
    pub(crate) fn netns(self) -> Option<u32> {
        self.0.follow(offset!(sock_net))?.read(offset!(net_ns_inum))
    }

    #[inline(always)]
    pub(crate) fn local(self, family: u16, address: &mut [u8; 16]) -> Option<()> {
        self.address_at(
            family,
            offset!(sock_rcv_saddr),
            offset!(sock_v6_rcv_saddr),
            address,
        )
    }

    #[inline(always)]
    pub(crate) fn remote(self, family: u16, address: &mut [u8; 16]) -> Option<()> {
        self.address_at(family, offset!(sock_daddr), offset!(sock_v6_daddr), address)
    }

    #[inline(always)]
    fn address_at(self, family: u16, v4: u16, v6: u16, address: &mut [u8; 16]) -> Option<()> {
        match family {
            AF_INET => map_v4(self.0, v4, address),
            AF_INET6 => self.0.read_into(v6, address),
            _ => None,
        }
    }

    #[inline(always)]
    pub(crate) fn v6only(self) -> bool {
        let field = offset!(sock_ipv6only);
        self.0.read_or_zero::<u8>(field.offset) & field.mask != 0
    }

    /// The listener of a request socket (`skc_listener`).
    #[inline(always)]
    pub(crate) fn listener(self) -> Option<Self> {
        self.0.follow(offset!(request_sock_listener)).map(Self)
    }

    /// Whether a process can hold it. Kernel sockets (control sockets, tunnels, NFS) have a `struct socket` without file.
    #[inline(always)]
    pub(crate) fn holder(self) -> Holder {
        match self.0.follow(offset!(sock_socket)) {
            Some(socket) => match socket.follow(offset!(socket_file)) {
                Some(_) => Holder::File,
                // MPTCP makes its subflows itself, for the process that holds the connection.
                None if self.is_subflow() => Holder::File,
                None => Holder::Kernel,
            },
            None => match self.0.read::<u64>(offset!(sock_flags)) {
                Some(flags) if flags & SOCK_DEAD == 0 => Holder::NotAccepted,
                _ => Holder::Orphan,
            },
        }
    }

    /// Whether it is a TCP connection that MPTCP made.
    #[inline(always)]
    fn is_subflow(self) -> bool {
        let offset = offset!(tcp_sock_is_mptcp);
        // Anything else is no `struct tcp_sock`: TCP's control sockets are raw, and MPTCP's own number is a larger one.
        let stream = self.0.read_or_zero::<u16>(offset!(sock_type)) == SOCK_STREAM
            && self.0.read_or_zero::<u16>(offset!(sock_protocol)) == IPPROTO_TCP as u16;
        offset != 0 && stream && self.0.read_or_zero::<u8>(offset) != 0
    }

    /// Whether a process holds the socket's lock (`lock_sock`, up to and including `release_sock`'s backlog). While it does,
    /// softirqs and timers transmit nothing of this socket: they leave their work to the holder.
    #[inline(always)]
    pub(crate) fn is_locked_by_process(self) -> bool {
        self.0.read_or_zero::<u32>(offset!(sock_lock_owned)) != 0
    }

    /// Whether packets came in while a process held the lock. It works them off when it lets go, whoever it is.
    #[inline(always)]
    pub(crate) fn has_backlog(self) -> bool {
        self.0.read_or_zero::<u32>(offset!(sock_backlog_len)) != 0
    }

    /// Whether it was shut down or is being closed, at least one way.
    #[inline(always)]
    pub(crate) fn is_shut_down(self) -> bool {
        let field = offset!(sock_shutdown);
        self.0.read_or_zero::<u8>(field.offset) & field.mask != 0
    }

    /// Both ends. Connected sockets only.
    #[inline(always)]
    pub(crate) fn tuple(self, protocol: u8, tuple: &mut SocketTuple) -> Option<()> {
        let family = self.family()?;
        tuple.netns = self.netns()?;
        tuple.pad = 0;
        tuple.pad2 = 0;
        tuple.local_port = self.local_port()?;
        tuple.remote_port = self.remote_port()?;
        self.local(family, &mut tuple.local)?;
        self.remote(family, &mut tuple.remote)?;
        tuple.protocol = protocol;
        Some(())
    }

    /// The bound port; `None` when unbound.
    #[inline(always)]
    pub(crate) fn port(self, protocol: u8, key: &mut PortKey) -> Option<()> {
        key.port = self.local_port()?;
        if key.port == 0 {
            return None;
        }
        key.netns = self.netns()?;
        key.pad = 0;
        self.local(self.family()?, &mut key.address)?;
        key.protocol = protocol;
        Some(())
    }
}

/// Who holds a full socket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A file descriptor, so a process.
    File,
    /// Nobody yet: a connection before `accept`.
    NotAccepted,
    /// Nobody any more: closed by its process.
    Orphan,
    /// The kernel.
    Kernel,
}
