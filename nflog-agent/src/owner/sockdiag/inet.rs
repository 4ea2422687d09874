//! `inet_diag` requests: one socket by its tuple, or all sockets on a local port.
//!
//! Uapi: `linux/inet_diag.h`. Neither request needs a capability.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{Emitable, Parseable};
use netlink_packet_sock_diag::SOCK_DIAG_BY_FAMILY;
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, Timer,
};

use super::error::QueryError;
use super::flow::{Flow, IPPROTO_TCP};
use super::netlink::{Extent, Requests};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `INET_DIAG_NOCOOKIE`: match whatever the cookie is.
const NO_COOKIE: [u8; 8] = [0xff; 8];
/// `TCP_LISTEN` of `net/tcp_states.h`.
pub(super) const LISTEN: u8 = 10;
/// Sockets read from one dump; a port that has more is not resolved.
const MAX_SOCKETS: usize = 4096;

/// A socket as the kernel reports it. IPv4-mapped addresses are folded to IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    /// `TCP_*` of `net/tcp_states.h`; UDP uses `TCP_ESTABLISHED` when connected, else `TCP_CLOSE`.
    pub(super) state: u8,
    pub(super) local: IpAddr,
    pub(super) local_port: u16,
    pub(super) remote: IpAddr,
    pub(super) remote_port: u16,
    /// `sk_bound_dev_if`; 0 if not bound to a device.
    pub(super) device: u32,
    /// Never used twice in one boot.
    pub(super) cookie: [u8; 8],
    /// Inode of the socket's file; 0 without one.
    pub(super) inode: u32,
    /// `IPV6_V6ONLY`; reported for unconnected sockets only.
    pub(super) v6only: bool,
    /// Only the mini-socket of a closed connection is left.
    pub(super) time_wait: bool,
}

/// A `NETLINK_SOCK_DIAG` socket.
#[derive(Debug)]
pub(super) struct InetDiag(Requests);

impl InetDiag {
    pub(super) fn new(requests: Requests) -> Self {
        Self(requests)
    }

    /// The socket that the kernel would deliver a packet of this flow to: for TCP the connection, a request, a TIME_WAIT
    /// remainder, or else the listener; for UDP the best match.
    ///
    /// # Errors
    ///
    /// [`QueryError`] other than "not found", which is `Ok(None)`.
    pub(super) fn find(&mut self, flow: &Flow) -> Result<Option<Socket>, QueryError> {
        let mut id = SocketId {
            source_port: flow.local_port,
            destination_port: flow.remote_port,
            source_address: flow.local,
            destination_address: flow.remote,
            interface_id: flow.device,
            cookie: NO_COOKIE,
        };
        if flow.protocol != IPPROTO_TCP {
            // `udp_dump_one` takes source and destination from the packet's side ("swapped for historical reasons").
            std::mem::swap(&mut id.source_port, &mut id.destination_port);
            std::mem::swap(&mut id.source_address, &mut id.destination_address);
        }
        let mut found = None;
        let asked = self.ask(flow.protocol, id, StateFlags::all(), Extent::One, |socket| {
            found = Some(socket);
            Ok(())
        });
        match asked {
            Ok(()) => Ok(found),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sockets bound to `port` that can take packets of the address family of `local`; only listeners if `listening`.
    ///
    /// # Errors
    ///
    /// [`QueryError`]; [`QueryError::TooLong`] when more than 4096 sockets share the port.
    pub(super) fn on_port(
        &mut self,
        protocol: u8,
        local: IpAddr,
        port: u16,
        listening: bool,
    ) -> Result<Vec<Socket>, QueryError> {
        let mut sockets = Vec::new();
        let states = if listening {
            StateFlags::LISTEN
        } else {
            StateFlags::all()
        };
        // A dump holds one family, and IPv6 sockets can take IPv4 packets.
        let families: &[IpAddr] = match local {
            IpAddr::V4(_) => &[
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ],
            IpAddr::V6(_) => &[IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        };
        for &any in families {
            let id = SocketId {
                source_port: port,
                destination_port: 0,
                source_address: any,
                destination_address: any,
                interface_id: 0,
                cookie: NO_COOKIE,
            };
            self.ask(protocol, id, states.clone(), Extent::Dump, |socket| {
                if socket.local_port != port {
                    return Ok(());
                }
                if sockets.len() == MAX_SOCKETS {
                    return Err(QueryError::TooLong);
                }
                sockets.push(socket);
                Ok(())
            })?;
        }
        Ok(sockets)
    }

    fn ask(
        &mut self,
        protocol: u8,
        socket_id: SocketId,
        states: StateFlags,
        extent: Extent,
        mut each: impl FnMut(Socket) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let request = InetRequest {
            family: if socket_id.source_address.is_ipv4() {
                AF_INET
            } else {
                AF_INET6
            },
            protocol,
            extensions: ExtensionFlags::empty(),
            states,
            socket_id,
        };
        let mut payload = [0; 56];
        request.emit(&mut payload);
        self.0.ask(SOCK_DIAG_BY_FAMILY, extent, &payload, |kind, bytes| {
            if kind != SOCK_DIAG_BY_FAMILY {
                return Err(QueryError::Malformed);
            }
            each(Socket::parse(bytes)?)
        })
    }
}

impl Socket {
    fn parse(bytes: &[u8]) -> Result<Self, QueryError> {
        let InetResponse { header, nlas } = InetResponse::parse(bytes).map_err(|_| QueryError::Malformed)?;
        Ok(Self {
            state: header.state,
            local: header.socket_id.source_address.to_canonical(),
            local_port: header.socket_id.source_port,
            remote: header.socket_id.destination_address.to_canonical(),
            remote_port: header.socket_id.destination_port,
            device: header.socket_id.interface_id,
            cookie: header.socket_id.cookie,
            inode: header.inode,
            v6only: nlas.iter().any(|nla| matches!(nla, Nla::SkV6Only(true))),
            time_wait: header.timer == Some(Timer::TimeWait),
        })
    }
}
