//! Opens the spool and starts the exporter.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::{Output, RunError};
use crate::cli::{RunArgs, WhenFullArg};
use crate::export::{ExportQueue, Exporter, ExporterOptions, Spool, SpoolLimits, WhenFull};
use crate::telemetry::ledger::Ledger;

/// The spool, if the settings name one and the output can use it.
pub(super) fn open_spool(
    args: &RunArgs,
    output: &Output,
    ledger: &Arc<Ledger>,
) -> Result<Option<Spool>, RunError> {
    let Some(path) = args.spool.as_ref().filter(|_| output.is_otlp()) else {
        if args.spool.is_some() {
            tracing::warn!("--spool is for OTLP: the {} does without", output.describe());
        }
        return Ok(None);
    };
    let limits = SpoolLimits {
        bytes: args.spool_bytes,
        max_age: args.spool_max_age.as_secs(),
        when_full: match args.spool_when_full {
            WhenFullArg::DropOldest => WhenFull::DropOldest,
            WhenFullArg::DropNewest => WhenFull::DropNewest,
        },
        ..SpoolLimits::default()
    };
    Ok(Some(Spool::open(path, limits, ledger)?))
}

/// The exporter; its threads have the role of the calling one.
pub(super) fn start(
    output: &Output,
    spool: Option<Spool>,
    runtime: &Handle,
) -> Result<(ExportQueue, Exporter), RunError> {
    // Of the caller's thread.
    let _entered = runtime.enter();
    let (transport, options) = (output.transport()?, ExporterOptions::default());
    Ok(match spool {
        Some(spool) => Exporter::start_with_spool(transport, options, spool, runtime)?,
        None => Exporter::start(transport, options, runtime),
    })
}
