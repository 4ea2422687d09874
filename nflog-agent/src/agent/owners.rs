//! Which way owners are found, decided once at start.

use super::RunError;
use crate::nflog::{Entry, Family, Hook, Netns};
use crate::owner::{Attribution, Connection, LogTime, Lookup, Place, Probes, Reason, Sighting, SockDiag};
use crate::packet::Packet;

/// The owner source of one reader.
pub(super) enum Owners<'a> {
    /// The kernel probes; `older`: for sockets that they were not told of at start.
    Probes {
        lookup: Lookup<'a>,
        older: Option<Box<SockDiag>>,
    },
    /// Socket diagnostics in the reader's namespace.
    SockDiag(Box<SockDiag>),
}

impl<'a> Owners<'a> {
    /// The probes if there are any, else socket diagnostics in `netns`.
    pub(super) fn open(probes: Option<&'a Probes>, netns: &Netns) -> Result<Self, RunError> {
        let path = netns.file();
        let diag = || SockDiag::open(path.as_deref()).map(Box::new);
        let Some(probes) = probes else {
            return Ok(Self::SockDiag(diag()?));
        };
        Ok(Self::Probes {
            lookup: probes.lookup(netns.inode()?)?,
            older: match probes.seeded() {
                Ok(_) => None,
                // The probes answer for the rest without it.
                Err(_) => diag()
                    .inspect_err(|error| {
                        tracing::warn!("sockets older than the agent have no owner: {error}");
                    })
                    .ok(),
            },
        })
    }

    /// The owner of an entry's packet, which was logged in the interval `logged`.
    pub(super) fn find(&mut self, entry: &Entry<'_>, packet: &Packet, logged: LogTime) -> Attribution {
        if !matches!(entry.family(), Family::Inet | Family::Inet6) {
            return Attribution::Unowned(Reason::UnsupportedFamily);
        }
        let Some(hook) = entry.hook().and_then(inet_number) else {
            return Attribution::Unowned(Reason::UnsupportedFamily);
        };
        let place = Place {
            hook,
            indev: entry.indev(),
            outdev: entry.outdev(),
        };
        match self {
            Self::Probes { lookup, older } => {
                let sighting = Sighting {
                    hook,
                    packet,
                    payload: entry.network_payload(),
                    connection: connection(entry),
                    logged,
                };
                let answer = lookup.owner(&sighting).unwrap_or_else(|error| {
                    tracing::warn!("owner lookup: {error}");
                    Attribution::Unowned(Reason::Missed)
                });
                match (answer, older) {
                    (
                        Attribution::Unowned(Reason::OlderThanAgent | Reason::MapFull | Reason::NoSocket),
                        Some(diag),
                    ) => older_owner(diag, place, packet).unwrap_or(answer),
                    _ => answer,
                }
            }
            Self::SockDiag(diag) => diag.lookup(place, packet),
        }
    }
}

/// The owner of a socket that the probes do not know. What they said about the packet stands unless a process is found.
fn older_owner(diag: &mut SockDiag, place: Place, packet: &Packet) -> Option<Attribution> {
    Some(diag.lookup(place, packet)).filter(|found| found.owner().is_some())
}

/// The connection that a packet belongs to, if the kernel has attached it.
pub(super) fn connection<'a>(entry: &Entry<'a>) -> Option<Connection<'a>> {
    Some(Connection {
        state: entry.ct_state()?,
        entry: entry.conntrack()?,
    })
}

/// `NF_INET_*` of the hooks that have local sockets; ingress, before routing, has none.
const fn inet_number(hook: Hook) -> Option<u8> {
    match hook {
        Hook::Prerouting => Some(0),
        Hook::Input => Some(1),
        Hook::Forward => Some(2),
        Hook::Output => Some(3),
        Hook::Postrouting => Some(4),
        Hook::Ingress | Hook::Egress | Hook::Other(_) => None,
    }
}
