//! What `/proc/PID` says about a process.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::owner::{Comm, Owner};

/// Longest `/proc/PID` file read; `cgroup` is the longest, with one path per hierarchy.
const MAX_FILE: u64 = 64 * 1024;

/// A mounted procfs.
#[derive(Clone, Debug)]
pub(crate) struct ProcFs {
    root: PathBuf,
    clock_ticks: u64,
}

/// The fields of `/proc/PID/stat` in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// `comm` of the main thread.
    pub(crate) comm: Comm,
    /// Process id of the parent; 0 if it has none.
    pub(crate) parent: u32,
    /// Start time in clock ticks since boot.
    pub(crate) start_ticks: u64,
}

impl ProcFs {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            clock_ticks: rustix::param::clock_ticks_per_second().max(1),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// `/proc/PID/NAME`.
    pub(crate) fn path(&self, pid: u32, name: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(name)
    }

    /// Content of `/proc/PID/NAME`, cut at 64 KiB.
    pub(crate) fn read(&self, pid: u32, name: &str) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(self.path(pid, name))?
            .take(MAX_FILE)
            .read_to_end(&mut content)?;
        Ok(content)
    }

    pub(crate) fn stat(&self, pid: u32) -> io::Result<Stat> {
        parse_stat(&self.read(pid, "stat")?).ok_or_else(|| malformed("stat"))
    }

    /// ns since boot; procfs counts in ticks of 10 ms, so the last 7 digits are 0.
    pub(crate) fn ticks_to_ns(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(1_000_000_000 / self.clock_ticks)
    }

    /// The clock tick that a time in ns since boot falls in.
    pub(crate) fn ns_to_ticks(&self, ns: u64) -> u64 {
        ns / (1_000_000_000 / self.clock_ticks)
    }

    /// The process as an [`Owner`]: as it is now.
    ///
    /// # Errors
    ///
    /// The process is gone or not readable.
    pub(crate) fn owner(&self, pid: u32, cgroups: Option<&CgroupRoot>) -> io::Result<Owner> {
        let stat = self.stat(pid)?;
        let uid = parse_euid(&self.read(pid, "status")?).ok_or_else(|| malformed("status"))?;
        let cgroup = self.read(pid, "cgroup")?;
        Ok(Owner {
            pid,
            start_boottime: Some(self.ticks_to_ns(stat.start_ticks)),
            exec_id: None,
            uid,
            comm: stat.comm,
            cgroup_id: cgroups.and_then(|root| root.id(unified_path(&cgroup)?)),
        })
    }
}

/// Where the cgroup v2 hierarchy is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CgroupRoot {
    mount: PathBuf,
    /// The cgroup that is visible at `mount`.
    top: String,
}

impl CgroupRoot {
    /// Finds the mount in `/proc/self/mountinfo`; `None` if there is no cgroup v2.
    pub(crate) fn find(proc: &ProcFs) -> Option<Self> {
        let mounts = fs::read(proc.root().join("self/mountinfo")).ok()?;
        parse_mountinfo(&mounts)
    }

    /// Whether the whole hierarchy is visible, so that paths are those of the root cgroup namespace.
    pub(crate) fn is_whole(&self) -> bool {
        self.top == "/"
    }

    /// Id of a cgroup: the inode of its directory (64-bit kernels since 5.5). `None` if it is gone or outside the mount.
    pub(crate) fn id(&self, path: &str) -> Option<u64> {
        let below = path.strip_prefix(self.top.trim_end_matches('/'))?;
        if !(below.is_empty() || below.starts_with('/')) || below.split('/').any(|part| part == "..") {
            return None;
        }
        fs::metadata(self.mount.join(below.trim_start_matches('/')))
            .ok()
            .map(|metadata| metadata.ino())
    }
}

/// The process's path in the cgroup v2 hierarchy, from `/proc/PID/cgroup`.
fn unified_path(cgroup: &[u8]) -> Option<&str> {
    let line = cgroup
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))?;
    std::str::from_utf8(line).ok()
}

/// `comm` may hold any byte, `)` and spaces included, so the fields after it are counted from the last `)`.
fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let open = stat.iter().position(|&byte| byte == b'(')?;
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    let name = stat.get(open + 1..close)?;
    let mut comm = [0; 16];
    let length = name.len().min(15);
    comm[..length].copy_from_slice(&name[..length]);
    // ppid is field 4 and starttime field 22; the first one after the comm is field 3.
    let mut fields = std::str::from_utf8(stat.get(close + 1..)?)
        .ok()?
        .split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat {
        comm: Comm::new(comm),
        parent,
        start_ticks,
    })
}

/// `Uid:` of `/proc/PID/status` holds the real, effective, saved and filesystem uid.
fn parse_euid(status: &[u8]) -> Option<u32> {
    let line = status
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line)
        .ok()?
        .split_ascii_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// Prefers the mount that shows most of the hierarchy. A mount that a later one hides does not count.
fn parse_mountinfo(mountinfo: &[u8]) -> Option<CgroupRoot> {
    let mut visible: HashMap<&[u8], Option<&str>> = HashMap::new();
    for line in mountinfo.split(|&byte| byte == b'\n') {
        // 36 35 98:0 ROOT MOUNTPOINT OPTIONS TAGS... - FSTYPE SOURCE OPTIONS
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let Some(separator) = fields
            .iter()
            .position(|field| *field == b"-")
            .filter(|at| *at >= 6)
        else {
            continue;
        };
        let is_unified = fields.get(separator + 1) == Some(&b"cgroup2".as_slice());
        let top = std::str::from_utf8(fields[3]).ok().filter(|_| is_unified);
        visible.insert(fields[4], top);
    }
    let unified = visible.into_iter().filter_map(|(mount, top)| Some((mount, top?)));
    let (mount, top) = unified.min_by_key(|(mount, top)| (top.len(), mount.len()))?;
    Some(CgroupRoot {
        mount: PathBuf::from(OsStr::from_bytes(mount)),
        top: top.to_owned(),
    })
}

fn malformed(name: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = " S 1 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 4242 1 1 1";

    #[test]
    fn a_comm_with_parentheses_and_spaces_is_read_whole() {
        let stat = parse_stat(format!("17 (a) (b c){TAIL}\n").as_bytes()).unwrap();
        assert_eq!(stat.comm.as_str(), "a) (b c");
        assert_eq!((stat.parent, stat.start_ticks), (1, 4242));
    }

    #[test]
    fn a_stat_that_is_cut_off_is_refused() {
        assert_eq!(parse_stat(b"17 (sh) S 1 1"), None);
        assert_eq!(parse_stat(b"17 )sh( S"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn the_effective_uid_is_taken() {
        assert_eq!(parse_euid(b"Name:\tx\nUid:\t1000\t33\t33\t33\n"), Some(33));
    }

    #[test]
    fn the_whole_cgroup_hierarchy_is_preferred_to_a_part() {
        let mounts = b"30 24 0:26 /a/b /container/cgroup ro - cgroup2 cgroup2 rw\n\
            31 24 0:27 / /sys/fs/cgroup rw shared:4 - tmpfs tmpfs rw\n\
            32 24 0:26 / /sys/fs/cgroup/unified rw shared:5 - cgroup2 cgroup2 rw\n";
        let root = parse_mountinfo(mounts).unwrap();
        assert_eq!(
            root,
            CgroupRoot {
                mount: "/sys/fs/cgroup/unified".into(),
                top: "/".into()
            }
        );
    }

    #[test]
    fn a_mount_that_another_hides_does_not_count() {
        // A container's own cgroup mount, and the host's on top of it.
        let mounts = b"30 24 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n\
            31 30 0:26 /../../.. /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        let root = parse_mountinfo(mounts).unwrap();
        assert_eq!(root.top, "/../../..");
        assert_eq!(
            parse_mountinfo(b"30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs rw\n"),
            None
        );
    }

    #[test]
    fn a_cgroup_outside_the_mount_has_no_id() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("x")).unwrap();
        let inode = fs::metadata(directory.path().join("x")).unwrap().ino();
        let whole = CgroupRoot {
            mount: directory.path().to_owned(),
            top: "/".to_owned(),
        };
        assert!(whole.is_whole());
        assert_eq!(whole.id("/x"), Some(inode));
        assert_eq!(whole.id("/../x"), None);
        assert_eq!(whole.id("/gone"), None);
        let part = CgroupRoot {
            mount: directory.path().to_owned(),
            top: "/pod".to_owned(),
        };
        assert_eq!(part.id("/pod/x"), Some(inode));
        assert_eq!(part.id("/podium"), None);
    }

    #[test]
    fn this_process_is_read_as_it_is() {
        let proc = ProcFs::new("/proc");
        let owner = proc
            .owner(std::process::id(), CgroupRoot::find(&proc).as_ref())
            .unwrap();
        assert_eq!(owner.uid, fs::metadata("/proc/self").unwrap().uid());
        assert_eq!(
            owner.comm.as_bytes(),
            fs::read("/proc/self/comm").unwrap().trim_ascii_end()
        );
        assert!(
            owner
                .start_boottime
                .is_some_and(|start| start > 0 && start % 10_000_000 == 0)
        );
    }
}
