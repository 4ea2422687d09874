//! What records carry of a pod and of a container in it.

use super::{Image, Owners};

/// A pod, as the API server names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Node that it was bound to.
    pub node: Option<String>,
    /// What it belongs to.
    pub owners: Owners,
    /// The labels and annotations that were chosen: full attribute name (`k8s.pod.label.KEY`) and value.
    pub chosen: Vec<(String, String)>,
}

/// A container of a pod: an init, ephemeral or ordinary one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Container {
    /// Name in the pod's specification.
    pub name: String,
    /// The image of the specification, if it is a reference and not a bare digest.
    pub image: Option<Image>,
}

impl Pod {
    /// Name for the workload as a service: of the topmost owner that is known, else the pod's own.
    #[must_use]
    pub fn service_name(&self) -> &str {
        self.owners.topmost().unwrap_or(&self.name)
    }
}
