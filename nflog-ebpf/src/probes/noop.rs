//! Does nothing: what the run of any program costs at least. The agent does not attach it; a test does, beside each probe that
//! it measures.

use aya_ebpf::macros::kprobe;
use aya_ebpf::programs::ProbeContext;

/// For any function.
#[kprobe]
pub(crate) fn noop(_ctx: ProbeContext) -> u32 {
    0
}
