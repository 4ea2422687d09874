//! What the service manager is told.
//!
//! A message that cannot be sent is said once; it is no reason to stop.

use std::env;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Manager {
    listens: bool,
    watchdog: Option<Duration>,
    complained: AtomicBool,
}

impl Manager {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`.
    #[must_use]
    pub fn from_environment() -> Self {
        let listens = env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty());
        Self {
            listens,
            watchdog: sd_notify::watchdog_enabled().filter(|_| listens),
            complained: AtomicBool::new(false),
        }
    }

    /// Whether anybody listens.
    #[must_use]
    pub const fn listens(&self) -> bool {
        self.listens
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
            NotifyState::FdStore,
            NotifyState::FdName(name),
            NotifyState::Custom("FDPOLL=0"),
        ];
        self.send(&keep, descriptors);
    }

    /// Close the descriptors of this name.
    pub(super) fn forget(&self, name: &str) {
        self.send(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)], &[]);
    }

    fn send(&self, states: &[NotifyState<'_>], descriptors: &[BorrowedFd<'_>]) {
        if !self.listens {
            return;
        }
        let sent = if descriptors.is_empty() {
            sd_notify::notify(states)
        } else {
            sd_notify::notify_with_fds(states, descriptors)
        };
        if let Err(error) = sent {
            self.complain(&error);
        }
    }

    fn complain(&self, error: &dyn fmt::Display) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            tracing::warn!("cannot tell the service manager (NOTIFY_SOCKET): {error}; trying on, silently");
        }
    }
}
