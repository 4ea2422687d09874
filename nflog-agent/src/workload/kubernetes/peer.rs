//! Whose an address is, among the pods of this node.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Pod;

/// A pod at the other end of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its UID.
    pub uid: Box<str>,
    /// Its names.
    pub pod: Arc<Pod>,
}

impl Peer {
    /// The pod with this UID.
    #[must_use]
    pub fn new(uid: &str, pod: &Arc<Pod>) -> Self {
        Self {
            uid: uid.into(),
            pod: Arc::clone(pod),
        }
    }
}

/// Pods by address. One that several pods have is nobody's, as the node's own are.
#[derive(Clone, Debug, Default)]
pub struct Addresses(HashMap<IpAddr, Option<Peer>>);

impl Addresses {
    /// The one pod with this address.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<&Peer> {
        self.0.get(&address)?.as_ref()
    }

    /// Whether a pod, several, or the node has this address.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.0.contains_key(&address)
    }

    /// Takes in that the node has an address.
    pub(super) fn withhold(&mut self, address: IpAddr) {
        self.0.insert(address, None);
    }

    /// Takes in that a pod has an address.
    pub(super) fn insert(&mut self, address: IpAddr, peer: impl FnOnce() -> Peer) {
        self.0
            .entry(address)
            .and_modify(|known| *known = None)
            .or_insert_with(|| Some(peer()));
    }
}
