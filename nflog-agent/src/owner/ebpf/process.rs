//! What happens to processes, as the programs on the scheduler's tracepoints tell it through a ring buffer (kernel 5.8).

use std::os::fd::{AsFd, BorrowedFd};

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use aya::programs::{Program, RawTracePoint};
use nflog_common::{ProcessEvent, ProcessText};

use super::{OpenError, take};

/// The ring buffer's map.
pub(super) const MAP: &str = "PROCESSES";

/// Program and tracepoint. Ends last: what begins is known to end.
pub(super) const TRACEPOINTS: [(&str, &str); 3] = [
    ("process_exec", "sched_process_exec"),
    ("process_fork", "sched_process_fork"),
    ("process_exit", "sched_process_exit"),
];

/// The events of all processes, in the order in which they happened.
pub struct ProcessEvents {
    ring: RingBuf<MapData>,
}

impl ProcessEvents {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, OpenError> {
        let ring = RingBuf::try_from(take(ebpf, MAP)?)?;
        Ok(Self { ring })
    }

    /// Hands the next event to `f`. `false` if there is none now. Takes no time but that of `f`.
    pub fn next(&mut self, f: impl FnOnce(&ProcessEvent, ProcessText<'_>)) -> bool {
        let Some(item) = self.ring.next() else {
            return false;
        };
        // The programs write nothing shorter.
        if let Some((event, text)) = ProcessEvent::decode(&item) {
            f(&event, text);
        }
        true
    }
}

/// Becomes readable when there are events.
impl AsFd for ProcessEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Loads and attaches the programs: all of them, or none.
pub(super) fn follow(ebpf: &mut Ebpf) -> Result<(), OpenError> {
    let followed = attach(ebpf);
    if followed.is_err() {
        for (name, _) in TRACEPOINTS {
            if let Some(Program::RawTracePoint(program)) = ebpf.program_mut(name) {
                // One that is not loaded says so.
                let _ = program.unload();
            }
        }
    }
    followed
}

fn attach(ebpf: &mut Ebpf) -> Result<(), OpenError> {
    for (name, tracepoint) in TRACEPOINTS {
        let refused = |source| OpenError::Program {
            name,
            source: Box::new(source),
        };
        let program = ebpf.program_mut(name).ok_or(OpenError::NoProgram { name })?;
        let program: &mut RawTracePoint = program.try_into().map_err(refused)?;
        program.load().map_err(refused)?;
        program
            .attach(tracepoint)
            .map_err(|source| OpenError::Tracepoint {
                tracepoint,
                source: Box::new(source),
            })?;
    }
    Ok(())
}
