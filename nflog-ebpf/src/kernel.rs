//! Reads of kernel memory. Every read of the crate goes through [`Pointer`]; a failed one is counted.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel as probe_read_kernel};
use nflog_common::Stat;

use crate::maps::count;

/// A kernel address, not null unless it comes from [`Self::leads_to`]. Reading through it cannot fault: `bpf_probe_read_kernel` reports bad addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pointer(u64);

impl Pointer {
    #[inline(always)]
    pub(crate) const fn new(address: u64) -> Option<Self> {
        if address == 0 { None } else { Some(Self(address)) }
    }

    #[inline(always)]
    pub(crate) const fn address(self) -> u64 {
        self.0
    }

    /// The address `offset` bytes on.
    #[inline(always)]
    pub(crate) const fn add(self, offset: u64) -> Self {
        Self(self.0.wrapping_add(offset))
    }

    /// The value `offset` bytes on.
    #[inline(always)]
    pub(crate) fn read<T: Copy>(self, offset: u16) -> Option<T> {
        // Not uninit: on the failing path LLVM would take any register for the value, and the verifier objects to pointers.
        let mut value = MaybeUninit::<T>::zeroed();
        self.copy(offset, value.as_mut_ptr())?;
        // SAFETY: the helper has written all of it; callers read plain data.
        Some(unsafe { value.assume_init() })
    }

    /// The value `offset` bytes on, all zero if it cannot be read. For values that are computed with at once: after an
    /// `Option`, LLVM computes with an undefined register before it looks at the outcome, which the verifier refuses.
    #[inline(always)]
    pub(crate) fn read_or_zero<T: Copy>(self, offset: u16) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        let _ = self.copy(offset, value.as_mut_ptr());
        // SAFETY: zeroed, or written by the helper; callers read integers.
        unsafe { value.assume_init() }
    }

    /// The value `offset` bytes on, all zero if it cannot be read, which is not counted: for walks along lists, where each branch
    /// would be one more for the verifier to follow in every round.
    #[inline(always)]
    pub(crate) fn peek<T: Copy>(self, offset: u16) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        let source = self.add(offset as u64).0 as *const c_void;
        // SAFETY: as in `copy`; zeroed, or written by the helper; callers read integers.
        unsafe {
            let _ = probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, source);
            value.assume_init()
        }
    }

    /// The same for two numbers, one after the other: room of 16 bytes would be cleared by a loop over its bytes.
    #[inline(always)]
    pub(crate) fn peek_pair(self, offset: u16) -> [u64; 2] {
        [self.peek(offset), self.add(8).peek(offset)]
    }

    /// Where the pointer leads that is stored `offset` bytes on; a null pointer, through which only zeros can be read, if it is
    /// null or cannot be read.
    #[inline(always)]
    pub(crate) fn leads_to(self, offset: u16) -> Self {
        Self(self.peek(offset))
    }

    /// The address `offset` bytes before: of the struct that has this field there.
    #[inline(always)]
    pub(crate) const fn back(self, offset: u16) -> Self {
        Self(self.0.wrapping_sub(offset as u64))
    }

    /// Copies the value `offset` bytes on to `destination`, without a stop on the stack.
    #[inline(always)]
    pub(crate) fn read_into<T: Copy>(self, offset: u16, destination: &mut T) -> Option<()> {
        self.copy(offset, destination)
    }

    #[inline(always)]
    fn copy<T: Copy>(self, offset: u16, destination: *mut T) -> Option<()> {
        let source = self.add(offset as u64).0 as *const c_void;
        // SAFETY: the helper checks the source; the destination is a whole T, and T is plain data.
        if unsafe { probe_read_kernel(destination.cast(), size_of::<T>() as u32, source) } == 0 {
            return Some(());
        }
        count(Stat::ReadError);
        None
    }

    /// The pointer stored `offset` bytes on; `None` if it is null.
    #[inline(always)]
    pub(crate) fn follow(self, offset: u16) -> Option<Self> {
        Self::new(self.read(offset)?)
    }
}

/// `value`, cut to the bits of `mask`, as an offset or a length. LLVM leaves out a mask that it can prove to change nothing; the
/// verifier cannot prove it, so LLVM must not know the value.
#[inline(always)]
pub(crate) fn masked(value: u32, mask: usize) -> usize {
    core::hint::black_box(value) as usize & mask
}

/// `CLOCK_MONOTONIC`, ns.
#[inline(always)]
pub(crate) fn monotonic() -> u64 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}
