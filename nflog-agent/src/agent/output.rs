//! Where records go: which encoder, which transport, how large batches get.

use std::ffi::OsString;
use std::io::{IsTerminal, stdout};
use std::sync::Arc;

use super::RunError;
use crate::cli::{ColorArg, OutputArg, RecordIdArg, ReplayArgs, RunArgs};
use crate::export::{FlushPolicy, OtlpConfig, Signal, Transport, detect_resource};
use crate::record::{Console, Encoder, Json, Otlp, RecordIds, Resource};
use crate::telemetry::ledger::Ledger;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

/// A checked choice of output.
pub(super) struct Output {
    kind: Kind,
    /// Records have ids.
    ids: bool,
    resource: Resource,
}

/// What the operator asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    output: OutputArg,
    color: ColorArg,
    verbose: bool,
    ids: RecordIdArg,
}

impl From<&RunArgs> for Choice {
    fn from(args: &RunArgs) -> Self {
        Self {
            output: args.output,
            color: args.color,
            verbose: args.verbose,
            ids: args.record_id,
        }
    }
}

impl From<&ReplayArgs> for Choice {
    fn from(args: &ReplayArgs) -> Self {
        Self {
            output: args.output,
            color: args.color,
            verbose: args.verbose,
            ids: args.record_id,
        }
    }
}

enum Kind {
    Otlp(Box<OtlpConfig>),
    Console { colour: bool, verbose: bool },
    Json,
}

impl Output {
    /// From the arguments and the environment.
    ///
    /// # Errors
    /// The first OTEL_* variable that cannot be honoured.
    pub(super) fn choose(choice: Choice, get: impl Fn(&str) -> Option<OsString>) -> Result<Self, RunError> {
        let console = || Kind::Console {
            colour: colour(choice.color, &get),
            verbose: choice.verbose,
        };
        let otlp = |config| Kind::Otlp(Box::new(config));
        let kind = match choice.output {
            OutputArg::Console => console(),
            OutputArg::Json => Kind::Json,
            OutputArg::Auto => OtlpConfig::from_env(Signal::Logs, &get)?.map_or_else(console, otlp),
            OutputArg::Otlp => {
                match OtlpConfig::from_env(Signal::Logs, |name| get(name).or_else(|| default(name, &get)))? {
                    Some(config) => otlp(config),
                    None => return Err(RunError::NoEndpoint { variable: ENDPOINT }),
                }
            }
        };
        Ok(Self {
            kind,
            ids: choice.ids == RecordIdArg::Ulid,
            resource: detect_resource(get)?,
        })
    }

    /// An encoder for one reader.
    ///
    /// # Errors
    /// When the kernel has no random bytes for ids.
    pub(super) fn encoder(&self, ledger: &Arc<Ledger>) -> Result<Box<dyn Encoder>, RunError> {
        let ids = self.ids.then(RecordIds::new).transpose()?;
        Ok(match &self.kind {
            Kind::Otlp(_) => Box::new(Otlp::new(self.resource.clone(), ledger).with_ids(ids)),
            Kind::Console { colour, verbose } => Box::new(Console::new(*colour, ledger).verbose(*verbose)),
            Kind::Json => Box::new(Json::new(self.resource.clone(), ledger).with_ids(ids)),
        })
    }

    /// The way out. Needs a tokio runtime.
    pub(super) fn transport(&self) -> Result<Transport, RunError> {
        Ok(match &self.kind {
            Kind::Otlp(config) => Transport::otlp(config)?,
            Kind::Console { .. } | Kind::Json => Transport::pipe(Box::new(stdout()))?,
        })
    }

    pub(super) const fn is_otlp(&self) -> bool {
        matches!(self.kind, Kind::Otlp(_))
    }

    pub(super) const fn is_console(&self) -> bool {
        matches!(self.kind, Kind::Console { .. })
    }

    pub(super) const fn policy(&self) -> FlushPolicy {
        match self.kind {
            Kind::Otlp(_) => FlushPolicy::COLLECTOR,
            Kind::Console { .. } | Kind::Json => FlushPolicy::CONSOLE,
        }
    }

    pub(super) const fn resource(&self) -> &Resource {
        &self.resource
    }

    /// For the start message.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            Kind::Otlp(config) => format!("OTLP to {}", config.target()),
            Kind::Console { .. } => "console".to_owned(),
            Kind::Json => "JSON".to_owned(),
        }
    }
}

/// The specification's default endpoint, for who asks for OTLP without naming one.
fn default(name: &str, get: impl Fn(&str) -> Option<OsString>) -> Option<OsString> {
    let grpc = get(PROTOCOL).is_some_and(|protocol| protocol == "grpc");
    (name == ENDPOINT).then(|| {
        if grpc {
            "http://localhost:4317"
        } else {
            "http://localhost:4318"
        }
        .into()
    })
}

fn colour(choice: ColorArg, get: impl Fn(&str) -> Option<OsString>) -> bool {
    match choice {
        ColorArg::Always => true,
        ColorArg::Never => false,
        // https://no-color.org: any value but the empty one.
        ColorArg::Auto => stdout().is_terminal() && get("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}
