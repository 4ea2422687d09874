//! What programs processes run, and who started them, also when they are gone before anybody can look at `/proc`.
//!
//! The kernel probes tell of each fork, exec and end through a ring buffer ([`ProcessEvents`](crate::owner::ProcessEvents));
//! [`Processes`] keeps what they said by process and exec.
//!
//! Invariants: an event is there before any packet of the program that it tells of; a lost event means that something is
//! unknown, never that something is wrong, as each exec has a key of its own; nobody waits here for anything but memory.

mod cache;
mod follow;

use std::sync::Arc;

pub use follow::{CacheSize, Follower, Processes};
pub use nflog_common::ImageId;

use crate::owner::Comm;

/// One program run by one process, as it was when that began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Path of the executable, as `/proc/PID/exe` has it; `None` if it is not known.
    pub executable: Option<Arc<str>>,
    /// Its arguments, if they were asked for and could be read.
    pub arguments: Option<Arc<Arguments>>,
    /// The process's parent when it began to run this program.
    pub parent: Option<Parent>,
}

/// A process's parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// `comm` of its main thread.
    pub comm: Comm,
}

/// A program's arguments, its name for itself included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    list: Vec<String>,
    cut: bool,
}

impl Arguments {
    /// From the bytes of `/proc/PID/cmdline`: each argument with a NUL at its end. `cut`: there are more. Invalid UTF-8 is
    /// replaced.
    #[must_use]
    pub fn new(bytes: &[u8], cut: bool) -> Self {
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        let list = bytes
            .split(|&byte| byte == 0)
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect();
        Self { list, cut }
    }

    /// The arguments in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.list.iter().map(String::as_str)
    }

    /// Whether the last one is cut off, or others after it are missing.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }
}

/// The path of an event: the names of its components, the last one first. `None` for no path.
fn path(names: &[u8]) -> Option<Arc<str>> {
    let names = names.strip_suffix(b"\0")?;
    let mut path = Vec::with_capacity(names.len() + 1);
    for name in names.rsplit(|&byte| byte == 0) {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    Some(String::from_utf8_lossy(&path).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_put_together_from_the_root() {
        assert_eq!(path(b"curl\0bin\0usr\0").as_deref(), Some("/usr/bin/curl"));
        assert_eq!(path(b"memfd:x\0").as_deref(), Some("/memfd:x"));
        assert_eq!(path(b""), None);
    }

    #[test]
    fn arguments_are_split_at_their_ends() {
        let list = |bytes: &[u8], cut| -> Vec<String> {
            let arguments = Arguments::new(bytes, cut);
            assert_eq!(arguments.is_cut(), cut);
            arguments.iter().map(str::to_owned).collect()
        };
        assert_eq!(list(b"sh\0-c\0\0a b\0", false), ["sh", "-c", "", "a b"]);
        assert_eq!(list(b"sh\0cut", true), ["sh", "cut"]);
        assert_eq!(list(b"\xff\0", false), ["\u{fffd}"]);
    }
}
