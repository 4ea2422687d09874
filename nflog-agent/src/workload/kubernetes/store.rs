//! The pods of this node, for readers to look into.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use super::{Addresses, Container, Peer, Pod};

/// Pods that are remembered, those that are gone included. A node has 110 by default, and hardly more than 500.
pub const CAPACITY: usize = 2048;

/// How long a pod is remembered after it was deleted.
pub const LINGER: Duration = Duration::from_secs(600);

/// Containers of a pod that are remembered after the API server names them no more: earlier ones of a container that restarts.
const FORMER: usize = 16;

/// A pod as it was just seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// UID, as it is in cgroup paths.
    pub uid: String,
    /// What records carry of it.
    pub pod: Pod,
    /// Full ids and names of its containers.
    pub containers: Vec<(String, Container)>,
    /// Addresses that are the pod's alone.
    pub addresses: Vec<IpAddr>,
    /// Addresses of its node.
    pub of_node: Vec<IpAddr>,
}

/// What is known of a container's, or a process's, pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The container, if the API server has named it by now.
    pub container: Option<Arc<Container>>,
}

/// The store. Lookups and changes hold a lock for operations in memory only.
#[derive(Debug)]
pub struct Pods {
    state: RwLock<State>,
    /// Counts the changes of what lookups answer.
    generation: AtomicU64,
    /// The same for addresses.
    moves: AtomicU64,
    capacity: usize,
    linger: Duration,
}

#[derive(Debug, Default)]
struct State {
    by_uid: HashMap<String, Known>,
    /// Container ids to pod UIDs.
    by_container: HashMap<String, String>,
    /// Made when it is asked for, after a change.
    by_address: Option<Arc<Addresses>>,
}

#[derive(Debug)]
struct Known {
    pod: Arc<Pod>,
    addresses: Vec<IpAddr>,
    of_node: Vec<IpAddr>,
    containers: Vec<(String, Arc<Container>)>,
    gone: Option<Instant>,
}

impl Default for Pods {
    fn default() -> Self {
        Self::new(CAPACITY, LINGER)
    }
}

impl Pods {
    /// For `capacity` pods, each remembered for `linger` after it was deleted.
    #[must_use]
    pub fn new(capacity: usize, linger: Duration) -> Self {
        Self {
            state: RwLock::default(),
            generation: AtomicU64::new(0),
            moves: AtomicU64::new(0),
            capacity,
            linger,
        }
    }

    /// Changes whenever a lookup may have another answer than before.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Changes whenever [`Pods::addresses`] may have another answer than before.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    /// Whose which address is: of the pods that are there, not of those that are remembered.
    #[must_use]
    pub fn addresses(&self) -> Arc<Addresses> {
        if let Some(known) = &self.read().by_address {
            return Arc::clone(known);
        }
        self.write().addresses()
    }

    /// Pods that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().by_uid.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pod of a cgroup path. A UID decides alone; a container id without one is enough, too.
    #[must_use]
    pub fn find(&self, uid: Option<&str>, container_id: Option<&str>) -> Option<Found> {
        let state = self.read();
        let uid = match uid {
            Some(uid) => uid,
            None => state.by_container.get(container_id?)?,
        };
        let known = state.by_uid.get(uid)?;
        let container = container_id.and_then(|id| known.containers.iter().find(|(other, _)| other == id));
        Some(Found {
            pod: Arc::clone(&known.pod),
            container: container.map(|(_, container)| Arc::clone(container)),
        })
    }

    /// A pod was added or changed. `false`: there is no room for it.
    pub fn see(&self, observed: Observed, now: Instant) -> bool {
        let mut state = self.write();
        state.expire(self.linger, now);
        let (fits, changed) = state.see(observed, self.capacity);
        self.publish(&state, changed);
        fits
    }

    /// A pod was deleted.
    pub fn delete(&self, uid: &str, now: Instant) {
        let mut state = self.write();
        state.leave(|other| other == uid, now);
        state.expire(self.linger, now);
        self.publish(&state, false);
    }

    /// These are all pods that there are: the others were deleted while nobody looked.
    pub fn keep_only(&self, is_there: impl Fn(&str) -> bool, now: Instant) {
        let mut state = self.write();
        state.leave(|uid| !is_there(uid), now);
        state.expire(self.linger, now);
        self.publish(&state, false);
    }

    /// Called while the change is still locked, so that whoever sees the new number sees the change.
    fn publish(&self, state: &State, changed: bool) {
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
        if state.by_address.is_none() {
            self.moves.fetch_add(1, Ordering::Release);
        }
    }

    // A panic while the lock was held leaves a store that is true for each pod.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn addresses(&mut self) -> Arc<Addresses> {
        let by_uid = &self.by_uid;
        let made = self.by_address.get_or_insert_with(|| {
            let there = by_uid.iter().filter(|(_, known)| known.gone.is_none());
            let mut all = Addresses::default();
            for (uid, known) in there {
                for address in &known.addresses {
                    all.insert(*address, || Peer::new(uid, &known.pod));
                }
                for address in &known.of_node {
                    all.withhold(*address);
                }
            }
            Arc::new(all)
        });
        Arc::clone(made)
    }

    /// These pods are gone from now on.
    fn leave(&mut self, is_gone: impl Fn(&str) -> bool, now: Instant) {
        for (uid, known) in &mut self.by_uid {
            if known.gone.is_none() && is_gone(uid) {
                known.gone = Some(now);
                if !(known.addresses.is_empty() && known.of_node.is_empty()) {
                    self.by_address = None;
                }
            }
        }
    }

    /// Whether it fits, and whether it changes an answer.
    fn see(&mut self, observed: Observed, capacity: usize) -> (bool, bool) {
        let Observed {
            uid,
            pod,
            containers,
            addresses,
            of_node,
        } = observed;
        if !self.by_uid.contains_key(&uid) && self.by_uid.len() >= capacity && !self.forget_one() {
            return (false, false);
        }
        let before = self.by_uid.remove(&uid);
        let mut next: Vec<_> = containers
            .into_iter()
            .map(|(id, container)| (id, Arc::new(container)))
            .collect();
        let mut same = false;
        if let Some(before) = &before {
            let room = next.len() + FORMER;
            for (id, container) in &before.containers {
                if next.len() < room && next.iter().all(|(other, _)| other != id) {
                    next.push((id.clone(), Arc::clone(container)));
                }
            }
            same = *before.pod == pod && before.containers == next;
            self.forget_containers(&before.containers, &uid);
        }
        let stays = before.as_ref().is_some_and(|before| {
            *before.pod == pod
                && (&before.addresses, &before.of_node) == (&addresses, &of_node)
                && before.gone.is_none()
        });
        if !stays {
            self.by_address = None;
        }
        for (id, _) in &next {
            self.by_container.insert(id.clone(), uid.clone());
        }
        let pod = match before {
            Some(before) if *before.pod == pod => before.pod,
            _ => Arc::new(pod),
        };
        let known = Known {
            pod,
            addresses,
            of_node,
            containers: next,
            gone: None,
        };
        self.by_uid.insert(uid, known);
        (true, !same)
    }

    /// Makes room: of those that are gone, the one that has been for longest.
    fn forget_one(&mut self) -> bool {
        let gone = self
            .by_uid
            .iter()
            .filter_map(|(uid, known)| Some((known.gone?, uid)));
        let Some(uid) = gone.min().map(|(_, uid)| uid.clone()) else {
            return false;
        };
        self.forget(&uid);
        true
    }

    fn expire(&mut self, linger: Duration, now: Instant) {
        let over = |known: &Known| {
            known
                .gone
                .is_some_and(|gone| now.saturating_duration_since(gone) >= linger)
        };
        let uids: Vec<_> = self
            .by_uid
            .iter()
            .filter(|(_, known)| over(known))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in uids {
            self.forget(&uid);
        }
    }

    fn forget(&mut self, uid: &str) {
        if let Some(known) = self.by_uid.remove(uid) {
            self.forget_containers(&known.containers, uid);
        }
    }

    fn forget_containers(&mut self, containers: &[(String, Arc<Container>)], uid: &str) {
        for (id, _) in containers {
            if self.by_container.get(id).is_some_and(|owner| owner == uid) {
                self.by_container.remove(id);
            }
        }
    }
}
