//! Opens the kernel probes, or says once, clearly, that the agent runs without.

use aya_log::Level;
use log::LevelFilter;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::RunError;
use crate::cli::AttributionArg;
use crate::owner::{Probes, Stat};

/// The probes, or `None` when the agent runs without them.
///
/// # Errors
/// When probes were demanded and cannot be used.
pub(super) fn open(choice: AttributionArg, groups: &[u16]) -> Result<Option<Probes>, RunError> {
    if choice == AttributionArg::Sockdiag {
        tracing::warn!("degraded attribution, as asked: owners come from inet_diag and /proc after the fact (sockdiag)");
        return Ok(None);
    }
    match Probes::open(groups, level()) {
        Ok(probes) => {
            for missing in probes.missing() {
                tracing::warn!("{missing}; some packets will have no owner");
            }
            Ok(Some(probes))
        }
        Err(error) if choice == AttributionArg::Probes => Err(error.into()),
        Err(error) => {
            tracing::warn!(
                "degraded attribution: {error}. Until then owners come from inet_diag and /proc after the fact (sockdiag): \
                 short-lived sockets have none"
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

/// Passes the probes' messages on to the agent's log while the agent runs.
pub(super) fn forward_messages(probes: &mut Probes, runtime: &Runtime) -> Option<JoinHandle<()>> {
    level()?;
    let _entered = runtime.enter();
    let logger = match probes.logger().map(|logger| AsyncFd::register_with_interest(logger, Interest::READABLE)) {
        Ok(Ok(logger)) => logger,
        Ok(Err(error)) => {
            tracing::warn!("no messages from the probes: {error}");
            return None;
        }
        Err(error) => {
            tracing::warn!("no messages from the probes: {error}");
            return None;
        }
    };
    Some(runtime.spawn(forward(logger)))
}

async fn forward(mut logger: AsyncFd<aya_log::EbpfLogger<&'static dyn log::Log>>) {
    loop {
        match logger.readable_mut().await {
            Ok(mut ready) => {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
            Err(error) => {
                tracing::warn!("no more messages from the probes: {error}");
                return;
            }
        }
    }
}

/// What the probes counted, failures by name.
pub(super) fn summary(probes: &Probes) {
    match probes.stats() {
        Ok(counts) => {
            let parts: Vec<_> = Stat::ALL
                .into_iter()
                .zip(counts)
                .filter(|(_, count)| *count > 0)
                .map(|(stat, count)| format!("{} {count}", stat.name()))
                .collect();
            tracing::info!("probes: {}", if parts.is_empty() { "nothing seen".to_owned() } else { parts.join(", ") });
        }
        Err(error) => tracing::warn!("cannot read the probes' counters: {error}"),
    }
}
