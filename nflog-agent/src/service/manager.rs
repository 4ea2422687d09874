//! What the service manager is told.
//!
//! - A message that cannot be sent is said once; it is no reason to stop.
//! - Each is sent from a socket of its own, to the name that the environment has: the manager may have begun anew behind it.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sd_notify::NotifyState;

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Manager {
    /// Where it listens.
    address: Option<SocketAddr>,
    watchdog: Option<Duration>,
    complained: AtomicBool,
}

impl Manager {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`.
    #[must_use]
    pub fn from_environment() -> Self {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let address = name.and_then(|name| {
            address(&name)
                .inspect_err(|error| tracing::warn!("NOTIFY_SOCKET={}: {error}", name.display()))
                .ok()
        });
        let interval = sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero());
        Self {
            watchdog: interval.filter(|_| address.is_some()),
            address,
            complained: AtomicBool::new(false),
        }
    }

    /// Whether anybody listens.
    #[must_use]
    pub const fn listens(&self) -> bool {
        self.address.is_some()
    }

    /// How long the manager waits for a sign of life before it ends the process.
    #[must_use]
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Everything works: after the start, and after a reload.
    pub fn ready(&self) {
        self.send(&[NotifyState::Ready], &[]);
    }

    /// One line for people.
    pub fn status(&self, status: &str) {
        self.send(&[NotifyState::Status(status)], &[]);
    }

    /// The configuration is read again, until [`Manager::ready`].
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now], &[]),
            Err(error) => self.complain(&error),
        }
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping], &[]);
    }

    /// A sign of life.
    pub fn alive(&self) {
        self.send(&[NotifyState::Watchdog], &[]);
    }

    /// Keep these descriptors under this name. They are not to be watched: an NFLOG socket that has lost packets shows an error, which
    /// would end its place in the store.
    pub(super) fn keep(&self, name: &str, descriptors: &[BorrowedFd<'_>]) {
        let keep = [
            NotifyState::Custom("FDSTORE=1"),
            NotifyState::Custom(&format!("FDNAME={name}")),
            NotifyState::Custom("FDPOLL=0"),
        ];
        self.send(&keep, descriptors);
    }

    /// Close the descriptors of this name.
    pub(super) fn forget(&self, name: &str) {
        let forget = [
            NotifyState::Custom("FDSTOREREMOVE=1"),
            NotifyState::Custom(&format!("FDNAME={name}")),
        ];
        self.send(&forget, &[]);
    }

    fn send(&self, states: &[NotifyState<'_>], descriptors: &[BorrowedFd<'_>]) {
        let Some(address) = &self.address else { return };
        let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
        if let Err(error) = send(address, &lines.join("\n"), descriptors) {
            self.complain(&error);
        }
    }

    fn complain(&self, error: &dyn fmt::Display) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            tracing::warn!("cannot tell the service manager (NOTIFY_SOCKET): {error}; trying on, silently");
        }
    }
}

/// A path, or a name in the abstract namespace behind an `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

/// Descriptors in one message: a namespace's socket, and its note.
const MOST: usize = 2;

fn send(address: &SocketAddr, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(address)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let parts = [IoSlice::new(text.as_bytes())];
    sendmsg(&socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
