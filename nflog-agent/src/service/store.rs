//! NFLOG sockets in the service manager's descriptor store.
//!
//! Under one name for each network namespace the manager has the socket, and a file in memory that says where its account stands
//! ([`Handover`]), written after each batch: so the next process goes on counting however this one ends.
//!
//! Invariants: what is in the store is a namespace that is read, or was when the former process ended; a socket that is not read any
//! more is taken out, because it would keep its groups, and its namespace, for ever.

use std::collections::HashMap;
use std::env;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{MemfdFlags, memfd_create};

use super::{Manager, descriptors};
use crate::nflog::{Handover, Nflog};

/// More than a handover can have: the groups are 16-bit numbers.
const LONGEST_NOTE: usize = 1 << 20;

/// What a former process has left of one namespace.
#[derive(Debug)]
pub(crate) struct Left {
    socket: OwnedFd,
    note: Option<File>,
}

impl Left {
    /// Where its account stands, if that was written down.
    pub(crate) fn handover(&self) -> Option<Handover> {
        let mut bytes = vec![0; LONGEST_NOTE];
        let length = self.note.as_ref()?.read_at(&mut bytes, 0).ok()?;
        Handover::decode(&bytes[..length])
    }

    /// The socket, and the file to go on with.
    pub(crate) fn into_parts(self) -> (OwnedFd, Option<File>) {
        (self.socket, self.note)
    }
}

/// The descriptor store.
#[derive(Debug)]
pub(crate) struct Store {
    manager: Arc<Manager>,
    /// Whether what is put there is there for the next process.
    keeps: bool,
    /// By inode number of the namespace.
    left: Mutex<HashMap<u32, Left>>,
}

impl Store {
    /// Takes what a former process has left. Must come before the process opens anything.
    pub(crate) fn open(manager: Arc<Manager>) -> Self {
        let passed = descriptors::take().unwrap_or_else(|error| {
            tracing::warn!("cannot take what the service manager passes (LISTEN_FDS): {error}");
            Vec::new()
        });
        let left = sort(passed);
        // Set by systemd 254 and later, by the unit for earlier ones.
        let room = env::var("FDSTORE").ok().and_then(|room| room.parse::<u64>().ok());
        Self {
            keeps: manager.listens() && (room.is_some_and(|room| room > 0) || !left.is_empty()),
            manager,
            left: Mutex::new(left),
        }
    }

    /// Takes the socket of a namespace.
    pub(crate) fn take(&self, inode: u32) -> Option<Left> {
        self.left().remove(&inode)
    }

    /// Puts a socket there. `None` without a store: then the socket ends with the process.
    pub(crate) fn keep(&self, inode: u32, nflog: &Nflog, left: Option<File>) -> Option<Note> {
        if !self.keeps {
            return None;
        }
        let known = left.is_some();
        let file = left.map_or_else(
            || Ok(memfd_create("nflog-handover", MemfdFlags::CLOEXEC)?.into()),
            Ok::<_, std::io::Error>,
        );
        let file = file
            .inspect_err(|error| tracing::warn!("a restart will lose packets: no memory file: {error}"))
            .ok()?;
        let mut note = Note::new(file);
        note.write(nflog);
        if !known {
            // The socket may be there alone.
            self.forget(inode);
            self.manager
                .keep(&name(inode), &[nflog.as_fd(), note.file.as_fd()]);
        }
        Some(note)
    }

    /// A namespace is not read any more.
    pub(crate) fn forget(&self, inode: u32) {
        if self.keeps {
            self.manager.forget(&name(inode));
        }
    }

    /// What nobody has taken is of namespaces that are not asked for any more.
    pub(crate) fn forget_rest(&self) {
        for (inode, _) in self.left().drain() {
            tracing::info!(
                "network namespace {inode} is not read any more; what it logged meanwhile is dropped"
            );
            self.forget(inode);
        }
    }

    fn left(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the account of one reader stands, for the next process.
#[derive(Debug)]
pub(crate) struct Note {
    file: File,
    handover: Handover,
    bytes: Vec<u8>,
    failed: bool,
}

impl Note {
    fn new(file: File) -> Self {
        Self {
            file,
            handover: Handover::default(),
            bytes: Vec::new(),
            failed: false,
        }
    }

    /// Writes down where it stands now. The file is memory.
    pub(crate) fn write(&mut self, nflog: &Nflog) {
        nflog.hand_over(&mut self.handover);
        self.handover.encode(&mut self.bytes);
        self.put();
    }

    /// Writes down where it stood at the end.
    pub(crate) fn finish(mut self, handover: Handover) {
        self.handover = handover;
        self.handover.encode(&mut self.bytes);
        self.put();
    }

    fn put(&mut self) {
        if let Err(error) = self.file.write_all_at(&self.bytes, 0)
            && !self.failed
        {
            self.failed = true;
            tracing::warn!("what is lost over a restart will not be counted: {error}");
        }
    }
}

fn name(inode: u32) -> String {
    format!("nflog-{inode}")
}

fn inode(name: &str) -> Option<u32> {
    name.strip_prefix("nflog-")?.parse().ok()
}

/// Sockets and their notes, by namespace. A descriptor of another name is not ours to use.
fn sort(passed: Vec<(String, OwnedFd)>) -> HashMap<u32, Left> {
    let (mut sockets, mut notes) = (HashMap::new(), HashMap::new());
    for (name, descriptor) in passed {
        let file = File::from(descriptor);
        let is_socket = file.metadata().map(|metadata| metadata.file_type().is_socket());
        match (inode(&name), is_socket) {
            (Some(inode), Ok(true)) => drop(sockets.insert(inode, OwnedFd::from(file))),
            (Some(inode), Ok(false)) => drop(notes.insert(inode, file)),
            _ => tracing::warn!("the service manager passes '{name}', which is nothing of mine: not used"),
        }
    }
    sockets
        .into_iter()
        .map(|(inode, socket)| {
            let note = notes.remove(&inode);
            (inode, Left { socket, note })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_find_their_notes_and_others_are_left_alone() {
        let socket = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let passed = vec![
            (name(7), file()),
            (name(7), socket()),
            (name(8), socket()),
            (name(9), file()),
            ("web".to_owned(), socket()),
        ];
        let left = sort(passed);
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left[&7].note.is_some() && left[&8].note.is_none());
        assert_eq!(left[&7].handover(), None);
    }

    #[test]
    fn a_note_is_read_by_the_next_process() {
        let file = tempfile::tempfile().unwrap();
        let handover = Handover {
            drops: 1,
            pending: false,
            next: vec![(7, 40)],
        };
        Note::new(file.try_clone().unwrap()).finish(handover.clone());
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
        let note = Some(file);
        assert_eq!(Left { socket, note }.handover(), Some(handover));
    }
}
