//! Which of a probed function's arguments each program of an eBPF object reads, found in its instructions.
//!
//! The kernel hands a kprobe program the registers at the call as `struct pt_regs`, whose layout is the architecture's. An object
//! that was built for another one loads and verifies, and then takes any register for the socket. So both architectures' objects are
//! read here, and must read the same arguments, each from where its calling convention has them.

mod flow;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};

use super::Counts;
use crate::arch::Arch;
use crate::paths;
use crate::setup::toolchain::{REMEDY, Toolchain};

/// What a program takes from its context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    /// The probed function's argument, from 0; beyond the registers of the calling convention, from the stack.
    Argument(u16),
    /// What the probed function returned.
    Returned,
    /// A field of an iterator's or a tracepoint's context, which is the same everywhere: its offset.
    Field(u16),
}

/// Values by program.
type Reads = BTreeMap<String, BTreeSet<Value>>;

/// The arguments of `nf_log_packet` that its probe needs: `net`, `pf`, `hooknum`, `skb`, and as the seventh `loginfo`.
const NF_LOG_PACKET: [u16; 5] = [0, 1, 2, 3, 6];

/// Builds the objects of both architectures and compares them; each program is a test.
pub(super) fn both() -> Result<Counts> {
    let toolchain = Toolchain::find().context(REMEDY)?;
    let build = |arch: Arch| {
        let object = toolchain
            .build_ebpf(&paths::root(), &paths::target(), arch.rustc())
            .map_err(anyhow::Error::msg)?;
        fs::read(&object).with_context(|| format!("cannot read {}", object.display()))
    };
    let [x86_64, arm64] = [build(Arch::X86_64)?, build(Arch::Arm64)?];
    ensure!(
        reads(&x86_64, Arch::Arm64).is_err() && reads(&arm64, Arch::X86_64).is_err(),
        "an object passes for one of the other architecture"
    );
    compare(&reads(&x86_64, Arch::X86_64)?, &reads(&arm64, Arch::Arm64)?)
}

fn compare(x86_64: &Reads, arm64: &Reads) -> Result<Counts> {
    let log = NF_LOG_PACKET.map(Value::Argument).into();
    ensure!(
        x86_64.get("nf_log_packet") == Some(&log),
        "nf_log_packet reads {:?} instead of {log:?}",
        x86_64.get("nf_log_packet")
    );
    let programs: BTreeSet<_> = x86_64.keys().chain(arm64.keys()).collect();
    let mut counts = Counts::default();
    for program in programs {
        let [on_x86_64, on_arm64] = [x86_64, arm64].map(|reads| reads.get(program));
        if on_x86_64 == on_arm64 {
            counts.passed += 1;
        } else {
            counts.failed += 1;
            println!("{program}: {on_x86_64:?} on x86-64, {on_arm64:?} on arm64");
        }
    }
    println!(
        "{} programs read the same of their context on both",
        counts.passed
    );
    Ok(counts)
}

fn reads(object: &[u8], arch: Arch) -> Result<Reads> {
    let mut reads = Reads::new();
    for (section, program, offsets) in flow::context_reads(object)? {
        let values = offsets
            .into_iter()
            .map(|offset| value(&section, offset, arch))
            .collect::<Result<_>>()
            .with_context(|| format!("program {program} in section {section}"))?;
        reads.insert(program, values);
    }
    Ok(reads)
}

/// What lies `offset` bytes on in the context of a program of this section.
fn value(section: &str, offset: u16, arch: Arch) -> Result<Value> {
    let found = match section {
        "kprobe" => argument(offset, arch).map(Value::Argument),
        "kretprobe" => (offset == return_value(arch)).then_some(Value::Returned),
        _ if section.starts_with("iter/") || section.starts_with("raw_tp/") => Some(Value::Field(offset)),
        _ => bail!("no context is known for the section"),
    };
    found.with_context(|| {
        format!(
            "reads its context at {offset}, where {} has nothing it may want",
            arch.debian()
        )
    })
}

/// Offsets in `struct pt_regs` (x86-64, `arch/x86/include/asm/ptrace.h`) or `user_pt_regs` (arm64,
/// `arch/arm64/include/uapi/asm/ptrace.h`).
fn argument(offset: u16, arch: Arch) -> Option<u16> {
    match arch {
        // rdi, rsi, rdx, rcx, r8, r9; then rsp, above which the seventh argument lies.
        Arch::X86_64 => [112, 104, 96, 88, 72, 64, 152]
            .iter()
            .zip(0..)
            .find_map(|(place, number)| (*place == offset).then_some(number)),
        // x0 to x7
        Arch::Arm64 => (offset.is_multiple_of(8) && offset < 64).then_some(offset / 8),
    }
}

const fn return_value(arch: Arch) -> u16 {
    match arch {
        // rax
        Arch::X86_64 => 80,
        // x0
        Arch::Arm64 => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seventh_argument_is_above_the_stack_pointer_or_in_x6() {
        let read = |offset, arch| value("kprobe", offset, arch).ok();
        assert_eq!(read(152, Arch::X86_64), Some(Value::Argument(6)));
        assert_eq!(read(48, Arch::Arm64), Some(Value::Argument(6)));
        // rbx is 40 and rbp 32; on arm64 those are x5 and x4. sp is 248.
        assert_eq!(read(40, Arch::X86_64), None);
        assert_eq!(read(248, Arch::Arm64), None);
    }

    #[test]
    fn a_return_probe_reads_what_was_returned_and_no_argument() {
        let read = |offset, arch| value("kretprobe", offset, arch).ok();
        assert_eq!(read(80, Arch::X86_64), Some(Value::Returned));
        assert_eq!(read(0, Arch::Arm64), Some(Value::Returned));
        assert_eq!(read(112, Arch::X86_64), None);
        assert_eq!(read(8, Arch::Arm64), None);
        assert!(value("tracepoint", 0, Arch::Arm64).is_err());
    }

    #[test]
    fn a_program_that_reads_something_else_on_one_architecture_fails() {
        let log = || {
            (
                "nf_log_packet".to_owned(),
                NF_LOG_PACKET.map(Value::Argument).into(),
            )
        };
        let other = |number| ("sendmsg".to_owned(), [Value::Argument(number)].into());
        let outcome = compare(&[log(), other(0)].into(), &[log(), other(1)].into()).expect("both were read");
        assert_eq!((outcome.passed, outcome.failed), (1, 1));
        assert!(compare(&Reads::new(), &Reads::new()).is_err());
    }
}
