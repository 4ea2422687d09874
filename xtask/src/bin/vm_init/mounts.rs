//! The file systems of a guest.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};

/// Type and place, in the order to mount them.
const MOUNTS: [(&str, &str); 9] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("debugfs", "/sys/kernel/debug"),
    ("tracefs", "/sys/kernel/tracing"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Mounts everything.
pub(crate) fn mount_all() -> Result<()> {
    for (kind, place) in MOUNTS {
        mount(kind, place, kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {kind} on {place}"))?;
    }
    for directory in ["/run/netns", "/dev/shm"] {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {directory}"))?;
    }
    mount("tmpfs", "/dev/shm", "tmpfs", MountFlags::empty(), None).context("cannot mount /dev/shm")
}
