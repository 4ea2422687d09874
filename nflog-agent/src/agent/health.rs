//! What the endpoint for health and metrics tells of this agent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::RunError;
use crate::cli::AttributionArg;
use crate::export::SpoolUsage;
use crate::owner::Probes;
use crate::telemetry::endpoint::{self, Endpoint, Listen, Site};
use crate::telemetry::health::{Beat, Health, Shortcoming};
use crate::telemetry::metrics::{CounterFamily, Instrument};

/// The exporter's task hangs if it does not move for so long: it wakes four times a second.
const EXPORTER: Duration = Duration::from_secs(20);

/// Takes the address. One that nobody asked for may be taken: a second agent on this host, say.
///
/// # Errors
/// When the operator asked for an address and it cannot be had.
pub(super) fn bind(listen: Option<Listen>) -> Result<Option<Endpoint>, RunError> {
    match listen {
        Some(Listen::Off) => Ok(None),
        Some(Listen::At(address)) => Ok(Some(Endpoint::bind(address)?)),
        None => Ok(Endpoint::bind(endpoint::DEFAULT)
            .inspect_err(|error| tracing::warn!("{error}; doing without"))
            .ok()),
    }
}

/// Serves from now on.
pub(super) fn serve(
    endpoint: Option<Endpoint>,
    health: &Arc<Health>,
    runtime: &Handle,
) -> Result<Option<Arc<Site>>, RunError> {
    let Some(endpoint) = endpoint else { return Ok(None) };
    let site = Site::new(Arc::clone(health));
    let address = endpoint.address();
    endpoint.serve(Arc::clone(&site), runtime)?;
    tracing::info!("health and metrics: http://{address}/live, /ready, /metrics");
    Ok(Some(site))
}

/// The exporter's sign of life.
pub(super) fn of_exporter(health: &Arc<Health>) -> Beat {
    health.beat("the exporter".to_owned(), EXPORTER, Instant::now())
}

/// Notes what is known at start of what the agent does without.
pub(super) fn note(health: &Health, asked: AttributionArg, probes: Option<&Probes>, processes: bool) {
    let Some(probes) = probes else {
        if asked != AttributionArg::Sockdiag {
            health.lacks(
                Shortcoming::NoProbes,
                "owners come from inet_diag and /proc after the fact",
            );
        }
        return;
    };
    if let Some(missing) = probes.missing().first() {
        health.lacks(Shortcoming::ProbesMissing, missing);
    }
    if let Err(error) = probes.seeded() {
        health.lacks(Shortcoming::OlderSockets, error);
    }
    if !processes {
        health.lacks(Shortcoming::Processes, "executables and parents come from /proc");
    }
}

/// How full the spool is, as metrics.
pub(super) fn of_spool(usage: &Arc<SpoolUsage>) -> [CounterFamily; 2] {
    let (size, limit) = (Arc::clone(usage), usage.limit());
    [
        CounterFamily {
            name: "nflog_agent.spool.size",
            instrument: Instrument::UpDownCounter,
            unit: "By",
            description: "Bytes of the spool's files.",
            label: None,
            read: Box::new(move |observe| observe("", size.bytes())),
        },
        CounterFamily {
            name: "nflog_agent.spool.limit",
            instrument: Instrument::UpDownCounter,
            unit: "By",
            description: "Bytes that the spool's files may have.",
            label: None,
            read: Box::new(move |observe| observe("", limit)),
        },
    ]
}
