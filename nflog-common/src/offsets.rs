//! Offsets of kernel struct fields, found in the running kernel's BTF and handed to the programs as a read-only
//! global, because rustc emits no CO-RE relocations.

/// A bit field, or a whole field when `mask` is all ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// Byte offset of the byte that holds the (first) bit.
    pub offset: u16,
    /// Mask of the field within that byte.
    pub mask: u8,
    /// Always 0.
    pub pad: u8,
}

/// Byte offset of each field the programs read, named `struct_field`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after its kernel struct and field")]
pub struct Offsets {
    pub sk_buff_sk: u16,
    pub sk_buff_head: u16,
    pub sk_buff_network_header: u16,
    pub sk_buff_inner_network_header: u16,
    pub sock_family: u16,
    pub sock_state: u16,
    pub sock_num: u16,
    pub sock_dport: u16,
    pub sock_daddr: u16,
    pub sock_rcv_saddr: u16,
    pub sock_v6_daddr: u16,
    pub sock_v6_rcv_saddr: u16,
    pub sock_net: u16,
    pub sock_flags: u16,
    pub sock_protocol: u16,
    pub sock_type: u16,
    pub sock_socket: u16,
    pub sock_lock_owned: u16,
    pub sock_backlog_len: u16,
    pub socket_file: u16,
    pub socket_sk: u16,
    /// 0 on a kernel without MPTCP.
    pub tcp_sock_is_mptcp: u16,
    pub file_inode: u16,
    pub file_private_data: u16,
    pub inode_mode: u16,
    pub net_ns_inum: u16,
    pub request_sock_listener: u16,
    pub task_group_leader: u16,
    pub task_start_boottime: u16,
    pub task_comm: u16,
    pub task_flags: u16,
    pub task_tgid: u16,
    pub task_pid: u16,
    pub task_real_parent: u16,
    pub task_cred: u16,
    pub task_cgroups: u16,
    pub cred_uid: u16,
    pub cred_gid: u16,
    pub css_set_dfl_cgrp: u16,
    /// Where the state of the controller is that has a v1 hierarchy; 0 on a host with cgroup v2 alone.
    pub css_set_controller: u16,
    pub css_cgroup: u16,
    pub cgroup_level: u16,
    pub cgroup_kn: u16,
    pub kernfs_node_id: u16,
    pub sock_ipv6only: Field,
    pub sock_shutdown: Field,
    pub nf_loginfo_type: u16,
    pub nf_loginfo_ulog_group: u16,
    /// All 0 on a kernel that lacks one of them: forwarded packets then have no owner.
    pub forwarding: ForwardingOffsets,
}

/// The same for the fields that lead from a forwarded packet's devices to the namespaces behind them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after its kernel struct and field")]
pub struct ForwardingOffsets {
    pub sk_buff_mac_header: u16,
    /// Where `netdev_priv()` points to. Not 0 if the kernel has all of these.
    pub net_device_priv: u16,
    pub net_device_rtnl_link_ops: u16,
    pub net_device_nd_net: u16,
    pub net_device_flags: u16,
    pub net_device_dev_addr: u16,
    pub net_device_dev_list: u16,
    /// `adj_list.lower`: for a bridge, its ports.
    pub net_device_lower: u16,
    pub net_device_ip_ptr: u16,
    pub net_device_ip6_ptr: u16,
    pub netdev_adjacent_dev: u16,
    pub netdev_adjacent_list: u16,
    pub rtnl_link_ops_kind: u16,
    pub net_dev_base_head: u16,
    /// `nf.hooks_ipv4`, of which `NF_INET_PRE_ROUTING` is the first.
    pub net_hooks_ipv4: u16,
    pub net_hooks_ipv6: u16,
    pub in_device_ifa_list: u16,
    pub in_ifaddr_ifa_next: u16,
    pub in_ifaddr_ifa_local: u16,
    pub inet6_dev_addr_list: u16,
    pub inet6_ifaddr_addr: u16,
    pub inet6_ifaddr_if_list: u16,
}

/// The same for the programs that follow processes. All 0 on a kernel that lacks one of them: these programs are then not
/// attached.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after its kernel struct and field")]
pub struct ProcessOffsets {
    pub task_self_exec_id: u16,
    pub task_mm: u16,
    pub task_signal: u16,
    pub signal_live: u16,
    pub mm_exe_file: u16,
    pub mm_arg_start: u16,
    pub mm_arg_end: u16,
    pub file_dentry: u16,
    pub file_mnt: u16,
    pub vfsmount_mnt_root: u16,
    pub mount_mnt: u16,
    pub mount_mnt_parent: u16,
    pub mount_mnt_mountpoint: u16,
    pub dentry_parent: u16,
    pub dentry_name: u16,
    pub kernfs_node_parent: u16,
    pub kernfs_node_name: u16,
}
