//! Which process holds a socket: a scan of the descriptors of all processes, remembered and checked at each use.
//!
//! Invariants: an owner is answered only after reading back that the process holds the socket now, so that neither an
//! exited process nor a reused pid or inode number is ever named; a scan is at most [`MAX_AGE`] old when it says
//! that nobody else holds the socket; scans take at most 1/5 of the time after a burst.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Dir, Mode, OFlags, openat, readlinkat_raw};
use rustix::io::Errno;

use super::budget::Budget;
use super::process::ProcFs;
use crate::owner::{Cgroups, Owner};

/// A process that comes to share a socket is noticed this late.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Scans may take 1/5 of the time, after a burst of this.
const BURST: Duration = Duration::from_millis(200);
/// pid of init, which keeps sockets open for the services it activates.
const INIT: u32 = 1;

/// Why no single process can be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// No process holds the socket.
    Unheld,
    /// Several processes hold it.
    Shared,
    /// Not known: it is too early for another scan, or not every process may be looked at.
    Unknown,
}

/// A descriptor that refers to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Descriptor {
    pid: u32,
    /// The thread whose table holds it: the main thread unless that has exited.
    tid: u32,
    fd: u32,
}

/// Holders of every socket of the host, by inode.
#[derive(Debug)]
pub(super) struct Holders {
    proc: ProcFs,
    cgroups: Cgroups,
    directory: OwnedFd,
    /// First descriptor of each process that holds the socket.
    sockets: HashMap<u32, Vec<Descriptor>>,
    owners: HashMap<u32, Owner>,
    /// Sockets that existed when the scan began and were not found by it.
    unheld: HashSet<u32>,
    scanned_at: Option<Instant>,
    /// No process was refused to the scan.
    complete: bool,
    budget: Budget,
}

impl Holders {
    /// # Errors
    ///
    /// `/proc` does not open.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let directory = rustix::fs::open(
            root,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let proc = ProcFs::new(root);
        Ok(Self {
            cgroups: Cgroups::find(proc.root()),
            proc,
            directory,
            sockets: HashMap::new(),
            owners: HashMap::new(),
            unheld: HashSet::new(),
            scanned_at: None,
            complete: false,
            budget: Budget::new(5, BURST, Instant::now()),
        })
    }

    /// The one process that holds a live socket.
    ///
    /// # Errors
    ///
    /// [`Lack`].
    pub(super) fn owner(&mut self, inode: u32) -> Result<Owner, Lack> {
        let now = Instant::now();
        let fresh = self.scanned_at.is_some_and(|at| now.duration_since(at) < MAX_AGE) || self.scan();
        if fresh && let Some(answer) = self.remembered(inode) {
            return answer;
        }
        if !self.scan() {
            return Err(Lack::Unknown);
        }
        match self.remembered(inode) {
            Some(answer) => answer,
            None if self.complete && !self.sockets.contains_key(&inode) => {
                self.unheld.insert(inode);
                Err(Lack::Unheld)
            }
            None => Err(Lack::Unknown),
        }
    }

    /// The answer of the last scan, if it still holds.
    fn remembered(&mut self, inode: u32) -> Option<Result<Owner, Lack>> {
        let Some(descriptors) = self.sockets.get(&inode) else {
            return self.unheld.contains(&inode).then_some(Err(Lack::Unheld));
        };
        let descriptors = descriptors.clone();
        // Who the holders are is read before what they hold: a pid that is reused in between holds something else.
        let mut live = Vec::with_capacity(descriptors.len());
        for descriptor in descriptors {
            let owner = self.process(descriptor.pid);
            if self.holds(descriptor, inode) {
                live.push(owner?);
            }
        }
        if live.len() > 1 {
            live.retain(|owner| !(owner.pid == INIT && owner.comm.as_bytes() == b"systemd"));
        }
        match live.as_slice() {
            [] => None,
            [owner] => Some(Ok(*owner)),
            _ => Some(Err(Lack::Shared)),
        }
    }

    fn process(&mut self, pid: u32) -> Option<Owner> {
        if let Some(owner) = self.owners.get(&pid) {
            return Some(*owner);
        }
        let owner = self.proc.owner(pid, &self.cgroups).ok()?;
        self.owners.insert(pid, owner);
        Some(owner)
    }

    fn holds(&self, descriptor: Descriptor, inode: u32) -> bool {
        let Descriptor { pid, tid, fd } = descriptor;
        let path = if pid == tid {
            format!("{pid}/fd/{fd}")
        } else {
            format!("{pid}/task/{tid}/fd/{fd}")
        };
        matches!(socket_inode(&self.directory, path.as_str()), Ok(Some(held)) if held == inode)
    }

    /// Scans all processes unless that would take too much time; true if it did.
    fn scan(&mut self) -> bool {
        let start = Instant::now();
        if !self.budget.allows(start) {
            return false;
        }
        self.sockets.clear();
        self.owners.clear();
        self.unheld.clear();
        self.complete = true;
        match numbers(self.directory.as_fd(), ".") {
            Ok(pids) => pids.into_iter().for_each(|pid| self.scan_process(pid)),
            Err(_) => self.complete = false,
        }
        self.scanned_at = Some(start);
        self.budget.charge(start.elapsed());
        true
    }

    fn scan_process(&mut self, pid: u32) {
        if self.scan_table(pid, pid, &format!("{pid}/fd")) > 0 {
            return;
        }
        // The main thread has no descriptors: it has exited, or this is a kernel thread.
        let Ok(threads) = numbers(self.directory.as_fd(), format!("{pid}/task").as_str()) else {
            return;
        };
        for tid in threads.into_iter().filter(|&tid| tid != pid) {
            if self.scan_table(pid, tid, &format!("{pid}/task/{tid}/fd")) > 0 {
                return;
            }
        }
    }

    /// Notes the sockets of one descriptor table and counts its descriptors.
    fn scan_table(&mut self, pid: u32, tid: u32, path: &str) -> usize {
        let table = match open_directory(self.directory.as_fd(), path) {
            Ok(table) => table,
            Err(error) => {
                self.complete &= is_gone(error);
                return 0;
            }
        };
        let Ok(fds) = numbers(table.as_fd(), ".") else {
            self.complete = false;
            return 0;
        };
        for &fd in &fds {
            match socket_inode(&table, fd.to_string().as_str()) {
                Ok(Some(inode)) => {
                    let holders = self.sockets.entry(inode).or_default();
                    if holders.last().is_none_or(|last| last.pid != pid) {
                        holders.push(Descriptor { pid, tid, fd });
                    }
                }
                Ok(None) => {}
                Err(error) => self.complete &= is_gone(error),
            }
        }
        fds.len()
    }
}

/// The process exited, or closed the descriptor, while it was looked at.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::SRCH)
}

fn open_directory(base: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    openat(
        base,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// The entries of a directory that are numbers.
fn numbers(base: impl AsFd, path: &str) -> Result<Vec<u32>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::new(open_directory(base, path)?)? {
        if let Some(number) = entry?
            .file_name()
            .to_str()
            .ok()
            .and_then(|name| name.parse().ok())
        {
            found.push(number);
        }
    }
    Ok(found)
}

/// The socket that a descriptor link such as `socket:[123]` names.
fn socket_inode(base: impl AsFd, path: &str) -> Result<Option<u32>, Errno> {
    let mut buffer = [0; 64];
    let length = readlinkat_raw(base, path, &mut buffer[..])?;
    Ok(parse_link(&buffer[..length]))
}

fn parse_link(target: &[u8]) -> Option<u32> {
    let number = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A procfs with processes that hold sockets.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn process(&self, pid: u32, comm: &str) {
            let directory = self.0.path().join(pid.to_string());
            fs::create_dir_all(directory.join("fd")).unwrap();
            fs::create_dir_all(directory.join("task").join(pid.to_string())).unwrap();
            let stat = format!("{pid} ({comm}) S 1 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 {pid} 1 1 1\n");
            fs::write(directory.join("stat"), stat).unwrap();
            fs::write(directory.join("status"), "Uid:\t0\t7\t0\t0\n").unwrap();
            fs::write(directory.join("cgroup"), "0::/\n").unwrap();
        }

        fn holds(&self, table: &str, fd: u32, inode: u32) {
            fs::create_dir_all(self.0.path().join(table)).unwrap();
            symlink(
                format!("socket:[{inode}]"),
                self.0.path().join(table).join(fd.to_string()),
            )
            .unwrap();
        }

        fn closes(&self, table: &str, fd: u32) {
            fs::remove_file(self.0.path().join(table).join(fd.to_string())).unwrap();
        }

        fn open(&self) -> Holders {
            Holders::open(self.0.path()).unwrap()
        }
    }

    #[test]
    fn the_only_holder_is_the_owner() {
        let tree = Tree::new();
        tree.process(10, "server");
        tree.holds("10/fd", 3, 77);
        tree.holds("10/fd", 4, 77);
        let owner = tree.open().owner(77).unwrap();
        assert_eq!((owner.pid, owner.uid, owner.comm.as_str()), (10, 7, "server"));
    }

    #[test]
    fn a_shared_socket_has_no_owner() {
        let tree = Tree::new();
        for pid in [10, 11] {
            tree.process(pid, "worker");
            tree.holds(&format!("{pid}/fd"), 3, 77);
        }
        assert_eq!(tree.open().owner(77), Err(Lack::Shared));
    }

    #[test]
    fn when_all_holders_but_one_close_that_one_is_the_owner() {
        let tree = Tree::new();
        for pid in [10, 11] {
            tree.process(pid, "worker");
            tree.holds(&format!("{pid}/fd"), 3, 77);
        }
        let mut holders = tree.open();
        assert_eq!(holders.owner(77), Err(Lack::Shared));
        tree.closes("10/fd", 3);
        assert_eq!(holders.owner(77).map(|owner| owner.pid), Ok(11));
    }

    #[test]
    fn systemd_as_init_does_not_count_beside_the_service() {
        let tree = Tree::new();
        tree.process(1, "systemd");
        tree.process(10, "sshd");
        tree.holds("1/fd", 40, 77);
        tree.holds("10/fd", 3, 77);
        tree.holds("1/fd", 41, 78);
        let mut holders = tree.open();
        assert_eq!(holders.owner(77).map(|owner| owner.pid), Ok(10));
        assert_eq!(holders.owner(78).map(|owner| owner.pid), Ok(1));
    }

    #[test]
    fn a_descriptor_that_names_another_socket_now_is_no_proof() {
        let tree = Tree::new();
        tree.process(10, "old");
        tree.holds("10/fd", 3, 77);
        let mut holders = tree.open();
        assert_eq!(holders.owner(77).map(|owner| owner.pid), Ok(10));
        tree.closes("10/fd", 3);
        tree.holds("10/fd", 3, 99);
        tree.process(12, "new");
        tree.holds("12/fd", 5, 77);
        assert_eq!(holders.owner(77).map(|owner| owner.pid), Ok(12));
    }

    #[test]
    fn a_socket_that_nobody_holds_is_unheld() {
        let tree = Tree::new();
        tree.process(10, "server");
        assert_eq!(tree.open().owner(77), Err(Lack::Unheld));
    }

    #[test]
    fn descriptors_of_a_process_whose_main_thread_has_exited_are_found() {
        let tree = Tree::new();
        tree.process(10, "threads");
        tree.holds("10/task/14/fd", 3, 77);
        assert_eq!(tree.open().owner(77).map(|owner| owner.pid), Ok(10));
    }

    #[test]
    fn only_socket_links_are_sockets() {
        assert_eq!(parse_link(b"socket:[4026531840]"), Some(4_026_531_840));
        for other in [
            b"pipe:[12]".as_slice(),
            b"socket:[]",
            b"socket:[-1]",
            b"/tmp/socket:[1]",
            b"socket:[99999999999]",
        ] {
            assert_eq!(parse_link(other), None);
        }
    }
}
