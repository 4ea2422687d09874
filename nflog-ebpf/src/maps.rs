//! All maps, and the globals that the agent sets before it loads the programs.
//!
//! Sizes are upper bounds; the agent may lower or raise them before loading. Everything keyed by or holding a
//! `struct sock *` is removed when the socket dies, so a reused address never meets an old entry.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use nflog_common::{
    Field, ForwardingOffsets, Held, Logged, Offsets, PortKey, ProcessEvent, ProcessOffsets, SocketTuple,
    Stat, TEXT_MAX, Tombstone, TrackedSocket, continuation,
};

use crate::{far, path};

/// The sockets bound to one [`PortKey`].
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct BoundPort {
    /// The first of them; 0 when it is gone and others remain.
    pub(crate) sock: u64,
    pub(crate) sockets: u32,
    /// tgid of the first one's owner.
    pub(crate) tgid: u32,
    /// Not 0: sockets of different processes share the port (`SO_REUSEPORT`).
    pub(crate) shared: u8,
    /// Not 0: `IPV6_V6ONLY` was set.
    pub(crate) v6only: u8,
    pub(crate) pad: u16,
    pub(crate) pad2: u32,
}

/// What the log probe works on.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Work {
    pub(crate) logged: Logged,
    pub(crate) tuple: SocketTuple,
    pub(crate) port: PortKey,
    /// What [`parse`](crate::packet::parse) told of the packet.
    pub(crate) detail: u16,
    pub(crate) ends: Ends,
    pub(crate) walk: far::Walk,
}

/// The ends of a forwarded packet, as in [`Answer`]; all 0 at other hooks.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) source_netns: u32,
    pub(crate) destination_netns: u32,
    pub(crate) peer: u32,
    /// One of [`end`](nflog_common::end).
    pub(crate) owner: u8,
    /// Why the sender is not known.
    pub(crate) lack: u8,
}

/// An event of a process under construction.
#[repr(C)]
pub(crate) struct ProcessWork {
    pub(crate) event: ProcessEvent,
    pub(crate) text: [u8; TEXT_MAX],
    pub(crate) walk: path::Walk,
}

const SOCKETS_MAX: u32 = 1 << 16;
const ANSWERS_BYTES: u32 = 1 << 24;
const NAMESPACES_MAX: u32 = 1 << 14;
const REFUSED_MAX: u32 = 1 << 14;
const SCRATCH_MAX: u32 = 1 << 12;
const GROUP_WORDS: u32 = 65_536 / 64;

/// `struct sock *` to owner. A plain hash: when it is full a new socket stays unknown, a live one is never evicted.
#[map]
pub(crate) static SOCKETS: HashMap<u64, TrackedSocket> = HashMap::with_max_entries(SOCKETS_MAX, 0);

/// Living sockets for which [`SOCKETS`] had no room: only to give that as the reason.
#[map]
pub(crate) static REFUSED: LruHashMap<u64, u8> = LruHashMap::with_max_entries(REFUSED_MAX, 0);

/// Connection to its `struct sock *`.
#[map]
pub(crate) static TUPLES: HashMap<SocketTuple, u64> = HashMap::with_max_entries(SOCKETS_MAX, 0);

/// Bound or listening port to its sockets.
#[map]
pub(crate) static PORTS: HashMap<PortKey, BoundPort> = HashMap::with_max_entries(SOCKETS_MAX, 0);

/// Handshake under way (a request socket) to its listener's `struct sock *`.
#[map]
pub(crate) static REQUESTS: LruHashMap<SocketTuple, u64> = LruHashMap::with_max_entries(SOCKETS_MAX, 0);

/// Closed connection to its last owner.
#[map]
pub(crate) static TOMBSTONES: LruHashMap<SocketTuple, Tombstone> =
    LruHashMap::with_max_entries(SOCKETS_MAX, 0);

/// Each logged packet and its owner: what the agent reads, without a `bpf(2)` call, during which the kernel would leave out the
/// programs of this CPU.
#[map]
pub(crate) static ANSWERS: RingBuf = RingBuf::with_byte_size(ANSWERS_BYTES, 0);

/// Inodes of the network namespaces that the agent reads, and since when, `CLOCK_MONOTONIC` ns. What was remembered before is not
/// theirs: a namespace's number is given again when it is gone. With its memory taken in advance: the kernel warns of anything else in a
/// kprobe program before 6.1.
#[map]
pub(crate) static NAMESPACES: HashMap<u32, u64> = HashMap::with_max_entries(NAMESPACES_MAX, 0);

/// Bit set of the NFLOG groups that the agent listens to.
#[map]
pub(crate) static GROUPS: Array<u64> = Array::with_max_entries(GROUP_WORDS, 0);

/// Counters, by [`Stat`].
#[map]
pub(crate) static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Stat::ALL.len() as u32, 0);

/// Argument of a probed function for its return probe, by thread.
#[map]
pub(crate) static SCRATCH: HashMap<u64, u64> = HashMap::with_max_entries(SCRATCH_MAX, 0);

/// Listener whose child is being created on this CPU. Creation runs in softirq and cannot be interrupted by another.
#[map]
pub(crate) static PARENT: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Room for what the 512-byte stack would not hold, for the log probe.
#[map]
pub(crate) static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// Programs that the log probe goes on in for a forwarded packet, by [`continuation`]. Empty on a kernel without the fields that they
/// need.
#[map]
pub(crate) static CONTINUATIONS: ProgramArray = ProgramArray::with_max_entries(continuation::COUNT, 0);

/// The same for the socket probes.
#[map]
pub(crate) static BUILD: PerCpuArray<TrackedSocket> = PerCpuArray::with_max_entries(1, 0);

/// `struct sock *` to the processes that hold it: between the two walks at start. Takes memory only then.
#[map]
pub(crate) static HELD: HashMap<u64, Held> = HashMap::with_max_entries(SOCKETS_MAX, BPF_F_NO_PREALLOC);

/// The same room for the walks at start, which the socket probes interrupt.
#[map]
pub(crate) static SEED: PerCpuArray<TrackedSocket> = PerCpuArray::with_max_entries(1, 0);

/// What happens to processes, as [`ProcessEvent`]s. Its size is the agent's choice.
#[map]
pub(crate) static PROCESSES: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Room for an event of a process. The tracepoints' programs run in process context and are not interrupted by each other.
#[map]
pub(crate) static PROCESS: PerCpuArray<ProcessWork> = PerCpuArray::with_max_entries(1, 0);

/// Not 0: arguments are wanted. Set by the agent.
#[unsafe(no_mangle)]
pub(crate) static PROCESS_ARGS: u8 = 0;

/// Field offsets for what follows processes; the agent fills them in from BTF, all or none.
#[unsafe(no_mangle)]
pub(crate) static PROCESS_OFFSETS: ProcessOffsets = ProcessOffsets {
    task_self_exec_id: 0,
    task_mm: 0,
    task_signal: 0,
    signal_live: 0,
    mm_exe_file: 0,
    mm_arg_start: 0,
    mm_arg_end: 0,
    file_dentry: 0,
    file_mnt: 0,
    vfsmount_mnt_root: 0,
    mount_mnt: 0,
    mount_mnt_parent: 0,
    mount_mnt_mountpoint: 0,
    dentry_parent: 0,
    dentry_name: 0,
    kernfs_node_parent: 0,
    kernfs_node_name: 0,
};

/// Field offsets of the running kernel; the agent fills them in from BTF.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Offsets = Offsets {
    sk_buff_sk: 0,
    sk_buff_head: 0,
    sk_buff_network_header: 0,
    sk_buff_inner_network_header: 0,
    sock_family: 0,
    sock_state: 0,
    sock_num: 0,
    sock_dport: 0,
    sock_daddr: 0,
    sock_rcv_saddr: 0,
    sock_v6_daddr: 0,
    sock_v6_rcv_saddr: 0,
    sock_net: 0,
    sock_flags: 0,
    sock_protocol: 0,
    sock_type: 0,
    sock_socket: 0,
    sock_lock_owned: 0,
    sock_backlog_len: 0,
    socket_file: 0,
    socket_sk: 0,
    tcp_sock_is_mptcp: 0,
    file_inode: 0,
    file_private_data: 0,
    inode_mode: 0,
    net_ns_inum: 0,
    request_sock_listener: 0,
    task_group_leader: 0,
    task_start_boottime: 0,
    task_comm: 0,
    task_flags: 0,
    task_tgid: 0,
    task_pid: 0,
    task_real_parent: 0,
    task_cred: 0,
    task_cgroups: 0,
    cred_uid: 0,
    cred_gid: 0,
    css_set_dfl_cgrp: 0,
    css_set_controller: 0,
    css_cgroup: 0,
    cgroup_level: 0,
    cgroup_kn: 0,
    kernfs_node_id: 0,
    sock_ipv6only: Field {
        offset: 0,
        mask: 0,
        pad: 0,
    },
    sock_shutdown: Field {
        offset: 0,
        mask: 0,
        pad: 0,
    },
    nf_loginfo_type: 0,
    nf_loginfo_ulog_group: 0,
    forwarding: ForwardingOffsets {
        sk_buff_mac_header: 0,
        net_device_priv: 0,
        net_device_rtnl_link_ops: 0,
        net_device_nd_net: 0,
        net_device_flags: 0,
        net_device_dev_addr: 0,
        net_device_dev_list: 0,
        net_device_lower: 0,
        net_device_ip_ptr: 0,
        net_device_ip6_ptr: 0,
        netdev_adjacent_dev: 0,
        netdev_adjacent_list: 0,
        rtnl_link_ops_kind: 0,
        net_dev_base_head: 0,
        net_hooks_ipv4: 0,
        net_hooks_ipv6: 0,
        in_device_ifa_list: 0,
        in_ifaddr_ifa_next: 0,
        in_ifaddr_ifa_local: 0,
        inet6_dev_addr_list: 0,
        inet6_ifaddr_addr: 0,
        inet6_ifaddr_if_list: 0,
    },
};

/// Value of one field of [`OFFSETS`]. Volatile, because the agent changes it after compilation.
macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: reads a static; nothing writes it once the program is loaded.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::OFFSETS.$field) }
    }};
    ($group:ident . $field:ident) => {{
        // SAFETY: as above.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::OFFSETS.$group.$field) }
    }};
}
pub(crate) use offset;

/// The same of [`PROCESS_OFFSETS`].
macro_rules! process_offset {
    ($field:ident) => {{
        // SAFETY: as in `offset`.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::PROCESS_OFFSETS.$field) }
    }};
}
pub(crate) use process_offset;

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(stat: Stat) {
    if let Some(counter) = STATS.get_ptr_mut(stat as u32) {
        // SAFETY: the slot belongs to this CPU; a probe that interrupts this one can at worst lose one count.
        unsafe { *counter += 1 };
    }
}
