//! The part of a Pod of the API (`v1`) that is read. All else, such as `managedFields`, is skipped while it is parsed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::{Container, Controller, Image, KeyPattern, Observed, Owners, Pod, chosen};
use crate::record::semconv;

/// Annotation of a static pod's image in the API: the UID that the kubelet gave the pod itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Label that a Deployment gives its pods.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// A pod as the API server sends it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Object {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OwnerReference {
    api_version: String,
    kind: String,
    name: String,
    controller: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    host_network: Option<bool>,
    containers: Option<Vec<ContainerSpec>>,
    init_containers: Option<Vec<ContainerSpec>>,
    ephemeral_containers: Option<Vec<ContainerSpec>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerSpec {
    name: String,
    image: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<Ip>>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    #[serde(rename = "hostIPs")]
    host_ips: Option<Vec<Ip>>,
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Ip {
    ip: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerStatus {
    name: String,
    image: Option<String>,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    last_state: Option<State>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Terminated {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
}

/// Which labels and annotations records carry.
#[derive(Clone, Debug, Default)]
pub struct Chosen {
    /// Of labels.
    pub labels: Vec<KeyPattern>,
    /// Of annotations.
    pub annotations: Vec<KeyPattern>,
}

impl Object {
    pub(super) fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }

    /// UID as it is in cgroup paths: of a static pod the hash of its manifest, which its image in the API has as an annotation.
    ///
    /// The annotation counts only for what the node itself owns, and only if it is no UUID: it cannot take another pod's name.
    #[must_use]
    pub fn uid(&self) -> &str {
        let metadata = &self.metadata;
        let mirror = metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(MIRROR));
        let of_node = self
            .controller()
            .is_some_and(|owner| (owner.api_version, owner.kind) == ("v1", "Node"));
        let hash = mirror
            .filter(|hash| of_node && hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        hash.unwrap_or(&metadata.uid)
    }

    fn controller(&self) -> Option<Controller<'_>> {
        let owners = self.metadata.owner_references.iter().flatten();
        let controller = owners.into_iter().find(|owner| owner.controller == Some(true))?;
        Some(Controller {
            api_version: &controller.api_version,
            kind: &controller.kind,
            name: &controller.name,
        })
    }

    /// What is kept of it. `None` if it is no pod: without UID or name.
    #[must_use]
    pub fn observed(&self, wanted: &Chosen) -> Option<Observed> {
        let metadata = &self.metadata;
        if metadata.uid.is_empty() || metadata.name.is_empty() {
            return None;
        }
        let label = |key: &str| metadata.labels.as_ref()?.get(key).map(String::as_str);
        let created = metadata.creation_timestamp.as_deref();
        let mut pairs = chosen(
            semconv::K8S_POD_LABEL.name(),
            metadata.labels.iter().flatten(),
            &wanted.labels,
        );
        let annotations = metadata.annotations.iter().flatten();
        pairs.extend(chosen(
            semconv::K8S_POD_ANNOTATION.name(),
            annotations,
            &wanted.annotations,
        ));
        Some(Observed {
            uid: self.uid().to_owned(),
            pod: Pod {
                namespace: metadata.namespace.clone(),
                name: metadata.name.clone(),
                node: self.spec.node_name.clone().filter(|node| !node.is_empty()),
                owners: Owners::of(self.controller(), label(TEMPLATE_HASH), created),
                chosen: pairs,
            },
            containers: self.containers(),
            addresses: self.addresses(),
            of_node: addresses(self.status.host_ip.as_deref(), self.status.host_ips.as_deref()),
        })
    }

    /// Addresses that are this pod's and nobody else's. None in the host's network, which the pod shares; and none once it has ended or is
    /// to end, as the node gives them to other pods before the pod is gone from the API.
    fn addresses(&self) -> Vec<IpAddr> {
        let status = &self.status;
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if self.spec.host_network == Some(true) || ended || self.metadata.deletion_timestamp.is_some() {
            return Vec::new();
        }
        addresses(status.pod_ip.as_deref(), status.pod_ips.as_deref())
    }

    /// Id and names of every container that runs or ran last, in whichever list.
    fn containers(&self) -> Vec<(String, Container)> {
        let (spec, status) = (&self.spec, &self.status);
        let lists = [
            (&status.container_statuses, &spec.containers),
            (&status.init_container_statuses, &spec.init_containers),
            (&status.ephemeral_container_statuses, &spec.ephemeral_containers),
        ];
        let mut all: Vec<(String, Container)> = Vec::new();
        for (statuses, specs) in lists {
            for status in statuses.iter().flatten() {
                let spec = specs.iter().flatten().find(|spec| spec.name == status.name);
                let written = spec.and_then(|spec| spec.image.as_deref());
                let image = written
                    .and_then(Image::parse)
                    .or_else(|| Image::parse(status.image.as_deref()?));
                let last = status
                    .last_state
                    .as_ref()
                    .and_then(|last| last.terminated.as_ref());
                let ids = [
                    status.container_id.as_deref(),
                    last.and_then(|last| last.container_id.as_deref()),
                ];
                for id in ids.into_iter().flatten().filter_map(bare) {
                    if all.iter().all(|(other, _)| other != id) {
                        let container = Container {
                            name: status.name.clone(),
                            image: image.clone(),
                        };
                        all.push((id.to_owned(), container));
                    }
                }
            }
        }
        all
    }
}

fn addresses(one: Option<&str>, several: Option<&[Ip]>) -> Vec<IpAddr> {
    let several = several.unwrap_or_default().iter();
    let all = one.into_iter().chain(several.filter_map(|one| one.ip.as_deref()));
    let mut addresses: Vec<IpAddr> = all.filter_map(|text| text.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// A container id without its runtime: `containerd://ID`.
fn bare(id: &str) -> Option<&str> {
    let (_, id) = id.split_once("://")?;
    (!id.is_empty()).then_some(id)
}
