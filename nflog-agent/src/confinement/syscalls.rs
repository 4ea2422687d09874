//! System calls that are forbidden once everything is open: seccomp. They fail with EPERM.
//!
//! A list of what is forbidden, not of what is allowed: the C library, tokio and the kernel's own changes decide which harmless calls
//! are made, and a list of those would break on the next version of any of them. Forbidden is what an intruder needs to go on: to run a
//! program, to look into or change other processes, to mount, to load code into the kernel, to change clocks, keys and identities, other
//! kinds of sockets, memory that is both written and run.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;
#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;

/// Forbidden whatever the arguments are.
const ALWAYS: &[c_long] = &[
    // Programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // File systems.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_mknodat,
    // The kernel.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_perf_event_open,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_lookup_dcookie,
    libc::SYS_vhangup,
    libc::SYS_personality,
    // Clocks, names, keys, identities.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_unshare,
    // Rights and attributes of files, which Landlock does not know.
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
];

/// Of Linux 6.6; not every libc has it.
const FCHMODAT2: c_long = 452;

/// The same for what only this architecture has.
#[cfg(target_arch = "x86_64")]
const ALSO: &[c_long] = &[
    libc::SYS_mknod,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS__sysctl,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(target_arch = "aarch64")]
const ALSO: &[c_long] = &[];

/// Calls that change the names of files, or write them by name.
const WRITES: &[c_long] = &[
    libc::SYS_openat2,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_truncate,
    libc::SYS_renameat,
];
#[cfg(target_arch = "x86_64")]
const WRITES_ALSO: &[c_long] = &[
    libc::SYS_creat,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_link,
    libc::SYS_symlink,
];
#[cfg(target_arch = "aarch64")]
const WRITES_ALSO: &[c_long] = &[];

/// Kinds of sockets that are used.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// `bpf(2)` commands that are used once the probes are loaded (`enum bpf_cmd`, `uapi/linux/bpf.h`): lookup, update, delete, next key,
/// information of a descriptor, and the batches of the first three.
const BPF_COMMANDS: [u64; 9] = [1, 2, 3, 4, 15, 24, 25, 26, 27];

/// `ioctl(2)` requests that put characters into a terminal's input.
const TIOCLINUX: u64 = 0x541c;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Kinds of namespaces that a new process could begin in. `CLONE_NEWTIME` is for `unshare` and `clone3` alone.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// For the whole process; and how many calls it is about. `namespaces`: `setns` is needed.
pub(super) fn forbidden(namespaces: bool) -> Result<(BpfProgram, usize), BackendError> {
    let mut rules = Rules::new();
    for &call in ALWAYS.iter().chain(ALSO) {
        forbid(&mut rules, call, Vec::new());
    }
    if !namespaces {
        forbid(&mut rules, libc::SYS_setns, Vec::new());
    }
    let other = |allowed: &[u64]| {
        let unlike: Result<Vec<_>, _> = allowed
            .iter()
            .map(|&value| is(0, SeccompCmpOp::Ne, value))
            .collect();
        SeccompRule::new(unlike?)
    };
    forbid(&mut rules, libc::SYS_socket, vec![other(&FAMILIES.map(number))?]);
    forbid(&mut rules, libc::SYS_bpf, vec![other(&BPF_COMMANDS)?]);
    // Signals to threads of this process are how it aborts.
    let own = u64::from(std::process::id());
    forbid(&mut rules, libc::SYS_tgkill, vec![other(&[own])?]);
    let requests = [libc::TIOCSTI, TIOCLINUX].map(|request| has(1, u64::from(u32::MAX), request));
    forbid(
        &mut rules,
        libc::SYS_ioctl,
        Vec::from(requests).into_iter().collect::<Result<_, _>>()?,
    );
    let namespaces = NAMESPACES.map(number).map(|flag| has(0, flag, flag));
    forbid(
        &mut rules,
        libc::SYS_clone,
        Vec::from(namespaces).into_iter().collect::<Result<_, _>>()?,
    );
    let executable = number(libc::PROT_EXEC);
    let both = executable | number(libc::PROT_WRITE);
    forbid(&mut rules, libc::SYS_mmap, vec![has(2, both, both)?]);
    for call in [libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        forbid(&mut rules, call, vec![has(2, executable, executable)?]);
    }
    let count = rules.keys().filter(|&&call| call < X32).count();
    Ok((program(rules, libc::EPERM)?, count))
}

/// For the whole process, too: there is no `clone3`, whose flags are in memory, where a filter does not see them. The C library starts
/// threads by `clone` then.
pub(super) fn absent() -> Result<BpfProgram, BackendError> {
    let mut rules = Rules::new();
    forbid(&mut rules, libc::SYS_clone3, Vec::new());
    program(rules, libc::ENOSYS)
}

/// For threads that write no file by name.
pub(super) fn read_only() -> Result<BpfProgram, BackendError> {
    let mut rules = Rules::new();
    for &call in WRITES.iter().chain(WRITES_ALSO) {
        forbid(&mut rules, call, Vec::new());
    }
    forbid(&mut rules, libc::SYS_openat, opens_to_write(2)?);
    #[cfg(target_arch = "x86_64")]
    forbid(&mut rules, libc::SYS_open, opens_to_write(1)?);
    program(rules, libc::EPERM)
}

/// Flags that write, or make a file; a temporary one without a name takes the first.
fn opens_to_write(argument: u8) -> Result<Vec<SeccompRule>, BackendError> {
    let mode = number(libc::O_ACCMODE);
    let flags = [libc::O_CREAT, libc::O_TRUNC].map(number);
    let modes = [libc::O_WRONLY, libc::O_RDWR, libc::O_ACCMODE].map(number);
    let modes = modes.into_iter().map(|value| has(argument, mode, value));
    modes
        .chain(flags.into_iter().map(|flag| has(argument, flag, flag)))
        .collect()
}

/// Numbers of the x32 variants of calls, which some x86-64 kernels take, begin here.
const X32: i64 = 0x4000_0000;

/// Those of the forbidden calls that have numbers of their own there.
#[cfg(target_arch = "x86_64")]
const X32_OWN: [(c_long, i64); 10] = [
    (libc::SYS_ioctl, 514),
    (libc::SYS_execve, 520),
    (libc::SYS_ptrace, 521),
    (libc::SYS_rt_sigqueueinfo, 524),
    (libc::SYS_kexec_load, 528),
    (libc::SYS_move_pages, 533),
    (libc::SYS_rt_tgsigqueueinfo, 536),
    (libc::SYS_process_vm_readv, 539),
    (libc::SYS_process_vm_writev, 540),
    (libc::SYS_execveat, 545),
];

/// Without rules: whatever the arguments are. Else if one of them matches.
fn forbid(rules: &mut Rules, call: c_long, which: Vec<SeccompRule>) {
    #[cfg(target_arch = "x86_64")]
    {
        rules.insert(X32 | call, which.clone());
        if let Some((_, own)) = X32_OWN.iter().find(|(other, _)| *other == call) {
            rules.insert(X32 | own, which.clone());
        }
    }
    rules.insert(call, which);
}

fn is(argument: u8, compare: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, compare, value)
}

/// The argument, under a mask, is a value.
fn has(argument: u8, mask: u64, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![is(argument, SeccompCmpOp::MaskedEq(mask), value)?])
}

fn number(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

fn program(rules: Rules, errno: libc::c_int) -> Result<BpfProgram, BackendError> {
    let refused = SeccompAction::Errno(errno.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, refused, ARCH)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_are_not_longer_than_the_kernel_takes() {
        const BPF_MAXINSNS: usize = 4096;
        for namespaces in [false, true] {
            let (program, count) = forbidden(namespaces).unwrap();
            assert!(
                program.len() < BPF_MAXINSNS && count > 70,
                "{} {count}",
                program.len()
            );
        }
        assert!(read_only().unwrap().len() < BPF_MAXINSNS);
        assert!(absent().unwrap().len() < BPF_MAXINSNS);
    }
}
