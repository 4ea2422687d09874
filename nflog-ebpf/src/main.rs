//! eBPF programs of nflog-agent: who owns the socket of a logged packet.
//!
//! The socket probes keep, per `struct sock`, the process that connected, accepted, bound or sent. The probe on
//! `nf_log_packet` runs before the NFLOG message exists, finds the owner of the packet's socket and writes it under the
//! packet's own tuple, where the agent finds it when it reads the message.
//!
//! Invariants: an answer comes from the packet's own socket, or from one that provably matches its tuple, never from
//! `current` (which in softirq is anybody); whatever does not fit is answered "none" with a reason; every failure is
//! counted in `STATS`.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "the whole crate reads kernel memory; each block says why it is sound"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "kernel values are split and narrowed on purpose"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the kprobe macros pass the context by value"
)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value, a key in map memory goes through the stack"
)]

mod far;
mod kernel;
mod lookup;
mod maps;
mod packet;
mod path;
mod probes;
mod registry;
mod sock;
mod task;

/// The kernel refuses programs that can reach this: the verifier sees the endless loop.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Lets the programs call GPL-only helpers (`bpf_probe_read_kernel`).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
