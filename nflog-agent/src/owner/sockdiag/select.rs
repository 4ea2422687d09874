//! Which of the sockets on a port can be the packet's. Pure: no I/O, no clock.
//!
//! Mirrors `compute_score` of `net/ipv4/udp.c` and `net/ipv4/inet_hashtables.c`, but where the kernel picks one of
//! several equal sockets (by hash, by a program, by age) all of them are kept: the pick is not ours to guess.

use std::net::IpAddr;

use super::flow::{Flow, Role};
use super::inet::{LISTEN, Socket};
use crate::owner::Reason;

const ESTABLISHED: u8 = 1;
const SYN_RECV: u8 = 3;
const CLOSE_WAIT: u8 = 8;
const NEW_SYN_RECV: u8 = 12;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Where to look for the owner of a TCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tcp {
    /// Whoever holds the socket that was found.
    Holder,
    /// The connection has no file yet: whoever listens on its local port.
    Listener,
    /// Nobody.
    Unowned(Reason),
}

/// Judges what the kernel found for a TCP tuple.
///
/// A listener counts only for handshake packets. For any other packet it means that the connection is gone, and its
/// process need not have been the one that listens.
pub(super) fn tcp(found: &Socket, role: Role, flags: u8) -> Tcp {
    match (found.state, found.inode) {
        _ if found.time_wait => Tcp::Unowned(Reason::TimeWait),
        (LISTEN, _) => match (role, flags & (SYN | ACK)) {
            (Role::Receives, SYN) => Tcp::Listener,
            (Role::Sends, flags) if flags == SYN | ACK => Tcp::Listener,
            _ => Tcp::Unowned(Reason::NoSocket),
        },
        // Not accepted yet. (A socket that its process closed is never in one of these states: it sends a FIN.)
        (SYN_RECV | NEW_SYN_RECV | ESTABLISHED | CLOSE_WAIT, 0) => Tcp::Listener,
        (_, 0) => Tcp::Unowned(Reason::ProcessGone),
        _ => Tcp::Holder,
    }
}

/// The sockets that can have sent, or will receive, the packet.
pub(super) fn candidates<'a>(sockets: &'a [Socket], flow: &Flow) -> Vec<&'a Socket> {
    let able = sockets
        .iter()
        .filter_map(|socket| Some((fit(socket, flow)?, socket)));
    match flow.role {
        // Any socket on the port can have sent it: a connected one too, as sendto() may name another peer.
        Role::Sends => able.map(|(_, socket)| socket).collect(),
        Role::Receives => {
            let able: Vec<_> = able.filter(|(_, socket)| takes_from(socket, flow)).collect();
            // Broadcasts and multicasts go to every socket; only unicasts have one best.
            let best = able
                .iter()
                .map(|(fit, _)| *fit)
                .max()
                .filter(|_| !to_many(flow.local));
            able.into_iter()
                .filter(|(fit, _)| best.is_none_or(|best| *fit == best))
                .map(|(_, socket)| socket)
                .collect()
        }
    }
}

/// How closely a socket fits the local end; the order is the kernel's. `None`: it cannot be the packet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    address: bool,
    connected: bool,
    device: bool,
}

fn fit(socket: &Socket, flow: &Flow) -> Option<Fit> {
    let wildcard = match (socket.local, flow.local) {
        (IpAddr::V6(any), IpAddr::V4(_)) => any.is_unspecified() && !socket.v6only,
        (any, local) => any.is_unspecified() && any.is_ipv4() == local.is_ipv4(),
    };
    let address = socket.local == flow.local;
    let on_device = socket.device == 0 || flow.device == 0 || socket.device == flow.device;
    (socket.local_port == flow.local_port && (address || wildcard) && on_device).then_some(Fit {
        address,
        connected: socket.remote_port != 0,
        device: socket.device != 0,
    })
}

/// Whether a socket takes packets from this peer: an unconnected one does, a connected one only from its own peer.
fn takes_from(socket: &Socket, flow: &Flow) -> bool {
    socket.remote_port == 0 || (socket.remote_port == flow.remote_port && socket.remote == flow.remote)
}

fn to_many(local: IpAddr) -> bool {
    local.is_multicast() || matches!(local, IpAddr::V4(v4) if v4.is_broadcast())
}

#[cfg(test)]
mod tests {
    use super::super::flow::{IPPROTO_UDP, Kind};
    use super::*;

    fn socket(local: &str, remote: Option<&str>) -> Socket {
        Socket {
            state: if remote.is_some() { 1 } else { 7 },
            local: local.parse().unwrap(),
            local_port: 53,
            remote: remote.unwrap_or("0.0.0.0").parse().unwrap(),
            remote_port: if remote.is_some() { 999 } else { 0 },
            device: 0,
            cookie: [1; 8],
            inode: 1,
            v6only: false,
            time_wait: false,
        }
    }

    fn flow(role: Role, local: &str, remote: &str) -> Flow {
        Flow {
            role,
            protocol: IPPROTO_UDP,
            local: local.parse().unwrap(),
            local_port: 53,
            remote: remote.parse().unwrap(),
            remote_port: 999,
            device: 0,
            may_be_routed: false,
            kind: Kind::Udp,
        }
    }

    fn picked(sockets: &[Socket], flow: &Flow) -> Vec<usize> {
        let picked = candidates(sockets, flow);
        (0..sockets.len())
            .filter(|&index| {
                picked
                    .iter()
                    .any(|socket| std::ptr::eq(*socket, &raw const sockets[index]))
            })
            .collect()
    }

    #[test]
    fn a_receiver_is_the_closest_fit() {
        let sockets = [
            socket("0.0.0.0", None),
            socket("10.0.0.1", None),
            socket("10.0.0.1", Some("10.0.0.9")),
            socket("10.0.0.2", None),
        ];
        assert_eq!(
            picked(&sockets, &flow(Role::Receives, "10.0.0.1", "10.0.0.9")),
            [2]
        );
        assert_eq!(
            picked(&sockets, &flow(Role::Receives, "10.0.0.1", "10.0.0.8")),
            [1]
        );
        assert_eq!(
            picked(&sockets, &flow(Role::Receives, "10.0.0.3", "10.0.0.8")),
            [0]
        );
    }

    #[test]
    fn every_socket_on_the_port_can_have_sent() {
        let sockets = [
            socket("0.0.0.0", None),
            socket("10.0.0.1", Some("10.0.0.9")),
            socket("10.0.0.2", None),
        ];
        assert_eq!(
            picked(&sockets, &flow(Role::Sends, "10.0.0.1", "10.0.0.8")),
            [0, 1]
        );
    }

    #[test]
    fn sockets_that_fit_equally_are_all_kept() {
        let sockets = [socket("0.0.0.0", None), socket("::", None)];
        assert_eq!(
            picked(&sockets, &flow(Role::Receives, "10.0.0.1", "10.0.0.9")),
            [0, 1]
        );
    }

    #[test]
    fn a_multicast_reaches_all_receivers() {
        let sockets = [socket("0.0.0.0", None), socket("224.0.0.251", None)];
        assert_eq!(
            picked(&sockets, &flow(Role::Receives, "224.0.0.251", "10.0.0.9")),
            [0, 1]
        );
    }

    #[test]
    fn a_v6only_wildcard_takes_no_ipv4() {
        let mut only = socket("::", None);
        only.v6only = true;
        assert_eq!(
            picked(&[only], &flow(Role::Receives, "10.0.0.1", "10.0.0.9")),
            [] as [usize; 0]
        );
        assert_eq!(picked(&[only], &flow(Role::Receives, "fd00::1", "fd00::2")), [0]);
        assert_eq!(
            picked(
                &[socket("0.0.0.0", None)],
                &flow(Role::Receives, "fd00::1", "fd00::2")
            ),
            [] as [usize; 0]
        );
    }

    #[test]
    fn a_socket_bound_to_another_device_is_out() {
        let mut bound = socket("0.0.0.0", None);
        bound.device = 3;
        let mut arriving = flow(Role::Receives, "10.0.0.1", "10.0.0.9");
        assert_eq!(picked(&[bound], &arriving), [0]);
        arriving.device = 4;
        assert_eq!(picked(&[bound], &arriving), [] as [usize; 0]);
    }

    #[test]
    fn a_listener_answers_for_handshakes_only() {
        let mut listener = socket("0.0.0.0", None);
        listener.state = LISTEN;
        for (role, flags, verdict) in [
            (Role::Receives, SYN, Tcp::Listener),
            (Role::Sends, SYN | ACK, Tcp::Listener),
            (Role::Receives, ACK, Tcp::Unowned(Reason::NoSocket)),
            (Role::Sends, ACK, Tcp::Unowned(Reason::NoSocket)),
            (Role::Sends, 0x04, Tcp::Unowned(Reason::NoSocket)),
        ] {
            assert_eq!(tcp(&listener, role, flags), verdict, "{role:?} {flags:#x}");
        }
    }

    #[test]
    fn a_connection_without_a_file_is_unaccepted_or_closed_by_its_state() {
        let mut socket = socket("10.0.0.1", Some("10.0.0.9"));
        socket.inode = 0;
        for (state, verdict) in [
            (ESTABLISHED, Tcp::Listener),
            (NEW_SYN_RECV, Tcp::Listener),
            (CLOSE_WAIT, Tcp::Listener),
            (4, Tcp::Unowned(Reason::ProcessGone)),
            (9, Tcp::Unowned(Reason::ProcessGone)),
        ] {
            socket.state = state;
            assert_eq!(tcp(&socket, Role::Sends, ACK), verdict, "state {state}");
        }
        socket.time_wait = true;
        assert_eq!(tcp(&socket, Role::Sends, ACK), Tcp::Unowned(Reason::TimeWait));
    }
}
