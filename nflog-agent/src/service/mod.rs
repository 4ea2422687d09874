//! The service manager (systemd): what it is told, and what it keeps while no agent runs.
//!
//! - [`Manager`]: state, status and watchdog, by `NOTIFY_SOCKET`. Without a manager everything here does nothing.
//! - `Store`: the NFLOG sockets outlive the process in the manager's descriptor store, so that a restart loses no packet.
//! - `Watchdog`: whether all loops move.

mod descriptors;
mod manager;
mod store;
mod watchdog;

pub use manager::Manager;
pub(crate) use store::{Note, Store};
pub(crate) use watchdog::{Life, Watchdog};
