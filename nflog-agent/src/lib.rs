//! NFLOG packets with the process and container that owns them, as OpenTelemetry logs.
//!
//! # Layout
//!
//! One-way data flow; each stage is a module:
//! [`nflog`] (netlink bytes to entries) → `packet` (entry payload to addresses and ports) → `owner` (who owns the socket) →
//! `workload` (which container or unit that is, by `cgroup_path`, with `process`: what program it ran) → `record` (the value that leaves) → `policy` (which of them do) → `export` (batches to a collector or
//! a console). `telemetry` keeps the account of every record, `service` talks to the service manager, `agent` wires the stages.
//!
//! With `default-features = false` only [`nflog`] is built.

pub mod nflog;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "agent")]
mod causes;
#[cfg(feature = "cgroup-path")]
pub mod cgroup_path;
#[cfg(feature = "agent")]
pub mod cli;
#[cfg(feature = "agent")]
pub mod commands;
#[cfg(feature = "agent")]
pub mod confinement;
#[cfg(feature = "agent")]
pub mod exit_codes;
#[cfg(feature = "agent")]
pub mod export;
#[cfg(feature = "agent")]
mod lingering;
#[cfg(feature = "agent")]
mod named;
#[cfg(feature = "agent")]
pub mod owner;
#[cfg(feature = "agent")]
pub mod packet;
#[cfg(feature = "agent")]
pub mod policy;
#[cfg(feature = "agent")]
pub mod process;
#[cfg(feature = "agent")]
pub mod record;
#[cfg(feature = "agent")]
pub mod service;
#[cfg(feature = "agent")]
pub mod settings;
#[cfg(feature = "agent")]
pub mod telemetry;
#[cfg(feature = "agent")]
pub mod workload;
