//! What all records of this agent share, and how a workload's own attributes go on top.
//!
//! Precedence, highest first: the workload's own attributes, the operator's (`OTEL_RESOURCE_ATTRIBUTES`), the host's.
//! `OTEL_SERVICE_NAME` names records whose workload has no name of its own; it never renames a workload.

use super::semconv;
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
        self.attributes
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .chain([(semconv::SERVICE_NAME.name(), self.fallback_name())])
    }

    /// Hands each attribute of a workload's Resource to `out`, every name once.
    pub(super) fn of_workload(&self, workload: &Workload, mut out: impl FnMut(&str, &str)) {
        let own = [
            (semconv::CONTAINER_ID, workload.container_id.as_deref()),
            (semconv::CONTAINER_RUNTIME_NAME, workload.runtime),
            (semconv::K8S_POD_UID, workload.pod_uid.as_deref()),
            (semconv::SYSTEMD_UNIT, workload.unit.as_deref()),
        ];
        let own = own
            .iter()
            .filter_map(|(key, value)| Some((key.name(), (*value)?)));
        for (name, value) in &self.attributes {
            if own.clone().all(|(other, _)| other != name) {
                out(name, value);
            }
        }
        for (name, value) in own {
            out(name, value);
        }
        out(
            semconv::SERVICE_NAME.name(),
            service_name(workload).unwrap_or_else(|| self.fallback_name()),
        );
    }

    fn fallback_name(&self) -> &str {
        self.service_name.as_deref().unwrap_or(semconv::SCOPE)
    }
}

/// A systemd service's name. Scopes and slices are named after ids and sessions: as service names they would be noise.
fn service_name(workload: &Workload) -> Option<&str> {
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
    use super::*;

    fn collect(resource: &Resource, workload: &Workload) -> Vec<(String, String)> {
        let mut all = Vec::new();
        resource.of_workload(workload, |name, value| {
            all.push((name.to_owned(), value.to_owned()));
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
