//! The reader on tokio.
//!
//! Invariants: readiness is cleared only after the socket was found empty, because it is reported once per change; after a
//! datagram is taken from the socket nothing is awaited until it is handed out, so that no cancellation loses one; each
//! datagram costs the task of its budget, so that a flood leaves the other tasks their turn.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::thread;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::{coop, spawn_blocking};

use super::batch::Batch;
use super::close::{Closing, Step};
use super::config::Config;
use super::error::{CloseError, OpenError, RecvError};
use super::loss::Loss;
use super::reader::Nflog;
use super::socket::watch;

/// ENOBUFS can come when the queue is empty, and until it is read the kernel delivers nothing.
const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);
/// Bytes of a datagram that cost as much of a task's budget of 128 as one operation of tokio's own sockets: a full batch of
/// 1000 packets costs 8.
const BYTES_PER_UNIT: usize = 16 * 1024;

/// An [`Nflog`] whose waiting is asynchronous. Needs feature `async` and a tokio runtime with its I/O driver.
///
/// ```no_run
/// use nflog_agent::nflog::{AsyncNflog, Config};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::builder().group(5).build()?;
/// let mut nflog = AsyncNflog::open(&config)?;
/// loop {
///     for entry in nflog.recv().await? {
///         println!("{} {:?}", entry.prefix_lossy(), entry.payload());
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncNflog {
    nflog: Nflog,
    readiness: Readiness,
    debt: Debt,
}

impl AsyncNflog {
    /// Opens a reader: [`Nflog::open`] and [`AsyncNflog::new`]. Waits for nothing but the kernel's answers, which it gives at
    /// once.
    ///
    /// # Errors
    /// Those of [`Nflog::open`], or if the runtime cannot watch the socket.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if its I/O driver is not enabled.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        Self::new(Nflog::open(config)?)
    }

    /// Lets the runtime of the calling task watch the socket of a reader.
    ///
    /// # Errors
    /// If the runtime cannot watch the socket.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if its I/O driver is not enabled.
    pub fn new(nflog: Nflog) -> Result<Self, OpenError> {
        Ok(Self {
            readiness: Readiness::new(&nflog).map_err(|source| OpenError::Runtime { source })?,
            nflog,
            debt: Debt::default(),
        })
    }

    /// Waits for entries. Overruns and unreadable datagrams are not errors: see [`AsyncNflog::loss`].
    ///
    /// Cancel safe: if the future is dropped before it is ready, for example by `select!`, nothing was taken from the socket.
    /// The [`Waker`](super::Waker) of the reader has no effect here.
    ///
    /// # Errors
    /// If a system call on the socket fails, or the runtime is shutting down.
    pub async fn recv(&mut self) -> Result<Batch<'_>, RecvError> {
        let datagram = loop {
            self.debt.pay().await;
            if let Some(datagram) = self.try_take()? {
                break datagram;
            }
            self.readiness.wait().await?;
        };
        Ok(self.nflog.batch(datagram))
    }

    /// Everything lost since the reader was opened.
    ///
    /// # Errors
    /// If the socket's drop count cannot be read.
    pub fn loss(&mut self) -> Result<Loss, RecvError> {
        self.nflog.loss()
    }

    /// The reader: its settings, gaps by group.
    #[must_use]
    pub const fn get_ref(&self) -> &Nflog {
        &self.nflog
    }

    /// The reader, to bind and unbind groups.
    pub const fn get_mut(&mut self) -> &mut Nflog {
        &mut self.nflog
    }

    /// The reader without the runtime.
    #[must_use]
    pub fn into_inner(self) -> Nflog {
        self.nflog
    }

    /// [`Nflog::close`] with other tasks having their turn. If the future is dropped, the socket is closed at once.
    ///
    /// # Errors
    /// Those of [`Nflog::close`].
    pub async fn close(self, mut rest: impl FnMut(&mut Batch<'_>)) -> Result<Loss, CloseError> {
        let Self {
            mut nflog, mut debt, ..
        } = self;
        let mut closing = Closing::new();
        loop {
            debt.pay().await;
            match closing.step(&mut nflog, &mut rest)? {
                Step::More { len } => debt.add(len),
                Step::Wait(duration) => {
                    // The runtime's own timer may not be enabled. If the runtime is shutting down, there is no wait: the kernel
                    // may then hold back what it would have delivered.
                    let _shut_down = spawn_blocking(move || thread::sleep(duration)).await;
                }
                Step::End => return closing.outcome(nflog),
            }
        }
    }

    /// Takes a datagram, if there is one.
    pub(super) fn try_take(&mut self) -> Result<Option<(usize, u64)>, RecvError> {
        // What came while binding is not in the socket, and says nothing of it.
        if !self.nflog.early.is_empty() {
            return self.nflog.look();
        }
        let taken = self.readiness.if_ready(|| self.nflog.look())?;
        if let Some((len, _)) = taken {
            self.debt.add(len);
        }
        Ok(taken)
    }

    /// [`Debt::pay`] for a stream.
    pub(super) fn poll_pay(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.debt.poll_pay(context)
    }

    pub(super) fn batch(&mut self, datagram: (usize, u64)) -> Batch<'_> {
        self.nflog.batch(datagram)
    }

    pub(super) fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }
}

/// Whether the socket has something. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Readiness(Arc<AsyncFd<OwnedFd>>);

impl Readiness {
    fn new(nflog: &Nflog) -> io::Result<Self> {
        // A descriptor of its own: waiting borrows nothing of the reader.
        let descriptor = nflog.as_fd().try_clone_to_owned()?;
        Ok(Self(Arc::new(watch(descriptor, INTEREST)?)))
    }

    /// Waits until it seems to have something.
    pub(super) async fn wait(&self) -> Result<(), RecvError> {
        self.0.ready(INTEREST).await.map(drop).map_err(RecvError::Wait)
    }

    /// Calls `look` for as long as the socket seems to have something, which ends when `look` finds it empty.
    fn if_ready<T>(
        &self,
        mut look: impl FnMut() -> Result<Option<T>, RecvError>,
    ) -> Result<Option<T>, RecvError> {
        loop {
            let ready = pin!(self.0.ready(INTEREST));
            let Poll::Ready(ready) = ready.poll(&mut Context::from_waker(Waker::noop())) else {
                return Ok(None);
            };
            // Taken before the look: what is reported later stays.
            let mut guard = ready.map_err(RecvError::Wait)?;
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            guard.clear_ready();
        }
    }
}

/// Budget that a task owes for the datagrams it took.
#[derive(Clone, Copy, Debug, Default)]
struct Debt(usize);

impl Debt {
    const fn add(&mut self, len: usize) {
        self.0 += 1 + len / BYTES_PER_UNIT;
    }

    /// Lets other tasks have their turn if the budget is used up.
    async fn pay(&mut self) {
        poll_fn(|context| self.poll_pay(context)).await;
    }

    fn poll_pay(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.0 > 0 {
            ready!(coop::poll_proceed(context)).made_progress();
            self.0 -= 1;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_costs_by_its_length_and_the_debt_is_paid_once() {
        let mut debt = Debt::default();
        debt.add(200);
        assert_eq!(debt.0, 1);
        debt.add(130_544);
        assert_eq!(debt.0, 9);
        // Outside a task nobody else waits for a turn.
        let mut context = Context::from_waker(Waker::noop());
        assert!(debt.poll_pay(&mut context).is_ready());
        assert_eq!(debt.0, 0);
    }

    #[test]
    fn the_reader_and_its_futures_can_move_to_a_thread() {
        fn movable<T: Send>(_: &T) {}
        // Compiled, not called.
        let _futures = |mut nflog: AsyncNflog| {
            movable(&nflog);
            movable(&nflog.recv());
            movable(&nflog.close(|_| ()));
        };
        let _stream = |nflog: AsyncNflog| {
            let stream = nflog.into_stream();
            movable(&stream);
            movable(&stream.close(|_| ()));
        };
    }
}
