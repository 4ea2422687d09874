//! Whether the pods of this node are named, decided once at start.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::RunError;
use crate::cli::RunArgs;
use crate::workload::kubernetes::Pods;

/// Starts the watch on the node's pods, if there is anything to watch. Never waits for the API server.
///
/// # Errors
/// When it was asked for, and cannot be.
#[cfg(feature = "kubernetes")]
pub(super) fn watch(args: &RunArgs, runtime: &Handle) -> Result<Option<Arc<Pods>>, RunError> {
    use crate::cli::KubernetesArg;
    use crate::workload::kubernetes::{Access, Chosen, Pace, Watch, is_node_name};

    let asked = match args.kubernetes {
        KubernetesArg::Off => return Ok(None),
        KubernetesArg::On => true,
        KubernetesArg::Auto => false,
    };
    let Some(access) = Access::detect(|name| std::env::var_os(name)) else {
        return if asked {
            Err(RunError::NoKubernetes)
        } else {
            Ok(None)
        };
    };
    let given = args.kubernetes_node.clone();
    let node = given
        .or_else(|| std::env::var(DOWNWARD).ok())
        .filter(|node| !node.is_empty());
    let Some(node) = node else {
        if asked {
            return Err(RunError::NoNode);
        }
        tracing::warn!(
            "pods are not named, records have their UIDs: {}",
            RunError::NoNode
        );
        return Ok(None);
    };
    if !is_node_name(&node) {
        return Err(RunError::NodeName { name: node });
    }
    let pods = Arc::new(Pods::default());
    let watch = Watch {
        access,
        node,
        chosen: Chosen {
            labels: args.kubernetes_labels.clone(),
            annotations: args.kubernetes_annotations.clone(),
        },
        pods: Arc::clone(&pods),
        pace: Pace::default(),
    };
    drop(runtime.spawn(watch.run()));
    Ok(Some(pods))
}

/// Variable that manifests fill with `spec.nodeName`.
#[cfg(feature = "kubernetes")]
const DOWNWARD: &str = "K8S_NODE_NAME";

/// This build has no client for the Kubernetes API.
#[cfg(not(feature = "kubernetes"))]
pub(super) fn watch(args: &RunArgs, _: &Handle) -> Result<Option<Arc<Pods>>, RunError> {
    match args.kubernetes {
        crate::cli::KubernetesArg::On => Err(RunError::NoKubernetes),
        _ => Ok(None),
    }
}
