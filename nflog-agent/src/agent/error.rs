//! Why the agent does not start, or stopped; and with which exit code.

use std::io::ErrorKind;

use thiserror::Error;

use super::reader::ReaderError;
use crate::confinement::ConfinementError;
use crate::exit_codes;
use crate::export::{ConfigError as ExportError, SpoolError, TransportError};
use crate::nflog::{ConfigError, NetnsError, OpenError};
use crate::owner::{DiagError, ProbesError};
use crate::telemetry::endpoint::BindError;
use crate::telemetry::metrics::MetricsError;

/// Why the agent does not start, or stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// Not privileged.
    #[error("no permission to read NFLOG: CAP_NET_ADMIN is missing; run as root (sudo nflog-agent ...)")]
    NotPrivileged,
    /// NFLOG settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// OTEL_* variables.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// OTLP was asked for and no endpoint is known.
    #[error("no OTLP endpoint: set {variable}, for example to http://localhost:4318")]
    NoEndpoint {
        /// What to set.
        variable: &'static str,
    },
    /// The endpoint cannot be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The metrics' exporter cannot be set up.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The address for health and metrics cannot be had.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// A namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// More namespaces are named than may be read.
    #[error("--netns names {given} network namespaces, and --max-netns allows {limit}: raise it")]
    TooManyNamespaces {
        /// Different namespaces that are named.
        given: usize,
        /// Namespaces that may be read.
        limit: u32,
    },
    /// A group cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Probes were demanded and cannot be used.
    #[error("no kernel probes: {0}; --attribution auto runs without them")]
    Probes(#[from] ProbesError),
    /// Neither probes nor socket diagnostics.
    #[error(transparent)]
    SockDiag(#[from] DiagError),
    /// Names of pods were demanded, and there is no way to get them.
    #[error(
        "no Kubernetes API to ask: in a pod, mount the service account's token; elsewhere set KUBECONFIG to a file for it; \
         the build needs the feature kubernetes"
    )]
    NoKubernetes,
    /// It is not known which node this is.
    #[error("which node this is is not known: set --kubernetes-node, or K8S_NODE_NAME from spec.nodeName")]
    NoNode,
    /// No node can have that name.
    #[error("--kubernetes-node '{name}' is no node's name: use the one that kubectl get nodes shows")]
    NodeName {
        /// What was given.
        name: String,
    },
    /// Credentials come from a program, which the sandbox does not let run.
    #[error(
        "KUBECONFIG={}: it runs a program for its credentials, which the agent gives up the right to: use a token or a certificate, \
         or --sandbox off", path.display()
    )]
    KubeconfigRuns {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A thread cannot be confined.
    #[error(transparent)]
    Confinement(#[from] ConfinementError),
    /// The system refuses a thread, a signal handler or a runtime.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    /// The output cannot be written.
    #[error("cannot write the output: {kind}; make room, or send the output elsewhere")]
    Output {
        /// What the system says.
        kind: ErrorKind,
    },
    /// A reader failed while running.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// A reader panicked: a bug.
    #[error("a reader ended in a bug; its message is above")]
    ReaderPanicked,
}

impl RunError {
    /// Exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Open(error) => open_exit_code(error),
            Self::Netns(error) => netns_exit_code(error),
            Self::Config(_)
            | Self::Export(_)
            | Self::NoEndpoint { .. }
            | Self::Transport(_)
            | Self::Metrics(_)
            | Self::NoKubernetes
            | Self::NoNode
            | Self::NodeName { .. }
            | Self::KubeconfigRuns { .. }
            | Self::TooManyNamespaces { .. } => exit_codes::USAGE,
            Self::NotPrivileged => exit_codes::PERMISSION,
            Self::Spool(SpoolError::Busy { .. }) => exit_codes::BUSY,
            Self::Listen(error) => match error.source.kind() {
                ErrorKind::AddrInUse => exit_codes::BUSY,
                ErrorKind::PermissionDenied => exit_codes::PERMISSION,
                _ => exit_codes::USAGE,
            },
            Self::Probes(_) | Self::SockDiag(_) => exit_codes::UNAVAILABLE,
            Self::Output { .. } | Self::Spool(SpoolError::Directory { .. }) => exit_codes::IO,
            Self::Confinement(_)
            | Self::Spool(SpoolError::Thread(_))
            | Self::System(_)
            | Self::Reader(_)
            | Self::ReaderPanicked => exit_codes::FAILED,
        }
    }
}

/// Exit code for a group that cannot be read.
pub(crate) fn open_exit_code(error: &OpenError) -> u8 {
    match error {
        OpenError::PermissionDenied { .. } => exit_codes::PERMISSION,
        OpenError::GroupBusy { .. } => exit_codes::BUSY,
        OpenError::Netns(error) => netns_exit_code(error),
        _ => exit_codes::UNAVAILABLE,
    }
}

/// Exit code for a network namespace that cannot be entered.
pub(crate) fn netns_exit_code(error: &NetnsError) -> u8 {
    match error {
        NetnsError::Open { source, .. } | NetnsError::Enter { source, .. }
            if source.kind() == ErrorKind::PermissionDenied =>
        {
            exit_codes::PERMISSION
        }
        NetnsError::Thread { .. } => exit_codes::FAILED,
        _ => exit_codes::USAGE,
    }
}
