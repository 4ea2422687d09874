//! Sockets older than the probes: the agent walks the open files of every process, once, after the probes are attached.
//!
//! Two walks, each a BPF iterator over all files (kernel 5.8). [`seed_holders`] finds out who holds each socket, because
//! several processes can hold one; [`seed_sockets`] then puts it where the probes put theirs, under the process that it
//! belongs to. No other walk may run at the same time.
//!
//! Why no seed outlives its socket: the kernel's iterator holds a reference to the file it shows, the file holds the socket,
//! and both programs are given no other. `inet_sock_destruct` can only run once that reference is gone, which is after the
//! program has returned, so the probe on it finds the entry and removes it. An entry of the first walk may lead the second
//! to a newer socket at the same address, but only if the same process holds that, too.
//!
//! `aya-ebpf` has no macro for iterators: section and context are written out, as `DEFINE_BPF_ITER_FUNC` in
//! `kernel/bpf/task_iter.c` has them.

use aya_ebpf::bindings::BPF_ANY;
use nflog_common::{Claim, Held, Stat, TrackedSocket, method};

use crate::kernel::Pointer;
use crate::maps::{HELD, SEED, count, offset};
use crate::registry::seed;
use crate::sock::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DGRAM, Sock, TCP_CLOSE, TCP_LISTEN};
use crate::task;

const S_IFMT: u16 = 0xf000;
const S_IFSOCK: u16 = 0xc000;

/// `struct bpf_iter__task_file`. Pointers are kernel addresses, null at the end of the walk.
#[repr(C)]
pub(crate) struct TaskFile {
    meta: u64,
    task: u64,
    fd: u32,
    pad: u32,
    file: u64,
}

/// First walk: who holds each socket.
///
/// match-proto: `DEFINE_BPF_ITER_FUNC(task_file, struct bpf_iter_meta *meta,`
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub(crate) extern "C" fn seed_holders(ctx: *const TaskFile) -> u32 {
    let _ = note_holder(ctx);
    0
}

/// Second walk: each socket to its owner.
///
/// match-proto: `DEFINE_BPF_ITER_FUNC(task_file, struct bpf_iter_meta *meta,`
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub(crate) extern "C" fn seed_sockets(ctx: *const TaskFile) -> u32 {
    let _ = settle(ctx);
    0
}

#[inline(always)]
fn note_holder(ctx: *const TaskFile) -> Option<()> {
    let (task, sock) = socket(ctx)?;
    let holder = task::holder(task, task::leader(task)?)?;
    let address = sock.address();
    // SAFETY: the value is copied out at once, and only this walk writes it.
    let held = match unsafe { HELD.get(address) } {
        Some(held) => held.and(&holder),
        None => Held::by(&holder),
    };
    if HELD.insert(address, held, BPF_ANY.into()).is_err() {
        count(Stat::SocketMapError);
    }
    Some(())
}

#[inline(always)]
fn settle(ctx: *const TaskFile) -> Option<()> {
    let (task, sock) = socket(ctx)?;
    let leader = task::leader(task)?;
    let address = sock.address();
    // SAFETY: the value is read at once, and only this walk writes it.
    let held = unsafe { HELD.get(address) }?;
    let listening = sock.state()? == TCP_LISTEN;
    let (tgid, start) = (
        task.read(offset!(task_tgid))?,
        leader.read(offset!(task_start_boottime))?,
    );
    let claim = held.claim(tgid, start, listening);
    if claim == Claim::NotOwner {
        return Some(());
    }
    let entry = SEED.get_ptr_mut(0)?;
    // SAFETY: this CPU's slot. A program stays on its CPU, and the agent runs one walk at a time.
    let entry = unsafe { &mut *entry };
    task::of(task, leader, &mut entry.owner);
    entry.method = method::SEEDED;
    // Readers start after the walk: nothing that is read was logged before it.
    entry.since = 0;
    entry.shared = (claim == Claim::Shared).into();
    entry.inherited = 0;
    entry.pad = 0;
    let placed = place(sock, listening, entry);
    // Once is enough, also for the other descriptors of it.
    let _ = HELD.remove(address);
    if placed? {
        seed(sock, entry);
    }
    Some(())
}

/// Fills in what else leads to the socket; whether packets can be its at all. Before connect, listen or bind none can, and at
/// that the probes see it.
#[inline(always)]
fn place(sock: Sock, listening: bool, entry: &mut TrackedSocket) -> Option<bool> {
    entry.tuple.protocol = 0;
    entry.port.protocol = 0;
    let protocol = sock.protocol()?;
    if listening || sock.kind()? == SOCK_DGRAM {
        return Some(sock.port(protocol, &mut entry.port).is_some());
    }
    if protocol == IPPROTO_TCP {
        if sock.state()? == TCP_CLOSE || sock.remote_port()? == 0 {
            return Some(false);
        }
        sock.tuple(protocol, &mut entry.tuple)?;
    }
    // Raw sockets have a protocol in place of a port; SCTP has more addresses than one.
    Some(true)
}

/// The file's IPv4 or IPv6 socket; `None` for other files.
#[inline(always)]
fn socket(ctx: *const TaskFile) -> Option<(Pointer, Sock)> {
    // SAFETY: the kernel hands an iterator program a valid context of this layout.
    let (task, file) = unsafe { ((*ctx).task, (*ctx).file) };
    let (task, file) = (Pointer::new(task)?, Pointer::new(file)?);
    let mode: u16 = file.follow(offset!(file_inode))?.read(offset!(inode_mode))?;
    if mode & S_IFMT != S_IFSOCK {
        return None;
    }
    // A path opened with O_PATH can be a socket's name in a file system, too: only a `struct socket` points back.
    let socket = file.follow(offset!(file_private_data))?;
    if socket.follow(offset!(socket_file))? != file {
        return None;
    }
    let sock = Sock::new(socket.follow(offset!(socket_sk))?.address())?;
    match sock.family()? {
        AF_INET | AF_INET6 => Some((task, sock)),
        _ => None,
    }
}
