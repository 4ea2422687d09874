//! Loads every program without attaching it: whether this kernel's verifier takes them all, and at what effort.
//!
//! Also those that [`Probes::open`](super::Probes::open) loads only where another one cannot be attached.

use aya::programs::Program;

use super::{MapSizes, OpenError, load, seed};

/// A program that the kernel's verifier accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Name in the eBPF object.
    pub program: String,
    /// Instructions that the verifier walked through, over all paths; it refuses a program at one million. Known since Linux
    /// 5.16 (`bpf_prog_info.verified_insns`).
    pub instructions: Option<u32>,
}

/// Loads every program of the embedded object and unloads it again; answers in order of their names.
///
/// # Errors
/// As [`Probes::open`](super::Probes::open); the first program that is refused.
pub fn verify() -> Result<Vec<Verified>, OpenError> {
    let (mut ebpf, _) = load(None, MapSizes::default())?;
    let btf = aya::Btf::from_sys_fs().map_err(OpenError::KernelBtf)?;
    let mut verified = ebpf
        .programs_mut()
        .map(|(name, program)| {
            let refused = |source| OpenError::Refused {
                name: name.to_owned(),
                source: Box::new(source),
            };
            match program {
                Program::KProbe(kprobe) => kprobe.load().map_err(refused)?,
                Program::Iter(iterator) => iterator.load(seed::ITERATOR, &btf).map_err(refused)?,
                _ => {
                    return Err(OpenError::Kind {
                        name: name.to_owned(),
                    });
                }
            }
            let info = program.info().map_err(refused)?;
            Ok(Verified {
                program: name.to_owned(),
                instructions: info.verified_instruction_count(),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    verified.sort_by(|a, b| a.program.cmp(&b.program));
    Ok(verified)
}
