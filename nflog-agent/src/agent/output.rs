//! Where records go: which encoder, which transport, how large batches get.

use std::ffi::OsString;
use std::io::{IsTerminal, sink, stdout};
use std::sync::Arc;

use super::RunError;
use crate::cli::{ColorArg, OutputArg, OutputArgs, RecordIdArg};
use crate::export::{FlushPolicy, OtlpConfig, Signal, Transport, detect_resource};
use crate::record::{Console, Encoder, Json, Otlp, RecordIds, Resource};
use crate::telemetry::ledger::Ledger;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

/// A checked choice of output.
pub(crate) struct Output {
    kind: Kind,
    /// Records have ids.
    ids: bool,
    resource: Resource,
}

enum Kind {
    Otlp(Box<OtlpConfig>),
    Console { colour: bool, verbose: bool },
    Json,
    Viewer(Arc<dyn Viewer>),
}

/// Who looks at the records instead of a collector or a console.
pub trait Viewer: Send + Sync {
    /// An encoder for one reader. Its batches need no bytes: that they are taken settles their records as exported.
    fn encoder(&self, ledger: &Arc<Ledger>) -> Box<dyn Encoder>;

    /// The agent reads from now on; `ledger` has its account.
    fn begin(self: Arc<Self>, ledger: &Arc<Ledger>);

    /// Whether the viewer has seen enough: then the agent stops.
    fn is_done(&self) -> bool;
}

impl Output {
    /// From the arguments and the environment.
    ///
    /// # Errors
    /// The first OTEL_* variable that cannot be honoured.
    pub(crate) fn choose(
        args: &OutputArgs,
        get: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, RunError> {
        let console = || Kind::Console {
            colour: colour(args.color, &get),
            verbose: args.verbose,
        };
        let otlp = |config| Kind::Otlp(Box::new(config));
        let kind = match args.kind {
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
            ids: args.record_id == RecordIdArg::Ulid,
            resource: detect_resource(get)?,
        })
    }

    /// To a viewer, whatever the arguments say of outputs.
    pub(super) fn viewer(viewer: Arc<dyn Viewer>) -> Self {
        Self {
            kind: Kind::Viewer(viewer),
            ids: false,
            resource: Resource::new(),
        }
    }

    /// Tells the viewer, if there is one, that the agent reads.
    pub(super) fn begin(&self, ledger: &Arc<Ledger>) {
        if let Kind::Viewer(viewer) = &self.kind {
            Arc::clone(viewer).begin(ledger);
        }
    }

    /// Whether the viewer, if there is one, has seen enough.
    pub(super) fn is_done(&self) -> bool {
        matches!(&self.kind, Kind::Viewer(viewer) if viewer.is_done())
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
            Kind::Viewer(viewer) => viewer.encoder(ledger),
        })
    }

    /// The way out. Needs a tokio runtime.
    pub(super) fn transport(&self) -> Result<Transport, RunError> {
        Ok(match &self.kind {
            Kind::Otlp(config) => Transport::otlp(config)?,
            Kind::Console { .. } | Kind::Json => Transport::pipe(Box::new(stdout()))?,
            Kind::Viewer(_) => Transport::pipe(Box::new(sink()))?,
        })
    }

    pub(super) const fn is_otlp(&self) -> bool {
        matches!(self.kind, Kind::Otlp(_))
    }

    /// The collector, if there is one.
    pub(crate) const fn otlp(&self) -> Option<&OtlpConfig> {
        match &self.kind {
            Kind::Otlp(config) => Some(config),
            Kind::Console { .. } | Kind::Json | Kind::Viewer(_) => None,
        }
    }

    /// People look at it: the account is for them at the end.
    pub(super) const fn is_console(&self) -> bool {
        matches!(self.kind, Kind::Console { .. } | Kind::Viewer(_))
    }

    pub(super) const fn is_viewer(&self) -> bool {
        matches!(self.kind, Kind::Viewer(_))
    }

    pub(super) const fn policy(&self) -> FlushPolicy {
        match self.kind {
            Kind::Otlp(_) => FlushPolicy::COLLECTOR,
            Kind::Console { .. } | Kind::Json => FlushPolicy::CONSOLE,
            Kind::Viewer(_) => FlushPolicy::VIEWER,
        }
    }

    pub(super) const fn resource(&self) -> &Resource {
        &self.resource
    }

    /// For the start message.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Otlp(config) => format!("OTLP to {}", config.target()),
            Kind::Console { .. } => "console".to_owned(),
            Kind::Json => "JSON".to_owned(),
            Kind::Viewer(_) => "to be looked at".to_owned(),
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

/// Whether there are colours on standard output.
pub(crate) fn colour(choice: ColorArg, get: impl Fn(&str) -> Option<OsString>) -> bool {
    match choice {
        ColorArg::Always => true,
        ColorArg::Never => false,
        // https://no-color.org: any value but the empty one.
        ColorArg::Auto => stdout().is_terminal() && get("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}
