//! Namespaces of processes in matching cgroups, by one walk over `/proc`.
//!
//! A walk costs one `readlink` per process, and the processes of a namespace are asked for their cgroup only until one matches.
//!
//! - A namespace that is new is opened through the process's directory, which no later process with its pid has, and the process must
//!   be in a matching cgroup after that. So it never is the namespace of another process.
//! - A walk is no snapshot: a process that is born behind the walk's back while its parent ends is not seen. One walk that does not
//!   find a namespace proves nothing.

use std::collections::{HashMap, HashSet};
use std::fs::{File, read_dir, read_link};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{CgroupPattern, Namespace, inode};

const PROC: &str = "/proc";

/// Walks over `/proc`.
#[derive(Debug)]
pub(in crate::agent) struct Scanner {
    patterns: Vec<CgroupPattern>,
    /// The first process's cgroup namespace, if it is not ours: ours shows paths from our own cgroup on.
    view: Option<OwnedFd>,
}

/// What a walk found: one process of each namespace.
#[derive(Debug, Default)]
pub(in crate::agent) struct Scan {
    /// By number of the namespace.
    pub(super) found: HashMap<u32, Found>,
    /// Processes whose namespace may not be seen.
    pub(in crate::agent) hidden: usize,
}

/// A process in a matching cgroup.
#[derive(Debug)]
pub(in crate::agent) struct Found {
    pub(super) pid: u32,
    pub(super) cgroup: String,
    /// Its namespace, if that is not one of the known ones.
    pub(super) namespace: Option<Namespace>,
}

impl Scanner {
    /// `None` without patterns.
    pub(in crate::agent) fn new(patterns: &[CgroupPattern]) -> Option<Self> {
        if patterns.is_empty() {
            return None;
        }
        Some(Self {
            patterns: patterns.to_vec(),
            view: first_view(),
        })
    }

    /// Walks once. Namespaces that are `known` are looked for and not opened, those of `skip` not even looked for.
    ///
    /// # Errors
    /// If `/proc` cannot be read, or the walk's thread not be started.
    pub(in crate::agent) fn scan(&self, known: &HashSet<u32>, skip: &HashSet<u32>) -> io::Result<Scan> {
        let Some(view) = &self.view else {
            return self.walk(Path::new(PROC), known, skip);
        };
        // On a thread of its own: the others keep the view that they have.
        thread::scope(|scope| {
            let walk = || {
                if let Err(error) =
                    move_into_link_name_space(view.as_fd(), Some(LinkNameSpaceType::ControlGroup))
                {
                    tracing::debug!("cgroup paths are seen from the agent's own cgroup: {error}");
                }
                self.walk(Path::new(PROC), known, skip)
            };
            thread::Builder::new()
                .name("netns scan".to_owned())
                .spawn_scoped(scope, walk)?
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn walk(&self, proc: &Path, known: &HashSet<u32>, skip: &HashSet<u32>) -> io::Result<Scan> {
        let mut scan = Scan::default();
        let mut directory = proc.to_owned();
        let mut text = String::new();
        for entry in read_dir(proc)? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            directory.push(&name);
            self.process(pid, &directory, known, skip, &mut scan, &mut text);
            directory.pop();
        }
        Ok(scan)
    }

    fn process(
        &self,
        pid: u32,
        directory: &Path,
        known: &HashSet<u32>,
        skip: &HashSet<u32>,
        scan: &mut Scan,
        text: &mut String,
    ) {
        let inode = match read_link(directory.join("ns/net")) {
            Ok(name) => inode(&name),
            Err(error) => {
                scan.hidden += usize::from(error.kind() == ErrorKind::PermissionDenied);
                None
            }
        };
        let Some(inode) = inode.filter(|inode| !skip.contains(inode) && !scan.found.contains_key(inode))
        else {
            return;
        };
        let Some(cgroup) = self.matching(File::open(directory.join("cgroup")), text) else {
            return;
        };
        let found = Found {
            pid,
            cgroup,
            namespace: None,
        };
        if known.contains(&inode) {
            scan.found.insert(inode, found);
        } else if let Some((namespace, cgroup)) = self.pin(directory, text) {
            scan.found.entry(namespace.inode()).or_insert(Found {
                cgroup,
                namespace: Some(namespace).filter(|namespace| !known.contains(&namespace.inode())),
                ..found
            });
        }
    }

    /// Opens the namespace of a process that is in a matching cgroup, and still is when that is done.
    fn pin(&self, directory: &Path, text: &mut String) -> Option<(Namespace, String)> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let process = openat(CWD, directory, flags, Mode::empty()).ok()?;
        let namespace = Namespace::of_process(process.as_fd(), directory).ok()??;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&process, "cgroup", flags, Mode::empty()).map(File::from);
        let cgroup = self.matching(file.map_err(io::Error::from), text)?;
        Some((namespace, cgroup))
    }

    /// The path in a `/proc/PID/cgroup`, of whichever hierarchy, that a pattern covers.
    fn matching(&self, file: io::Result<File>, text: &mut String) -> Option<String> {
        text.clear();
        // A process that is gone is in no cgroup.
        file.ok()?.read_to_string(text).ok()?;
        text.lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .map(|path| path.strip_suffix(" (deleted)").unwrap_or(path))
            .find(|path| self.patterns.iter().any(|pattern| pattern.covers(path)))
            .map(str::to_owned)
    }
}

/// The cgroup namespace of pid 1, if it is another than ours and may be opened.
fn first_view() -> Option<OwnedFd> {
    let path = |process: &str| PathBuf::from(PROC).join(process).join("ns/cgroup");
    let (own, first) = (read_link(path("self")).ok()?, read_link(path("1")).ok()?);
    if own == first {
        return None;
    }
    File::open(path("1")).ok().map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn scanner(pattern: &str) -> Scanner {
        Scanner::new(&[pattern.parse().unwrap()]).unwrap()
    }

    /// A directory like `/proc/PID`, in which the namespace cannot be opened.
    fn process(proc: &Path, pid: u32, netns: u32, cgroup: &str) {
        let directory = proc.join(pid.to_string());
        fs::create_dir_all(directory.join("ns")).unwrap();
        symlink(format!("net:[{netns}]"), directory.join("ns/net")).unwrap();
        fs::write(directory.join("cgroup"), cgroup).unwrap();
    }

    #[test]
    fn known_namespaces_are_found_by_any_hierarchy_and_others_only_if_they_open() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 10, 1, "0::/system.slice/a.service\n");
        process(proc.path(), 11, 2, "4:memory:/pods/one\n0::/\n");
        process(proc.path(), 12, 3, "0::/pods/two (deleted)\n");
        process(proc.path(), 13, 4, "0::/pods/skipped\n");
        process(proc.path(), 14, 5, "0::/pods/cannot-be-opened\n");
        fs::create_dir(proc.path().join("self")).unwrap();
        let scan = scanner("/pods/*")
            .walk(proc.path(), &HashSet::from([1, 2, 3]), &HashSet::from([4]))
            .unwrap();
        let mut found: Vec<_> = scan
            .found
            .iter()
            .map(|(inode, found)| (*inode, found.pid, found.cgroup.as_str()))
            .collect();
        found.sort_unstable();
        assert_eq!(found, [(2, 11, "/pods/one"), (3, 12, "/pods/two")]);
    }

    #[test]
    fn this_process_is_found_with_its_namespace_open() {
        let own = super::super::own_inode().unwrap();
        let scan = scanner("/").scan(&HashSet::new(), &HashSet::new()).unwrap();
        let namespace = scan.found[&own].namespace.as_ref().unwrap();
        assert_eq!(namespace.inode(), own);
        let scan = scanner("/").scan(&HashSet::from([own]), &HashSet::new()).unwrap();
        assert!(scan.found[&own].namespace.is_none());
        let nowhere = scanner("/no/such/cgroup");
        assert!(
            nowhere
                .scan(&HashSet::new(), &HashSet::new())
                .unwrap()
                .found
                .is_empty()
        );
    }
}
