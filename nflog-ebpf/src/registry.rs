//! What is known of live and lately closed sockets, as the socket probes write it; [`lookup`](crate::lookup) asks it.
//!
//! [`SOCKETS`] is the truth. [`TUPLES`], [`PORTS`] and [`REQUESTS`] only point into it.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use nflog_common::{PortKey, SocketOwner, SocketTuple, Stat, Tombstone, TrackedSocket, method};

use crate::kernel::monotonic;
use crate::maps::{BUILD, BoundPort, PORTS, REFUSED, REQUESTS, SOCKETS, TOMBSTONES, TUPLES, count};
use crate::sock::{Holder, IPPROTO_TCP, Sock};
use crate::task;

/// The key is there already.
const EEXIST: i32 = -17;

pub(crate) const NOBODY: SocketOwner = SocketOwner {
    start_boottime: 0,
    cgroup_id: 0,
    tgid: 0,
    exec_id: 0,
    uid: 0,
    gid: 0,
    comm: [0; 16],
};

/// Records that the current process owns `sock`, replacing what was known of that address.
///
/// `connected`: the socket has both ends, and packets without a socket shall find it by them.
/// `bound`: packets for its port alone shall find it.
#[inline(always)]
pub(crate) fn stamp(sock: Sock, method: u8, connected: bool, bound: bool) -> Option<()> {
    let kernel = sock.holder() == Holder::Kernel;
    // A kernel thread acts for a process that is not known here.
    if !kernel && task::is_kernel_thread() {
        return None;
    }
    let protocol = sock.protocol()?;
    let entry = BUILD.get_ptr_mut(0)?;
    // SAFETY: this CPU's slot; the kernel runs no second kprobe program on a CPU while one is running.
    let entry = unsafe { &mut *entry };
    if kernel {
        entry.owner = NOBODY;
        entry.method = method::KERNEL;
    } else {
        task::current(&mut entry.owner);
        entry.method = method;
    }
    // A port is its owner's from now on; of a connection, `track` knows more.
    entry.since = if connected { 0 } else { monotonic() };
    entry.shared = 0;
    entry.inherited = 0;
    entry.pad = 0;
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
        refuse(address);
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

/// There is no room for the socket at `address`.
#[inline(always)]
fn refuse(address: u64) {
    count(Stat::SocketMapError);
    // Without it the reason is another one, and still no owner.
    let _ = REFUSED.insert(address, 1, BPF_ANY.into());
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
    if let Some(bound) = PORTS.get_ptr_mut(&entry.port)
        // SAFETY: a live map value, plain integers.
        && !is_left(unsafe { &*bound }, &entry.port)
    {
        // SAFETY: a live map value; fields are plain integers, and a torn update only makes the port `shared` or unknown.
        let bound = unsafe { &mut *bound };
        bound.sockets += 1;
        if bound.tgid != tgid || entry.shared != 0 {
            bound.shared = 1;
        }
        return;
    }
    let bound = BoundPort {
        sock: sock.address(),
        sockets: 1,
        tgid,
        shared: entry.shared,
        v6only: sock.v6only().into(),
        pad: 0,
        pad2: 0,
    };
    if PORTS.insert(&entry.port, bound, BPF_ANY.into()).is_err() {
        count(Stat::PortMapError);
    }
}

/// The one socket that is known at this port has left it, though it is not freed yet: a server that is replaced closes its socket,
/// and its successor binds the port, within a grace period of RCU.
#[inline(always)]
fn is_left(bound: &BoundPort, key: &PortKey) -> bool {
    bound.sockets <= 1
        && Sock::new(bound.sock)
            .and_then(Sock::local_port)
            .is_some_and(|port| port != key.port)
}

/// Records that the current process sends a datagram on `sock`: stamps it if unknown, corrects the owner if it changed hands.
#[inline(always)]
pub(crate) fn sends(sock: Sock) -> Option<()> {
    // SAFETY: the value is read at once.
    let Some(known) = (unsafe { SOCKETS.get(sock.address()) }) else {
        return stamp(sock, method::SOCKET, false, true);
    };
    if known.owner.tgid == task::current_tgid() {
        return renew(sock, known);
    }
    hand_over(sock, known)
}

/// A TCP segment of `sock` is on its way out: if the current process sends it and is not the owner, the socket changed hands.
///
/// The current process is the sender if it holds the socket's lock: softirqs and timers find the lock taken and leave their
/// work to the holder. Not at the end of a connection, where a process can hold the lock that has no part in it: the one that
/// drops the last descriptor in flight, or that aborts a stranger's connection through `sock_diag`.
///
/// While there is a backlog it may be that, instead of what the process itself wants to send; and the process may be one that
/// only looks (`ss -i` takes the lock). A stranger is then not believed, nor is the owner.
#[inline(always)]
pub(crate) fn transmits(sock: Sock) -> Option<Sender> {
    if !sock.is_locked_by_process() || sock.is_shut_down() || task::is_kernel_thread() {
        return None;
    }
    let backlog = sock.has_backlog();
    // SAFETY: the value is read at once.
    let Some(known) = (unsafe { SOCKETS.get(sock.address()) }) else {
        if backlog {
            return None;
        }
        stamp(sock, method::SENDER, true, false)?;
        return Some(Sender::Current);
    };
    if known.method == method::KERNEL {
        return None;
    }
    if known.owner.tgid == task::current_tgid() {
        let _ = renew(sock, known);
        return Some(Sender::Current);
    }
    if backlog {
        return Some(Sender::Unknown);
    }
    hand_over(sock, known)?;
    Some(Sender::Current)
}

/// The owner sends: if it runs another program by now than when it took `sock`, that one has the socket from now on.
#[inline(always)]
fn renew(sock: Sock, known: &TrackedSocket) -> Option<()> {
    if known.owner.exec_id == task::current_exec_id() || task::is_kernel_thread() {
        return Some(());
    }
    let entry = BUILD.get_ptr_mut(0)?;
    // SAFETY: as in `stamp`.
    let entry = unsafe { &mut *entry };
    *entry = *known;
    task::current(&mut entry.owner);
    if SOCKETS.insert(sock.address(), &*entry, BPF_ANY.into()).is_err() {
        count(Stat::SocketMapError);
    }
    Some(())
}

/// Who sends what is on its way out.
pub(crate) enum Sender {
    /// The current process, which is the socket's owner, or is now.
    Current,
    /// The owner or the current process.
    Unknown,
}

/// `sock` is the current process's from now on.
#[inline(always)]
fn hand_over(sock: Sock, known: &TrackedSocket) -> Option<()> {
    if sock.holder() != Holder::File || task::is_kernel_thread() {
        return None;
    }
    let entry = BUILD.get_ptr_mut(0)?;
    // SAFETY: as in `stamp`.
    let entry = unsafe { &mut *entry };
    *entry = *known;
    entry.method = method::SENDER;
    entry.inherited = 0;
    task::current(&mut entry.owner);
    entry.since = monotonic();
    // Replaced as a whole, not in place: the log probe on another CPU must not read half of each process.
    if SOCKETS.insert(sock.address(), &*entry, BPF_ANY.into()).is_err() {
        count(Stat::SocketMapError);
    }
    if entry.port.protocol != 0
        && let Some(bound) = PORTS.get_ptr_mut(&entry.port)
    {
        // SAFETY: a live map value, plain integers.
        let bound = unsafe { &mut *bound };
        if bound.sock == sock.address() {
            bound.tgid = entry.owner.tgid;
        }
    }
    Some(())
}

/// The current process accepted `sock`.
#[inline(always)]
pub(crate) fn accepted(sock: Sock) {
    let _ = stamp(sock, method::ACCEPTED, true, false);
}

/// Records a socket that is older than the probes, unless they have met it meanwhile: what they saw is newer.
///
/// The caller's reference keeps the socket alive, so its death cannot be seen before it is recorded. The probes run on other
/// CPUs, and can interrupt this: what points into [`SOCKETS`] is there first, so that a probe that replaces the entry takes
/// it back, and until then it leads to nothing.
#[inline(always)]
pub(crate) fn seed(sock: Sock, entry: &TrackedSocket) {
    let address = sock.address();
    // SAFETY: only whether there is one.
    if unsafe { SOCKETS.get(address) }.is_some() {
        return;
    }
    if entry.tuple.protocol != 0
        && let Err(error) = TUPLES.insert(&entry.tuple, address, BPF_NOEXIST.into())
        && error != EEXIST
    {
        count(Stat::TupleMapError);
    }
    if entry.port.protocol != 0 {
        bind(sock, entry);
    }
    match SOCKETS.insert(address, entry, BPF_NOEXIST.into()) {
        Ok(()) => {
            count(Stat::Seeded);
            if entry.shared != 0 {
                count(Stat::SeededShared);
            }
            return;
        }
        Err(EEXIST) => {}
        Err(_) => refuse(address),
    }
    // SAFETY: the value is read at once.
    let same_tuple = unsafe { SOCKETS.get(address) }.is_some_and(|live| live.tuple == entry.tuple);
    if entry.tuple.protocol != 0 && !same_tuple {
        disconnect(&entry.tuple, address);
    }
    if entry.port.protocol != 0
        && let Some(bound) = PORTS.get_ptr_mut(&entry.port)
    {
        // SAFETY: a live map value, plain integers.
        let bound = unsafe { &mut *bound };
        if bound.sockets <= 1 {
            let _ = PORTS.remove(&entry.port);
        } else {
            bound.sockets -= 1;
        }
    }
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
    entry.method = match parent.method {
        method::KERNEL => method::KERNEL,
        method::SEEDED => method::SEEDED,
        _ => method::INHERITED,
    };
    entry.shared = parent.shared;
    entry.inherited = 1;
    entry.pad = 0;
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

/// A SYN cookie goes out for `tuple` from the listener at `port`, where [`by_port`](crate::lookup::by_port) has just found it: there is no request
/// socket, but the ACK that brings the cookie back is the listener's too.
#[inline(always)]
pub(crate) fn cookie(tuple: &SocketTuple, port: &PortKey) -> Option<()> {
    // SAFETY: the value is read at once.
    let listener = unsafe { PORTS.get(port) }?.sock;
    if listener != 0 && REQUESTS.insert(tuple, listener, BPF_ANY.into()).is_err() {
        count(Stat::TupleMapError);
    }
    Some(())
}

/// `sock` is being freed: take it out of every map.
#[inline(always)]
pub(crate) fn forget(sock: Sock) -> Option<()> {
    let address = sock.address();
    // SAFETY: read before the entry is removed.
    let Some(entry) = (unsafe { SOCKETS.get(address) }) else {
        let _ = REFUSED.remove(address);
        return None;
    };
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
    if entry.tuple.protocol != IPPROTO_TCP || entry.method == method::KERNEL || entry.shared != 0 {
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
        // Else the port is that of a socket which was bound when this one had left it.
        if bound.sock == address || bound.sock == 0 {
            let _ = PORTS.remove(&entry.port);
        }
        return;
    }
    bound.sockets -= 1;
    if bound.sock == address {
        // Another socket has the port, but which is not known here.
        bound.sock = 0;
        bound.shared = 1;
    }
}
