//! Names of containers: the inquiry against a stand-in for the engines' sockets, with faults, and the agent as a process.
//!
//! The answers (`tests/data`): Podman's was recorded (4.3.1), names changed; Docker's is in the shape that its API documents.
#![cfg(feature = "agent")]

#[path = "../agent/program.rs"]
#[allow(dead_code, reason = "shared with the tests of the agent")]
mod program;
#[path = "../support/mod.rs"]
mod support;

mod ask;
mod engine;
mod named;
