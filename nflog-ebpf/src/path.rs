//! The path of an open file, as `/proc/PID/exe` has it: the walk of `prepend_path` in `fs/d_path.c`, from the file's name up
//! through directories and mount points to the root. And the path of a cgroup, as `/proc/PID/cgroup` has it in the root cgroup
//! namespace: `kernfs_path` in `fs/kernfs/dir.c`.
//!
//! They take no locks: a file that is renamed during the walk can be given a path that mixes both names. cgroups of v2 have
//! one name for good.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use nflog_common::{PATH_MAX, PATHS_MAX, Stat, TEXT_MAX};

use crate::kernel::{Pointer, masked};
use crate::maps::{count, process_offset};

/// Most steps of a file's path: names and mount points.
const STEPS: u32 = 48;

/// Most names of a cgroup's path.
const CGROUP_STEPS: u32 = 24;

/// `NAME_MAX` and a NUL.
const NAME_SIZE: u32 = 256;

/// Writes the names of the path of `file` into `text`, its own name first, each with a NUL at its end; how many bytes. 0 if
/// the path is too long or cannot be read.
#[inline(always)]
pub(crate) fn names(file: Pointer, text: &mut [u8; TEXT_MAX]) -> u32 {
    walk(file, text).unwrap_or(0)
}

#[inline(always)]
fn walk(file: Pointer, text: &mut [u8; TEXT_MAX]) -> Option<u32> {
    let mut dentry = file.follow(process_offset!(file_dentry))?;
    let mut mount = file.follow(process_offset!(file_mnt))?;
    let to_vfsmount = u64::from(process_offset!(mount_mnt));
    let mut at = 0;
    for step in 0..STEPS {
        if dentry == mount.follow(process_offset!(vfsmount_mnt_root))? {
            let outer = Pointer::new(mount.address().wrapping_sub(to_vfsmount))?;
            let parent = outer.follow(process_offset!(mount_mnt_parent))?;
            if parent == outer {
                return Some(at);
            }
            dentry = outer.follow(process_offset!(mount_mnt_mountpoint))?;
            mount = parent.add(to_vfsmount);
            continue;
        }
        let parent = dentry.follow(process_offset!(dentry_parent))?;
        let name = dentry.follow(process_offset!(dentry_name))?;
        at += append(name, at, text)?;
        if at >= PATH_MAX as u32 {
            return None;
        }
        if parent == dentry {
            // A file without a place (memfd_create) has a name all the same; a place that was moved out of its mount has no path.
            return if step == 0 { Some(at) } else { None };
        }
        dentry = parent;
    }
    None
}

/// Writes the names of the path of the cgroup with this directory into `text` from `at` on, as [`names`]; how many bytes.
#[inline(always)]
pub(crate) fn cgroup_names(node: Pointer, at: u32, text: &mut [u8; TEXT_MAX]) -> u32 {
    match climb(node, at, text) {
        Some(end) => end.wrapping_sub(at),
        None => 0,
    }
}

#[inline(always)]
fn climb(node: Pointer, start: u32, text: &mut [u8; TEXT_MAX]) -> Option<u32> {
    let mut node = node;
    let mut at = start;
    for _ in 0..CGROUP_STEPS {
        // The root has no parent, and its name is empty.
        let Some(parent) = Pointer::new(node.read(process_offset!(kernfs_node_parent))?) else {
            return Some(at);
        };
        let name = node.follow(process_offset!(kernfs_node_name))?;
        at += append(name, at, text)?;
        if at >= PATHS_MAX as u32 {
            return None;
        }
        node = parent;
    }
    None
}

/// Copies a name; its bytes with the NUL.
#[inline(always)]
fn append(name: Pointer, at: u32, text: &mut [u8; TEXT_MAX]) -> Option<u32> {
    let at = masked(at, PATHS_MAX - 1);
    // SAFETY: in bounds, as `at` is below PATHS_MAX and the text has NAME_SIZE bytes more.
    let to = unsafe { text.as_mut_ptr().add(at) };
    // SAFETY: the helper checks the source; the destination was shown to be in bounds.
    let length = unsafe { bpf_probe_read_kernel_str(to.cast(), NAME_SIZE, name.address() as *const _) };
    if length > 1 && length <= i64::from(NAME_SIZE) {
        return Some(length as u32);
    }
    count(Stat::ReadError);
    None
}
