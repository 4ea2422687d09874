//! What these settings need after the start, as the confinement asks.

use std::path::Path;

use super::output::Output;
use super::{RunError, kubernetes};
use crate::cli::{SandboxArg, netns_path};
use crate::confinement::{Confinement, Needs};
use crate::export::OtlpConfig;
use crate::owner::Probes;
use crate::settings::Settings;

/// Confines the process, as far as no thread but this one can be about it yet.
///
/// # Errors
/// When the kernel refuses a thread, or the settings need what would be forbidden.
pub(super) fn start(
    settings: &Settings,
    output: &Output,
    metrics: Option<&OtlpConfig>,
    probes: Option<&Probes>,
) -> Result<Confinement, RunError> {
    let args = &settings.args;
    if args.sandbox == SandboxArg::Off {
        tracing::warn!("not confined, as asked: what the agent does not need any more is not given up");
        return Ok(Confinement::off());
    }
    let ways_out = output.otlp().into_iter().chain(metrics);
    let mut files: Vec<_> = ways_out
        .flat_map(|config| config.tls.paths())
        .map(Path::to_owned)
        .collect();
    files.extend(kubernetes::files(args)?);
    let later = !args.netns.is_empty() || !args.netns_of_cgroup.is_empty();
    let spool = args.spool.clone().filter(|_| output.is_otlp());
    Ok(Confinement::start(&Needs {
        namespaces: later,
        descriptors: probes.is_none_or(|probes| probes.seeded().is_err()),
        maps: probes.map(Probes::counters),
        files,
        named: args
            .netns
            .iter()
            .map(|value| netns_path(value))
            .chain(args.config.clone())
            .collect(),
        spool,
    })?)
}
