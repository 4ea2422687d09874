//! Closing in order: nothing that the kernel holds is left behind.
//!
//! Invariant: ends. Once every group is unbound nothing fills the queue any more, so emptying it ends even if traffic is
//! faster than the reader. The kernel unbinds inside `send`; its answers may be crowded out, and are asked for again when
//! the queue is empty.

use std::io;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::command;
use super::error::{CloseError, ExchangeError};
use super::exchange::{Seen, answer, exchange, next_sequence};
use super::loss::Loss;
use super::reader::Nflog;
use super::socket::monotonic_ns;

/// How long the queue is emptied before the groups are unbound.
const DRAIN_DEADLINE: Duration = Duration::from_secs(1);

/// Groups whose unbind is not confirmed yet, by the sequence number of the request.
type Unconfirmed = Vec<(u32, u16)>;

impl Nflog {
    /// Ends the groups and hands every entry that was logged before to `rest`. Never hangs. Returns the final account; if
    /// traffic outran `rest` until the end, the last packets may be lost and `pending` is set.
    ///
    /// # Errors
    /// If a group could not be unbound in order. The socket is closed in any case.
    pub fn close(mut self, mut rest: impl FnMut(&mut Batch<'_>)) -> Result<Loss, CloseError> {
        self.make_room(&mut rest)?;
        let unconfirmed = self.send_unbinds()?;
        let refused = self.read_to_the_end(unconfirmed, &mut rest)?;
        match refused {
            Some(error) => Err(error),
            None => Ok(self.loss()?),
        }
    }

    /// Makes room for what the kernel delivers when it unbinds a group.
    fn make_room(&mut self, rest: &mut impl FnMut(&mut Batch<'_>)) -> Result<(), CloseError> {
        let deadline = Instant::now() + DRAIN_DEADLINE;
        while Instant::now() < deadline || !self.early.is_empty() {
            let Some(len) = self.fetch()? else { break };
            self.hand_out(len, rest);
        }
        Ok(())
    }

    /// Unbinds all groups, which ends the traffic.
    fn send_unbinds(&mut self) -> Result<Unconfirmed, CloseError> {
        let mut unconfirmed = Unconfirmed::new();
        for &group in &self.effective.groups {
            let sequence = next_sequence(&mut self.sequence);
            self.socket
                .send(&command::unbind(group, sequence))
                .map_err(|source| CloseError::Exchange {
                    group,
                    source: ExchangeError::Send(source),
                })?;
            unconfirmed.push((sequence, group));
        }
        Ok(unconfirmed)
    }

    /// Reads until the queue is empty and every group is confirmed; returns the first refusal.
    fn read_to_the_end(
        &mut self,
        mut unconfirmed: Unconfirmed,
        rest: &mut impl FnMut(&mut Batch<'_>),
    ) -> Result<Option<CloseError>, CloseError> {
        let mut refused = None;
        while let Some(len) = self.fetch()? {
            let answered = answer(&self.buffer[..len]).and_then(|(answered, errno)| {
                let index = unconfirmed
                    .iter()
                    .position(|&(sequence, _)| sequence == answered)?;
                Some((unconfirmed.swap_remove(index).1, errno))
            });
            match answered {
                None => self.hand_out(len, rest),
                Some((_, 0)) => {}
                Some((group, errno)) => refused = refused.or_else(|| Some(refusal(group, errno))),
            }
        }
        for (_, group) in unconfirmed {
            match self.unbind(group, rest)? {
                // ENODEV: the first request did it, and its answer was crowded out.
                0 | libc::ENODEV => {}
                errno => refused = refused.or_else(|| Some(refusal(group, errno))),
            }
        }
        Ok(refused)
    }

    fn unbind(&mut self, group: u16, rest: &mut impl FnMut(&mut Batch<'_>)) -> Result<i32, CloseError> {
        let account = &mut self.account;
        let last_empty_ns = self.last_empty_ns;
        let mut keep = |seen: Seen<'_>| match seen {
            Seen::Overrun => account.enobufs(),
            Seen::Datagram { bytes, truncated } => {
                if truncated {
                    account.truncated();
                }
                rest(&mut Batch::new(bytes, account, monotonic_ns(), last_empty_ns));
            }
        };
        let answer = exchange(
            &self.socket,
            &mut self.sequence,
            &mut self.buffer,
            |sequence| command::unbind(group, sequence),
            &mut keep,
        );
        answer
            .map(|answer| answer.errno)
            .map_err(|source| CloseError::Exchange { group, source })
    }

    fn hand_out(&mut self, len: usize, rest: &mut impl FnMut(&mut Batch<'_>)) {
        let datagram = &self.buffer[..len];
        let mut batch = Batch::new(datagram, &mut self.account, monotonic_ns(), self.last_empty_ns);
        rest(&mut batch);
    }
}

fn refusal(group: u16, errno: i32) -> CloseError {
    CloseError::Refused {
        group,
        source: io::Error::from_raw_os_error(errno),
    }
}
