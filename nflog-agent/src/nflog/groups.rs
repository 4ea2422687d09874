//! Binding and unbinding groups on a reader that is open.
//!
//! Invariants: entries of the other groups keep their order and none is lost; the account of a group begins with its bind and
//! ends behind its last packet, so that a group that is bound anew is counted from its new number 0.

use std::io;

use super::batch::Batch;
use super::bind::{self, Bound};
use super::command;
use super::effective::{Effective, Warning};
use super::error::{CloseError, OpenError};
use super::exchange::{Seen, exchange, next_sequence};
use super::reader::Nflog;
use super::socket::monotonic_ns;

impl Nflog {
    /// Binds one more group, with the settings that the reader was opened with. Entries that arrive meanwhile are returned by
    /// [`Nflog::recv`]. Needs CAP_NET_ADMIN in the namespace. [`Nflog::effective`] shows the outcome.
    ///
    /// # Errors
    /// If rights are missing, the group has another reader, or this one has it already. The reader stays as it was.
    pub fn bind(&mut self, group: u16) -> Result<(), OpenError> {
        if self.effective.groups.contains(&group) {
            return Err(OpenError::AlreadyBound { group });
        }
        let mut bound = Bound {
            flags: self.effective.flags,
            sequence: self.sequence,
            ..Bound::default()
        };
        let result = bind::bind_group(
            &self.socket,
            &self.config,
            &self.home,
            group,
            &mut self.buffer,
            &mut bound,
        );
        self.sequence = bound.sequence;
        self.early.append(&mut bound.early);
        for _ in 0..bound.overruns {
            self.account.enobufs();
        }
        if let Err(OpenError::Exchange { .. }) = result {
            self.forget(group);
        }
        result?;
        self.account.add(group);
        self.read_back(group, &bound);
        Ok(())
    }

    /// Unbinds a group of which it is not known whether it is bound: its answers got lost.
    fn forget(&mut self, group: u16) {
        let sequence = next_sequence(&mut self.sequence);
        // The caller gets the error that led here. A batch skips the answer.
        drop(self.socket.send(&command::unbind(group, sequence)));
    }

    fn read_back(&mut self, group: u16, bound: &Bound) {
        let mut groups = self.effective.groups.clone();
        groups.push(group);
        let (config, socket) = (&self.config, &self.socket);
        let receive_buffer = self.effective.receive_buffer;
        let effective = self.home.run(|| {
            Effective::read_back(
                config,
                groups.clone(),
                socket.port_id(),
                receive_buffer,
                bound.flags,
            )
        });
        match effective {
            Ok(effective) => self.effective = effective,
            Err(error) => {
                self.effective.groups = groups;
                self.effective.flags = bound.flags;
                self.effective.warnings.push(Warning::NotReadBack {
                    source: io::Error::other(error),
                });
            }
        }
    }

    /// Unbinds a group. Hands everything that was logged to it before, and what arrives for other groups meanwhile, to `rest`,
    /// in order. Needs CAP_NET_ADMIN in the namespace. The packets of the group found missing stay in [`Nflog::loss`], where
    /// `pending` stays set if its last packets may have been lost.
    ///
    /// # Errors
    /// If the reader does not have the group, rights are missing, or the kernel's answer got lost. The reader then still has
    /// the group; it can be tried again.
    pub fn unbind(&mut self, group: u16, mut rest: impl FnMut(&mut Batch<'_>)) -> Result<(), CloseError> {
        if !self.effective.groups.contains(&group) {
            return Err(CloseError::NotBound { group });
        }
        self.make_room(&mut rest)?;
        match self.request_unbind(group, &mut rest)? {
            // ENODEV: an earlier request did it, and its answer got lost.
            0 | libc::ENODEV => {}
            libc::EPERM => {
                let loss = self.loss()?;
                return Err(CloseError::PermissionDenied { group, loss });
            }
            errno => {
                return Err(CloseError::Refused {
                    group,
                    source: io::Error::from_raw_os_error(errno),
                });
            }
        }
        // Its last datagram may be among those dropped.
        self.read_drops()?;
        self.account.remove(group);
        self.effective.groups.retain(|&bound| bound != group);
        self.effective
            .instances
            .retain(|instance| instance.group != group);
        Ok(())
    }

    /// Asks to unbind a group and reads until the answer; returns its errno.
    pub(super) fn request_unbind(
        &mut self,
        group: u16,
        rest: &mut impl FnMut(&mut Batch<'_>),
    ) -> Result<i32, CloseError> {
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
}
