//! What a worker can do.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, IoSlice, IoSliceMut, Result};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::io::write;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType, accept, bind, connect, getsockname, listen,
    recv, recvfrom, recvmsg, send, sendmsg_addr, sendto, socket,
};

use super::ring::Ring;
use super::{HEIR, Slot, program, tap};

/// Of ICMP.
const ECHO_REQUEST: u8 = 8;

/// No call of a worker waits longer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The sockets of a worker.
pub(super) struct Hands {
    sockets: Vec<Option<OwnedFd>>,
    /// Where passed sockets arrive.
    inbox: Option<OwnedFd>,
    /// By who runs its requests.
    rings: HashMap<String, Ring>,
}

impl Hands {
    /// `heir`: standard input is a socket.
    pub(super) fn new(heir: bool) -> Self {
        let inherited = heir.then(|| {
            Some(
                std::io::stdin()
                    .as_fd()
                    .try_clone_to_owned()
                    .expect("a descriptor"),
            )
        });
        Self {
            sockets: inherited.into_iter().collect(),
            inbox: None,
            rings: HashMap::new(),
        }
    }

    pub(super) fn obey(&mut self, words: &[&str]) -> Result<String> {
        match words {
            ["socket", family, kind @ ..] => {
                let fd = open(family, kind)?;
                sockopt::set_socket_timeout(&fd, Timeout::Recv, Some(TIMEOUT))?;
                sockopt::set_socket_timeout(&fd, Timeout::Send, Some(TIMEOUT))?;
                Ok(self.keep(fd))
            }
            ["bind", slot, address] => Ok(done(bind(self.get(slot)?, &parse(address)?)?)),
            ["listen", slot] => Ok(done(listen(self.get(slot)?, 64)?)),
            ["connect", slot, address] => Ok(done(connect(self.get(slot)?, &parse(address)?)?)),
            ["accept", slot] => {
                let fd = accept(self.get(slot)?)?;
                sockopt::set_socket_timeout(&fd, Timeout::Recv, Some(TIMEOUT))?;
                Ok(self.keep(fd))
            }
            ["local", slot] => Ok(SocketAddr::try_from(getsockname(self.get(slot)?)?)?.to_string()),
            ["send", slot, bytes] => {
                let sent = send(self.get(slot)?, &message(bytes)?, SendFlags::NOSIGNAL)?;
                Ok(sent.to_string())
            }
            ["send-to", slot, bytes, address] => {
                let to = parse(address)?;
                let sent = sendto(self.get(slot)?, &message(bytes)?, SendFlags::NOSIGNAL, &to)?;
                Ok(sent.to_string())
            }
            ["answer", slot, bytes] => {
                let (fd, mut space) = (self.get(slot)?, [0; 2048]);
                let (_, _, from) = recvfrom(fd, &mut space, RecvFlags::empty())?;
                let from = SocketAddr::try_from(from.ok_or(ErrorKind::NotFound)?)?;
                let sent = sendto(fd, &message(bytes)?, SendFlags::NOSIGNAL, &from)?;
                Ok(sent.to_string())
            }
            ["receive", slot, bytes] => receive(self.get(slot)?, number(bytes)?),
            ["close", slot] => {
                let slot: Slot = number(slot)?;
                self.sockets[slot] = None;
                Ok(String::new())
            }
            ["set", slot, option] => set(self.get(slot)?, option),
            ["thread", words @ ..] => self.in_thread(words),
            ["ring", runner, words @ ..] => self.by_ring(runner, words),
            ["threads"] => threads(),
            ["tap", name] => Ok(self.keep(tap::open(name)?)),
            ["write", slot, hex] => Ok(write(self.get(slot)?, &bytes(hex)?)?.to_string()),
            _ => self.hand_over(words),
        }
    }

    /// The command in a thread with a name of its own.
    fn in_thread(&mut self, words: &[&str]) -> Result<String> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("thread".to_owned());
            let handle = thread.spawn_scoped(scope, || self.obey(words))?;
            handle.join().unwrap_or_else(|_| Err(ErrorKind::Other.into()))
        })
    }

    /// The command by io_uring.
    fn by_ring(&mut self, runner: &str, words: &[&str]) -> Result<String> {
        let mut ring = match self.rings.remove(runner) {
            Some(ring) => ring,
            None => Ring::new(runner)?,
        };
        let answer = match words {
            ["native"] => Ok(ring.has_native_workers().to_string()),
            ["connect", slot, address] => Ok(done(ring.connect(self.get(slot)?, parse(address)?)?)),
            ["accept", slot] => {
                let fd = ring.accept(self.get(slot)?)?;
                Ok(self.keep(fd))
            }
            ["send", slot, bytes] => Ok(ring.send(self.get(slot)?, &message(bytes)?)?.to_string()),
            ["send-to", slot, bytes, address] => {
                let sent = ring.send_to(self.get(slot)?, &message(bytes)?, parse(address)?)?;
                Ok(sent.to_string())
            }
            ["receive", slot, bytes] => {
                let mut space = vec![0; number(bytes)?];
                Ok(ring.receive(self.get(slot)?, &mut space)?.to_string())
            }
            _ => Err(ErrorKind::Unsupported.into()),
        };
        self.rings.insert(runner.to_owned(), ring);
        answer
    }

    fn hand_over(&mut self, words: &[&str]) -> Result<String> {
        match words {
            ["heir", slot, directory] => {
                let fd = self.get(slot)?.try_clone()?;
                program(Path::new(directory)).env(HEIR, "1").stdin(fd).spawn()?;
                Ok(String::new())
            }
            ["expect", path] => {
                let fd = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
                sockopt::set_socket_timeout(&fd, Timeout::Recv, Some(TIMEOUT))?;
                bind(&fd, &SocketAddrUnix::new(*path)?)?;
                self.inbox = Some(fd);
                Ok(String::new())
            }
            ["pass", slot, path] => {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let fds = [self.get(slot)?.as_fd()];
                if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
                    return Err(ErrorKind::OutOfMemory.into());
                }
                let from = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
                let to = SocketAddrUnix::new(*path)?;
                sendmsg_addr(
                    &from,
                    &to,
                    &[IoSlice::new(b"x")],
                    &mut control,
                    SendFlags::empty(),
                )?;
                Ok(String::new())
            }
            ["take"] => {
                let inbox = self.inbox.take().ok_or(ErrorKind::NotConnected)?;
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut byte = [0];
                recvmsg(
                    &inbox,
                    &mut [IoSliceMut::new(&mut byte)],
                    &mut control,
                    RecvFlags::empty(),
                )?;
                let fd = control.drain().find_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                    _ => None,
                });
                Ok(self.keep(fd.ok_or(ErrorKind::NotFound)?))
            }
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                format!("no command {words:?}"),
            )),
        }
    }

    fn get(&self, slot: &str) -> Result<&OwnedFd> {
        let slot: Slot = number(slot)?;
        self.sockets
            .get(slot)
            .and_then(Option::as_ref)
            .ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn keep(&mut self, fd: OwnedFd) -> String {
        self.sockets.push(Some(fd));
        (self.sockets.len() - 1).to_string()
    }
}

fn open(family: &str, kind: &[&str]) -> Result<OwnedFd> {
    let family = match family {
        "v4" => AddressFamily::INET,
        _ => AddressFamily::INET6,
    };
    let icmp = if family == AddressFamily::INET { 1 } else { 58 };
    let (kind, protocol) = match kind {
        ["tcp"] => (SocketType::STREAM, 6),
        ["mptcp"] => (SocketType::STREAM, 262),
        ["sctp"] => (SocketType::STREAM, 132),
        ["udp"] => (SocketType::DGRAM, 17),
        ["udplite"] => (SocketType::DGRAM, 136),
        ["ping"] => (SocketType::DGRAM, icmp),
        ["raw", protocol] => (SocketType::RAW, number(protocol)?),
        _ => return Err(ErrorKind::Unsupported.into()),
    };
    let protocol = std::num::NonZeroU32::new(protocol).map(Protocol::from_raw);
    Ok(socket(family, kind, protocol)?)
}

fn set(fd: &OwnedFd, option: &str) -> Result<String> {
    match option {
        // The timer sends the SYN again after a second.
        "user-timeout" => sockopt::set_socket_timeout(fd, Timeout::Send, Some(Duration::from_millis(1500)))?,
        "reuseport" => sockopt::set_socket_reuseport(fd, true)?,
        "reuseaddr" => sockopt::set_socket_reuseaddr(fd, true)?,
        "v6only" => sockopt::set_ipv6_v6only(fd, true)?,
        // Long enough for a connection that is there already.
        "impatient" => sockopt::set_socket_timeout(fd, Timeout::Recv, Some(Duration::from_millis(300)))?,
        "no-linger" => sockopt::set_socket_linger(fd, Some(Duration::ZERO))?,
        _ => return Err(ErrorKind::Unsupported.into()),
    }
    Ok(String::new())
}

fn receive(fd: &OwnedFd, bytes: usize) -> Result<String> {
    let mut buffer = vec![0; bytes.max(1)];
    let stream = sockopt::socket_type(fd)? == SocketType::STREAM;
    let mut received = 0;
    loop {
        let (length, _) = recv(fd, &mut buffer[received..], RecvFlags::empty())?;
        received += length;
        if !stream || length == 0 || received >= bytes {
            return Ok(received.to_string());
        }
    }
}

/// `BYTES` zeros, or `TYPE:BYTES` for an ICMP message of at least 8 bytes.
fn message(bytes: &str) -> Result<Vec<u8>> {
    let (kind, bytes) = bytes.split_once(':').unwrap_or(("0", bytes));
    let mut message = vec![0; number(bytes)?];
    if let Some([first, _, sum @ .., _, _, _, _]) = message.first_chunk_mut::<8>() {
        *first = number(kind)?;
        if *first == ECHO_REQUEST {
            // The checksum, which only IPv6 fills in: all else is 0.
            sum.copy_from_slice(&(!(u16::from(ECHO_REQUEST) << 8)).to_be_bytes());
        }
    }
    Ok(message)
}

/// Names of this process's threads, the kernel's for it included.
fn threads() -> Result<String> {
    let mut names = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task")? {
        // It may have ended.
        names.extend(std::fs::read_to_string(thread?.path().join("comm")).ok());
    }
    Ok(names.join(" ").replace('\n', ""))
}

/// Two digits a byte.
fn bytes(hex: &str) -> Result<Vec<u8>> {
    let byte = |at| {
        let digits = hex.get(at..at + 2)?;
        u8::from_str_radix(digits, 16).ok()
    };
    let bytes: Option<_> = (0..hex.len()).step_by(2).map(byte).collect();
    bytes.ok_or_else(|| ErrorKind::InvalidInput.into())
}

fn parse(address: &str) -> Result<SocketAddr> {
    address.parse().map_err(|_| ErrorKind::InvalidInput.into())
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| ErrorKind::InvalidInput.into())
}

fn done((): ()) -> String {
    String::new()
}
