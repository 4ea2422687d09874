//! What is known of live and lately closed sockets: written by the socket probes, asked by the log probe.
//!
//! [`SOCKETS`] is the truth. [`TUPLES`], [`PORTS`] and [`REQUESTS`] only point into it, and an answer counts only if the
//! socket's own entry agrees with the key that led to it, so a stale pointer finds nothing.

use aya_ebpf::bindings::BPF_ANY;
use nflog_common::{
    PortKey, SocketOwner, SocketTuple, Stat, TOMBSTONE_NS, Tombstone, TrackedSocket, method, reason,
};

use crate::kernel::monotonic;
use crate::maps::{BUILD, BoundPort, PORTS, REQUESTS, SOCKETS, TOMBSTONES, TUPLES, count};
use crate::sock::{Holder, IPPROTO_TCP, Sock, TCP_LISTEN};
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
}

/// Records that the current process owns `sock`, replacing what was known of that address.
///
/// `connected`: the socket has both ends, and packets without a socket shall find it by them.
/// `bound`: packets for its port alone shall find it.
#[inline(always)]
pub(crate) fn stamp(sock: Sock, method: u8, connected: bool, bound: bool) -> Option<()> {
    if sock.holder() == Holder::Kernel {
        return None;
    }
    let protocol = sock.protocol()?;
    let entry = BUILD.get_ptr_mut(0)?;
    // SAFETY: this CPU's slot; the kernel runs no second kprobe program on a CPU while one is running.
    let entry = unsafe { &mut *entry };
    task::current(&mut entry.owner);
    // A port is its owner's from now on; of a connection, `track` knows more.
    entry.since = if connected { 0 } else { monotonic() };
    entry.method = method;
    entry.pad = 0;
    entry.pad2 = 0;
    entry.tuple.protocol = 0;
    entry.port.protocol = 0;
    if connected {
        sock.tuple(protocol, &mut entry.tuple)?;
    }
    if bound {
        // An unbound socket has no port, and keeps protocol 0.
        let _ = sock.port(protocol, &mut entry.port);
    }
    track(sock, entry);
    Some(())
}

/// Puts a built entry into the maps.
#[inline(always)]
fn track(sock: Sock, entry: &mut TrackedSocket) {
    let address = sock.address();
    if entry.tuple.protocol != 0 {
        entry.since = since(entry);
    }
    // SAFETY: read before the entry is replaced.
    if let Some(old) = unsafe { SOCKETS.get(address) } {
        retire(old, &entry.tuple, address);
    }
    if SOCKETS.insert(address, &*entry, BPF_ANY.into()).is_err() {
        count(Stat::SocketMapError);
        return;
    }
    count(Stat::Stamped);
    if entry.tuple.protocol != 0 {
        if TUPLES.insert(&entry.tuple, address, BPF_ANY.into()).is_err() {
            count(Stat::TupleMapError);
        }
        // A new connection on the same tuple ends the old one's afterlife. Most have none: the error says just that.
        let _ = TOMBSTONES.remove(&entry.tuple);
    }
    if entry.port.protocol != 0 {
        bind(sock, entry);
    }
}

/// Since when an entry's connection is its owner's; it is not in the maps yet. `entry.since` is the least that is known.
#[inline(always)]
fn since(entry: &TrackedSocket) -> u64 {
    // SAFETY: values are read at once.
    let (before, least) = if let Some(address) = unsafe { TUPLES.get(&entry.tuple) }
        && let Some(live) = unsafe { SOCKETS.get(address) }
        && live.tuple == entry.tuple
    {
        (&live.owner, live.since)
        // SAFETY: as above.
    } else if let Some(stone) = unsafe { TOMBSTONES.get(&entry.tuple) } {
        (&stone.owner, stone.since)
    } else {
        return entry.since;
    };
    if before.tgid != entry.owner.tgid || before.start_boottime != entry.owner.start_boottime {
        monotonic()
    } else if least > entry.since {
        least
    } else {
        entry.since
    }
}

/// Takes back the other maps' entries for what a socket was before it was stamped anew: bound again after a disconnect, or
/// another socket at this address whose death no probe saw.
#[inline(always)]
fn retire(old: &TrackedSocket, new: &SocketTuple, address: u64) {
    if old.port.protocol != 0 {
        unbind(old, address);
    }
    if old.tuple.protocol != 0 && old.tuple != *new {
        disconnect(&old.tuple, address);
    }
}

/// Removes a connection, unless it is another socket's by now.
#[inline(always)]
fn disconnect(tuple: &SocketTuple, address: u64) {
    // SAFETY: the value is read at once.
    if unsafe { TUPLES.get(tuple) } == Some(&address) {
        let _ = TUPLES.remove(tuple);
    }
}

#[inline(always)]
fn bind(sock: Sock, entry: &TrackedSocket) {
    let tgid = entry.owner.tgid;
    if let Some(bound) = PORTS.get_ptr_mut(&entry.port) {
        // SAFETY: a live map value; fields are plain integers, and a torn update only makes the port `shared` or unknown.
        let bound = unsafe { &mut *bound };
        bound.sockets += 1;
        if bound.tgid != tgid {
            bound.shared = 1;
        }
        return;
    }
    let bound = BoundPort {
        sock: sock.address(),
        sockets: 1,
        tgid,
        shared: 0,
        v6only: sock.v6only().into(),
        pad: 0,
        pad2: 0,
    };
    if PORTS.insert(&entry.port, bound, BPF_ANY.into()).is_err() {
        count(Stat::PortMapError);
    }
}

/// Records that the current process sends on `sock`: stamps it if unknown, corrects the owner if it changed hands.
#[inline(always)]
pub(crate) fn sends(sock: Sock, method: u8) -> Option<()> {
    // SAFETY: the value is copied out at once.
    let Some(known) = (unsafe { SOCKETS.get(sock.address()) }) else {
        return stamp(sock, method, false, true);
    };
    if known.owner.tgid == task::current_tgid() || sock.holder() == Holder::Kernel {
        return Some(());
    }
    let entry = BUILD.get_ptr_mut(0)?;
    // SAFETY: as in `stamp`.
    let entry = unsafe { &mut *entry };
    *entry = *known;
    task::current(&mut entry.owner);
    entry.since = monotonic();
    // Replaced as a whole, not in place: the log probe on another CPU must not read half of each process.
    if SOCKETS.insert(sock.address(), &*entry, BPF_ANY.into()).is_err() {
        count(Stat::SocketMapError);
    }
    Some(())
}

/// The current process accepted `sock`.
#[inline(always)]
pub(crate) fn accepted(sock: Sock) {
    let _ = stamp(sock, method::ACCEPTED, true, false);
}

/// `child` was created by a handshake with `listener`: until it is accepted it belongs to whoever listens.
#[inline(always)]
pub(crate) fn inherit(child: Sock, listener: Sock) -> Option<()> {
    // SAFETY: values are copied out at once.
    let parent = unsafe { SOCKETS.get(listener.address()) }?;
    let entry = BUILD.get_ptr_mut(0)?;
    // SAFETY: as in `stamp`.
    let entry = unsafe { &mut *entry };
    entry.owner = parent.owner;
    entry.since = parent.since;
    entry.method = method::INHERITED;
    entry.pad = 0;
    entry.pad2 = 0;
    entry.port.protocol = 0;
    entry.tuple.protocol = 0;
    child.tuple(IPPROTO_TCP, &mut entry.tuple)?;
    track(child, entry);
    // The handshake is over: from here on the connection answers, and after it its tombstone. Without a request (SYN cookie)
    // there is nothing to remove.
    let _ = REQUESTS.remove(&entry.tuple);
    Some(())
}

/// A handshake with `listener` began.
#[inline(always)]
pub(crate) fn requested(request: Sock, listener: Sock) -> Option<()> {
    let entry = BUILD.get_ptr_mut(0)?;
    // SAFETY: as in `stamp`.
    let entry = unsafe { &mut *entry };
    request.tuple(IPPROTO_TCP, &mut entry.tuple)?;
    // A new handshake on the same tuple ends the old connection's afterlife, if it has one.
    let _ = TOMBSTONES.remove(&entry.tuple);
    if REQUESTS
        .insert(&entry.tuple, listener.address(), BPF_ANY.into())
        .is_err()
    {
        count(Stat::TupleMapError);
    }
    Some(())
}

/// `sock` is being freed: take it out of every map.
#[inline(always)]
pub(crate) fn forget(sock: Sock) -> Option<()> {
    let address = sock.address();
    // SAFETY: read before the entry is removed.
    let entry = unsafe { SOCKETS.get(address) }?;
    count(Stat::Died);
    if entry.tuple.protocol != 0 {
        bury(entry);
        disconnect(&entry.tuple, address);
    }
    if entry.port.protocol != 0 {
        unbind(entry, address);
    }
    let _ = SOCKETS.remove(address);
    Some(())
}

#[inline(always)]
fn bury(entry: &TrackedSocket) {
    if entry.tuple.protocol != IPPROTO_TCP {
        return;
    }
    let stone = Tombstone {
        owner: entry.owner,
        died_at: monotonic(),
        since: entry.since,
    };
    if TOMBSTONES.insert(&entry.tuple, stone, BPF_ANY.into()).is_err() {
        count(Stat::TupleMapError);
    }
}

#[inline(always)]
fn unbind(entry: &TrackedSocket, address: u64) {
    let Some(bound) = PORTS.get_ptr_mut(&entry.port) else {
        return;
    };
    // SAFETY: a live map value, plain integers.
    let bound = unsafe { &mut *bound };
    if bound.sockets <= 1 {
        let _ = PORTS.remove(&entry.port);
        return;
    }
    bound.sockets -= 1;
    if bound.sock == address {
        // Another socket has the port, but which is not known here.
        bound.sock = 0;
        bound.shared = 1;
    }
}

/// The owner of a socket that a packet carries.
#[inline(always)]
pub(crate) fn by_socket(sock: Sock) -> Option<Found> {
    // SAFETY: the value lives until the socket dies, and the packet holds the socket.
    let known = unsafe { SOCKETS.get(sock.address()) }?;
    // A death that no probe saw (the kernel skips a probe that interrupts another) leaves an entry behind.
    let current = if known.tuple.protocol != 0 {
        sock.local_port()? == known.tuple.local_port && sock.remote_port()? == known.tuple.remote_port
    } else {
        known.port.protocol == 0 || sock.local_port()? == known.port.port
    };
    current.then_some(Found::Owner {
        owner: &raw const known.owner,
        method: known.method,
    })
}

/// The owner of a connection, for a packet without a socket.
#[inline(always)]
pub(crate) fn by_tuple(tuple: &SocketTuple) -> Option<Found> {
    // SAFETY: values are read at once.
    let address = *unsafe { TUPLES.get(tuple) }?;
    // SAFETY: as above.
    let known = unsafe { SOCKETS.get(address) }?;
    (known.tuple == *tuple).then_some(Found::Owner {
        owner: &raw const known.owner,
        method: known.method,
    })
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
    listens.then_some(Found::Owner {
        owner: &raw const known.owner,
        method: method::LISTENER,
    })
}

/// The last owner of a connection that is closed.
#[inline(always)]
pub(crate) fn by_tombstone(tuple: &SocketTuple) -> Option<Found> {
    // SAFETY: the value is read at once.
    let stone = unsafe { TOMBSTONES.get(tuple) }?;
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
    matches.then_some(Found::Owner {
        owner: &raw const known.owner,
        method: method::LISTENER,
    })
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
