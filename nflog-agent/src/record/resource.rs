//! What all records of this agent share, and how a workload's own attributes go on top.
//!
//! Precedence, highest first: the workload's own attributes, the operator's (`OTEL_RESOURCE_ATTRIBUTES`), the host's.
//! `OTEL_SERVICE_NAME` names records whose workload has no name of its own; it never renames a workload.

use super::semconv::{self, Key};
use crate::workload::Workload;

/// Attributes of the host and of the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    attributes: Vec<(String, String)>,
    service_name: Option<String>,
}

impl Resource {
    /// Without any attribute.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets an attribute, over an earlier one of the same name. Empty values are unknown values: they set nothing.
    pub fn set(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        if name == semconv::SERVICE_NAME.name() {
            self.service_name = Some(value.to_owned());
            return;
        }
        self.attributes.retain(|(other, _)| other != name);
        self.attributes.push((name.to_owned(), value.to_owned()));
    }

    /// Name and value of each attribute of the agent itself, `service.name` last.
    pub fn of_agent(&self) -> impl Iterator<Item = (&str, &str)> {
        let version = (semconv::SERVICE_VERSION, env!("CARGO_PKG_VERSION"));
        let named = self.attributes.iter().any(|(name, _)| name == version.0);
        let attributes = self.attributes.iter();
        (!named)
            .then_some(version)
            .into_iter()
            .chain(attributes.map(|(name, value)| (name.as_str(), value.as_str())))
            .chain([(semconv::SERVICE_NAME.name(), self.fallback_name())])
    }

    /// Hands each attribute of a workload's Resource to `out`, every name once.
    pub(super) fn of_workload(&self, workload: &Workload, mut out: impl FnMut(&str, Value<'_>)) {
        for (name, value) in &self.attributes {
            let mut overridden = false;
            own(workload, |other, _| overridden |= other == name);
            if !overridden {
                out(name, Value::Text(value));
            }
        }
        own(workload, &mut out);
        let service = service_name(workload).unwrap_or_else(|| self.fallback_name());
        out(semconv::SERVICE_NAME.name(), Value::Text(service));
    }

    fn fallback_name(&self) -> &str {
        self.service_name.as_deref().unwrap_or(semconv::SCOPE)
    }
}

/// Value of a Resource's attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Texts(&'a [String]),
}

/// The workload's own attributes.
fn own(workload: &Workload, mut out: impl FnMut(&str, Value<'_>)) {
    let mut text = |key: Key, value: Option<&str>| {
        if let Some(value) = value {
            out(key.name(), Value::Text(value));
        }
    };
    text(semconv::CONTAINER_ID, workload.container_id.as_deref());
    text(semconv::CONTAINER_RUNTIME_NAME, workload.runtime);
    text(semconv::K8S_POD_UID, workload.pod_uid.as_deref());
    text(semconv::SYSTEMD_UNIT, workload.unit.as_deref());
    text(semconv::SYSTEMD_SLICE, workload.slice.as_deref());
    if let Some(pod) = workload.pod.as_deref() {
        let owners = &pod.owners;
        text(semconv::K8S_POD_NAME, Some(&pod.name));
        text(semconv::K8S_NAMESPACE_NAME, Some(&pod.namespace));
        text(semconv::K8S_NODE_NAME, pod.node.as_deref());
        text(semconv::K8S_DEPLOYMENT_NAME, owners.deployment.as_deref());
        text(semconv::K8S_REPLICASET_NAME, owners.replica_set.as_deref());
        text(semconv::K8S_STATEFULSET_NAME, owners.stateful_set.as_deref());
        text(semconv::K8S_DAEMONSET_NAME, owners.daemon_set.as_deref());
        text(semconv::K8S_CRONJOB_NAME, owners.cron_job.as_deref());
        text(semconv::K8S_JOB_NAME, owners.job.as_deref());
        for (name, value) in &pod.chosen {
            out(name, Value::Text(value));
        }
    }
    if let Some(container) = workload.container.as_deref() {
        let in_pod = workload.pod.is_some();
        let key = if in_pod {
            semconv::K8S_CONTAINER_NAME
        } else {
            semconv::CONTAINER_NAME
        };
        out(key.name(), Value::Text(&container.name));
        if let Some(image) = &container.image {
            out(semconv::CONTAINER_IMAGE_NAME.name(), Value::Text(&image.name));
            if !image.tags.is_empty() {
                out(semconv::CONTAINER_IMAGE_TAGS.name(), Value::Texts(&image.tags));
            }
        }
    }
}

/// The name of a pod's owner or of the pod; a systemd service's name. Scopes and slices are named after ids and sessions: as service names they would be noise.
fn service_name(workload: &Workload) -> Option<&str> {
    if let Some(pod) = &workload.pod {
        return Some(pod.service_name());
    }
    if workload.container_id.is_some() || workload.pod_uid.is_some() {
        return None;
    }
    workload
        .unit
        .as_deref()?
        .strip_suffix(".service")
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::workload::kubernetes::{Container, Image, Owners, Pod};

    fn collect(resource: &Resource, workload: &Workload) -> Vec<(String, String)> {
        let mut all = Vec::new();
        resource.of_workload(workload, |name, value| {
            let value = match value {
                Value::Text(text) => text.to_owned(),
                Value::Texts(texts) => format!("{texts:?}"),
            };
            all.push((name.to_owned(), value));
        });
        all
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_workload_overrides_the_operator_and_the_operator_the_host() {
        let mut resource = Resource::new();
        resource.set("host.name", "detected");
        resource.set("host.name", "told");
        resource.set("k8s.pod.uid", "nonsense");
        resource.set("empty", "");
        let workload = Workload {
            pod_uid: Some("uid".to_owned()),
            ..Workload::default()
        };
        assert_eq!(
            collect(&resource, &workload),
            [
                pair("host.name", "told"),
                pair("k8s.pod.uid", "uid"),
                pair("service.name", "nflog-agent")
            ]
        );
    }

    #[test]
    fn a_pod_has_its_names_and_those_of_its_owner_and_container() {
        let mut resource = Resource::new();
        resource.set("k8s.node.name", "told");
        resource.set("k8s.cluster.name", "c");
        let owners = Owners {
            deployment: Some("web".to_owned()),
            replica_set: Some("web-77".to_owned()),
            ..Owners::default()
        };
        let pod = Pod {
            namespace: "shop".to_owned(),
            name: "web-77-x".to_owned(),
            node: Some("n1".to_owned()),
            owners,
            chosen: vec![("k8s.pod.label.app".to_owned(), "w".to_owned())],
        };
        let container = Container {
            name: "app".to_owned(),
            image: Image::parse("r.example/web:v2"),
        };
        let workload = Workload {
            pod: Some(Arc::new(pod)),
            container: Some(Arc::new(container)),
            ..Workload::default()
        };
        assert_eq!(
            collect(&resource, &workload),
            [
                pair("k8s.cluster.name", "c"),
                pair("k8s.pod.name", "web-77-x"),
                pair("k8s.namespace.name", "shop"),
                pair("k8s.node.name", "n1"),
                pair("k8s.deployment.name", "web"),
                pair("k8s.replicaset.name", "web-77"),
                pair("k8s.pod.label.app", "w"),
                pair("k8s.container.name", "app"),
                pair("container.image.name", "r.example/web"),
                pair("container.image.tags", "[\"v2\"]"),
                pair("service.name", "web"),
            ]
        );
    }

    #[test]
    fn a_container_outside_of_kubernetes_has_the_name_that_its_engine_gave_it() {
        let workload = Workload {
            container_id: Some("c".to_owned()),
            container: Some(Arc::new(Container {
                name: "web".to_owned(),
                image: Image::parse("nginx:1.27"),
            })),
            ..Workload::default()
        };
        let expected = [
            pair("container.id", "c"),
            pair("container.name", "web"),
            pair("container.image.name", "nginx"),
            pair("container.image.tags", "[\"1.27\"]"),
            pair("service.name", "nflog-agent"),
        ];
        assert_eq!(collect(&Resource::new(), &workload), expected);
    }

    #[test]
    fn a_service_is_named_after_its_unit_and_nothing_else_is() {
        let mut resource = Resource::new();
        let unit = |unit: &str| Workload {
            unit: Some(unit.to_owned()),
            ..Workload::default()
        };
        let name = |resource: &Resource, workload: &Workload| collect(resource, workload).pop().unwrap().1;
        assert_eq!(name(&resource, &unit("ssh.service")), "ssh");
        assert_eq!(name(&resource, &unit("session-3.scope")), "nflog-agent");
        resource.set("service.name", "firewall");
        assert_eq!(name(&resource, &unit("ssh.service")), "ssh");
        assert_eq!(name(&resource, &unit("session-3.scope")), "firewall");
        assert_eq!(resource.of_agent().last(), Some(("service.name", "firewall")));
    }
}
