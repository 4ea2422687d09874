//! Follows processes through the probes, or says once that it cannot.

use std::sync::Arc;

use crate::owner::Probes;
use crate::process::{Follower, Processes};
use crate::telemetry::metrics::{CounterFamily, Instrument};

/// What the probes tell of processes, and the thread that takes it in; `None`, with a warning, if that cannot be had.
pub(super) fn follow(probes: &mut Probes, arguments: bool) -> Option<(Arc<Processes>, Follower)> {
    let unknown = |error: &dyn std::error::Error| {
        tracing::warn!(
            "the probes do not follow processes: {error}; executables and parents come from /proc, and are missing where a process \
             has ended by then"
        );
    };
    let events = probes
        .take_process_events()
        .inspect_err(|error| unknown(error))
        .ok()?;
    let processes = Arc::new(Processes::new(events, probes.counters(), arguments));
    let follower = Follower::start(&processes)
        .inspect_err(|error| unknown(error))
        .ok()?;
    Some((processes, follower))
}

/// How many processes and programs are known, as a metric.
pub(super) fn metric(processes: &Arc<Processes>) -> CounterFamily {
    let processes = Arc::clone(processes);
    CounterFamily {
        name: "nflog_agent.processes.known",
        instrument: Instrument::UpDownCounter,
        unit: "{program}",
        description: "Programs of processes that the agent knows from the kernel probes.",
        label: Some("nflog_agent.process.state"),
        read: Box::new(move |observe| {
            let size = processes.size();
            observe("running", size.running as u64);
            observe("ended", size.ended as u64);
        }),
    }
}
