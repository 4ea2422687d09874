//! The sockets on a local port, remembered for a moment.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::flow::Flow;
use super::inet::{InetDiag, Socket};

/// How long a port's sockets are remembered. A socket that joins the port is noticed this late, unless the kernel names
/// it for the packet itself, which is noticed at once.
const LIFETIME: Duration = Duration::from_millis(100);
const MAX_PORTS: usize = 1024;
/// Dumps may take 1/5 of the time, after a burst of this.
const BURST: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    protocol: u8,
    port: u16,
    v6: bool,
}

/// Port tables of one network namespace.
#[derive(Debug)]
pub(super) struct Ports {
    known: HashMap<Key, (Instant, Vec<Socket>)>,
    budget: Budget,
}

impl Ports {
    pub(super) fn new() -> Self {
        Self {
            known: HashMap::new(),
            budget: Budget::new(5, BURST, Instant::now()),
        }
    }

    /// The sockets on the flow's local port; only listeners if `listening`. What is remembered is used only if `found`,
    /// the kernel's own answer for the packet, is in it. `None` if the kernel did not answer, or dumps have taken too much time already.
    pub(super) fn get(
        &mut self,
        inet: &mut InetDiag,
        flow: &Flow,
        listening: bool,
        found: Option<&Socket>,
    ) -> Option<&[Socket]> {
        let key = Key {
            protocol: flow.protocol,
            port: flow.local_port,
            v6: matches!(flow.local, IpAddr::V6(_)),
        };
        let now = Instant::now();
        let valid = self.known.get(&key).is_some_and(|(at, sockets)| {
            now.duration_since(*at) < LIFETIME
                && found.is_some_and(|found| sockets.iter().any(|socket| socket.cookie == found.cookie))
        });
        if !valid {
            if !self.budget.allows(now) {
                return None;
            }
            let dump = inet.on_port(flow.protocol, flow.local, flow.local_port, listening);
            self.budget.charge(now.elapsed());
            if self.known.len() == MAX_PORTS {
                self.known.clear();
            }
            self.known.insert(key, (now, dump.ok()?));
        }
        let (_, sockets) = self.known.get(&key)?;
        Some(sockets)
    }
}
