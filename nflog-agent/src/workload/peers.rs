//! The other end of a packet: a pod of this node, where its address can mean no other.
//!
//! An address says something only in the network that it belongs to, and pods' addresses belong to the cluster's. So the packet must
//! have been logged in the node's own namespace, or its near end must be the owner's: the one address, of the owner's own pod. A
//! namespace inside of a pod (kind, Docker), another bridge's or a test's may use the same addresses for others, and gets no answer.
//! Neither does an address that several pods have, that a pod shares with its node, or whose pod has ended or is to end.

use std::net::IpAddr;
use std::sync::Arc;

use super::Workload;
use super::kubernetes::{Addresses, Peer, Pods};
use crate::owner::End;
use crate::packet::Packet;

/// The view of one reader.
pub struct Peers {
    /// `None`: no pods are known.
    pods: Option<Arc<Pods>>,
    addresses: Arc<Addresses>,
    /// When they were fetched: [`Pods::moves`].
    moves: Option<u64>,
    /// The reader's namespace is the node's.
    on_node: bool,
}

impl Peers {
    /// `on_node`: packets are logged in the node's own network namespace.
    #[must_use]
    pub fn new(pods: Option<Arc<Pods>>, on_node: bool) -> Self {
        Self {
            pods,
            addresses: Arc::default(),
            moves: None,
            on_node,
        }
    }

    /// The pod at the end of the packet that is not `near`. `owner`: the workload of the packet's owner, whose the near end is.
    pub fn find(&mut self, packet: &Packet, near: Option<End>, owner: Option<&Workload>) -> Option<&Peer> {
        let pods = self.pods.as_ref()?;
        let (near, far) = match near? {
            End::Source => (packet.source?, packet.destination?),
            End::Destination => (packet.destination?, packet.source?),
        };
        // Read before the lookup: a change in between is looked up again.
        let moves = pods.moves();
        if self.moves != Some(moves) {
            self.addresses = pods.addresses();
            self.moves = Some(moves);
        }
        let peer = self.addresses.find(far)?;
        self.is_in_the_network(near, owner).then_some(peer)
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::packet::dissect;
    use crate::workload::kubernetes::{Observed, Pod};

    const NEAR: [u8; 4] = [10, 1, 0, 1];
    const FAR: [u8; 4] = [10, 1, 0, 2];

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
        Some(peers.find(&packet(), near, owner)?.pod.name.clone())
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
            let mut peers = Peers::new(Some(Arc::clone(&pods)), on_node);
            let found = name(&mut peers, Some(End::Source), owner);
            assert_eq!(&found, expected, "{on_node} {owner:?}");
        }
        let mut peers = Peers::new(Some(Arc::clone(&pods)), true);
        let found = name(&mut peers, Some(End::Destination), None);
        assert_eq!(found.as_deref(), Some("pod-near"));
        assert_eq!(name(&mut peers, None, None), None);
        assert_eq!(name(&mut Peers::new(None, true), Some(End::Source), None), None);
    }

    #[test]
    fn an_address_is_followed_as_it_goes_from_pod_to_pod() {
        let pods = Arc::new(Pods::default());
        let mut peers = Peers::new(Some(Arc::clone(&pods)), true);
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
}
