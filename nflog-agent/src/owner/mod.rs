//! Who owns the socket of a logged packet.
//!
//! Invariants: a wrong owner is never answered; when there is no owner the reason is; a lookup never blocks on I/O that
//! can wait.

mod attribution;
mod sockdiag;

pub use attribution::{Attribution, Comm, Method, Owner, Reason};
pub(crate) use sockdiag::process::{CgroupRoot, ProcFs};
pub use sockdiag::{OpenError, Place, QueryError, SockDiag};
