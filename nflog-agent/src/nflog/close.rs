//! Closing in order: nothing that the kernel holds is left behind.
//!
//! Invariant: ends. Once every group is unbound nothing fills the queue any more. If the kernel refuses to unbind, traffic
//! goes on; so no more is read than the queue can have held. The kernel unbinds inside `send`; its answers may be crowded
//! out, and are asked for again when the queue is empty.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::command;
use super::error::{CloseError, ExchangeError};
use super::exchange::{answer, next_sequence};
use super::loss::Loss;
use super::reader::Nflog;
use super::socket::monotonic_ns;

/// How long the queue is emptied before groups are unbound, and the longest wait for what the kernel holds if they cannot be.
const DRAIN_DEADLINE: Duration = Duration::from_secs(1);
/// On top of the flush timeout: the kernel's timer may be late by some.
const FLUSH_SLACK: Duration = Duration::from_millis(50);

impl Nflog {
    /// Ends the groups and hands every entry that was logged before to `rest`. Never hangs. Returns the final account; if
    /// traffic outran `rest` until the end, the last packets may be lost and `pending` is set.
    ///
    /// Unbinding needs CAP_NET_ADMIN, as binding did. Without, what is queued is handed out, what the kernel holds back is
    /// waited for (up to 1 s), and the error tells.
    ///
    /// # Errors
    /// If a group could not be unbound in order, or the kernel's own logger not be brought back. The socket is closed in any
    /// case.
    pub fn close(mut self, mut rest: impl FnMut(&mut Batch<'_>)) -> Result<Loss, CloseError> {
        let mut closing = Closing::new();
        loop {
            match closing.step(&mut self, &mut rest)? {
                Step::More { .. } => {}
                Step::Wait(duration) => thread::sleep(duration),
                Step::End => return closing.outcome(self),
            }
        }
    }

    /// Makes room for what the kernel delivers when it unbinds a group.
    pub(super) fn make_room(&mut self, rest: &mut impl FnMut(&mut Batch<'_>)) -> Result<(), CloseError> {
        let deadline = Instant::now() + DRAIN_DEADLINE;
        while Instant::now() < deadline || !self.early.is_empty() {
            let Some(len) = self.fetch()? else { break };
            self.hand_out(len, rest);
        }
        Ok(())
    }

    pub(super) fn hand_out(&mut self, len: usize, rest: &mut impl FnMut(&mut Batch<'_>)) {
        rest(&mut self.batch((len, monotonic_ns())));
    }
}

/// What [`Closing::step`] wants next.
pub(super) enum Step {
    /// Another step; a datagram of so many bytes was handled.
    More {
        #[cfg_attr(
            not(feature = "async"),
            expect(dead_code, reason = "only an asynchronous task pays for it")
        )]
        len: usize,
    },
    /// Another step after so long: the kernel holds packets back.
    Wait(Duration),
    /// No more steps.
    End,
}

enum Phase {
    Room { deadline: Instant },
    Rest,
    Flushed,
}

/// Closing, one datagram at a time.
pub(super) struct Closing {
    phase: Phase,
    /// Groups whose unbind is not confirmed yet, by the sequence number of the request.
    unconfirmed: Vec<(u32, u16)>,
    /// Bytes that may still be read in this phase.
    left: usize,
    denied: Option<u16>,
    failed: Option<CloseError>,
}

impl Closing {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Room {
                deadline: Instant::now() + DRAIN_DEADLINE,
            },
            unconfirmed: Vec::new(),
            left: 0,
            denied: None,
            failed: None,
        }
    }

    pub(super) fn step(
        &mut self,
        nflog: &mut Nflog,
        rest: &mut impl FnMut(&mut Batch<'_>),
    ) -> Result<Step, CloseError> {
        match self.phase {
            Phase::Room { deadline } => {
                if (Instant::now() < deadline || !nflog.early.is_empty())
                    && let Some(len) = nflog.fetch()?
                {
                    nflog.hand_out(len, rest);
                    return Ok(Step::More { len });
                }
                self.restore_logger(nflog);
                self.send_unbinds(nflog)?;
                self.enter(Phase::Rest, nflog);
                Ok(Step::More { len: 0 })
            }
            Phase::Rest => {
                if let Some(len) = self.next(nflog)? {
                    if !self.take_answer(&nflog.buffer[..len]) {
                        nflog.hand_out(len, rest);
                    }
                    return Ok(Step::More { len });
                }
                self.ask_again(nflog, rest)?;
                if self.denied.is_none() {
                    return Ok(Step::End);
                }
                self.enter(Phase::Flushed, nflog);
                let flushed = nflog.config.timeout().saturating_add(FLUSH_SLACK);
                Ok(Step::Wait(flushed.min(DRAIN_DEADLINE)))
            }
            Phase::Flushed => match self.next(nflog)? {
                Some(len) => {
                    nflog.hand_out(len, rest);
                    Ok(Step::More { len })
                }
                None => Ok(Step::End),
            },
        }
    }

    /// After the last step.
    pub(super) fn outcome(self, mut nflog: Nflog) -> Result<Loss, CloseError> {
        let loss = nflog.loss()?;
        match (self.denied, self.failed) {
            (Some(group), _) => Err(CloseError::PermissionDenied { group, loss }),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(loss),
        }
    }

    fn enter(&mut self, phase: Phase, nflog: &Nflog) {
        self.phase = phase;
        // The kernel counts more than a datagram's length, and takes one more when the limit is not reached yet.
        self.left = nflog.effective.receive_buffer as usize + nflog.buffer.len();
    }

    /// The next datagram of what the queue can have held when the phase began.
    fn next(&mut self, nflog: &mut Nflog) -> Result<Option<usize>, CloseError> {
        if self.left == 0 {
            return Ok(None);
        }
        let len = nflog.fetch()?;
        self.left = self.left.saturating_sub(len.unwrap_or(0));
        Ok(len)
    }

    fn restore_logger(&mut self, nflog: &mut Nflog) {
        if let Some(mut generic_group) = nflog.generic_group.take() {
            self.failed = generic_group.restore().err();
        }
    }

    /// Unbinds all groups, which ends the traffic.
    fn send_unbinds(&mut self, nflog: &mut Nflog) -> Result<(), CloseError> {
        for &group in &nflog.effective.groups {
            let sequence = next_sequence(&mut nflog.sequence);
            nflog
                .socket
                .send(&command::unbind(group, sequence))
                .map_err(|source| CloseError::Exchange {
                    group,
                    source: ExchangeError::Send(source),
                })?;
            self.unconfirmed.push((sequence, group));
        }
        Ok(())
    }

    /// Whether this is the answer to an unbind.
    fn take_answer(&mut self, datagram: &[u8]) -> bool {
        let Some((answered, errno)) = answer(datagram) else {
            return false;
        };
        let mut unconfirmed = self.unconfirmed.iter();
        let Some(index) = unconfirmed.position(|&(sequence, _)| sequence == answered) else {
            return false;
        };
        let (_, group) = self.unconfirmed.swap_remove(index);
        self.answered(group, errno);
        true
    }

    /// Asks again for the answers that were crowded out.
    fn ask_again(
        &mut self,
        nflog: &mut Nflog,
        rest: &mut impl FnMut(&mut Batch<'_>),
    ) -> Result<(), CloseError> {
        while let Some((_, group)) = self.unconfirmed.pop() {
            match nflog.request_unbind(group, rest)? {
                // The first request did it.
                libc::ENODEV => {}
                errno => self.answered(group, errno),
            }
        }
        Ok(())
    }

    fn answered(&mut self, group: u16, errno: i32) {
        match errno {
            0 => {}
            libc::EPERM => self.denied = self.denied.or(Some(group)),
            errno => {
                let refused = CloseError::Refused {
                    group,
                    source: io::Error::from_raw_os_error(errno),
                };
                self.failed.get_or_insert(refused);
            }
        }
    }
}
