//! The attribution matrix: the hard cases of "whose packet is this", each over IPv4 and IPv6 and in both directions where
//! they exist, with the truth told by the processes that make the traffic.
//!
//! Every entry that the agent emits for a case's flow is judged: right (the owner is the true one), reason (no owner, for a
//! reason that the case allows) or wrong (any other process). One wrong entry fails the test, and so does a reason where
//! the owner can be known. Each test prints a line `MATRIX ..` per direction, from which `cargo xtask attribution` makes the
//! table in RELIABILITY.md.
//!
//! All tests of one process share namespaces and one agent ([`world`]; [`node`] for containers), because starting an agent takes seconds in an
//! emulated guest; they tell their entries by ports and time. Skips, loudly, only on a kernel built without kprobes.

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "shared with the tests of the agent")]
#[path = "../agent/program.rs"]
mod program;
#[allow(dead_code, reason = "shared with the tests of the agent")]
#[path = "../agent/seen.rs"]
mod seen;

mod case;
mod flow;
mod node;
mod worker;
mod world;

mod closed;
mod datagrams;
mod forwarded;
mod guests;
mod handed_over;
mod kernel;
mod namespaces;
mod nat;
mod protocols;
mod rings;
mod tcp;
mod wireguard;

/// Whether this kernel has kprobes. Skipping is allowed only where it provably has none.
fn has_kprobes() -> bool {
    let has = [
        "/sys/bus/event_source/devices/kprobe/type",
        "/sys/kernel/tracing/kprobe_events",
    ]
    .iter()
    .any(|path| std::path::Path::new(path).exists());
    if !has {
        println!("SKIPPED: this kernel is built without kprobes (CONFIG_KPROBE_EVENTS)");
    }
    has
}
