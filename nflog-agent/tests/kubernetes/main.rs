//! Names of pods and Services: the stores, the watch against a stand-in for kube-apiserver with faults, and the agent as a process.
//!
//! The package registries have no kube-apiserver binary; `server` answers in the shapes of a real one.
#![cfg(feature = "kubernetes")]

#[path = "../agent/program.rs"]
#[allow(dead_code, reason = "shared with the tests of the agent")]
mod program;
#[path = "../support/mod.rs"]
mod support;

mod model;
mod named;
mod objects;
mod pods;
mod server;
mod services;
mod tls;
mod watch;

use pods::{pod, pod_with};
