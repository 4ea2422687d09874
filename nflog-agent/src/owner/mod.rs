//! Who owns the socket of a logged packet.
//!
//! Invariants: a wrong owner is never answered; when there is no owner the reason is; a lookup never blocks on I/O that
//! can wait.

mod attribution;
mod cgroups;
mod connection;
mod ebpf;
mod key;
mod sockdiag;

pub use attribution::{Attribution, Comm, End, Method, Owner, Reason};
pub(crate) use cgroups::Cgroups;
pub use connection::Connection;
pub use ebpf::{
    BtfError, Counters, LogTime, Lookup, MapSizes, Noop, OpenError as ProbesError, Probes, ProcessEvents,
    ProgramStatistics, SeedError, Seeded, Sighting, Statistics, Verified, verify,
};
pub use nflog_common::Stat;
pub(crate) use sockdiag::netlink::{Extent, Requests};
pub(crate) use sockdiag::process::{ProcFs, Stat as ProcessStat};
pub use sockdiag::{OpenError as DiagError, Place, QueryError, SockDiag};
