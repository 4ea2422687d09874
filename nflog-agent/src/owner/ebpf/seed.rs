//! Tells the probes, once they are attached, of the sockets that are older than they are.
//!
//! Two BPF iterators over the open files of every process (kernel 5.8); see `nflog-ebpf/src/probes/seed.rs`. The kernel runs
//! one program for each file while the agent reads the iterator, which yields no bytes.

use std::fs::File;
use std::io::{self, ErrorKind, Read};

use aya::programs::links::LinkError;
use aya::programs::{Iter, ProgramError};
use aya::{Btf, BtfError, Ebpf};
use thiserror::Error;

use crate::causes::causes;

/// The kernel's iterator over the files of all tasks, `bpf_iter_task_file`.
pub(super) const ITERATOR: &str = "task_file";

/// In this order: who holds each socket, then each socket to its owner.
const WALKS: [&str; 2] = ["seed_holders", "seed_sockets"];

/// The kernel ends a read early after a million files that yielded no bytes (`MAX_ITER_OBJECTS`), to be asked again.
const READS_MAX: usize = 1000;

/// Sockets older than the agent that the probes were told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seeded {
    /// All of them.
    pub sockets: u64,
    /// Those among them that several processes share, so that their packets are `ambiguous`.
    pub shared: u64,
}

/// Why the probes cannot be told of sockets older than the agent.
#[derive(Debug, Error)]
pub enum SeedError {
    /// The embedded object lacks a program: it was built from other sources.
    #[error("the embedded eBPF object has no program `{name}`: rebuild the agent")]
    NoProgram {
        /// Program name.
        name: &'static str,
    },
    /// The kernel's BTF is not understood.
    #[error("the kernel's BTF: {}", causes(.0))]
    Btf(#[from] BtfError),
    /// The kernel has no such iterator or refuses the program.
    #[error("the kernel refuses the BPF iterator `{name}`, which needs 5.8: {}", causes(.source))]
    Program {
        /// Program name.
        name: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// The iterator cannot be opened.
    #[error("cannot open the BPF iterator `{name}`: {}", causes(.source))]
    Open {
        /// Program name.
        name: &'static str,
        /// Why.
        source: Box<LinkError>,
    },
    /// The walk ended early.
    #[error("the BPF iterator `{name}` ended early: {source}")]
    Walk {
        /// Program name.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Runs both walks. The probes are attached, and no map is taken yet.
pub(super) fn seed(ebpf: &mut Ebpf) -> Result<(), SeedError> {
    let btf = Btf::from_sys_fs()?;
    for name in WALKS {
        let files = open(ebpf, &btf, name)?;
        walk(files).map_err(|source| SeedError::Walk { name, source })?;
    }
    Ok(())
}

fn open(ebpf: &mut Ebpf, btf: &Btf, name: &'static str) -> Result<File, SeedError> {
    let refused = |source| SeedError::Program {
        name,
        source: Box::new(source),
    };
    let program = ebpf.program_mut(name).ok_or(SeedError::NoProgram { name })?;
    let program: &mut Iter = program.try_into().map_err(refused)?;
    program.load(ITERATOR, btf).map_err(refused)?;
    let link = program.attach().map_err(refused)?;
    let link = program.take_link(link).map_err(refused)?;
    link.into_file().map_err(|source| SeedError::Open {
        name,
        source: Box::new(source),
    })
}

/// Reads to the end, which is an empty read.
fn walk(mut files: impl Read) -> io::Result<()> {
    for _ in 0..READS_MAX {
        match files.read(&mut [0; 4096]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers reads with these errors, then with the end.
    struct Answers(Vec<ErrorKind>);

    impl Read for Answers {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.0.pop().map_or(Ok(0), |kind| Err(kind.into()))
        }
    }

    #[test]
    fn a_walk_goes_on_after_a_pause_of_the_kernel_and_ends() {
        let pauses = vec![
            ErrorKind::WouldBlock,
            ErrorKind::Interrupted,
            ErrorKind::WouldBlock,
        ];
        assert!(walk(Answers(pauses)).is_ok());
    }

    #[test]
    fn a_walk_that_fails_or_never_ends_is_an_error() {
        let failed = walk(Answers(vec![ErrorKind::PermissionDenied])).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::PermissionDenied);
        let endless = walk(Answers(vec![ErrorKind::WouldBlock; READS_MAX])).unwrap_err();
        assert_eq!(endless.kind(), ErrorKind::TimedOut);
    }
}
