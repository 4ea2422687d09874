//! The Services of the cluster by what leads to them, for readers to look into.
//!
//! - What several Services have is nobody's.
//! - Memory is bounded: [`FRONTENDS`], and of each Service its names only. A Service without address takes none.
//! - Readers hold the lock for two lookups, the watch for one Service's change.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Frontends that are remembered. Kubernetes is made for up to 10 000 Services.
pub const FRONTENDS: usize = 32_768;

/// Frontends that are remembered although no Service has them any more.
const FORMER: usize = 1024;

/// What records carry of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Service {
    /// UID.
    pub uid: Box<str>,
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
}

impl Service {
    /// Whether it has the other's name: the same one, or one that was made in its place.
    fn replaces(&self, other: &Self) -> bool {
        (&self.namespace, &self.name) == (&other.namespace, &other.name)
    }
}

/// What packets for a Service are sent to: a cluster IP, which is the Service's alone; or an address that nodes, load balancers and other
/// Services may have as well, where only the Service's port means it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    address: IpAddr,
    /// Protocol and port.
    port: Option<(u8, u16)>,
}

impl Frontend {
    /// All of an address.
    #[must_use]
    pub const fn whole(address: IpAddr) -> Self {
        Self { address, port: None }
    }

    /// One protocol and port of an address.
    #[must_use]
    pub const fn at(address: IpAddr, port: (u8, u16)) -> Self {
        Self {
            address,
            port: Some(port),
        }
    }
}

/// Whose an address and port are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// No Service's.
    Nobody,
    /// One Service's.
    One {
        /// This one's.
        service: Arc<Service>,
        /// It was another's before, while the agent looked: a connection may be older than the change.
        second_hand: bool,
    },
    /// It cannot be told.
    Several,
}

/// The store.
#[derive(Debug)]
pub struct Services {
    state: RwLock<State>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    by_uid: HashMap<Box<str>, Known>,
    by_frontend: HashMap<Frontend, Slot>,
    /// Slots without holder.
    former: usize,
}

#[derive(Debug)]
struct Known {
    service: Arc<Service>,
    frontends: Box<[Frontend]>,
}

#[derive(Debug)]
struct Slot {
    /// The one holder, or the last one.
    service: Arc<Service>,
    holders: u32,
    second_hand: bool,
}

impl Default for Services {
    fn default() -> Self {
        Self::new(FRONTENDS)
    }
}

impl Services {
    /// For so many frontends.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            state: RwLock::default(),
            capacity,
        }
    }

    /// Services with an address.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().by_uid.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whose an address is, or this protocol and port of it.
    #[must_use]
    pub fn find(&self, address: IpAddr, port: Option<(u8, u16)>) -> Holder {
        let state = self.read();
        let of_port = port.map(|port| state.find(Frontend::at(address, port)));
        match (state.find(Frontend::whole(address)), of_port) {
            (Holder::Nobody, Some(of_port)) => of_port,
            (whole, None | Some(Holder::Nobody)) => whole,
            _ => Holder::Several,
        }
    }

    /// A Service was added or changed. `false`: there is no room for it.
    pub fn see(&self, service: Service, frontends: Vec<Frontend>) -> bool {
        self.write().see(service, frontends.into(), self.capacity)
    }

    /// A Service was deleted.
    pub fn delete(&self, uid: &str) {
        self.write().leave(uid);
    }

    /// These are all Services that there are: the others were deleted while nobody looked.
    pub fn keep_only(&self, is_there: impl Fn(&str) -> bool) {
        let mut state = self.write();
        let gone: Vec<_> = state
            .by_uid
            .keys()
            .filter(|uid| !is_there(uid))
            .cloned()
            .collect();
        for uid in gone {
            state.leave(&uid);
        }
    }

    // A panic while the lock was held leaves at worst a frontend that is nobody's.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&self, frontend: Frontend) -> Holder {
        match self.by_frontend.get(&frontend) {
            None | Some(Slot { holders: 0, .. }) => Holder::Nobody,
            Some(slot) if slot.holders == 1 => Holder::One {
                service: Arc::clone(&slot.service),
                second_hand: slot.second_hand,
            },
            Some(_) => Holder::Several,
        }
    }

    fn see(&mut self, service: Service, frontends: Box<[Frontend]>, capacity: usize) -> bool {
        let before = self.by_uid.get(&service.uid);
        if before.is_some_and(|known| *known.service == service && known.frontends == frontends) {
            return true;
        }
        self.leave(&service.uid);
        if frontends.is_empty() {
            return true;
        }
        if self.by_frontend.len() - self.former + frontends.len() > capacity {
            return false;
        }
        let service = Arc::new(service);
        for frontend in &frontends {
            self.take(*frontend, &service);
        }
        let known = Known { service, frontends };
        self.by_uid.insert(known.service.uid.clone(), known);
        true
    }

    fn take(&mut self, frontend: Frontend, service: &Arc<Service>) {
        match self.by_frontend.entry(frontend) {
            Entry::Vacant(vacant) => {
                vacant.insert(Slot {
                    service: Arc::clone(service),
                    holders: 1,
                    second_hand: false,
                });
            }
            Entry::Occupied(mut occupied) => {
                let slot = occupied.get_mut();
                if slot.holders == 0 {
                    self.former -= 1;
                    slot.pass_to(service);
                }
                slot.holders += 1;
            }
        }
    }

    fn leave(&mut self, uid: &str) {
        let Some(Known { service, frontends }) = self.by_uid.remove(uid) else {
            return;
        };
        for frontend in &frontends {
            let Some(slot) = self.by_frontend.get_mut(frontend) else {
                continue;
            };
            slot.holders -= 1;
            slot.service = Arc::clone(&service);
            if slot.holders == 0 {
                self.former += 1;
            } else if slot.holders == 1 {
                let remaining = self
                    .by_uid
                    .values()
                    .find(|known| known.frontends.contains(frontend));
                if let Some(remaining) = remaining {
                    slot.pass_to(&remaining.service);
                }
            }
        }
        if self.former > FORMER {
            self.by_frontend.retain(|_, slot| slot.holders > 0);
            self.former = 0;
        }
    }
}

impl Slot {
    fn pass_to(&mut self, service: &Arc<Service>) {
        self.second_hand |= !service.replaces(&self.service);
        self.service = Arc::clone(service);
    }
}
