//! Whose a packet is, of the live and lately closed sockets that the [`registry`](crate::registry) knows: asked by the log probe.
//!
//! An answer counts only if the socket's own entry agrees with the key that led to it, so a stale pointer finds nothing.

use nflog_common::{
    PortKey, SocketOwner, SocketTuple, TOMBSTONE_NS, TrackedSocket, method, peer_hash, reason,
};

use crate::kernel::monotonic;
use crate::maps::{NAMESPACES, PORTS, REQUESTS, SOCKETS, TOMBSTONES, TUPLES};
use crate::sock::{Holder, Sock, TCP_LISTEN};
use crate::task;

const UNSPECIFIED: [u8; 16] = [0; 16];
const UNSPECIFIED_V4: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];

/// An owner and how it was found, or why there is none.
#[derive(Clone, Copy)]
pub(crate) enum Found {
    Owner { owner: *const SocketOwner, method: u8 },
    Nobody { reason: u8 },
}

impl Found {
    pub(crate) const fn nobody(reason: u8) -> Self {
        Self::Nobody { reason }
    }

    /// The owner of a socket of which `method` tells how it was met. That it was only seeded outweighs that.
    #[inline(always)]
    fn of(known: &TrackedSocket, method: u8) -> Self {
        if known.method == method::KERNEL {
            return Self::nobody(reason::KERNEL_SOCKET);
        }
        if known.shared != 0 {
            return Self::nobody(reason::AMBIGUOUS);
        }
        Self::Owner {
            owner: &raw const known.owner,
            method: if known.method == method::SEEDED {
                method::SEEDED
            } else {
                method
            },
        }
    }
}

/// The owner of a socket that a packet carries. `sends`: the packet is a datagram on its way out, so that `sendmsg` runs.
#[inline(always)]
pub(crate) fn by_socket(sock: Sock, tuple: &SocketTuple, sends: bool) -> Option<Found> {
    // SAFETY: the value lives until the socket dies, and the packet holds the socket.
    let known = unsafe { SOCKETS.get(sock.address()) }?;
    // A death that no probe saw (the kernel skips a probe that interrupts another) leaves an entry behind.
    let current = if known.tuple.protocol != 0 {
        let port = sock.local_port()?;
        // A socket that is reset has given back its port already when the RST goes out.
        port == known.tuple.local_port && sock.remote_port()? == known.tuple.remote_port
            || port == 0 && known.tuple == *tuple
    } else {
        known.port.protocol == 0 || sock.local_port()? == known.port.port
    };
    if !current {
        return None;
    }
    if was_accepted(sock, known) {
        // MPTCP: what was accepted is the connection that the subflow is part of, and that is filed under the same tuple.
        return by_tuple(tuple).or(Some(Found::nobody(reason::MISSED)));
    }
    // The send probe has made the sender the owner. If it did not run, the entry may even be of a socket that was at this
    // address before and whose death was not seen either.
    if sends && known.method != method::KERNEL && known.owner.tgid != task::current_tgid() {
        return Some(Found::nobody(reason::MISSED));
    }
    // Of those who share a socket, the one that was seen to send last is the sender: it is who sends now.
    if known.shared != 0 && sends && known.method != method::KERNEL {
        return Some(Found::Owner {
            owner: &raw const known.owner,
            method: method::SENDER,
        });
    }
    Some(Found::of(known, known.method))
}

/// Whether a connection was accepted without that a probe saw by whom: its listener's owner is not it any more.
#[inline(always)]
fn was_accepted(sock: Sock, known: &TrackedSocket) -> bool {
    known.inherited != 0 && sock.holder() == Holder::File
}

/// The owner of a connection, for a packet without a socket.
#[inline(always)]
pub(crate) fn by_tuple(tuple: &SocketTuple) -> Option<Found> {
    // SAFETY: values are read at once.
    let address = *unsafe { TUPLES.get(tuple) }?;
    // SAFETY: as above.
    let known = unsafe { SOCKETS.get(address) }?;
    if known.tuple != *tuple {
        return None;
    }
    if was_accepted(Sock::new(address)?, known) {
        return Some(Found::nobody(reason::MISSED));
    }
    Some(Found::of(known, known.method))
}

/// The owner of a handshake under way.
#[inline(always)]
pub(crate) fn by_request(tuple: &SocketTuple) -> Option<Found> {
    // SAFETY: values are read at once.
    let listener = Sock::new(*unsafe { REQUESTS.get(tuple) }?)?;
    by_listener(listener, tuple.local_port)
}

/// The owner of a listening socket, if that is what `listener` still is.
#[inline(always)]
pub(crate) fn by_listener(listener: Sock, port: u16) -> Option<Found> {
    // SAFETY: the value is read at once.
    let known = unsafe { SOCKETS.get(listener.address()) }?;
    let listens = listener.state()? == TCP_LISTEN && listener.local_port()? == port;
    listens.then(|| Found::of(known, method::LISTENER))
}

/// The last owner of a connection that is closed.
#[inline(always)]
pub(crate) fn by_tombstone(tuple: &SocketTuple) -> Option<Found> {
    // SAFETY: the value is read at once.
    let stone = unsafe { TOMBSTONES.get(tuple) }?;
    // SAFETY: as above.
    if unsafe { NAMESPACES.get(tuple.netns) }.is_some_and(|read_since| stone.died_at < *read_since) {
        return None;
    }
    let age = monotonic().wrapping_sub(stone.died_at);
    (age <= TOMBSTONE_NS).then_some(Found::Owner {
        owner: &raw const stone.owner,
        method: method::TOMBSTONE,
    })
}

/// The last owner of a connection whose close is under way: the kernel may answer for it before the socket itself is freed.
#[inline(always)]
pub(crate) fn by_closing(tuple: &SocketTuple) -> Option<Found> {
    by_tombstone(tuple).or_else(|| by_tuple(tuple))
}

/// The owner of the port a packet is for: its exact address first, then the wildcards that cover it.
///
/// Only for packets that are certainly to or from this host. Before and after routing a wildcard would claim what is merely
/// passing through: see [`by_exact_port`].
#[inline(always)]
pub(crate) fn by_port(tuple: &SocketTuple, key: &mut PortKey) -> Option<Found> {
    if let Some(found) = by_exact_port(tuple, key) {
        return Some(found);
    }
    let is_v4 = matches!(tuple.local, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..]);
    if is_v4 {
        key.address = UNSPECIFIED_V4;
        if let Some(found) = bound_to(key, tuple, false) {
            return Some(found);
        }
    }
    key.address = UNSPECIFIED;
    bound_to(key, tuple, is_v4)
}

/// The owner of the packet's port at exactly its address, which a socket can only be bound to if it is local.
#[inline(always)]
pub(crate) fn by_exact_port(tuple: &SocketTuple, key: &mut PortKey) -> Option<Found> {
    key.netns = tuple.netns;
    key.protocol = tuple.protocol;
    key.pad = 0;
    key.port = tuple.local_port;
    key.address = tuple.local;
    bound_to(key, tuple, false)
}

/// A datagram socket that changed hands less than this ago, ns, may have sent a packet on the way for the process before.
const IN_FLIGHT_NS: u64 = 1_000_000_000;

/// The owner of the only datagram socket that packets from this port and address can be of, for a packet that was sent
/// elsewhere on this host. A socket without peer, or that names one in each send, can send to any.
#[inline(always)]
pub(crate) fn by_sending_port(tuple: &SocketTuple, key: &mut PortKey) -> Option<Found> {
    match only_socket(tuple, key)? {
        Only::One(_, known) => Some(Found::of(known, method::LISTENER)),
        Only::Several => Some(Found::nobody(reason::AMBIGUOUS)),
    }
}

/// The owner of the only datagram socket on this port and address, if it is connected to another peer than the packet's, and
/// that peer. It takes the packet if the sender's address will be translated.
#[inline(always)]
pub(crate) fn by_connected_port(tuple: &SocketTuple, key: &mut PortKey) -> Option<(Found, u32)> {
    let Only::One(sock, known) = only_socket(tuple, key)? else {
        return None;
    };
    let family = sock.family()?;
    let mut address = UNSPECIFIED;
    sock.local(family, &mut address)?;
    let local_fits = address == tuple.local || address == UNSPECIFIED || address == UNSPECIFIED_V4;
    let remote_port = sock.remote_port()?;
    if !local_fits || remote_port == 0 {
        return None;
    }
    sock.remote(family, &mut address)?;
    Some((
        Found::of(known, method::LISTENER),
        peer_hash(&address, remote_port),
    ))
}

/// The datagram sockets that can have sent from a port.
enum Only<'a> {
    One(Sock, &'a TrackedSocket),
    /// Several processes', or one that has had it only for a moment.
    Several,
}

#[inline(always)]
fn only_socket<'a>(tuple: &SocketTuple, key: &mut PortKey) -> Option<Only<'a>> {
    let is_v4 = matches!(tuple.local, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..]);
    key.netns = tuple.netns;
    key.protocol = tuple.protocol;
    key.pad = 0;
    key.port = tuple.local_port;
    let (mut only, mut tgid) = (0, 0);
    for wildcard in 0..3_u8 {
        key.address = match wildcard {
            0 => tuple.local,
            1 => UNSPECIFIED_V4,
            _ => UNSPECIFIED,
        };
        if wildcard == 1 && !is_v4 {
            continue;
        }
        // SAFETY: the value is read at once.
        let Some(bound) = (unsafe { PORTS.get(&*key) }) else {
            continue;
        };
        if wildcard == 2 && is_v4 && bound.v6only != 0 {
            continue;
        }
        if bound.shared != 0 || (only != 0 && bound.tgid != tgid) {
            return Some(Only::Several);
        }
        (only, tgid) = (bound.sock, bound.tgid);
    }
    let sock = Sock::new(only)?;
    // SAFETY: as above.
    let known = unsafe { SOCKETS.get(only) }?;
    let port = &known.port;
    let matches = port.protocol == tuple.protocol
        && port.netns == tuple.netns
        && port.port == tuple.local_port
        && sock.local_port()? == tuple.local_port;
    if known.method == method::SENDER && monotonic().wrapping_sub(known.since) < IN_FLIGHT_NS {
        return Some(Only::Several);
    }
    matches.then_some(Only::One(sock, known))
}

#[inline(always)]
fn bound_to(key: &PortKey, tuple: &SocketTuple, v4_over_v6: bool) -> Option<Found> {
    // SAFETY: the value is read at once.
    let bound = unsafe { PORTS.get(key) }?;
    if v4_over_v6 && bound.v6only != 0 {
        return None;
    }
    if bound.shared != 0 {
        return Some(Found::nobody(reason::AMBIGUOUS));
    }
    let sock = Sock::new(bound.sock)?;
    // SAFETY: as above.
    let known = unsafe { SOCKETS.get(bound.sock) }?;
    let matches = known.port == *key && receives(sock, tuple)?;
    matches.then(|| Found::of(known, method::LISTENER))
}

/// Whether the live socket takes packets of this tuple: `connect` narrows a bound UDP socket to one peer and address.
#[inline(always)]
fn receives(sock: Sock, tuple: &SocketTuple) -> Option<bool> {
    let family = sock.family()?;
    let mut address = UNSPECIFIED;
    sock.local(family, &mut address)?;
    let local_fits = address == tuple.local || address == UNSPECIFIED || address == UNSPECIFIED_V4;
    if !local_fits || sock.local_port()? != tuple.local_port {
        return Some(false);
    }
    let remote_port = sock.remote_port()?;
    if remote_port == 0 {
        return Some(true);
    }
    sock.remote(family, &mut address)?;
    Some(remote_port == tuple.remote_port && address == tuple.remote)
}
