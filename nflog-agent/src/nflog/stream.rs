//! The entries of a reader as a stream of owned ones.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::async_nflog::AsyncNflog;
use super::entry_buf::EntryBuf;
use super::error::{CloseError, RecvError};
use super::loss::Loss;

type Waiting = Pin<Box<dyn Future<Output = Result<(), RecvError>> + Send + Sync>>;

/// Stream of [`EntryBuf`], made by [`AsyncNflog::into_stream`]. Does not end by itself; after an error it can be polled on.
///
/// It holds at most the entries of one datagram. Those that were not taken are lost when it is dropped;
/// [`EntryStream::close`] hands them out.
#[must_use = "streams do nothing unless polled"]
pub struct EntryStream {
    reader: AsyncNflog,
    /// Entries of the last datagram.
    queue: VecDeque<EntryBuf>,
    waiting: Option<Waiting>,
}

impl AsyncNflog {
    /// Turns it into a stream of owned entries. Copies each entry; [`AsyncNflog::recv`] does not.
    pub const fn into_stream(self) -> EntryStream {
        EntryStream {
            reader: self,
            queue: VecDeque::new(),
            waiting: None,
        }
    }
}

impl EntryStream {
    /// Everything lost since the reader was opened.
    ///
    /// # Errors
    /// If the socket's drop count cannot be read.
    pub fn loss(&mut self) -> Result<Loss, RecvError> {
        self.reader.loss()
    }

    /// The reader: its settings, gaps by group.
    #[must_use]
    pub const fn get_ref(&self) -> &AsyncNflog {
        &self.reader
    }

    /// Ends the groups and hands every entry that was logged before and not taken yet to `rest`: [`AsyncNflog::close`].
    ///
    /// # Errors
    /// Those of [`Nflog::close`](super::Nflog::close).
    pub async fn close(self, mut rest: impl FnMut(EntryBuf)) -> Result<Loss, CloseError> {
        self.queue.into_iter().for_each(&mut rest);
        let hand_out = |entry: super::Entry<'_>| rest(EntryBuf::from(&entry));
        let mut hand_out = hand_out;
        self.reader.close(|batch| batch.for_each(&mut hand_out)).await
    }
}

impl Stream for EntryStream {
    type Item = Result<EntryBuf, RecvError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(entry) = this.queue.pop_front() {
                return Poll::Ready(Some(Ok(entry)));
            }
            ready!(this.reader.poll_pay(context));
            if let Some(waiting) = &mut this.waiting {
                let waited = ready!(waiting.as_mut().poll(context));
                this.waiting = None;
                if let Err(error) = waited {
                    return Poll::Ready(Some(Err(error)));
                }
            }
            match this.reader.try_take() {
                Ok(Some(datagram)) => {
                    let batch = this.reader.batch(datagram);
                    this.queue.extend(batch.map(|entry| EntryBuf::from(&entry)));
                }
                Ok(None) => {
                    let readiness = this.reader.readiness();
                    this.waiting = Some(Box::pin(async move { readiness.wait().await }));
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

impl fmt::Debug for EntryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryStream")
            .field("reader", &self.reader)
            .field("queue", &self.queue.len())
            .finish_non_exhaustive()
    }
}
