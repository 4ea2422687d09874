//! Which network namespaces are read, and as they come and go.
//!
//! A namespace is read while what names it is there: its name or path exists, the process lives, or a process in a matching cgroup
//! is in it. Whoever names it, it has one reader.
//!
//! - `named`: those of `--netns`. A name follows the namespace that has it now; a pid never follows to another process.
//! - `scan`: those of `--netns-of-cgroup`, by one walk over `/proc`; `pattern`: which cgroups are meant.
//! - `schedule` and `hints`: when to look again.
//! - `fleet`: the readers; `counts`: what became of them.
//!
//! An open namespace file keeps a namespace alive, and so do a reader's sockets: while a namespace is read, no other one has its
//! number, and a reader that has ended leaves nothing open.

mod counts;
mod fleet;
mod hints;
mod named;
mod pattern;
mod scan;
mod schedule;

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, fstat, fstatfs, openat};

use super::RunError;
use crate::nflog::{Netns, NetnsError};

pub(super) use counts::Counts;
pub(super) use fleet::{Event, Fleet};
pub(super) use hints::Hints;
pub(super) use named::{Change, Named};
pub use pattern::{CgroupPattern, CgroupPatternError};
pub(super) use scan::Scanner;
pub(super) use schedule::Schedule;

/// `NSFS_MAGIC` (`uapi/linux/magic.h`): the file system of namespace files.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// An open namespace, a network namespace unless it came from a path; entering it tells. Clones share the file.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    inode: u32,
    file: Arc<OwnedFd>,
    /// For messages.
    origin: PathBuf,
}

impl Namespace {
    /// Opens the file that stands for a namespace.
    ///
    /// # Errors
    /// If there is no such file, or it is not a namespace.
    pub(super) fn open(path: &Path) -> Result<Self, NetnsError> {
        let opened = File::open(path).and_then(|file| Self::of(file.into(), path));
        match opened {
            Ok(Some(namespace)) => Ok(namespace),
            Ok(None) => Err(NetnsError::NotNetns { path: path.into() }),
            Err(source) => Err(NetnsError::Open {
                path: path.into(),
                source,
            }),
        }
    }

    /// That of the process whose directory in `/proc` is open, and was at `path`. Never that of a process that got its pid later.
    fn of_process(directory: BorrowedFd<'_>, path: &Path) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Self::of(openat(directory, "ns/net", flags, Mode::empty())?, path)
    }

    fn of(file: OwnedFd, origin: &Path) -> io::Result<Option<Self>> {
        if u64::try_from(fstatfs(&file)?.f_type) != Ok(NSFS_MAGIC) {
            return Ok(None);
        }
        // Namespace inode numbers are 32-bit in the kernel (ns_common.inum), and unique over all kinds of namespaces.
        Ok(u32::try_from(fstat(&file)?.st_ino).ok().map(|inode| Self {
            inode,
            file: Arc::new(file),
            origin: origin.into(),
        }))
    }

    /// The error with the path that the namespace was opened by in place of the one that stands for the open file.
    pub(super) fn named(&self, error: RunError) -> RunError {
        let path = self.origin.clone();
        match error {
            RunError::Netns(NetnsError::NotNetns { .. }) => NetnsError::NotNetns { path }.into(),
            RunError::Netns(NetnsError::Enter { source, .. }) => NetnsError::Enter { path, source }.into(),
            other => other,
        }
    }

    /// Its number, as in `lsns`.
    pub(super) const fn inode(&self) -> u32 {
        self.inode
    }

    /// For a reader's configuration.
    pub(super) fn netns(&self) -> Netns {
        Netns::Fd(Arc::clone(&self.file))
    }
}

/// The number in the name of a network namespace's file, `net:[4026531840]`.
fn inode(name: &Path) -> Option<u32> {
    let number = name.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?;
    number.parse().ok()
}

/// Number of the agent's own namespace.
///
/// # Errors
/// If `/proc` cannot be read.
pub(super) fn own_inode() -> Result<u32, NetnsError> {
    Namespace::open(Path::new("/proc/self/ns/net")).map(|own| own.inode())
}

/// The inode of the namespace of pid 1, which is the node's own if the agent sees the node's processes or is in the node's network.
pub(super) fn node_inode() -> Option<u32> {
    let node = Namespace::open(Path::new("/proc/1/ns/net"));
    node.map(|node| node.inode()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_namespaces_are_taken_for_such() {
        assert_eq!(inode(Path::new("net:[4026531840]")), Some(4_026_531_840));
        for other in ["mnt:[4026531840]", "net:[]", "/etc/passwd", "net:[99999999999]"] {
            assert_eq!(inode(Path::new(other)), None, "{other}");
        }
        let path = Path::new("/proc/self/status");
        assert!(matches!(
            Namespace::open(path),
            Err(NetnsError::NotNetns { path: named }) if named == path
        ));
    }

    #[test]
    fn a_namespace_has_the_number_of_its_file() {
        use std::os::unix::fs::MetadataExt;
        let number = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_eq!(u64::from(own_inode().unwrap()), number);
    }
}
