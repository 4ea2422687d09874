//! One netlink request, one answer, on a socket that never waits.
//!
//! The kernel answers `SOCK_DIAG`, `RTM_GETROUTE` and nfnetlink requests inside `sendmsg`: the answer, or the first part of a dump,
//! is queued before `sendmsg` returns, and each later part of a dump before the `recvmsg` that took the one before it
//! returns. A receive that would block therefore means that there is no answer, and is an error.

use std::io;

use netlink_packet_core::{Emitable, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader};
use netlink_sys::{Socket, SocketAddr};

use super::error::QueryError;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
/// The kernel fills dumps up to 32 KiB a datagram (`netlink_dump`), however large the receive buffer is.
const BUFFER_LEN: usize = 32 * 1024;
/// Datagrams read for one request: 32 MiB of dump.
const MAX_DATAGRAMS: usize = 1024;

/// A netlink socket used for requests only.
#[derive(Debug)]
pub(crate) struct Requests {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Whether a request asks for one object or for all that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    One,
    Dump,
}

impl Requests {
    /// Opens a socket of this netlink family in the network namespace of the calling thread.
    pub(crate) fn open(family: isize) -> io::Result<Self> {
        let mut socket = Socket::new(family)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(BUFFER_LEN),
        })
    }

    /// Sends a request and hands the type and payload of each message of the answer to `each`.
    ///
    /// # Errors
    ///
    /// [`QueryError`]; `each` may have been called before.
    pub(crate) fn ask(
        &mut self,
        kind: u16,
        extent: Extent,
        payload: &[u8],
        mut each: impl FnMut(u16, &[u8]) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        self.send(kind, extent, payload)?;
        for _ in 0..MAX_DATAGRAMS {
            self.buffer.clear();
            let received = self.socket.recv(&mut self.buffer, libc::MSG_TRUNC)?;
            if received > self.buffer.len() {
                return Err(QueryError::Malformed);
            }
            if read_datagram(&self.buffer, self.sequence, extent, &mut each)? {
                return Ok(());
            }
        }
        Err(QueryError::TooLong)
    }

    fn send(&mut self, kind: u16, extent: Extent, payload: &[u8]) -> Result<(), QueryError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        let length = header.buffer_len() + payload.len();
        header.length = u32::try_from(length).map_err(|_| QueryError::TooLong)?;
        header.message_type = kind;
        header.flags = NLM_F_REQUEST | if extent == Extent::Dump { NLM_F_DUMP } else { 0 };
        header.sequence_number = self.sequence;
        self.buffer.clear();
        self.buffer.resize(header.buffer_len(), 0);
        header.emit(&mut self.buffer);
        self.buffer.extend_from_slice(payload);
        self.socket.send(&self.buffer, 0)?;
        Ok(())
    }
}

/// Reads the messages of one datagram; true when the answer is complete. Messages of an earlier request are skipped.
fn read_datagram(
    mut bytes: &[u8],
    sequence: u32,
    extent: Extent,
    each: &mut impl FnMut(u16, &[u8]) -> Result<(), QueryError>,
) -> Result<bool, QueryError> {
    while !bytes.is_empty() {
        let message = NetlinkBuffer::new_checked(bytes).map_err(|_| QueryError::Malformed)?;
        let length = message.length() as usize;
        if message.sequence_number() == sequence {
            match message.message_type() {
                NLMSG_NOOP => {}
                NLMSG_DONE | NLMSG_ERROR => return outcome(message.payload()).map(|()| true),
                NLMSG_OVERRUN => return Err(QueryError::Malformed),
                kind => {
                    each(kind, message.payload())?;
                    if extent == Extent::One {
                        return Ok(true);
                    }
                }
            }
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Decodes the errno that starts `NLMSG_ERROR` and `NLMSG_DONE`; a `NLMSG_DONE` may be empty.
fn outcome(payload: &[u8]) -> Result<(), QueryError> {
    let code = payload
        .first_chunk()
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if code < 0 {
        Err(QueryError::Refused(io::Error::from_raw_os_error(
            code.saturating_neg(),
        )))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(16 + payload.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(0_u16.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn read(bytes: &[u8], extent: Extent) -> (Result<bool, QueryError>, Vec<Vec<u8>>) {
        let mut seen = Vec::new();
        let result = read_datagram(bytes, 7, extent, &mut |_, payload| {
            seen.push(payload.to_vec());
            Ok(())
        });
        (result, seen)
    }

    #[test]
    fn an_answer_to_an_earlier_request_is_skipped() {
        let bytes = [message(20, 6, b"stale"), message(20, 7, b"fresh")].concat();
        let (result, seen) = read(&bytes, Extent::One);
        assert!(result.unwrap());
        assert_eq!(seen, [b"fresh".to_vec()]);
    }

    #[test]
    fn a_dump_is_complete_only_at_done() {
        let part = [message(20, 7, b"a"), message(20, 7, b"b")].concat();
        let (result, seen) = read(&part, Extent::Dump);
        assert!(!result.unwrap());
        assert_eq!(seen.len(), 2);
        assert!(
            read(&message(NLMSG_DONE, 7, &0_i32.to_ne_bytes()), Extent::Dump)
                .0
                .unwrap()
        );
        assert!(read(&message(NLMSG_DONE, 7, b""), Extent::Dump).0.unwrap());
    }

    #[test]
    fn errno_of_the_kernel_is_kept() {
        let payload = [(-libc::ENOENT).to_ne_bytes().as_slice(), &[0; 16]].concat();
        let error = read(&message(NLMSG_ERROR, 7, &payload), Extent::One)
            .0
            .unwrap_err();
        assert!(error.is_not_found());
    }

    #[test]
    fn a_message_that_is_cut_off_is_malformed() {
        let bytes = message(20, 7, b"payload");
        for length in 1..bytes.len() - 1 {
            assert!(matches!(
                read(&bytes[..length], Extent::One).0,
                Err(QueryError::Malformed)
            ));
        }
    }
}
