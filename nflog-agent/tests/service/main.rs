//! The agent under a service manager: what it says, and that a restart loses no packet.
//!
//! The manager is a stand-in that speaks systemd's protocols (`NOTIFY_SOCKET`, `LISTEN_FDS`); agent, rules and packets are real.
#![cfg(feature = "agent")]

#[path = "../support/mod.rs"]
mod support;

mod blocked;
mod flood;
mod hung;
mod manager;
mod notify;
#[allow(dead_code, reason = "shared with the tests of the agent")]
#[path = "../agent/program.rs"]
mod program;
mod restart;
#[allow(dead_code, reason = "shared with the tests of the agent")]
#[path = "../agent/seen.rs"]
mod seen;
mod watchdog;
