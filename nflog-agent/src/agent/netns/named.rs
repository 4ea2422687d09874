//! Namespaces by configuration: `--netns`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::Namespace;
use crate::cli::netns_path;
use crate::nflog::NetnsError;

/// How often in a row a name may be missing before its namespace is let go: `ip netns del` and `add` in a row is no end.
const PATIENCE: u8 = 2;

/// A namespace that the configuration names.
#[derive(Debug)]
pub(in crate::agent) struct Named {
    name: String,
    place: Place,
    /// The namespace that it stands for, as far as it is read.
    reading: Option<u32>,
    missing: u8,
}

/// Where it is.
#[derive(Debug)]
enum Place {
    /// The agent's own.
    Here,
    /// A file, whatever namespace it stands for at the time.
    Path(PathBuf),
    /// Of one process: its directory in `/proc`, which no later process with its pid has.
    Process(OwnedFd),
}

/// What became of a name since the last time.
#[derive(Debug)]
pub(in crate::agent) enum Change {
    /// Nothing.
    Same,
    /// It is missing, for the first time.
    Missing,
    /// It stands for another namespace than before.
    Moved(Namespace),
    /// It is gone.
    Gone,
}

impl Named {
    /// The agent's own namespace.
    pub(in crate::agent) fn here(name: &str, inode: u32) -> Self {
        Self {
            name: name.to_owned(),
            place: Place::Here,
            reading: Some(inode),
            missing: 0,
        }
    }

    /// A value of `--netns`; its namespace, opened.
    ///
    /// # Errors
    /// If there is no such namespace.
    pub(in crate::agent) fn open(value: &str) -> Result<(Self, Namespace), NetnsError> {
        let path = netns_path(value);
        let place = match process_directory(&path) {
            None => Place::Path(path.clone()),
            Some(directory) => Place::Process(
                openat(
                    CWD,
                    directory,
                    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                    Mode::empty(),
                )
                .map_err(|error| NetnsError::Open {
                    path: path.clone(),
                    source: error.into(),
                })?,
            ),
        };
        let mut named = Self {
            name: value.to_owned(),
            place,
            reading: None,
            missing: 0,
        };
        let namespace = named.now(&path)?;
        named.reading = Some(namespace.inode());
        Ok((named, namespace))
    }

    /// The namespace that it stands for now.
    fn now(&self, path: &Path) -> Result<Namespace, NetnsError> {
        match &self.place {
            Place::Process(directory) => {
                let opened =
                    Namespace::of_process(directory.as_fd(), path).map_err(|source| NetnsError::Open {
                        path: path.into(),
                        source,
                    })?;
                opened.ok_or_else(|| NetnsError::NotNetns { path: path.into() })
            }
            Place::Here | Place::Path(_) => Namespace::open(path),
        }
    }

    /// As it was given.
    pub(in crate::agent) fn name(&self) -> &str {
        &self.name
    }

    /// The namespace that is read for it.
    pub(in crate::agent) const fn reading(&self) -> Option<u32> {
        self.reading
    }

    /// From now on this namespace is read for it, or none.
    pub(in crate::agent) fn read(&mut self, inode: Option<u32>) {
        self.reading = inode;
    }

    /// The file whose directory tells when it comes or goes.
    pub(in crate::agent) fn file(&self) -> Option<&Path> {
        match &self.place {
            Place::Path(path) => Some(path),
            Place::Here | Place::Process(_) => None,
        }
    }

    /// Whether it is the agent's own, which neither comes nor goes.
    pub(in crate::agent) const fn is_here(&self) -> bool {
        matches!(self.place, Place::Here)
    }

    /// Whether there is, or can be, a namespace to read.
    pub(in crate::agent) const fn has_future(&self) -> bool {
        match self.place {
            Place::Here | Place::Path(_) => true,
            Place::Process(_) => self.reading.is_some(),
        }
    }

    /// Compares with what is there now.
    pub(in crate::agent) fn look(&mut self) -> Change {
        if matches!(self.place, Place::Here) {
            return Change::Same;
        }
        match (self.now(&netns_path(&self.name)), self.reading) {
            (Ok(namespace), reading) => {
                self.missing = 0;
                if reading == Some(namespace.inode()) {
                    Change::Same
                } else {
                    Change::Moved(namespace)
                }
            }
            (Err(_), None) => Change::Same,
            (Err(_), Some(_)) => {
                self.missing = self.missing.saturating_add(1);
                if self.missing < PATIENCE {
                    Change::Missing
                } else {
                    Change::Gone
                }
            }
        }
    }
}

/// `/proc/PID` of `/proc/PID/ns/net`.
fn process_directory(path: &Path) -> Option<&Path> {
    let directory = path.strip_prefix("/proc").ok()?;
    let pid = directory.to_str()?.strip_suffix("/ns/net")?;
    let number = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    number.then(|| path.parent()?.parent()).flatten()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_pid_is_recognised_in_both_forms() {
        for value in ["4711", "/proc/4711/ns/net"] {
            assert_eq!(
                process_directory(&netns_path(value)),
                Some(Path::new("/proc/4711"))
            );
        }
        for value in ["web", "/proc/self/ns/net", "/proc//ns/net", "/run/netns/1"] {
            assert_eq!(process_directory(&netns_path(value)), None, "{value}");
        }
    }

    #[test]
    fn the_namespace_of_a_process_goes_with_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (mut named, namespace) = Named::open(&child.id().to_string()).unwrap();
        assert_eq!(namespace.inode(), super::super::own_inode().unwrap());
        assert!(matches!(named.look(), Change::Same));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(matches!(named.look(), Change::Missing));
        assert!(matches!(named.look(), Change::Gone));
        named.read(None);
        assert!(!named.has_future());
        assert!(matches!(named.look(), Change::Same));
    }

    #[test]
    fn a_path_stands_for_what_is_there_now() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("net");
        let link = || std::os::unix::fs::symlink("/proc/self/ns/net", &path).unwrap();
        link();
        let (mut named, namespace) = Named::open(path.to_str().unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(named.look(), Change::Missing));
        assert!(matches!(named.look(), Change::Gone));
        named.read(None);
        assert!(named.has_future());
        link();
        assert!(matches!(named.look(), Change::Moved(now) if now.inode() == namespace.inode()));
    }
}
