//! The callback form: a thread of its own reads, and calls.
//!
//! Invariants: one thread calls both callbacks, never at the same time; what the thread ends with is returned by
//! [`Registration::stop`] and [`Registration::wait`], a panic of a callback included.

use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::batch::Batch;
use super::entry::Entry;
use super::error::{CloseError, OpenError, RecvError};
use super::loss::Loss;
use super::reader::Nflog;
use super::waker::Waker;

/// How long dropping a registration waits for its thread.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// A reader whose entries go to a callback, made by [`Nflog::register`].
///
/// Dropping it tells the thread to end without handing out what is left, and waits for that up to 1 s: a callback that
/// blocks does not block the drop.
#[derive(Debug)]
#[must_use = "dropping it ends the reading"]
pub struct Registration {
    orders: Arc<Orders>,
    waker: Waker,
    /// Hangs up when the thread ends.
    ended: Receiver<()>,
    /// `None` once it is waited for.
    thread: Option<JoinHandle<Result<Loss, CloseError>>>,
}

/// What the thread is told.
#[derive(Debug, Default)]
struct Orders {
    stop: AtomicBool,
    /// Hand out nothing more.
    discard: AtomicBool,
}

impl Nflog {
    /// Starts a thread that calls `hook` with every entry and `on_error` with every error of reading, until one of them returns
    /// [`ControlFlow::Break`] or the registration is stopped or dropped. Then the groups are unbound; after a stop, `hook` gets
    /// what is left, after a break nobody.
    ///
    /// The return type is [`ControlFlow`] and not a number: which of 0 and 1 goes on cannot be confused, and `?` works
    /// inside the callbacks. After an error that lasts, such as one that the kernel gives at each read, `on_error` is called
    /// again at once if it lets reading go on. Lost packets are no errors: see [`Entry::lost_before`] and [`Loss`].
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn register<H, E>(self, hook: H, on_error: E) -> Result<Registration, OpenError>
    where
        H: FnMut(&Entry<'_>) -> ControlFlow<()> + Send + 'static,
        E: FnMut(RecvError) -> ControlFlow<()> + Send + 'static,
    {
        let orders = Arc::new(Orders::default());
        let waker = self.waker();
        let (end, ended) = channel();
        let calls = Calls {
            hook,
            on_error,
            orders: Arc::clone(&orders),
        };
        let thread = thread::Builder::new()
            .name("nflog".to_owned())
            .spawn(move || {
                let _end = end;
                calls.run(self)
            })
            .map_err(|source| OpenError::Thread { source })?;
        Ok(Registration {
            orders,
            waker,
            ended,
            thread: Some(thread),
        })
    }
}

/// The thread's side.
struct Calls<H, E> {
    hook: H,
    on_error: E,
    orders: Arc<Orders>,
}

impl<H, E> Calls<H, E>
where
    H: FnMut(&Entry<'_>) -> ControlFlow<()>,
    E: FnMut(RecvError) -> ControlFlow<()>,
{
    fn run(mut self, mut nflog: Nflog) -> Result<Loss, CloseError> {
        let mut flow = ControlFlow::Continue(());
        while flow.is_continue() && !self.orders.stop.load(Ordering::Acquire) {
            flow = match nflog.recv(None) {
                Ok(Some(mut batch)) => self.hand_out(&mut batch),
                // Woken.
                Ok(None) => flow,
                Err(error) => (self.on_error)(error),
            };
        }
        nflog.close(|batch| {
            if flow.is_continue() {
                flow = self.hand_out(batch);
            }
        })
    }

    fn hand_out(&mut self, batch: &mut Batch<'_>) -> ControlFlow<()> {
        for entry in batch {
            if self.orders.discard.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            (self.hook)(&entry)?;
        }
        ControlFlow::Continue(())
    }
}

impl Registration {
    /// Unbinds the groups, hands what was logged before to the hook, and returns the final account. Ends when the hook has
    /// been called with the last of it or has returned [`ControlFlow::Break`]: once the groups are unbound nothing is added.
    ///
    /// # Errors
    /// Those of [`Nflog::close`].
    ///
    /// # Panics
    /// With the panic of a callback, if it panicked.
    pub fn stop(mut self) -> Result<Loss, CloseError> {
        self.order_stop().map_err(CloseError::Wake)?;
        self.join()
    }

    /// Waits until a callback has returned [`ControlFlow::Break`], and returns the final account.
    ///
    /// # Errors
    /// Those of [`Nflog::close`].
    ///
    /// # Panics
    /// With the panic of a callback, if it panicked.
    pub fn wait(mut self) -> Result<Loss, CloseError> {
        self.join()
    }

    /// Whether the thread has ended, by a break or by a panic of a callback.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn order_stop(&self) -> std::io::Result<()> {
        self.orders.stop.store(true, Ordering::Release);
        self.waker.wake()
    }

    fn join(&mut self) -> Result<Loss, CloseError> {
        let Some(thread) = self.thread.take() else {
            unreachable!("stop and wait take the registration, which has a thread until then");
        };
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(thread) = &self.thread else { return };
        self.orders.discard.store(true, Ordering::Relaxed);
        // From inside a callback it would wait for itself.
        if self.order_stop().is_ok() && thread.thread().id() != thread::current().id() {
            // Ended or not: the thread needs nothing from here any more.
            let _ended = self.ended.recv_timeout(DROP_WAIT);
        }
    }
}
