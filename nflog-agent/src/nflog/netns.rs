//! Network namespaces: naming one, and running code inside it on a thread of its own.
//!
//! Invariant: the calling thread never changes its namespace.

use std::fs::{File, metadata};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use super::error::NetnsError;
use super::socket::enter_netns;

/// A network namespace.
#[derive(Clone, Debug)]
pub enum Netns {
    /// That of the calling thread.
    Current,
    /// An open namespace file.
    Fd(Arc<OwnedFd>),
    /// A namespace file, such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    Path(PathBuf),
    /// That of a process.
    Pid(u32),
}

impl Netns {
    /// Runs `f` inside the namespace: on this thread for [`Netns::Current`], else on a new one. A panic is passed on.
    ///
    /// # Errors
    /// If the namespace does not exist or cannot be entered.
    pub fn run<T, F>(&self, f: F) -> Result<T, NetnsError>
    where
        T: Send,
        F: FnOnce() -> T + Send,
    {
        let file = match self {
            Self::Current => return Ok(f()),
            Self::Fd(fd) => Arc::clone(fd),
            Self::Path(_) | Self::Pid(_) => Arc::new(self.open()?.into()),
        };
        thread::scope(|scope| {
            let body = || match enter_netns(file.as_fd()) {
                Ok(()) => Ok(f()),
                Err(source) if source.raw_os_error() == Some(libc::EINVAL) => {
                    Err(NetnsError::NotNetns { path: self.path() })
                }
                Err(source) => Err(NetnsError::Enter {
                    path: self.path(),
                    source,
                }),
            };
            thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, body)
                .map_err(|source| NetnsError::Thread {
                    path: self.path(),
                    source,
                })?
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Inode number of the namespace: what `lsns` and the kernel (`ns_common.inum`) call it.
    ///
    /// # Errors
    /// If the namespace does not exist.
    pub fn inode(&self) -> Result<u32, NetnsError> {
        let path = self.path();
        match metadata(&path) {
            // 32 bits in the kernel.
            Ok(file) => u32::try_from(file.ino()).map_err(|_| NetnsError::NotNetns { path }),
            Err(source) => Err(NetnsError::Open { path, source }),
        }
    }

    /// The file that stands for the namespace.
    fn path(&self) -> PathBuf {
        match self {
            Self::Current => PathBuf::from("/proc/thread-self/ns/net"),
            Self::Fd(fd) => PathBuf::from(format!(
                "/proc/self/fd/{}",
                std::os::fd::AsRawFd::as_raw_fd(fd.as_ref())
            )),
            Self::Path(path) => path.clone(),
            Self::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
        }
    }

    fn open(&self) -> Result<File, NetnsError> {
        File::open(self.path()).map_err(|source| NetnsError::Open {
            path: self.path(),
            source,
        })
    }
}

/// The namespace of a socket, held open: it can be entered whatever became of its name.
#[derive(Clone, Debug)]
pub(super) struct Home {
    netns: Netns,
    inode: u32,
}

impl Home {
    /// That of the calling thread.
    pub(super) fn current() -> Result<Self, NetnsError> {
        let file = Netns::Current.open()?;
        Ok(Self {
            netns: Netns::Fd(Arc::new(file.into())),
            inode: Netns::Current.inode()?,
        })
    }

    pub(super) const fn inode(&self) -> u32 {
        self.inode
    }

    /// Runs `f` inside; on this thread if it is there already, which needs no CAP_SYS_ADMIN.
    pub(super) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        if Netns::Current.inode()? == self.inode {
            return Ok(f());
        }
        self.netns.run(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named() {
        let netns = Netns::Path("/nonexistent/netns".into());
        let error = netns.run(|| ()).unwrap_err();
        assert!(matches!(error, NetnsError::Open { .. }));
        assert!(error.to_string().contains("/nonexistent/netns"), "{error}");
    }

    #[test]
    fn the_current_namespace_is_that_of_this_thread() {
        let here = Netns::Current.inode().unwrap();
        assert_eq!(
            Netns::Current.run(|| Netns::Current.inode()).unwrap().unwrap(),
            here
        );
        let home = Home::current().unwrap();
        assert_eq!(home.inode(), here);
        assert_eq!(home.run(|| Netns::Current.inode()).unwrap().unwrap(), here);
    }
}
