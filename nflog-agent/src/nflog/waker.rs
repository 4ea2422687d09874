//! Interrupting a reader that waits, from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::socket::EventFd;

/// Makes [`Nflog::recv`](super::Nflog::recv) return `None`: the call under way or, if there is none, the next one.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Ends a wait.
    event: EventFd,
    /// Spares a reader that never waits the system call.
    woken: AtomicBool,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            event: EventFd::new()?,
            woken: AtomicBool::new(false),
        })))
    }

    /// Wakes the reader.
    ///
    /// # Errors
    /// If the kernel refuses to signal the eventfd, which it has no reason to.
    pub fn wake(&self) -> io::Result<()> {
        // In this order: a reader that sees the flag clears the event.
        self.0.event.signal()?;
        self.0.woken.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether it was woken since the last time.
    pub(super) fn take(&self) -> io::Result<bool> {
        if self.0.woken.swap(false, Ordering::Acquire) {
            self.0.event.clear()?;
            return Ok(true);
        }
        Ok(false)
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_is_taken_once() {
        let waker = Waker::new().unwrap();
        assert!(!waker.take().unwrap());
        waker.clone().wake().unwrap();
        waker.wake().unwrap();
        assert!(waker.take().unwrap());
        assert!(!waker.take().unwrap());
    }
}
