//! Socket calls through io_uring, run by whom the case wants: the caller, a thread of the ring's pool, or the thread that polls it.
//!
//! One of the files of the tests with `unsafe`, because the kernel works on memory that a request names. Each request is over
//! when [`Ring::run`] returns, which borrows that memory.
#![expect(
    unsafe_code,
    reason = "io_uring takes pointers, which only the caller can vouch for"
)]

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::types::Fixed;
use io_uring::{IoUring, opcode, squeue};
use socket2::SockAddr;

/// Milliseconds until the polling thread sleeps.
const IDLE: u32 = 1000;
/// The only registered file.
const SOCKET: Fixed = Fixed(0);

/// A ring whose requests are all run by the same kind of thread.
pub(super) struct Ring {
    ring: IoUring,
    flags: squeue::Flags,
}

impl Ring {
    /// `runner`: `caller`, `worker` (`io-wq`) or `poller` (`IORING_SETUP_SQPOLL`).
    pub(super) fn new(runner: &str) -> Result<Self> {
        let mut builder = IoUring::builder();
        let flags = match runner {
            "caller" => squeue::Flags::empty(),
            "worker" => squeue::Flags::ASYNC,
            "poller" => {
                builder.setup_sqpoll(IDLE);
                squeue::Flags::empty()
            }
            _ => return Err(ErrorKind::InvalidInput.into()),
        };
        let ring = builder.build(4)?;
        Ok(Self { ring, flags })
    }

    /// Whether the ring's threads are the process's (`IORING_FEAT_NATIVE_WORKERS`, 5.12, and 5.10.162), and not the kernel's.
    pub(super) fn has_native_workers(&self) -> bool {
        self.ring.params().is_feature_native_workers()
    }

    pub(super) fn connect(&mut self, socket: &OwnedFd, to: SocketAddr) -> Result<()> {
        let to = SockAddr::from(to);
        let request = opcode::Connect::new(SOCKET, to.as_ptr().cast(), to.len()).build();
        // SAFETY: `to` is an address of that length, and lives until after the call.
        unsafe { self.run(socket, request) }.map(drop)
    }

    pub(super) fn accept(&mut self, listener: &OwnedFd) -> Result<OwnedFd> {
        let nobody = std::ptr::null_mut();
        let request = opcode::Accept::new(SOCKET, nobody, nobody.cast()).build();
        // SAFETY: the request names no memory.
        let fd = unsafe { self.run(listener, request) }?;
        // SAFETY: a new descriptor of this process, which nobody else knows of.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Sends on a connected socket.
    pub(super) fn send(&mut self, socket: &OwnedFd, message: &[u8]) -> Result<i32> {
        let request = opcode::Send::new(SOCKET, message.as_ptr(), length(message)?).build();
        // SAFETY: the kernel reads so many bytes of `message`, which outlives the call.
        unsafe { self.run(socket, request) }
    }

    pub(super) fn send_to(&mut self, socket: &OwnedFd, message: &[u8], to: SocketAddr) -> Result<i32> {
        let to = SockAddr::from(to);
        let mut part = libc::iovec {
            iov_base: message.as_ptr().cast_mut().cast(),
            iov_len: message.len(),
        };
        let header = libc::msghdr {
            msg_name: to.as_ptr().cast_mut().cast(),
            msg_namelen: to.len(),
            msg_iov: &raw mut part,
            msg_iovlen: 1,
            msg_control: std::ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        };
        let request = opcode::SendMsg::new(SOCKET, &raw const header).build();
        // SAFETY: the header, and the address and the bytes that it names, outlive the call; the kernel only reads them.
        unsafe { self.run(socket, request) }
    }

    pub(super) fn receive(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> Result<i32> {
        let request = opcode::Recv::new(SOCKET, buffer.as_mut_ptr(), length(buffer)?).build();
        // SAFETY: the kernel writes at most so many bytes to `buffer`, which is borrowed until after the call.
        unsafe { self.run(socket, request) }
    }

    /// Has a request run on a socket, and waits for its result. The socket is registered for that time, which a polling thread
    /// demands before 5.11.
    ///
    /// # Safety
    /// The memory that the request names must be valid until this returns.
    unsafe fn run(&mut self, socket: &OwnedFd, request: squeue::Entry) -> Result<i32> {
        self.ring.submitter().register_files(&[socket.as_raw_fd()])?;
        let request = request.flags(self.flags);
        // SAFETY: the caller's promise; nothing returns before the request is over, but for a ring that the kernel refuses to
        // wait on, which then is a bug that ends the test.
        unsafe { self.ring.submission().push(&request) }.map_err(|_| ErrorKind::OutOfMemory)?;
        let completion = loop {
            if let Some(completion) = self.ring.completion().next() {
                break completion;
            }
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != ErrorKind::Interrupted => panic!("io_uring_enter: {error}"),
                _ => {}
            }
        };
        self.ring.submitter().unregister_files()?;
        match completion.result() {
            error @ ..0 => Err(Error::from_raw_os_error(-error)),
            result => Ok(result),
        }
    }
}

fn length(bytes: &[u8]) -> Result<u32> {
    u32::try_from(bytes.len()).map_err(|_| ErrorKind::InvalidInput.into())
}
