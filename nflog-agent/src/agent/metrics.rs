//! The agent's own metrics: where they go, and what is measured.

use tokio::runtime::Handle;

use super::{Agent, RunError, health, probes, processes};
use crate::export::{OtlpConfig, Signal};
use crate::settings::Settings;
use crate::telemetry::messages;
use crate::telemetry::metrics::{CounterFamily, Families, Metrics};

/// The collector that the environment names for them.
///
/// # Errors
/// The first OTEL_* variable that cannot be honoured.
pub(super) fn collector(settings: &Settings) -> Result<Option<OtlpConfig>, RunError> {
    Ok(OtlpConfig::from_env(Signal::Metrics, |name| {
        settings.variable(name)
    })?)
}

impl Agent<'_> {
    /// Serves them at the endpoint, and sends them to the collector if there is one for them.
    pub(super) fn start_metrics(
        &self,
        collector: Option<&OtlpConfig>,
        runtime: &Handle,
    ) -> Result<Option<Metrics>, RunError> {
        if self.output.is_viewer() {
            return Ok(None);
        }
        let families = Families::new(self.ledger, Some(self.queue), self.families());
        let resource = self.output.resource();
        if let Some(site) = self.site {
            site.measure(families.clone(), resource.clone());
        }
        let install = |config| Metrics::install(config, resource, runtime, &families);
        Ok(collector.map(install).transpose()?)
    }

    /// What is measured beside records and requests.
    fn families(&self) -> Vec<CounterFamily> {
        let mut families = Vec::from(self.counts.metrics());
        families.extend(self.attributions.metrics());
        families.extend(self.rules.metrics());
        families.push(self.reloads.metric());
        if let Some(probes) = self.probes {
            families.push(probes::metric(probes.counters()));
            families.push(probes::left_out_metric(probes.statistics()));
        }
        families.extend(self.processes.map(processes::metric));
        families.extend(self.spool.into_iter().flat_map(health::of_spool));
        families.push(self.health.metric());
        families.extend(messages::metrics());
        families
    }
}
