//! The program that does nothing, attached beside a probe in order to measure that probe: both pay the kernel's cost of a run.

use aya::programs::KProbe;
use aya::programs::kprobe::KProbeLink;

use super::{OpenError, Probes, Statistics};

const NAME: &str = "noop";

/// The empty program on one kernel function. Dropping it detaches it.
pub struct Noop {
    statistics: Statistics,
    /// Held for its drop.
    _link: KProbeLink,
}

impl Noop {
    /// What the kernel counts about it: over all functions that it was attached to so far.
    #[must_use]
    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }
}

impl Probes {
    /// Attaches the empty program to a kernel function. For measurements only.
    ///
    /// # Errors
    /// When the kernel refuses it, or there is no such function.
    pub fn noop(&mut self, symbol: &'static str) -> Result<Noop, OpenError> {
        let refused = |source| OpenError::Program {
            name: NAME,
            source: Box::new(source),
        };
        let program = self
            .ebpf
            .program_mut(NAME)
            .ok_or(OpenError::NoProgram { name: NAME })?;
        let program: &mut KProbe = program.try_into().map_err(refused)?;
        if program.fd().is_err() {
            program.load().map_err(refused)?;
        }
        let id = program.info().map_err(refused)?.id();
        let link = program
            .attach(symbol, 0)
            .and_then(|link| program.take_link(link))
            .map_err(|source| OpenError::Attach {
                symbol,
                source: Box::new(source),
            })?;
        Ok(Noop {
            statistics: Statistics::of(vec![(id, NAME)]),
            _link: link,
        })
    }
}
