//! One request and its answer, on a socket that logged packets arrive on at the same time.
//!
//! Invariants: whatever is read while waiting is handed to the caller, in order; never hangs. The kernel handles a request
//! inside `send`, so an empty queue after it means that the answer was dropped for want of buffer space.

use std::io;
use std::time::{Duration, Instant};

use super::error::ExchangeError;
use super::frame::{Frame, Frames};
use super::socket::{NetlinkSocket, Received};

/// How often a request whose answer was dropped is sent.
const ATTEMPTS: u32 = 3;
/// How long the answer may take to come through a queue that others fill.
const DEADLINE: Duration = Duration::from_secs(5);

/// Where requests go and datagrams come from.
pub(super) trait Link {
    /// Sends a request.
    fn send(&self, request: &[u8]) -> io::Result<()>;
    /// Takes a datagram without waiting.
    fn recv(&self, buffer: &mut [u8]) -> io::Result<Received>;
}

impl Link for NetlinkSocket {
    fn send(&self, request: &[u8]) -> io::Result<()> {
        self.send(request)
    }

    fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.recv(buffer)
    }
}

/// Something read that is not the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen<'a> {
    /// A datagram.
    Datagram {
        /// What fit into the buffer.
        bytes: &'a [u8],
        /// It was longer than the buffer.
        truncated: bool,
    },
    /// ENOBUFS.
    Overrun,
}

/// What the kernel said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// 0 or an errno.
    pub(super) errno: i32,
    /// The request was sent more than once, because the first answer got lost: the errno may complain that it is done.
    pub(super) repeated: bool,
}

/// Sends what `request` makes of a sequence number, and reads until it is answered.
pub(super) fn exchange(
    link: &impl Link,
    sequence: &mut u32,
    buffer: &mut [u8],
    request: impl Fn(u32) -> Vec<u8>,
    keep: &mut dyn FnMut(Seen<'_>),
) -> Result<Answer, ExchangeError> {
    let deadline = Instant::now() + DEADLINE;
    for attempt in 0..ATTEMPTS {
        let number = next_sequence(sequence);
        link.send(&request(number)).map_err(ExchangeError::Send)?;
        while Instant::now() < deadline {
            match link.recv(buffer).map_err(ExchangeError::Receive)? {
                Received::Empty => break,
                Received::Overrun => keep(Seen::Overrun),
                Received::Datagram { len, truncated } => {
                    let bytes = &buffer[..len];
                    if let Some((answered, errno)) = answer(bytes)
                        && answered == number
                    {
                        return Ok(Answer {
                            errno,
                            repeated: attempt > 0,
                        });
                    }
                    keep(Seen::Datagram { bytes, truncated });
                }
            }
        }
    }
    Err(ExchangeError::NoAnswer)
}

/// Sequence number and errno, if this datagram is an answer. An answer always is alone in its datagram.
pub(super) fn answer(datagram: &[u8]) -> Option<(u32, i32)> {
    match Frames::new(datagram).next() {
        Some(Frame::Answer { sequence, errno }) => Some((sequence, errno)),
        _ => None,
    }
}

/// The number of the next request. 0 is what logged packets carry.
pub(super) fn next_sequence(sequence: &mut u32) -> u32 {
    *sequence = sequence.wrapping_add(1).max(1);
    *sequence
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::VecDeque;

    /// Plays back receive results; `None` is an empty queue.
    struct Script {
        results: RefCell<VecDeque<Option<Vec<u8>>>>,
        sent: RefCell<Vec<u8>>,
    }

    impl Script {
        fn new(results: impl IntoIterator<Item = Option<Vec<u8>>>) -> Self {
            Self {
                results: RefCell::new(results.into_iter().collect()),
                sent: RefCell::default(),
            }
        }
    }

    impl Link for Script {
        fn send(&self, request: &[u8]) -> io::Result<()> {
            self.sent.borrow_mut().extend(request);
            Ok(())
        }

        fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
            Ok(match self.results.borrow_mut().pop_front() {
                Some(Some(datagram)) => {
                    buffer[..datagram.len()].copy_from_slice(&datagram);
                    Received::Datagram {
                        len: datagram.len(),
                        truncated: false,
                    }
                }
                Some(None) | None => Received::Empty,
            })
        }
    }

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(16 + body.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes
    }

    fn ack(sequence: u32, errno: i32) -> Vec<u8> {
        message(2, sequence, &(-errno).to_ne_bytes())
    }

    fn packet(number: u8) -> Vec<u8> {
        message(0x0400, 0, &[2, 0, 0, number])
    }

    /// Runs an exchange; returns its result, what was kept, and the sequence numbers sent.
    fn run(script: &Script) -> (Result<Answer, ExchangeError>, Vec<Vec<u8>>, Vec<u8>) {
        let mut kept = Vec::new();
        let result = exchange(
            script,
            &mut 0,
            &mut [0; 256],
            |sequence| vec![u8::try_from(sequence).unwrap()],
            &mut |seen| match seen {
                Seen::Datagram { bytes, .. } => kept.push(bytes.to_vec()),
                Seen::Overrun => kept.push(Vec::new()),
            },
        );
        (result, kept, script.sent.borrow().clone())
    }

    #[test]
    fn packets_before_the_answer_are_kept_in_order() {
        let script = Script::new([Some(packet(1)), Some(packet(2)), Some(ack(1, 0)), Some(packet(3))]);
        let (answer, kept, sent) = run(&script);
        let expected = Answer {
            errno: 0,
            repeated: false,
        };
        assert_eq!(answer.unwrap(), expected);
        assert_eq!(kept, [packet(1), packet(2)]);
        assert_eq!(sent, [1]);
        // The packet after the answer is still in the queue.
        assert_eq!(script.results.borrow().len(), 1);
    }

    #[test]
    fn an_answer_to_another_request_is_not_ours() {
        let (answer, kept, _) = run(&Script::new([Some(ack(9, 1)), Some(ack(1, 16))]));
        assert_eq!(answer.unwrap().errno, 16);
        assert_eq!(kept, [ack(9, 1)]);
    }

    #[test]
    fn a_request_whose_answer_was_dropped_is_repeated() {
        let (answer, kept, sent) = run(&Script::new([Some(packet(1)), None, Some(ack(2, 16))]));
        let expected = Answer {
            errno: 16,
            repeated: true,
        };
        assert_eq!(answer.unwrap(), expected);
        assert_eq!(kept, [packet(1)]);
        assert_eq!(sent, [1, 2]);
    }

    #[test]
    fn without_any_answer_it_gives_up() {
        let (answer, _, sent) = run(&Script::new([]));
        assert!(matches!(answer, Err(ExchangeError::NoAnswer)));
        assert_eq!(sent, [1, 2, 3]);
    }
}
