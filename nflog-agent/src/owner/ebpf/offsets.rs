//! The field offsets that the eBPF programs read, looked up in the running kernel's BTF.

use nflog_common::{Field, ForwardingOffsets, Offsets, ProcessOffsets};

use super::btf::{Btf, BtfError, Member};

/// Finds every field.
///
/// # Errors
/// Names the first struct member that this kernel does not have.
pub(super) fn find(btf: &Btf<'_>) -> Result<Offsets, BtfError> {
    let at = |structure, path| {
        btf.member(structure, path)
            .and_then(|member| byte_offset(member, structure, path))
    };
    Ok(Offsets {
        sk_buff_sk: at("sk_buff", "sk")?,
        sk_buff_head: at("sk_buff", "head")?,
        sk_buff_network_header: at("sk_buff", "network_header")?,
        sk_buff_inner_network_header: at("sk_buff", "inner_network_header")?,
        sock_family: at("sock", "__sk_common.skc_family")?,
        sock_state: at("sock", "__sk_common.skc_state")?,
        sock_num: at("sock", "__sk_common.skc_num")?,
        sock_dport: at("sock", "__sk_common.skc_dport")?,
        sock_daddr: at("sock", "__sk_common.skc_daddr")?,
        sock_rcv_saddr: at("sock", "__sk_common.skc_rcv_saddr")?,
        sock_v6_daddr: at("sock", "__sk_common.skc_v6_daddr")?,
        sock_v6_rcv_saddr: at("sock", "__sk_common.skc_v6_rcv_saddr")?,
        sock_net: at("sock", "__sk_common.skc_net.net")?,
        sock_flags: at("sock", "__sk_common.skc_flags")?,
        sock_protocol: at("sock", "sk_protocol")?,
        sock_type: at("sock", "sk_type")?,
        sock_socket: at("sock", "sk_socket")?,
        sock_lock_owned: at("sock", "sk_lock.owned")?,
        sock_backlog_len: at("sock", "sk_backlog.len")?,
        socket_file: at("socket", "file")?,
        socket_sk: at("socket", "sk")?,
        tcp_sock_is_mptcp: at("tcp_sock", "is_mptcp").unwrap_or(0),
        file_inode: at("file", "f_inode")?,
        file_private_data: at("file", "private_data")?,
        inode_mode: at("inode", "i_mode")?,
        net_ns_inum: at("net", "ns.inum")?,
        request_sock_listener: at("request_sock", "__req_common.skc_listener")?,
        task_group_leader: at("task_struct", "group_leader")?,
        task_start_boottime: at("task_struct", "start_boottime")?,
        task_comm: at("task_struct", "comm")?,
        task_flags: at("task_struct", "flags")?,
        task_tgid: at("task_struct", "tgid")?,
        task_pid: at("task_struct", "pid")?,
        task_real_parent: at("task_struct", "real_parent")?,
        task_cred: at("task_struct", "cred")?,
        task_cgroups: at("task_struct", "cgroups")?,
        cred_uid: at("cred", "uid")?,
        cred_gid: at("cred", "gid")?,
        css_set_dfl_cgrp: at("css_set", "dfl_cgrp")?,
        css_set_controller: 0,
        css_cgroup: at("cgroup_subsys_state", "cgroup")?,
        cgroup_level: at("cgroup", "level")?,
        cgroup_kn: at("cgroup", "kn")?,
        kernfs_node_id: at("kernfs_node", "id")?,
        sock_ipv6only: bit_field(
            btf.member("sock", "__sk_common.skc_ipv6only")?,
            "sock",
            "__sk_common.skc_ipv6only",
        )?,
        sock_shutdown: small_field(btf.member("sock", "sk_shutdown")?, "sock", "sk_shutdown")?,
        nf_loginfo_type: at("nf_loginfo", "type")?,
        nf_loginfo_ulog_group: at("nf_loginfo", "u.ulog.group")?,
        forwarding: ForwardingOffsets::default(),
    })
}

/// Where a process's `css_set` has its state of a controller, such as `pids`.
///
/// # Errors
/// The kernel is built without the controller.
pub(super) fn controller(btf: &Btf<'_>, name: &str) -> Result<u16, BtfError> {
    const MISSING: BtfError = BtfError::Missing {
        structure: "css_set",
        member: "subsys",
    };
    let states = byte_offset(btf.member("css_set", "subsys")?, "css_set", "subsys")?;
    let number = btf.enumerator("cgroup_subsys_id", &format!("{name}_cgrp_id"));
    let number = number
        .and_then(|number| u16::try_from(number).ok())
        .ok_or(MISSING)?;
    let offset = states
        .checked_add(number.checked_mul(8).ok_or(MISSING)?)
        .ok_or(MISSING)?;
    // 0 means that there is none.
    if offset == 0 { Err(MISSING) } else { Ok(offset) }
}

/// Finds the fields that forwarded packets need.
///
/// # Errors
/// Names the first struct member that this kernel does not have.
pub(super) fn find_forwarding(btf: &Btf<'_>) -> Result<ForwardingOffsets, BtfError> {
    let at = |structure, path| {
        btf.member(structure, path)
            .and_then(|member| byte_offset(member, structure, path))
    };
    Ok(ForwardingOffsets {
        sk_buff_mac_header: at("sk_buff", "mac_header")?,
        net_device_priv: at("net_device", "priv").or_else(|_| device_priv(btf))?,
        net_device_rtnl_link_ops: at("net_device", "rtnl_link_ops")?,
        net_device_nd_net: at("net_device", "nd_net.net")?,
        net_device_flags: at("net_device", "flags")?,
        net_device_dev_addr: at("net_device", "dev_addr")?,
        net_device_dev_list: at("net_device", "dev_list")?,
        net_device_lower: at("net_device", "adj_list.lower")?,
        net_device_ip_ptr: at("net_device", "ip_ptr")?,
        net_device_ip6_ptr: at("net_device", "ip6_ptr")?,
        netdev_adjacent_dev: at("netdev_adjacent", "dev")?,
        netdev_adjacent_list: at("netdev_adjacent", "list")?,
        rtnl_link_ops_kind: at("rtnl_link_ops", "kind")?,
        net_dev_base_head: at("net", "dev_base_head")?,
        net_hooks_ipv4: at("net", "nf.hooks_ipv4")?,
        net_hooks_ipv6: at("net", "nf.hooks_ipv6")?,
        in_device_ifa_list: at("in_device", "ifa_list")?,
        in_ifaddr_ifa_next: at("in_ifaddr", "ifa_next")?,
        in_ifaddr_ifa_local: at("in_ifaddr", "ifa_local")?,
        inet6_dev_addr_list: at("inet6_dev", "addr_list")?,
        inet6_ifaddr_addr: at("inet6_ifaddr", "addr")?,
        inet6_ifaddr_if_list: at("inet6_ifaddr", "if_list")?,
    })
}

/// `netdev_priv()` before 6.13: the struct's size, aligned to `NETDEV_ALIGN`.
fn device_priv(btf: &Btf<'_>) -> Result<u16, BtfError> {
    const NETDEV_ALIGN: u32 = 32;
    let size = btf.size("net_device")?;
    u16::try_from(size.next_multiple_of(NETDEV_ALIGN)).map_err(|_| BtfError::Missing {
        structure: "net_device",
        member: "priv",
    })
}

/// Finds the fields that following processes takes.
///
/// # Errors
/// Names the first struct member that this kernel does not have.
pub(super) fn find_process(btf: &Btf<'_>) -> Result<ProcessOffsets, BtfError> {
    let at = |structure, path| {
        btf.member(structure, path)
            .and_then(|member| byte_offset(member, structure, path))
    };
    Ok(ProcessOffsets {
        task_self_exec_id: at("task_struct", "self_exec_id")?,
        task_mm: at("task_struct", "mm")?,
        task_signal: at("task_struct", "signal")?,
        signal_live: at("signal_struct", "live")?,
        mm_exe_file: at("mm_struct", "exe_file")?,
        mm_arg_start: at("mm_struct", "arg_start")?,
        mm_arg_end: at("mm_struct", "arg_end")?,
        file_dentry: at("file", "f_path.dentry")?,
        file_mnt: at("file", "f_path.mnt")?,
        vfsmount_mnt_root: at("vfsmount", "mnt_root")?,
        mount_mnt: at("mount", "mnt")?,
        mount_mnt_parent: at("mount", "mnt_parent")?,
        mount_mnt_mountpoint: at("mount", "mnt_mountpoint")?,
        dentry_parent: at("dentry", "d_parent")?,
        dentry_name: at("dentry", "d_name.name")?,
        // `__parent` since 6.15.
        kernfs_node_parent: at("kernfs_node", "__parent").or_else(|_| at("kernfs_node", "parent"))?,
        kernfs_node_name: at("kernfs_node", "name")?,
    })
}

/// A member that the programs read as a whole must not be a bit field, and its offset must fit.
fn byte_offset(member: Member, structure: &'static str, path: &'static str) -> Result<u16, BtfError> {
    let missing = BtfError::Missing {
        structure,
        member: path,
    };
    if member.bit_size != 0 || !member.bit_offset.is_multiple_of(8) {
        return Err(missing);
    }
    u16::try_from(member.bit_offset / 8).map_err(|_| missing)
}

/// A field of at most 8 bits within one byte: a whole byte, or bits of it.
fn small_field(member: Member, structure: &'static str, path: &'static str) -> Result<Field, BtfError> {
    if member.bit_size == 0 && member.bit_offset.is_multiple_of(8) {
        let offset = byte_offset(member, structure, path)?;
        return Ok(Field {
            offset,
            mask: u8::MAX,
            pad: 0,
        });
    }
    let missing = BtfError::Missing {
        structure,
        member: path,
    };
    let bit = member.bit_offset % 8;
    if bit + member.bit_size > 8 {
        return Err(missing);
    }
    let ones = u8::MAX >> (8 - member.bit_size);
    let shift = if cfg!(target_endian = "little") {
        bit
    } else {
        8 - bit - member.bit_size
    };
    Ok(Field {
        offset: u16::try_from(member.bit_offset / 8).map_err(|_| missing)?,
        mask: ones << shift,
        pad: 0,
    })
}

/// The byte of a one-bit field and its mask in it; bits count from the low end on little-endian machines.
fn bit_field(member: Member, structure: &'static str, path: &'static str) -> Result<Field, BtfError> {
    let missing = BtfError::Missing {
        structure,
        member: path,
    };
    if member.bit_size != 1 {
        return Err(missing);
    }
    let offset = u16::try_from(member.bit_offset / 8).map_err(|_| missing)?;
    let bit = member.bit_offset % 8;
    let mask = if cfg!(target_endian = "little") {
        1 << bit
    } else {
        0x80 >> bit
    };
    Ok(Field { offset, mask, pad: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_kernel_has_every_field() {
        let data = std::fs::read("/sys/kernel/btf/vmlinux").expect("this kernel has BTF");
        let offsets = find(&Btf::parse(&data).unwrap()).unwrap();
        assert_eq!(offsets.sock_daddr, 0);
        assert_eq!(offsets.nf_loginfo_ulog_group, 8);
        assert!(offsets.sock_ipv6only.mask.is_power_of_two());
        assert!(offsets.sock_shutdown.mask.count_ones() >= 2);
        let btf = Btf::parse(&data).unwrap();
        let (pids, memory) = (
            controller(&btf, "pids").unwrap(),
            controller(&btf, "memory").unwrap(),
        );
        assert!(
            pids != memory && pids % 8 == 0 && memory % 8 == 0,
            "{pids} {memory}"
        );
        assert!(controller(&btf, "none").is_err());
        let process = find_process(&Btf::parse(&data).unwrap()).unwrap();
        assert!(process.task_self_exec_id > 0 && process.mm_arg_start < process.mm_arg_end);
    }

    #[test]
    fn running_kernel_has_every_field_that_forwarded_packets_need() {
        let data = std::fs::read("/sys/kernel/btf/vmlinux").expect("this kernel has BTF");
        let btf = Btf::parse(&data).unwrap();
        let offsets = find_forwarding(&btf).unwrap();
        assert_eq!(offsets.netdev_adjacent_dev, 0);
        // Where the kernel says it and where it follows from the size are the same place.
        assert_eq!(offsets.net_device_priv, device_priv(&btf).unwrap());
    }
}
