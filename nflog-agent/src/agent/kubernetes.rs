//! Whether the pods of this node, and the cluster's Services, are named, decided once at start.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::RunError;
use crate::cli::{KubernetesArg, RunArgs};
#[cfg(feature = "kubernetes")]
use crate::workload::kubernetes::{Access, is_node_name};
use crate::workload::kubernetes::{Pods, Services};

/// Whether there are pods to name, and how.
pub(crate) enum Choice {
    /// Not wanted.
    Off,
    /// There is no API to ask.
    Nowhere,
    /// There is one, but it is not known which node this is.
    #[cfg_attr(
        not(feature = "kubernetes"),
        expect(dead_code, reason = "this build never asks")
    )]
    NoNode,
    /// The pods of a node.
    #[cfg(feature = "kubernetes")]
    Watch {
        /// How the API server is reached.
        access: Access,
        /// This node.
        node: String,
    },
}

/// What readers look into; `None`: nothing is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// The pods of the node.
    pub(crate) pods: Option<Arc<Pods>>,
    /// The Services of the cluster.
    pub(crate) services: Option<Arc<Services>>,
}

/// From the arguments and the environment.
///
/// # Errors
/// When names were asked for, and there cannot be any.
#[cfg(feature = "kubernetes")]
pub(crate) fn choose(args: &RunArgs) -> Result<Choice, RunError> {
    let asked = match args.kubernetes {
        KubernetesArg::Off => return Ok(Choice::Off),
        KubernetesArg::On => true,
        KubernetesArg::Auto => false,
    };
    let Some(access) = Access::detect(|name| std::env::var_os(name)) else {
        return if asked {
            Err(RunError::NoKubernetes)
        } else {
            Ok(Choice::Nowhere)
        };
    };
    let given = args.kubernetes_node.clone();
    let node = given
        .or_else(|| std::env::var(DOWNWARD).ok())
        .filter(|node| !node.is_empty());
    match node {
        Some(node) if !is_node_name(&node) => Err(RunError::NodeName { name: node }),
        Some(node) => Ok(Choice::Watch { access, node }),
        None if asked => Err(RunError::NoNode),
        None => Ok(Choice::NoNode),
    }
}

/// This build has no client for the Kubernetes API.
#[cfg(not(feature = "kubernetes"))]
pub(crate) fn choose(args: &RunArgs) -> Result<Choice, RunError> {
    match args.kubernetes {
        KubernetesArg::Off => Ok(Choice::Off),
        KubernetesArg::On => Err(RunError::NoKubernetes),
        KubernetesArg::Auto => Ok(Choice::Nowhere),
    }
}

/// Starts the watch on the node's pods, and that on Services if it is wanted, if there is anything to watch. Never waits for the API
/// server.
///
/// # Errors
/// When it was asked for, and cannot be.
#[cfg(feature = "kubernetes")]
pub(super) fn watch(args: &RunArgs, runtime: &Handle) -> Result<Names, RunError> {
    use crate::workload::kubernetes::{Chosen, NodePods, Pace, Watch};

    let (access, node) = match choose(args)? {
        Choice::Off | Choice::Nowhere => return Ok(Names::default()),
        Choice::NoNode => {
            tracing::warn!(
                "pods are not named, records have their UIDs: {}",
                RunError::NoNode
            );
            return Ok(Names::default());
        }
        Choice::Watch { access, node } => (access, node),
    };
    let pods = Arc::new(Pods::default());
    let watch = Watch {
        access: access.clone(),
        of: NodePods {
            node,
            chosen: Chosen {
                labels: args.kubernetes_labels.clone(),
                annotations: args.kubernetes_annotations.clone(),
            },
            pods: Arc::clone(&pods),
        },
        pace: Pace::default(),
    };
    drop(runtime.spawn(watch.run()));
    let services = args.kubernetes_services.then(|| {
        let services = Arc::new(Services::default());
        let watch = Watch {
            access,
            of: Arc::clone(&services),
            pace: Pace::default(),
        };
        drop(runtime.spawn(watch.run()));
        services
    });
    Ok(Names {
        pods: Some(pods),
        services,
    })
}

/// Files that the watch reads again and again.
///
/// # Errors
/// When the credentials come from a program.
#[cfg(feature = "kubernetes")]
pub(crate) fn files(args: &RunArgs) -> Result<Vec<PathBuf>, RunError> {
    let Choice::Watch { access, .. } = choose(args)? else {
        return Ok(Vec::new());
    };
    access.files().ok_or_else(|| match access {
        Access::Kubeconfig(path) => RunError::KubeconfigRuns { path },
        Access::ServiceAccount => RunError::NoKubernetes,
    })
}

/// This build has no client for the Kubernetes API.
#[cfg(not(feature = "kubernetes"))]
pub(crate) fn files(_: &RunArgs) -> Result<Vec<PathBuf>, RunError> {
    Ok(Vec::new())
}

/// Variable that manifests fill with `spec.nodeName`.
#[cfg(feature = "kubernetes")]
const DOWNWARD: &str = "K8S_NODE_NAME";

/// This build has no client for the Kubernetes API.
#[cfg(not(feature = "kubernetes"))]
pub(super) fn watch(args: &RunArgs, _: &Handle) -> Result<Names, RunError> {
    choose(args).map(|_| Names::default())
}
