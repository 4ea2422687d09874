//! Opening a namespace's NFLOG socket: the one that a former process has left with the service manager, or a new one.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Agent, RunError};
use crate::nflog::{Config, Nflog};
use crate::service::Note;

/// A socket that is read.
pub(super) struct Socket {
    pub(super) nflog: Nflog,
    /// Where the next process finds how far this one came; `None` if there is none to come.
    pub(super) note: Option<Note>,
    /// A former process had it: what is queued can be older than this process.
    pub(super) adopted: bool,
}

impl Agent<'_> {
    /// `name`: of the namespace, for messages.
    pub(super) fn open_socket(&self, config: &Config, name: &str) -> Result<Socket, RunError> {
        let inode = config.netns().inode()?;
        let Some(left) = self.store.take(inode) else {
            return self.open_new(config, inode);
        };
        let handover = left.handover();
        let (socket, file) = left.into_parts();
        match Nflog::adopt(config, socket, handover.as_ref()) {
            Ok(nflog) => {
                match handover {
                    Some(_) => tracing::info!("{name}: going on where the former process ended"),
                    None => tracing::warn!(
                        "{name}: going on after the former process; what was lost in between is not known"
                    ),
                }
                let note = self.store.keep(inode, &nflog, file);
                Ok(Socket {
                    nflog,
                    note,
                    adopted: true,
                })
            }
            Err(error) => {
                tracing::warn!("{name}: starting anew, packets since the former process are lost: {error}");
                self.store.forget(inode);
                self.open_new(config, inode)
            }
        }
    }

    fn open_new(&self, config: &Config, inode: u32) -> Result<Socket, RunError> {
        let nflog = Nflog::open(config)?;
        let note = self.store.keep(inode, &nflog, None);
        Ok(Socket {
            nflog,
            note,
            adopted: false,
        })
    }
}

/// What a reader is told by the main loop.
#[derive(Debug, Default)]
pub(super) struct Orders {
    stop: AtomicBool,
    leave: AtomicBool,
}

impl Orders {
    /// The namespace is not to be read any more.
    pub(super) fn close(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// The next process goes on, if it can.
    pub(super) fn leave(&self) {
        self.leave.store(true, Ordering::Relaxed);
        self.stop.store(true, Ordering::Release);
    }

    pub(super) fn stop(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// After [`Orders::stop`]: whether the next process goes on.
    pub(super) fn leaves(&self) -> bool {
        self.leave.load(Ordering::Relaxed)
    }
}
