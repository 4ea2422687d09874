//! One reader after another on the same socket: a process ends, the next goes on, and the kernel queues packets in between.
//!
//! The socket stays bound as long as any process holds it, such as a service manager in its descriptor store. Sequence numbers go on,
//! so with a [`Handover`] the packets that were lost between the two readers are counted like all others.
//!
//! Invariant: a group that both read is never unbound in between; each packet is handed out by one of the two, or counted as lost.

use std::os::fd::OwnedFd;

use super::batch::Batch;
use super::bind::{self, Bound};
use super::config::Config;
use super::error::{AdoptError, OpenError, RecvError};
use super::loss::{Account, Loss};
use super::netns::Home;
use super::procfs;
use super::reader::{Nflog, Unbound};
use super::socket::{NetlinkSocket, monotonic_ns};

/// What the next reader of a socket needs to go on counting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// Datagrams that were dropped and are in the account, as the socket counts them.
    pub drops: u32,
    /// Loss is known of and not counted yet: see [`Loss::pending`].
    pub pending: bool,
    /// The groups, and the number that the next packet of each has.
    pub next: Vec<(u16, u32)>,
}

/// First bytes of an encoded [`Handover`]; the digit is the version.
const MAGIC: [u8; 8] = *b"nflogho1";

impl Handover {
    /// The number that the next packet of a group has, if it is known.
    #[must_use]
    pub fn next(&self, group: u16) -> Option<u32> {
        let found = self.next.iter().find(|(number, _)| *number == group);
        found.map(|(_, next)| *next)
    }

    /// Puts its bytes in place of those in `bytes`. They are for this machine only.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.extend(MAGIC);
        let count = u32::try_from(self.next.len()).unwrap_or(u32::MAX);
        for word in [self.drops, self.pending.into(), count] {
            bytes.extend(word.to_ne_bytes());
        }
        for (group, next) in &self.next {
            bytes.extend(u32::from(*group).to_ne_bytes());
            bytes.extend(next.to_ne_bytes());
        }
    }

    /// Reads what [`Handover::encode`] wrote; more bytes may follow. `None` if it is something else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = bytes
            .strip_prefix(&MAGIC)?
            .chunks_exact(4)
            .filter_map(|word| Some(u32::from_ne_bytes(word.try_into().ok()?)));
        let (drops, pending, count) = (words.next()?, words.next()?, words.next()?);
        let mut next = Vec::new();
        for _ in 0..count {
            next.push((u16::try_from(words.next()?).ok()?, words.next()?));
        }
        let pending = pending != 0;
        Some(Self { drops, pending, next })
    }
}

impl Nflog {
    /// Goes on with a socket that an earlier reader, usually of another process, has [left](Nflog::leave), or died with. What the kernel has
    /// queued since is received first. Groups of `config` that are bound keep their sequence numbers and get the settings of `config`;
    /// others are bound, and those that `config` does not name are unbound. Needs CAP_NET_ADMIN in the namespace.
    ///
    /// Without a `handover` the loss between the two readers is not known, and not counted.
    ///
    /// # Errors
    /// If it is not a socket of [`Nflog::open`], reads another namespace than `config` says, or the kernel refuses a group.
    pub fn adopt(config: &Config, socket: OwnedFd, handover: Option<&Handover>) -> Result<Self, AdoptError> {
        let adopted = config.netns().run(|| Self::adopt_here(config, socket, handover));
        adopted.map_err(OpenError::from)?
    }

    fn adopt_here(config: &Config, socket: OwnedFd, handover: Option<&Handover>) -> Result<Self, AdoptError> {
        let home = Home::current().map_err(OpenError::from)?;
        let socket = look_at(socket, &home)?;
        let mut unbound = Unbound::new(config, home, socket)?;
        let Unbound {
            home, socket, buffer, ..
        } = &mut unbound;
        let socket = &*socket;
        let mut bound = Bound {
            flags: config.flags(),
            // Not one that the earlier reader may have used: its answers can still be queued.
            sequence: u32::try_from(monotonic_ns() & 0xffff_ffff).unwrap_or_default(),
            ..Bound::default()
        };
        let there = bind::adopt_groups(socket, config, home, buffer, &mut bound)?;
        let known = handover.cloned().unwrap_or_else(|| unknown(socket));
        let mut account = Account::of_socket(&known);
        for &group in config.groups() {
            if there.contains(&group) {
                account.resume(group, &known);
            } else {
                account.add(group);
            }
        }
        for group in strangers(config, &known, socket.port_id()) {
            account.resume(group, &known);
            bind::leave_group(socket, group, buffer, &mut bound)?;
            account.end(group);
        }
        Ok(unbound.reader(config, bound, account)?)
    }

    /// Hands out what is queued and ends, without unbinding the groups: for a socket that somebody else holds a descriptor of, for
    /// [`Nflog::adopt`]. If nobody does, the groups end, and what the kernel holds back is lost.
    ///
    /// # Errors
    /// If a system call on the socket fails.
    pub fn leave(mut self, mut rest: impl FnMut(&mut Batch<'_>)) -> Result<(Handover, Loss), RecvError> {
        // Traffic goes on: no more is read than the queue can have held.
        let mut left = self.effective.receive_buffer as usize + self.buffer.len();
        while (left > 0 || !self.early.is_empty())
            && let Some(len) = self.fetch()?
        {
            self.hand_out(len, &mut rest);
            left = left.saturating_sub(len.max(1));
        }
        let loss = self.loss()?;
        let mut handover = Handover::default();
        self.hand_over(&mut handover);
        Ok((handover, loss))
    }

    /// Writes down where the account stands. A process that does so after each batch, in memory that survives it, can be followed by another
    /// one however it ends.
    pub fn hand_over(&self, handover: &mut Handover) {
        self.account.hand_over(handover);
    }
}

/// The socket, if it is one that reads this namespace.
fn look_at(socket: OwnedFd, home: &Home) -> Result<NetlinkSocket, AdoptError> {
    let look = |source| AdoptError::Look { source };
    let socket = match NetlinkSocket::adopt(socket) {
        Ok(Some(socket)) => socket,
        Ok(None) => return Err(AdoptError::NotNetfilter),
        Err(source) if source.raw_os_error() == Some(libc::ENOTSOCK) => return Err(AdoptError::NotNetfilter),
        Err(source) => return Err(look(source)),
    };
    let inode = socket.netns_inode().map_err(look)?;
    if inode == u64::from(home.inode()) {
        Ok(socket)
    } else {
        Err(AdoptError::OtherNetns {
            socket: inode,
            here: home.inode(),
        })
    }
}

/// What is known without a handover: only the drops from now on count.
fn unknown(socket: &NetlinkSocket) -> Handover {
    Handover {
        drops: socket.drops().unwrap_or_default(),
        ..Handover::default()
    }
}

/// Groups of the socket that are not asked for any more.
fn strangers(config: &Config, known: &Handover, port_id: u32) -> Vec<u16> {
    let mut groups: Vec<u16> = known.next.iter().map(|(group, _)| *group).collect();
    // A list that cannot be read is a warning of the read-back.
    let listed = procfs::instances().unwrap_or_default();
    groups.extend(
        listed
            .iter()
            .filter(|instance| instance.port_id == port_id)
            .map(|instance| instance.group),
    );
    groups.sort_unstable();
    groups.dedup();
    groups.retain(|group| !config.groups().contains(group));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handover_is_read_as_it_was_written_and_nothing_else_is_taken_for_one() {
        let handover = Handover {
            drops: 3,
            pending: true,
            next: vec![(7, u32::MAX), (0, 0)],
        };
        let mut bytes = vec![1, 2, 3];
        handover.encode(&mut bytes);
        // An earlier one was longer.
        bytes.extend([0xff; 8]);
        assert_eq!(Handover::decode(&bytes), Some(handover));
        for cut in [0, 8, 19, 27] {
            assert_eq!(Handover::decode(&bytes[..cut]), None, "{cut}");
        }
        bytes[7] = b'2';
        assert_eq!(Handover::decode(&bytes), None);
    }
}
