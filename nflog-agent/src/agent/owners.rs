//! Which way owners are found, decided once at start.

use std::path::Path;

use crate::nflog::{Entry, Family, Hook};
use crate::owner::{Attribution, Connection, DiagError, Lookup, Place, Reason, SockDiag};
use crate::packet::Packet;

/// The owner source of one reader.
pub(super) enum Owners<'a> {
    /// The kernel probes.
    Probes(Lookup<'a>),
    /// Socket diagnostics in the reader's namespace.
    SockDiag(Box<SockDiag>),
}

impl<'a> Owners<'a> {
    /// The probes if there are any, else socket diagnostics in `netns`.
    pub(super) fn open(probes: Option<Lookup<'a>>, netns: Option<&Path>) -> Result<Self, DiagError> {
        match probes {
            Some(lookup) => Ok(Self::Probes(lookup)),
            None => Ok(Self::SockDiag(Box::new(SockDiag::open(netns)?))),
        }
    }

    /// The owner of an entry's packet. `logged_after`: lower bound of the time of its log call, `CLOCK_MONOTONIC` ns.
    pub(super) fn find(
        &mut self,
        netns: u32,
        entry: &Entry<'_>,
        packet: &Packet,
        logged_after: u64,
    ) -> Attribution {
        if !matches!(entry.family(), Family::Inet | Family::Inet6) {
            return Attribution::Unowned(Reason::UnsupportedFamily);
        }
        let Some(hook) = entry.hook().and_then(inet_number) else {
            return Attribution::Unowned(Reason::UnsupportedFamily);
        };
        match self {
            Self::Probes(lookup) => lookup
                .owner(netns, hook, packet, connection(entry).as_ref(), logged_after)
                .unwrap_or_else(|error| {
                    tracing::warn!("owner lookup: {error}");
                    Attribution::Unowned(Reason::Missed)
                }),
            Self::SockDiag(diag) => {
                let place = Place {
                    hook,
                    indev: entry.indev(),
                    outdev: entry.outdev(),
                };
                diag.lookup(place, packet)
            }
        }
    }
}

fn connection<'a>(entry: &Entry<'a>) -> Option<Connection<'a>> {
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
