//! What `/proc/PID` says about a process.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::owner::{Cgroups, Comm, Owner};

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
    pub(crate) fn owner(&self, pid: u32, cgroups: &Cgroups) -> io::Result<Owner> {
        let stat = self.stat(pid)?;
        let uid = parse_euid(&self.read(pid, "status")?).ok_or_else(|| malformed("status"))?;
        let cgroup = self.read(pid, "cgroup")?;
        Ok(Owner {
            pid,
            start_boottime: Some(self.ticks_to_ns(stat.start_ticks)),
            exec_id: None,
            uid,
            comm: stat.comm,
            cgroup_id: cgroups.place(&cgroup).map(|(id, _)| id),
        })
    }
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

fn malformed(name: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

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
    fn this_process_is_read_as_it_is() {
        let proc = ProcFs::new("/proc");
        let owner = proc
            .owner(std::process::id(), &Cgroups::find(proc.root()))
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
