//! Signs that namespaces come or go, by inotify: in the directories of names such as `/run/netns`, and in the cgroup hierarchies.
//!
//! A sign says only that it is worth looking, and none says nothing: a process changes its namespace without any. Nothing here waits.
//!
//! In a cgroup's directory the kernel reports cgroups made and removed, writes to `cgroup.procs`, and on v2 the change of
//! `cgroup.events` when the first process comes and the last one leaves.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::read_dir;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, Process};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Directories watched at most: each costs the kernel about a kilobyte. Beyond, the regular looks must do.
const MAX: usize = 16_384;

/// The v1 hierarchy to watch, the best first: container runtimes make their cgroups in all of them.
const V1: [&str; 4] = ["name=systemd", "pids", "memory", "cpu"];

/// Files of a cgroup that change with its processes.
const MEMBERS: [&str; 4] = ["cgroup.procs", "cgroup.threads", "cgroup.events", "tasks"];

/// Watched directories.
#[derive(Debug)]
pub(in crate::agent) struct Hints {
    inotify: OwnedFd,
    directories: HashMap<i32, Watched>,
}

#[derive(Debug)]
enum Watched {
    /// Holds names of namespaces.
    Names,
    /// A cgroup: those below are watched too.
    Cgroup(PathBuf),
}

impl Hints {
    /// Watches the directories of `files` and, if asked to, the cgroup hierarchies. What cannot be watched is left out.
    pub(in crate::agent) fn watch<'a>(
        files: impl Iterator<Item = &'a Path>,
        cgroups: bool,
    ) -> io::Result<Self> {
        let mut hints = Self {
            inotify: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            directories: HashMap::new(),
        };
        for directory in files.filter_map(Path::parent) {
            let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
            match inotify::add_watch(&hints.inotify, directory, flags | WatchFlags::ONLYDIR) {
                Ok(watch) => {
                    hints.directories.insert(watch, Watched::Names);
                }
                Err(error) => tracing::debug!("cannot watch {}: {error}", directory.display()),
            }
        }
        if cgroups {
            for root in hierarchies() {
                hints.add_cgroups(root);
            }
            tracing::debug!("{} directories are watched for changes", hints.directories.len());
        }
        Ok(hints)
    }

    /// Whether there was a sign since the last time.
    pub(in crate::agent) fn take(&mut self) -> bool {
        let mut sign = false;
        let mut made = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(self.inotify.as_fd(), &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    tracing::debug!("cannot read inotify events: {error}");
                    break;
                }
            };
            let flags = event.events();
            // With events lost a new cgroup may stay unwatched; the regular looks find what is in it.
            sign |= flags.contains(ReadFlags::QUEUE_OVERFLOW);
            if flags.contains(ReadFlags::IGNORED) {
                self.directories.remove(&event.wd());
                continue;
            }
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            let (Some(watched), Some(name)) = (self.directories.get(&event.wd()), name) else {
                continue;
            };
            match watched {
                Watched::Names => sign = true,
                Watched::Cgroup(path) if flags.contains(ReadFlags::ISDIR) => {
                    sign = true;
                    if flags.contains(ReadFlags::CREATE) {
                        made.push(path.join(name));
                    }
                }
                Watched::Cgroup(_) => sign |= MEMBERS.iter().any(|member| name == *member),
            }
        }
        for directory in made {
            self.add_cgroups(directory);
        }
        sign
    }

    /// Watches a cgroup and all below.
    fn add_cgroups(&mut self, root: PathBuf) {
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MODIFY | WatchFlags::ONLYDIR;
        let mut left = vec![root];
        while let Some(directory) = left.pop() {
            if self.directories.len() >= MAX {
                tracing::debug!("no more than {MAX} directories are watched");
                return;
            }
            // A cgroup that is gone again, or no room for watches: the regular looks must do.
            let Ok(watch) = inotify::add_watch(&self.inotify, &directory, flags) else {
                continue;
            };
            // After the watch is set, so that no child is made unseen between the two.
            for entry in read_dir(&directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    left.push(entry.path());
                }
            }
            self.directories.insert(watch, Watched::Cgroup(directory));
        }
    }
}

/// Where cgroup v2 is mounted, and the v1 hierarchy that tells most.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = Process::myself().and_then(|myself| myself.mountinfo());
    let mounts = match &mounts {
        Ok(mounts) => &mounts.0,
        Err(error) => {
            tracing::debug!("cannot read my own mounts: {error}");
            return Vec::new();
        }
    };
    let mut roots: Vec<_> = mounts
        .iter()
        .filter(|mount| mount.fs_type == "cgroup2")
        .map(|mount| mount.mount_point.clone())
        .collect();
    roots.extend(V1.iter().find_map(|name| v1(mounts, name)));
    roots
}

fn v1(mounts: &[MountInfo], name: &str) -> Option<PathBuf> {
    let has = |mount: &&MountInfo| match name.split_once('=') {
        Some((key, value)) => mount
            .super_options
            .get(key)
            .is_some_and(|found| found.as_deref() == Some(value)),
        None => mount.super_options.contains_key(name),
    };
    let mount = mounts
        .iter()
        .filter(|mount| mount.fs_type == "cgroup")
        .find(has)?;
    Some(mount.mount_point.clone())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_name_that_comes_or_goes_is_a_sign() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("name");
        let mut hints = Hints::watch([path.as_path()].into_iter(), false).unwrap();
        assert!(!hints.take());
        fs::write(&path, "").unwrap();
        assert!(hints.take());
        assert!(!hints.take());
        fs::remove_file(&path).unwrap();
        assert!(hints.take());
    }

    #[test]
    fn a_cgroup_at_any_depth_is_watched_from_its_making_to_its_end() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("old")).unwrap();
        let mut hints = Hints::watch([].into_iter(), false).unwrap();
        hints.add_cgroups(root.path().to_owned());
        assert_eq!(hints.directories.len(), 2);
        let inner = root.path().join("old/new/inner");
        fs::create_dir_all(&inner).unwrap();
        assert!(hints.take());
        assert_eq!(hints.directories.len(), 4);

        fs::write(inner.join("memory.max"), "1").unwrap();
        assert!(!hints.take());
        fs::write(inner.join("cgroup.procs"), "1").unwrap();
        assert!(hints.take());

        fs::remove_dir_all(root.path().join("old/new")).unwrap();
        assert!(hints.take());
        assert_eq!(hints.directories.len(), 2);
    }
}
