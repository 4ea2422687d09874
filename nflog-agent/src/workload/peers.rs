//! The other end of a packet: a pod of this node, or a Service of the cluster, where its address can mean no other.
//!
//! An address says something only in the network that it belongs to, and these belong to the cluster's. So the packet must
//! have been logged in the node's own namespace, or its near end must be the owner's: the one address, of the owner's own pod. A
//! namespace inside of a pod (kind, Docker), another bridge's or a test's may use the same addresses for others, and gets no answer.
//! Neither does an address that several pods have, that a pod shares with its node, or whose pod has ended or is to end; nor one that
//! several Services have, or a Service and a pod or the node.
//!
//! A connection to a Service goes on to a pod, so most packets have the pod's address. Conntrack knows where the connection was made to.

use std::net::IpAddr;
use std::sync::Arc;

use super::Workload;
use super::kubernetes::{Addresses, Holder, Peer, Pods, Service, Services};
use crate::owner::{Connection, End};
use crate::packet::{Packet, Transport};

/// What is known of a packet's other end.
#[derive(Clone, Debug, Default)]
pub struct Other<'a> {
    /// The pod that has the address.
    pub pod: Option<&'a Peer>,
    /// The Service that has it, or that the near end has reached this other end by. In the namespace of the pod, if there is one.
    pub service: Option<Arc<Service>>,
}

/// The view of one reader.
pub struct Peers {
    /// `None`: no pods are known.
    pods: Option<Arc<Pods>>,
    /// `None`: no Services are.
    services: Option<Arc<Services>>,
    addresses: Arc<Addresses>,
    /// When they were fetched: [`Pods::moves`].
    moves: Option<u64>,
    /// The reader's namespace is the node's.
    on_node: bool,
}

impl Peers {
    /// `on_node`: packets are logged in the node's own network namespace.
    #[must_use]
    pub fn new(pods: Option<Arc<Pods>>, services: Option<Arc<Services>>, on_node: bool) -> Self {
        Self {
            pods,
            services,
            addresses: Arc::default(),
            moves: None,
            on_node,
        }
    }

    /// What is at the end of the packet that is not `near`. `owner`: the workload of the packet's owner, whose the near end is.
    /// `connection`: the packet's, if it is asked for.
    pub fn find<'c>(
        &mut self,
        packet: &Packet,
        near: Option<End>,
        owner: Option<&Workload>,
        connection: impl FnOnce() -> Option<Connection<'c>>,
    ) -> Other<'_> {
        self.refresh();
        self.found(packet, near, owner, connection).unwrap_or_default()
    }

    fn refresh(&mut self) {
        let Some(pods) = &self.pods else {
            return;
        };
        // Read before the lookup: a change in between is looked up again.
        let moves = pods.moves();
        if self.moves != Some(moves) {
            self.addresses = pods.addresses();
            self.moves = Some(moves);
        }
    }

    fn found<'c>(
        &self,
        packet: &Packet,
        near: Option<End>,
        owner: Option<&Workload>,
        connection: impl FnOnce() -> Option<Connection<'c>>,
    ) -> Option<Other<'_>> {
        self.pods.as_ref()?;
        let near = near?;
        let (by, far) = match near {
            End::Source => (packet.source?, packet.destination?),
            End::Destination => (packet.destination?, packet.source?),
        };
        let is_known = |by| self.is_in_the_network(by, owner);
        let held = self.holder(far, far_port(packet, near));
        let pod = self.addresses.find(far).filter(|_| held == Holder::Nobody);
        let pod = pod.filter(|_| is_known(by));
        let service = match held {
            Holder::One { service, .. } => Some(service).filter(|_| is_known(by)),
            Holder::Nobody | Holder::Several => self.reached(packet, near, owner, connection),
        };
        let fits = |service: &Arc<Service>| pod.is_none_or(|peer| *peer.pod.namespace == *service.namespace);
        Some(Other {
            pod,
            service: service.filter(fits),
        })
    }

    /// The Service that the connection was made to.
    fn reached<'c>(
        &self,
        packet: &Packet,
        near: End,
        owner: Option<&Workload>,
        connection: impl FnOnce() -> Option<Connection<'c>>,
    ) -> Option<Arc<Service>> {
        self.services.as_ref()?;
        let made = connection()?.destination(near, packet)?;
        match self.holder(made.address, made.port) {
            // A second-hand address: the connection may have been made to the Service before.
            Holder::One {
                service,
                second_hand: false,
            } => Some(service).filter(|_| self.is_in_the_network(made.by, owner)),
            _ => None,
        }
    }

    fn holder(&self, address: IpAddr, port: Option<(u8, u16)>) -> Holder {
        let Some(services) = &self.services else {
            return Holder::Nobody;
        };
        match services.find(address, port) {
            Holder::One { .. } if self.addresses.has(address) => Holder::Several,
            held => held,
        }
    }

    fn is_in_the_network(&self, near: IpAddr, owner: Option<&Workload>) -> bool {
        let pod = owner.and_then(|workload| workload.pod_uid.as_deref());
        let of_address = self.addresses.find(near).map(|peer| &*peer.uid);
        match (pod, of_address) {
            // Two different pods: the owner's namespace has addresses of its own.
            (Some(pod), Some(other)) => pod == other,
            _ => self.on_node,
        }
    }
}

fn far_port(packet: &Packet, near: End) -> Option<(u8, u16)> {
    let (Transport::Tcp {
        source, destination, ..
    }
    | Transport::Ports { source, destination }) = packet.transport
    else {
        return None;
    };
    let port = match near {
        End::Source => destination,
        End::Destination => source,
    };
    Some((packet.protocol?, port))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::packet::dissect;
    use crate::workload::kubernetes::{Frontend, Observed, Pod};

    const NEAR: [u8; 4] = [10, 1, 0, 1];
    const FAR: [u8; 4] = [10, 1, 0, 2];
    const NODE: [u8; 4] = [192, 0, 2, 1];

    fn packet() -> Packet {
        Packet {
            source: Some(NEAR.into()),
            destination: Some(FAR.into()),
            ..dissect(None, 2, &[])
        }
    }

    fn see(pods: &Pods, uid: &str, addresses: &[[u8; 4]]) {
        let observed = Observed {
            uid: uid.to_owned(),
            pod: Pod {
                name: format!("pod-{uid}"),
                ..Pod::default()
            },
            containers: Vec::new(),
            addresses: addresses.iter().map(|&address| address.into()).collect(),
            of_node: vec![NODE.into()],
        };
        assert!(pods.see(observed, Instant::now()));
    }

    fn of_pod(uid: Option<&str>) -> Workload {
        Workload {
            pod_uid: uid.map(str::to_owned),
            ..Workload::default()
        }
    }

    fn name(peers: &mut Peers, near: Option<End>, owner: Option<&Workload>) -> Option<String> {
        let other = peers.find(&packet(), near, owner, || None);
        Some(other.pod?.pod.name.clone())
    }

    #[test]
    fn the_far_end_is_named_on_the_node_and_in_the_owners_own_network() {
        let pods = Arc::new(Pods::default());
        see(&pods, "near", &[NEAR]);
        see(&pods, "far", &[FAR]);
        let far = Some("pod-far".to_owned());
        let (own, other) = (of_pod(Some("near")), of_pod(Some("other")));
        for (on_node, owner, expected) in [
            (true, None, &far),
            (true, Some(&own), &far),
            (true, Some(&of_pod(None)), &far),
            // Its pod has another address: it is in a namespace of its own.
            (true, Some(&other), &None),
            (false, Some(&own), &far),
            (false, Some(&other), &None),
            (false, Some(&of_pod(None)), &None),
            (false, None, &None),
        ] {
            let mut peers = Peers::new(Some(Arc::clone(&pods)), None, on_node);
            let found = name(&mut peers, Some(End::Source), owner);
            assert_eq!(&found, expected, "{on_node} {owner:?}");
        }
        let mut peers = Peers::new(Some(Arc::clone(&pods)), None, true);
        let found = name(&mut peers, Some(End::Destination), None);
        assert_eq!(found.as_deref(), Some("pod-near"));
        assert_eq!(name(&mut peers, None, None), None);
        assert_eq!(
            name(&mut Peers::new(None, None, true), Some(End::Source), None),
            None
        );
    }

    #[test]
    fn an_address_is_followed_as_it_goes_from_pod_to_pod() {
        let pods = Arc::new(Pods::default());
        let mut peers = Peers::new(Some(Arc::clone(&pods)), None, true);
        let mut found = || name(&mut peers, Some(End::Source), None);
        assert_eq!(found(), None);
        see(&pods, "one", &[FAR]);
        assert_eq!(found().as_deref(), Some("pod-one"));
        see(&pods, "two", &[FAR, NEAR]);
        assert_eq!(found(), None, "two pods have it");
        pods.delete("one", Instant::now());
        assert_eq!(found().as_deref(), Some("pod-two"));
        see(&pods, "two", &[NEAR]);
        assert_eq!(found(), None, "it is remembered under its UID alone");
        see(&pods, "one", &[FAR]);
        assert_eq!(found().as_deref(), Some("pod-one"), "it was not gone");
        pods.keep_only(|uid| uid == "two", Instant::now());
        assert_eq!(found(), None);
    }

    fn see_service(services: &Services, name: &str, frontends: &[Frontend]) {
        let service = Service {
            uid: format!("uid-{name}").into(),
            namespace: "".into(),
            name: name.into(),
        };
        assert!(services.see(service, frontends.to_vec()));
    }

    fn service(peers: &mut Peers, packet: &Packet, owner: Option<&Workload>) -> Option<String> {
        let other = peers.find(packet, Some(End::Source), owner, || None);
        Some(other.service?.name.to_string())
    }

    #[test]
    fn a_service_is_named_where_its_address_is_its_alone() {
        let (pods, services) = (Arc::new(Pods::default()), Arc::new(Services::default()));
        see(&pods, "near", &[NEAR]);
        let peers = |on_node| Peers::new(Some(Arc::clone(&pods)), Some(Arc::clone(&services)), on_node);
        let whole = Frontend::whole(FAR.into());
        see_service(&services, "web", &[whole]);
        let web = Some("web".to_owned());
        let own = of_pod(Some("near"));
        assert_eq!(service(&mut peers(true), &packet(), None), web);
        assert_eq!(service(&mut peers(false), &packet(), Some(&own)), web);
        assert_eq!(service(&mut peers(false), &packet(), None), None);
        let stranger = of_pod(Some("other"));
        assert_eq!(service(&mut peers(true), &packet(), Some(&stranger)), None);

        see_service(&services, "other", &[whole]);
        assert_eq!(service(&mut peers(true), &packet(), None), None, "two Services");
        services.delete("uid-other");
        assert_eq!(service(&mut peers(true), &packet(), None), web);
        see(&pods, "far", &[FAR]);
        let mut both = peers(true);
        assert_eq!(service(&mut both, &packet(), None), None, "a pod has it, too");
        assert_eq!(name(&mut both, Some(End::Source), None), None);
    }

    #[test]
    fn a_nodes_address_is_no_services_and_a_shared_one_only_with_the_port() {
        let (pods, services) = (Arc::new(Pods::default()), Arc::new(Services::default()));
        see(&pods, "near", &[NEAR]);
        let mut peers = Peers::new(Some(pods), Some(Arc::clone(&services)), true);
        see_service(&services, "of-node", &[Frontend::at(NODE.into(), (6, 443))]);
        see_service(&services, "web", &[Frontend::at(FAR.into(), (6, 443))]);
        see_service(&services, "mail", &[Frontend::at(FAR.into(), (6, 25))]);
        let to = |address: [u8; 4], protocol, port| Packet {
            destination: Some(address.into()),
            protocol: Some(protocol),
            transport: Transport::Ports {
                source: 40_000,
                destination: port,
            },
            ..packet()
        };
        for (packet, expected) in [
            (to(FAR, 6, 443), Some("web")),
            (to(FAR, 6, 25), Some("mail")),
            (to(FAR, 17, 443), None),
            (to(FAR, 6, 10250), None),
            (packet(), None),
            (to(NODE, 6, 443), None),
        ] {
            let found = service(&mut peers, &packet, None);
            assert_eq!(found.as_deref(), expected, "{packet:?}");
        }
    }
}
