//! Names of network devices by index, in the namespace of the entries.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketType, socket};

use crate::nflog::{Netns, NetnsError};

/// A device may be renamed, and an index may be given to another device: names are asked again after this time.
const FRESH: Duration = Duration::from_secs(2);
/// Indices remembered. A host has tens of devices; more than this is a storm of short-lived ones.
const MAX: usize = 4096;

/// Looks up device names. One `ioctl` per device and two seconds; it does not sleep.
pub(super) struct Devices {
    socket: Option<OwnedFd>,
    names: HashMap<u32, (Instant, Option<String>)>,
}

impl Devices {
    /// For the devices of `netns`. Without a socket (no IPv4 in the kernel) no device has a name.
    pub(super) fn open(netns: &Netns) -> Result<Self, NetnsError> {
        let socket = netns.run(|| socket(AddressFamily::INET, SocketType::DGRAM, None))?;
        let socket =
            socket.inspect_err(|error| tracing::warn!("no device names: cannot open a UDP socket: {error}"));
        Ok(Self {
            socket: socket.ok(),
            names: HashMap::new(),
        })
    }

    /// Asks for the name of `index`, unless it is known and fresh.
    pub(super) fn refresh(&mut self, index: u32, now: Instant) {
        if self
            .names
            .get(&index)
            .is_some_and(|(asked, _)| now.duration_since(*asked) < FRESH)
        {
            return;
        }
        if self.names.len() >= MAX {
            self.names.clear();
        }
        let name = self
            .socket
            .as_ref()
            .and_then(|socket| index_to_name(socket, index).ok());
        self.names.insert(index, (now, name));
    }

    /// The name of `index` as last refreshed.
    pub(super) fn name(&self, index: u32) -> Option<&str> {
        self.names.get(&index)?.1.as_deref()
    }
}
