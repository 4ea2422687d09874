//! Which accelerator QEMU uses: hardware virtualisation only where a canary guest has proved that it works.
//!
//! `/dev/kvm` proves nothing: there are machines where it opens and every guest hangs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::arch::Arch;
use crate::paths;
use crate::vm::initramfs::{self, Payload};
use crate::vm::kernel::Kernel;
use crate::vm::protocol::{Event, Mode};
use crate::vm::qemu::{self, Limits};

/// A working guest says that it is up within a few seconds.
const CANARY_LIMITS: Limits = Limits {
    total: Duration::from_secs(30),
    silence: Duration::from_secs(10),
};

/// How QEMU executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// The kernel's hypervisor.
    Kvm,
    /// Emulation, one thread for each virtual CPU.
    Tcg,
}

/// What `--accel` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// KVM if a canary guest boots with it, else emulation.
    Auto,
    /// Emulation.
    Tcg,
    /// KVM, untested.
    Kvm,
}

impl Accelerator {
    /// QEMU's `-accel` argument.
    pub(crate) const fn qemu_name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=multi",
        }
    }

    /// How many times longer than with hardware virtualisation a guest may take.
    pub(crate) const fn slowness(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Tcg => 3,
        }
    }
}

/// Decides which accelerator to use; the canary's answer holds until the machine is booted anew.
pub(crate) fn choose(choice: Choice, kernel: &Kernel, payload: &Payload) -> Result<Accelerator> {
    match choice {
        Choice::Kvm if kernel.arch != Arch::X86_64 => bail!(
            "KVM runs guests of the host's architecture, not {}",
            kernel.arch.debian()
        ),
        Choice::Auto if kernel.arch != Arch::X86_64 => Ok(Accelerator::Tcg),
        Choice::Tcg => Ok(Accelerator::Tcg),
        Choice::Kvm => Ok(Accelerator::Kvm),
        Choice::Auto if !may_have_kvm()? => Ok(Accelerator::Tcg),
        Choice::Auto => remembered_or_canary(kernel, payload),
    }
}

/// Without the processor's flag, what answers on `/dev/kvm` is not the hardware.
fn may_have_kvm() -> Result<bool> {
    let processors = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    Ok(Path::new("/dev/kvm").exists() && has_virtualisation(&processors))
}

fn has_virtualisation(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("flags")?.split_once(':'))
        .any(|(_, flags)| {
            flags
                .split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        })
}

fn remembered_or_canary(kernel: &Kernel, payload: &Payload) -> Result<Accelerator> {
    let boot =
        fs::read_to_string("/proc/sys/kernel/random/boot_id").context("cannot read the machine's boot id")?;
    let memory = paths::vm().join("accel");
    for accelerator in [Accelerator::Kvm, Accelerator::Tcg] {
        if fs::read_to_string(&memory).is_ok_and(|text| text == remark(accelerator, &boot)) {
            return Ok(accelerator);
        }
    }
    let accelerator = if canary(kernel, payload)? {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    };
    fs::write(&memory, remark(accelerator, &boot))
        .with_context(|| format!("cannot write {}", memory.display()))?;
    Ok(accelerator)
}

fn remark(accelerator: Accelerator, boot: &str) -> String {
    format!("{} since boot {boot}", accelerator.qemu_name())
}

fn canary(kernel: &Kernel, payload: &Payload) -> Result<bool> {
    println!("testing whether KVM works with a canary guest");
    let initramfs = initramfs::write(kernel, payload, Mode::Canary)?;
    let boot = qemu::boot(kernel, &initramfs, Accelerator::Kvm, CANARY_LIMITS, |_| {})?;
    let alive = boot.failure.is_none() && boot.events.iter().any(|event| matches!(event, Event::End { .. }));
    if !alive {
        println!(
            "KVM does not work here ({}); emulating",
            boot.failure.as_deref().unwrap_or("no sign of life")
        );
    }
    Ok(alive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualisation_is_a_flag_of_the_processor_not_a_part_of_a_word() {
        assert!(has_virtualisation("model name\t: X\nflags\t\t: fpu vmx sse\n"));
        assert!(has_virtualisation("flags\t\t: svm\n"));
        assert!(!has_virtualisation(
            "flags\t\t: fpu sse vmx_like\nbugs\t\t: vmx\n"
        ));
    }
}
