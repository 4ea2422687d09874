//! A process as an owner: the current one, for probes that run in the context of the process that calls, or any task.

use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_get_current_task};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid};
use nflog_common::{CGROUP_V1, Holder, ImageId, SocketOwner};

use crate::kernel::Pointer;
use crate::maps::{offset, process_offset};

/// Fills `owner` with the current process. Fields that cannot be read become 0.
#[inline(always)]
pub(crate) fn current(owner: &mut SocketOwner) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let uid_gid = bpf_get_current_uid_gid();
    owner.tgid = (pid_tgid >> 32) as u32;
    owner.uid = uid_gid as u32;
    owner.gid = (uid_gid >> 32) as u32;
    // SAFETY: takes no arguments and cannot fail.
    let task = Pointer::new(unsafe { bpf_get_current_task() });
    owner.cgroup_id = match offset!(css_set_controller) {
        // SAFETY: takes no arguments and cannot fail.
        0 => unsafe { bpf_get_current_cgroup_id() },
        _ => task.map_or(0, cgroup_id),
    };
    owner.exec_id = task.map_or(0, exec_id);
    let leader = task.and_then(|task| task.follow(offset!(task_group_leader)));
    owner.start_boottime = leader
        .and_then(|leader| leader.read(offset!(task_start_boottime)))
        .unwrap_or(0);
    owner.comm = leader
        .and_then(|leader| leader.read(offset!(task_comm)))
        .unwrap_or([0; 16]);
}

/// `PF_KTHREAD`
const PF_KTHREAD: u32 = 0x0020_0000;

/// Whether the current task is a thread of the kernel. So are io_uring's before 5.12 (5.10.162 of the stable series); later ones are
/// threads of the process that they work for.
#[inline(always)]
pub(crate) fn is_kernel_thread() -> bool {
    // SAFETY: takes no arguments and cannot fail.
    match Pointer::new(unsafe { bpf_get_current_task() }) {
        Some(task) => task.read_or_zero::<u32>(offset!(task_flags)) & PF_KTHREAD != 0,
        None => true,
    }
}

/// tgid of the current process, in the initial pid namespace.
#[inline(always)]
pub(crate) fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Which of its programs the current process runs; 0 on a kernel that does not tell.
#[inline(always)]
pub(crate) fn current_exec_id() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    Pointer::new(unsafe { bpf_get_current_task() }).map_or(0, exec_id)
}

#[inline(always)]
fn exec_id(task: Pointer) -> u32 {
    match process_offset!(task_self_exec_id) {
        0 => 0,
        offset => task.read_or_zero::<u64>(offset) as u32,
    }
}

/// The process that `task` belongs to, and its program.
#[inline(always)]
pub(crate) fn image(task: Pointer, image: &mut ImageId) -> Option<()> {
    image.start_boottime = leader(task)?.read_or_zero(offset!(task_start_boottime));
    image.tgid = task.read_or_zero(offset!(task_tgid));
    image.exec_id = exec_id(task);
    Some(())
}

/// Fills `owner` with the process that `task` belongs to. Fields that cannot be read become 0.
///
/// The kernel's own helpers (`bpf_get_current_*`) read the same fields of `current`.
#[inline(always)]
pub(crate) fn of(task: Pointer, leader: Pointer, owner: &mut SocketOwner) {
    owner.tgid = task.read_or_zero(offset!(task_tgid));
    owner.exec_id = exec_id(task);
    let cred = task.follow(offset!(task_cred));
    owner.uid = cred.map_or(0, |cred| cred.read_or_zero(offset!(cred_uid)));
    owner.gid = cred.map_or(0, |cred| cred.read_or_zero(offset!(cred_gid)));
    owner.cgroup_id = cgroup_id(task);
    owner.start_boottime = leader.read_or_zero(offset!(task_start_boottime));
    owner.comm = leader.read_or_zero(offset!(task_comm));
}

/// The process that `task` belongs to, as one of a socket's holders.
#[inline(always)]
pub(crate) fn holder(task: Pointer, leader: Pointer) -> Option<Holder> {
    let parent = leader.follow(offset!(task_real_parent))?;
    let comm: [u8; 8] = leader.read_or_zero(offset!(task_comm));
    Some(Holder {
        start_boottime: leader.read_or_zero(offset!(task_start_boottime)),
        cgroup_id: cgroup_id(task),
        tgid: task.read_or_zero(offset!(task_tgid)),
        parent: parent.read_or_zero(offset!(task_tgid)),
        systemd: comm == *b"systemd\0",
    })
}

/// The thread group leader, which alone has the process's name and start.
#[inline(always)]
pub(crate) fn leader(task: Pointer) -> Option<Pointer> {
    task.follow(offset!(task_group_leader))
}

/// Id of its cgroup: see [`CGROUP_V1`].
#[inline(always)]
pub(crate) fn cgroup_id(task: Pointer) -> u64 {
    let id = |node: Pointer| node.read_or_zero::<u64>(offset!(kernfs_node_id));
    if let Some(node) = controller_node(task) {
        return id(node) | CGROUP_V1;
    }
    unified_node(task).map_or(0, id)
}

/// The directory of the cgroup that [`cgroup_id`] is of (`struct kernfs_node`).
#[inline(always)]
pub(crate) fn cgroup_node(task: Pointer) -> Option<Pointer> {
    match controller_node(task) {
        Some(node) => Some(node),
        None => unified_node(task),
    }
}

#[inline(always)]
fn unified_node(task: Pointer) -> Option<Pointer> {
    task.follow(offset!(task_cgroups))?
        .follow(offset!(css_set_dfl_cgrp))?
        .follow(offset!(cgroup_kn))
}

/// In the v1 hierarchy, if the host has one and the process is not in its root.
#[inline(always)]
fn controller_node(task: Pointer) -> Option<Pointer> {
    let controller = offset!(css_set_controller);
    if controller == 0 {
        return None;
    }
    let cgroup = task
        .follow(offset!(task_cgroups))?
        .follow(controller)?
        .follow(offset!(css_cgroup))?;
    if cgroup.read_or_zero::<u32>(offset!(cgroup_level)) == 0 {
        return None;
    }
    cgroup.follow(offset!(cgroup_kn))
}
