//! The part of a Service of the API (`v1`) that is read: who it is, and by which addresses it alone is meant.

use std::net::IpAddr;

use serde::Deserialize;

use super::{Frontend, Service};

/// Most frontends of one Service.
const MOST: usize = 64;

/// A Service as the API server sends it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceObject {
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
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    load_balancer: Option<LoadBalancer>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Ingress {
    ip: Option<String>,
    ip_mode: Option<String>,
}

impl ServiceObject {
    pub(super) fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }

    /// Its UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.metadata.uid
    }

    /// Who it is. `None` if it is no Service: without UID or name.
    #[must_use]
    pub fn service(&self) -> Option<Service> {
        let Metadata {
            name, namespace, uid, ..
        } = &self.metadata;
        let is_one = !uid.is_empty() && !name.is_empty();
        is_one.then(|| Service {
            uid: uid.as_str().into(),
            namespace: namespace.as_str().into(),
            name: name.as_str().into(),
        })
    }

    /// What leads to it, in order. Nothing where it has no address of its own, headless or `ExternalName`: kube-proxy serves no other
    /// address of such a one either. At most 64.
    #[must_use]
    pub fn frontends(&self) -> Vec<Frontend> {
        let spec = &self.spec;
        let several = spec.cluster_ips.iter().flatten();
        let cluster = addresses(spec.cluster_ip.iter().chain(several));
        if cluster.is_empty() || spec.kind.as_deref() == Some("ExternalName") {
            return Vec::new();
        }
        let mut frontends: Vec<_> = cluster.into_iter().map(Frontend::whole).collect();
        for address in self.shared() {
            frontends.extend(self.ports().map(|port| Frontend::at(address, port)));
        }
        frontends.sort_unstable();
        frontends.dedup();
        frontends.truncate(MOST);
        frontends
    }

    /// Addresses that others may have, too: a load balancer's and external ones. Not of one that a load balancer keeps for itself.
    fn shared(&self) -> Vec<IpAddr> {
        let balancer = self.status.load_balancer.iter();
        let ingress = balancer.flat_map(|balancer| balancer.ingress.iter().flatten());
        let balanced = ingress
            .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|ingress| ingress.ip.as_ref());
        addresses(self.spec.external_ips.iter().flatten().chain(balanced))
    }

    fn ports(&self) -> impl Iterator<Item = (u8, u16)> {
        self.spec.ports.iter().flatten().filter_map(|port| {
            let protocol = match port.protocol.as_deref() {
                None | Some("" | "TCP") => 6,
                Some("UDP") => 17,
                Some("SCTP") => 132,
                Some(_) => return None,
            };
            Some((protocol, port.port?))
        })
    }
}

fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    texts.filter_map(|text| text.parse().ok()).collect()
}
