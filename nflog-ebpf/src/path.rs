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

/// Where a walk is. It lies in a map: to the verifier each step then begins like the one before it. Kept in registers, the
/// ways to get to a step would count one by one, and Linux 7.3 finds more than a million.
#[repr(C)]
pub(crate) struct Walk {
    /// `struct dentry` or `struct kernfs_node`.
    node: u64,
    /// `struct vfsmount`.
    mount: u64,
    /// Bytes of text so far.
    at: u32,
    pad: u32,
}

/// Writes the names of the path of `file` into `text`, its own name first, each with a NUL at its end; how many bytes. 0 if
/// the path is too long or cannot be read.
#[inline(always)]
pub(crate) fn names(file: Pointer, walk: &mut Walk, text: &mut [u8; TEXT_MAX]) -> u32 {
    set(&mut walk.at, 0);
    match climb_file(file, walk, text) {
        Some(()) => get(&walk.at),
        None => 0,
    }
}

/// The same for the path of the cgroup with this directory, from `start` on.
#[inline(always)]
pub(crate) fn cgroup_names(node: Pointer, start: u32, walk: &mut Walk, text: &mut [u8; TEXT_MAX]) -> u32 {
    set(&mut walk.at, start);
    match climb_cgroup(node, walk, text) {
        Some(()) => get(&walk.at).wrapping_sub(start),
        None => 0,
    }
}

#[inline(always)]
fn climb_file(file: Pointer, walk: &mut Walk, text: &mut [u8; TEXT_MAX]) -> Option<()> {
    set(&mut walk.node, file.read(process_offset!(file_dentry))?);
    set(&mut walk.mount, file.read(process_offset!(file_mnt))?);
    let to_vfsmount = u64::from(process_offset!(mount_mnt));
    for step in 0..STEPS {
        let dentry = Pointer::new(get(&walk.node))?;
        let mount = Pointer::new(get(&walk.mount))?;
        if dentry == mount.follow(process_offset!(vfsmount_mnt_root))? {
            let outer = Pointer::new(mount.address().wrapping_sub(to_vfsmount))?;
            let parent = outer.follow(process_offset!(mount_mnt_parent))?;
            if parent == outer {
                return Some(());
            }
            set(&mut walk.node, outer.read(process_offset!(mount_mnt_mountpoint))?);
            set(&mut walk.mount, parent.add(to_vfsmount).address());
            continue;
        }
        let parent = dentry.follow(process_offset!(dentry_parent))?;
        append(dentry.follow(process_offset!(dentry_name))?, PATH_MAX, walk, text)?;
        if parent == dentry {
            // A file without a place (memfd_create) has a name all the same; a place that was moved out of its mount has no path.
            return if step == 0 { Some(()) } else { None };
        }
        set(&mut walk.node, parent.address());
    }
    None
}

#[inline(always)]
fn climb_cgroup(node: Pointer, walk: &mut Walk, text: &mut [u8; TEXT_MAX]) -> Option<()> {
    set(&mut walk.node, node.address());
    for _ in 0..CGROUP_STEPS {
        let node = Pointer::new(get(&walk.node))?;
        let parent: u64 = node.read(process_offset!(kernfs_node_parent))?;
        // The root has no parent, and its name is empty.
        if parent == 0 {
            return Some(());
        }
        append(
            node.follow(process_offset!(kernfs_node_name))?,
            PATHS_MAX,
            walk,
            text,
        )?;
        set(&mut walk.node, parent);
    }
    None
}

/// Copies a name with its NUL; `None` once there are `limit` bytes.
#[inline(always)]
fn append(name: Pointer, limit: usize, walk: &mut Walk, text: &mut [u8; TEXT_MAX]) -> Option<()> {
    let at = masked(get(&walk.at), PATHS_MAX - 1);
    // SAFETY: in bounds, as `at` is below PATHS_MAX and the text has NAME_SIZE bytes more.
    let to = unsafe { text.as_mut_ptr().add(at) };
    // SAFETY: the helper checks the source; the destination was shown to be in bounds.
    let length = unsafe { bpf_probe_read_kernel_str(to.cast(), NAME_SIZE, name.address() as *const _) };
    if length <= 1 {
        count(Stat::ReadError);
        return None;
    }
    let end = at as u32 + length as u32;
    set(&mut walk.at, end);
    if (end as usize) < limit { Some(()) } else { None }
}

#[inline(always)]
fn get<T: Copy>(place: &T) -> T {
    // SAFETY: a valid reference.
    unsafe { core::ptr::read_volatile(place) }
}

#[inline(always)]
fn set<T>(place: &mut T, value: T) {
    // SAFETY: a valid reference.
    unsafe { core::ptr::write_volatile(place, value) }
}
