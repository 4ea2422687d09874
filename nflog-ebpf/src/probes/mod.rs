//! The probes, one kernel function family per file. Each names the prototype it relies on in a `match-proto:` line.

mod death;
mod endpoint;
mod forward;
mod handshake;
mod log;
mod noop;
mod port;
mod process;
mod seed;
mod send;
mod tcp;
