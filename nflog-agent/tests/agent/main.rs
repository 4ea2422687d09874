//! The agent as a user runs it: real rules, real traffic of processes that report the truth about themselves, and what
//! comes out.
//!
//! Runs on this machine's kernel and, as root in a guest, on Debian kernels. Where the kernel has no kprobes the tests of the
//! probes skip, loudly; those of the fallback run everywhere.

#[path = "../support/mod.rs"]
mod support;

mod attribution;
mod confined;
mod conservation;
mod console;
mod endpoint;
mod errors;
mod nat;
mod netns;
mod older;
mod otlp;
#[cfg(feature = "kubernetes")]
mod places;
#[cfg(feature = "kubernetes")]
#[path = "../kubernetes/pods.rs"]
mod pods;
#[allow(dead_code, reason = "shared with the attribution matrix")]
mod program;
mod reload;
#[path = "../telemetry/scrape.rs"]
#[expect(dead_code, reason = "the other tests' part of it")]
mod scrape;
mod seen;
#[cfg(feature = "kubernetes")]
#[path = "../kubernetes/server.rs"]
#[allow(dead_code, reason = "shared with the tests of names")]
mod server;
mod workload;

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
