//! The reader: opens and receives.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::bind::{self, Bound, Early};
use super::config::{COPY_RANGE_MAX, Config};
use super::effective::Effective;
use super::error::{OpenError, RecvError};
use super::generic_group::GenericGroup;
use super::loss::{Account, Loss};
use super::netns::Home;
use super::socket::{NetlinkSocket, Received, monotonic_ns};
use super::waker::Waker;

/// Reads NFLOG groups of one network namespace.
///
/// Dropping it ends its groups at once; [`Nflog::close`] first hands out what the kernel still holds.
#[derive(Debug)]
pub struct Nflog {
    pub(super) config: Config,
    pub(super) home: Home,
    pub(super) socket: NetlinkSocket,
    pub(super) buffer: Box<[u8]>,
    /// Datagrams that came while binding.
    pub(super) early: VecDeque<Early>,
    pub(super) account: Account,
    pub(super) waker: Waker,
    pub(super) effective: Effective,
    pub(super) generic_group: Option<GenericGroup>,
    /// CLOCK_MONOTONIC, in ns.
    pub(super) last_empty_ns: Option<u64>,
    pub(super) sequence: u32,
}

/// A socket with its options set and what it takes to read it, before its groups are bound.
pub(super) struct Unbound {
    pub(super) home: Home,
    pub(super) socket: NetlinkSocket,
    pub(super) buffer: Box<[u8]>,
    waker: Waker,
    receive_buffer: u32,
}

impl Unbound {
    pub(super) fn new(config: &Config, home: Home, socket: NetlinkSocket) -> Result<Self, OpenError> {
        let waker = Waker::new().map_err(|source| OpenError::Socket { source })?;
        let receive_buffer = bind::set_options(&socket, config)?;
        Ok(Self {
            home,
            socket,
            buffer: vec![0; buffer_size(config)].into_boxed_slice(),
            waker,
            receive_buffer,
        })
    }

    /// The reader, once the groups are bound. `account`: of its groups, without what binding met.
    pub(super) fn reader(
        self,
        config: &Config,
        bound: Bound,
        mut account: Account,
    ) -> Result<Nflog, OpenError> {
        for _ in 0..bound.overruns {
            account.enobufs();
        }
        let generic_group = config
            .generic_group()
            .then(|| GenericGroup::bind(self.home.clone()))
            .transpose()?;
        let (groups, port_id) = (config.groups().to_vec(), self.socket.port_id());
        Ok(Nflog {
            config: config.clone(),
            home: self.home,
            effective: Effective::read_back(config, groups, port_id, self.receive_buffer, bound.flags),
            socket: self.socket,
            buffer: self.buffer,
            early: bound.early,
            account,
            waker: self.waker,
            generic_group,
            last_empty_ns: None,
            sequence: bound.sequence,
        })
    }
}

impl Nflog {
    /// Opens a socket in the namespace that `config` names, and binds its groups. Needs CAP_NET_ADMIN there; the capability
    /// can be dropped afterwards; then [`Nflog::close`] cannot unbind in order any more.
    ///
    /// # Errors
    /// If the namespace cannot be entered, the kernel has no NFLOG, rights are missing, or a group has another reader.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        config.netns().run(|| Self::open_here(config))?
    }

    fn open_here(config: &Config) -> Result<Self, OpenError> {
        let mut unbound = Unbound::new(config, Home::current()?, bind::open_socket()?)?;
        let Unbound {
            home, socket, buffer, ..
        } = &mut unbound;
        let bound = bind::bind_groups(socket, config, home, buffer)?;
        unbound.reader(config, bound, Account::new(config.groups()))
    }

    /// The settings in effect, and where they differ from those asked for.
    #[must_use]
    pub const fn effective(&self) -> &Effective {
        &self.effective
    }

    /// Inode number of the namespace that is read.
    #[must_use]
    pub const fn netns_inode(&self) -> u32 {
        self.home.inode()
    }

    /// A handle that interrupts [`Nflog::recv`] from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Waits up to `timeout` (`None`: for ever) for entries. `None` means that the time is over or the waker was used.
    /// Overruns and unreadable datagrams are not errors: see [`Nflog::loss`].
    ///
    /// # Errors
    /// If a system call on the socket fails.
    pub fn recv(&mut self, timeout: Option<Duration>) -> Result<Option<Batch<'_>>, RecvError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if self.waker.take().map_err(RecvError::Wait)? {
                return Ok(None);
            }
            if let Some(datagram) = self.look()? {
                return Ok(Some(self.batch(datagram)));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            self.socket
                .wait(self.waker.as_fd(), left)
                .map_err(RecvError::Wait)?;
        }
    }

    /// Takes the next datagram without waiting: its length, and when it was read. `None` if the socket is empty.
    pub(super) fn look(&mut self) -> Result<Option<(usize, u64)>, RecvError> {
        // Twice if datagrams were dropped since the last time: only packets from after a moment at which the queue was empty
        // and the drop already known are surely from after the drop.
        for _ in 0..2 {
            let now_ns = monotonic_ns();
            if let Some(len) = self.fetch()? {
                return Ok(Some((len, now_ns)));
            }
            // Taken before the socket was looked at: what arrives later is newer.
            self.last_empty_ns = Some(now_ns);
            self.account.empty();
            if !self.read_drops()? {
                break;
            }
        }
        Ok(None)
    }

    /// The entries of the datagram in the buffer.
    pub(super) fn batch(&mut self, (len, received_ns): (usize, u64)) -> Batch<'_> {
        Batch::new(
            &self.buffer[..len],
            &mut self.account,
            received_ns,
            self.last_empty_ns,
        )
    }

    /// Puts the next datagram into the buffer; `None` if there is none.
    pub(super) fn fetch(&mut self) -> Result<Option<usize>, RecvError> {
        if let Some(early) = self.early.pop_front() {
            if early.truncated {
                self.account.truncated();
            }
            self.buffer[..early.bytes.len()].copy_from_slice(&early.bytes);
            return Ok(Some(early.bytes.len()));
        }
        loop {
            match self.socket.recv(&mut self.buffer).map_err(RecvError::Receive)? {
                Received::Empty => return Ok(None),
                Received::Overrun => self.account.enobufs(),
                Received::Datagram { len, truncated } => {
                    if truncated {
                        self.account.truncated();
                    }
                    return Ok(Some(len));
                }
            }
        }
    }

    /// Whether datagrams were dropped since the last time.
    pub(super) fn read_drops(&mut self) -> Result<bool, RecvError> {
        let drops = self.socket.drops().map_err(RecvError::Drops)?;
        Ok(self.account.sk_drops(drops))
    }

    /// Everything lost since [`Nflog::open`].
    ///
    /// # Errors
    /// If the socket's drop count cannot be read.
    pub fn loss(&mut self) -> Result<Loss, RecvError> {
        self.read_drops()?;
        Ok(self.account.totals())
    }

    /// Packets of one group found missing since it was bound; `None` if the group is not read here.
    #[must_use]
    pub fn gaps(&self, group: u16) -> Option<u64> {
        self.account.gaps(group)
    }
}

impl AsFd for Nflog {
    /// The netlink socket, for an event loop: when it is readable, [`Nflog::recv`] does not wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Room for the longest datagram. The kernel makes a batch as large as the slab that `nlbufsiz` (or one packet, if that is
/// longer) ends up in, which is the next power of two. Packets may come whole before the copy range applies.
pub(super) fn buffer_size(config: &Config) -> usize {
    /// More than the attributes other than the payload take, and the overhead of an skb.
    const OVERHEAD: u32 = 4096;
    let longest = config.nlbufsiz().max(COPY_RANGE_MAX) + OVERHEAD;
    longest.next_power_of_two() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::path::Path;
    use std::process::{Command, id};

    use super::super::netns::Netns;

    /// A network namespace where UDP to port 7777 is logged to group 5.
    struct Scratch {
        name: String,
    }

    impl Scratch {
        fn new() -> Self {
            let scratch = Self {
                name: format!("truncated-{}", id()),
            };
            ip(&format!("netns add {}", scratch.name));
            ip(&format!("-netns {} link set lo up", scratch.name));
            for rule in [
                "table inet test",
                "chain inet test output { type filter hook output priority 0; }",
                "rule inet test output udp dport 7777 log group 5",
            ] {
                ip(&format!("netns exec {} nft add {rule}", scratch.name));
            }
            scratch
        }

        fn netns(&self) -> Netns {
            Netns::Path(Path::new("/run/netns").join(&self.name))
        }

        fn send(&self, count: u32) {
            let sending = || {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                for _ in 0..count {
                    socket.send_to(b"payload", "127.0.0.1:7777").unwrap();
                }
            };
            self.netns().run(sending).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            ip(&format!("netns del {}", self.name));
        }
    }

    fn ip(arguments: &str) {
        let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "this test needs root, ip and nft: {complaint}"
        );
    }

    #[test]
    fn entries_before_the_cut_of_a_truncated_datagram_arrive_and_the_others_are_counted() {
        let scratch = Scratch::new();
        let builder = Config::builder().netns(scratch.netns()).group(5).qthresh(10);
        let mut nflog = Nflog::open(&builder.build().unwrap()).unwrap();
        let whole = std::mem::replace(&mut nflog.buffer, vec![0; 400].into());
        // One datagram.
        scratch.send(10);
        let patience = Some(Duration::from_secs(60));
        let batch = nflog.recv(patience).unwrap().expect("a batch is full");
        let arrived: Vec<_> = batch.map(|entry| (entry.seq(), entry.lost_before())).collect();
        let count = u32::try_from(arrived.len()).unwrap();
        assert!((1..10).contains(&count), "{arrived:?}");
        assert!((0..count).map(|seq| (Some(seq), 0)).eq(arrived));
        let loss = nflog.loss().unwrap();
        assert_eq!((loss.truncated, loss.gaps, loss.pending), (1, 0, true));

        // Empty, so that the next packet is known to be from after the cut.
        assert!(nflog.recv(Some(Duration::ZERO)).unwrap().is_none());
        nflog.buffer = whole;
        scratch.send(1);
        let mut batch = nflog.recv(patience).unwrap().expect("a packet was sent");
        let entry = batch.next().unwrap();
        assert_eq!((entry.seq(), entry.lost_before()), (Some(10), 10 - count));
        drop(batch);
        let loss = nflog.close(|_| ()).unwrap();
        assert_eq!((loss.truncated, loss.sk_drops), (1, 0));
        assert_eq!((loss.gaps, loss.pending), (u64::from(10 - count), false));
    }

    #[test]
    fn the_buffer_holds_the_longest_datagrams_measured() {
        for (nlbufsiz, longest) in [(130_752, 130_544), (131_072, 261_652), (65_536, 130_544)] {
            let config = Config::builder().group(1).nlbufsiz(nlbufsiz).build().unwrap();
            assert!(buffer_size(&config) >= longest, "nlbufsiz {nlbufsiz}");
        }
        let config = Config::builder().group(1).nlbufsiz(8192).build().unwrap();
        assert!(buffer_size(&config) >= 65_531 + 700);
    }

    #[test]
    fn a_reader_can_move_to_a_thread() {
        fn movable<T: Send>() {}
        movable::<Nflog>();
        movable::<Waker>();
    }
}
