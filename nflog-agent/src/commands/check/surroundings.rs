//! Where the agent runs: cgroup hierarchy, namespaces of cgroups and of pids.

use std::fs;
use std::path::Path;

use procfs::process::Process;

use super::finding::{Cause, Finding};

/// Numbers of the first namespaces (`PROC_CGROUP_INIT_INO`, `PROC_PID_INIT_INO` in `linux/proc_ns.h`).
const FIRST_CGROUP: &str = "cgroup:[4026531835]";
const FIRST_PID: &str = "pid:[4026531836]";

pub(super) fn check() -> Vec<Finding> {
    vec![cgroups(), pids()]
}

fn cgroups() -> Finding {
    let mounts = match Process::myself().and_then(|myself| myself.mountinfo()) {
        Ok(mounts) => mounts,
        Err(error) => {
            return Finding::failed("cgroups", Cause::Unavailable, error.to_string(), "mount /proc");
        }
    };
    let unified = mounts.0.iter().find(|mount| mount.fs_type == "cgroup2");
    let old = mounts.0.iter().any(|mount| mount.fs_type == "cgroup");
    let first = is_first("cgroup", FIRST_CGROUP);
    let view = match first {
        Some(true) => "the host's cgroup namespace",
        Some(false) => "a cgroup namespace of its own",
        None => "cgroup namespace not known",
    };
    let Some(unified) = unified else {
        let (found, remedy) = if old {
            (
                "only cgroup v1 is mounted",
                "none is needed for paths; cgroup ids come with cgroup v2 (systemd.unified_cgroup_hierarchy=1)",
            )
        } else {
            (
                "no cgroup hierarchy is mounted here",
                "mount the host's /sys/fs/cgroup: without it there are no containers, pods and units",
            )
        };
        return Finding::warning("cgroups", found, remedy);
    };
    let kind = if old { "hybrid: v1, and v2 at" } else { "v2 at" };
    let found = format!("{kind} {}, {view}", unified.mount_point.display());
    // Seen from a namespace of its own, the host's hierarchy begins above the root.
    let whole = if first == Some(false) {
        unified.root.starts_with("/..")
    } else {
        unified.root == "/"
    };
    if !whole {
        let remedy = "mount the host's /sys/fs/cgroup, or run with --cgroupns=host: only a part of the hierarchy is seen";
        return Finding::warning("cgroups", found, remedy);
    }
    Finding::ok("cgroups", found)
}

fn pids() -> Finding {
    match is_first("pid", FIRST_PID) {
        Some(true) => Finding::ok("pid-namespace", "the host's"),
        Some(false) => Finding::warning(
            "pid-namespace",
            "one of its own: the processes of the host are not seen",
            "hostPID: true in a pod, --pid=host for a container; without it executables, containers and pods stay unknown",
        ),
        None => Finding::warning("pid-namespace", "not known", "mount /proc"),
    }
}

/// Whether this process is in the namespace that the kernel made first; `None` if that cannot be seen.
fn is_first(kind: &str, first: &str) -> Option<bool> {
    let own = fs::read_link(Path::new("/proc/self/ns").join(kind)).ok()?;
    Some(own.as_os_str() == first)
}
