//! Opens the kernel probes, or says once, clearly, that the agent runs without.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use aya_log::{EbpfLogger, Level};
use log::LevelFilter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{RunError, nonzero};
use crate::cli::AttributionArg;
use crate::owner::{Counters, MapSizes, Probes, Seeded, Statistics};
use crate::telemetry::metrics::{CounterFamily, Instrument};

/// The probes, or `None` when the agent runs without them.
///
/// # Errors
/// When probes were demanded and cannot be used.
pub(super) fn open(
    choice: AttributionArg,
    groups: &[u16],
    sizes: MapSizes,
) -> Result<Option<Probes>, RunError> {
    if choice == AttributionArg::Sockdiag {
        tracing::warn!(
            "degraded attribution, as asked: owners come from inet_diag and /proc after the fact (sockdiag)"
        );
        return Ok(None);
    }
    match Probes::open_with(groups, level(), sizes) {
        Ok(probes) => {
            for missing in probes.missing() {
                tracing::warn!("{missing}; some packets will have no owner");
            }
            match probes.seeded() {
                Ok(Seeded { sockets, shared }) => tracing::info!(
                    "{sockets} sockets are older than the agent and known now, {shared} of them shared by several processes"
                ),
                Err(error) => tracing::warn!(
                    "the probes do not know sockets older than the agent: {error}; their owners come from inet_diag and /proc \
                     after the fact (sockdiag) until the process sends, accepts or connects"
                ),
            }
            Ok(Some(probes))
        }
        Err(error) if choice == AttributionArg::Probes => Err(error.into()),
        Err(error) => {
            tracing::warn!(
                "degraded attribution: {error}; owners now come from inet_diag and /proc after the fact (sockdiag): sockets that \
                 are closed by then have none"
            );
            Ok(None)
        }
    }
}

/// The probes' own messages are compiled in at load time only if RUST_LOG lets debug messages through.
fn level() -> Option<Level> {
    match log::max_level() {
        LevelFilter::Debug => Some(Level::Debug),
        LevelFilter::Trace => Some(Level::Trace),
        _ => None,
    }
}

/// How late a message may be, and how long the end of the agent waits for this thread.
const POLL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// Passes the probes' messages on to the agent's log. Ends when dropped.
pub(super) struct Messages {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Messages {
    /// `None` if RUST_LOG asks for no such messages, or, with a warning, if they cannot be had.
    pub(super) fn forward(probes: &mut Probes) -> Option<Self> {
        level()?;
        let stop = Arc::new(AtomicBool::new(false));
        let logger = probes
            .logger()
            .inspect_err(|error| tracing::warn!("no messages from the probes: {error}"))
            .ok()?;
        let thread = Builder::new().name("probe messages".to_owned()).spawn({
            let stop = Arc::clone(&stop);
            move || forward(logger, &stop)
        });
        let thread = thread
            .inspect_err(|error| tracing::warn!("no messages from the probes: {error}"))
            .ok()?;
        Some(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that reads the probes' messages ended in a bug");
        }
    }
}

fn forward(mut logger: EbpfLogger<&'static dyn log::Log>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match poll(&mut [PollFd::new(&logger, PollFlags::IN)], Some(&POLL)) {
            Ok(_) | Err(Errno::INTR) => logger.flush(),
            Err(error) => {
                tracing::warn!("no more messages from the probes: {error}");
                return;
            }
        }
    }
}

/// What the probes counted, failures by name.
pub(super) fn summary(counters: &Counters) {
    match counters.read() {
        Ok(counts) => {
            let seen = nonzero(counts.map(|(stat, count)| (stat.name(), count)));
            let text = if seen.is_empty() { "nothing seen" } else { &seen };
            tracing::info!("probes: {text}");
        }
        Err(error) => tracing::warn!("cannot read the probes' counters: {error}"),
    }
}

/// The runs that the kernel left out, at debug level: the packets that it cost an owner are counted as `missed` anyway.
pub(super) fn left_out(statistics: &Statistics) {
    match statistics.read() {
        Ok(programs) if programs.iter().all(|one| one.left_out().is_none()) => {
            tracing::debug!(
                "probes: this kernel does not count the runs that it leaves out; Linux 6.7 and later do"
            );
        }
        Ok(programs) => {
            let counts = programs
                .iter()
                .filter_map(|one| Some((one.program, one.left_out()?)));
            let left_out = nonzero(counts);
            let text = if left_out.is_empty() { "none" } else { &left_out };
            let hidden = programs.iter().all(|one| one.missed.is_none());
            let more = if hidden {
                "; not those that a kprobe itself missed, which Linux shows since 6.17"
            } else {
                ""
            };
            tracing::debug!("probes: runs that the kernel left out: {text}{more}");
        }
        Err(error) => tracing::warn!("cannot read the programs' statistics: {error}"),
    }
}

/// The runs that the kernel left out as a metric; no values where the kernel does not count them.
pub(super) fn left_out_metric(statistics: Statistics) -> CounterFamily {
    CounterFamily {
        name: "nflog_agent.probes.missed",
        instrument: Instrument::Counter,
        unit: "{run}",
        description: "Runs of a probe's program that the kernel left out, because another program or probe was running.",
        label: Some("nflog_agent.probe.program"),
        read: Box::new(move |observe| match statistics.read() {
            Ok(programs) => {
                for one in programs {
                    if let Some(count) = one.left_out() {
                        observe(one.program, count);
                    }
                }
            }
            Err(error) => tracing::warn!("cannot read the programs' statistics: {error}"),
        }),
    }
}

/// The counters as a metric.
pub(super) fn metric(counters: Counters) -> CounterFamily {
    CounterFamily {
        name: "nflog_agent.probes.events",
        instrument: Instrument::Counter,
        unit: "{event}",
        description: "What the kernel probes counted, failures included.",
        label: Some("nflog_agent.probe.event"),
        read: Box::new(move |observe| match counters.read() {
            Ok(counts) => counts
                .into_iter()
                .for_each(|(stat, count)| observe(stat.name(), count)),
            Err(error) => tracing::warn!("cannot read the probes' counters: {error}"),
        }),
    }
}
