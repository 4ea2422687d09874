//! Picks a flow's entries out of everything that the agent has said.

use std::net::{IpAddr, SocketAddr};

use crate::seen::Seen;

/// One end of a flow, in its network namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    /// Namespace inode.
    pub(crate) netns: u32,
    /// Value of `network.transport`.
    pub(crate) transport: &'static str,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

impl Flow {
    /// Entries of what this end sends.
    pub(crate) fn output<'a>(&'a self, entries: &'a [Seen]) -> impl Iterator<Item = &'a Seen> {
        entries
            .iter()
            .filter(|seen| self.is_here(seen, "output") && ends(seen) == Some((self.local, self.remote)))
    }

    /// Entries of what this end receives.
    pub(crate) fn input<'a>(&'a self, entries: &'a [Seen]) -> impl Iterator<Item = &'a Seen> {
        entries
            .iter()
            .filter(|seen| self.is_here(seen, "input") && ends(seen) == Some((self.remote, self.local)))
    }

    fn is_here(&self, seen: &Seen, hook: &str) -> bool {
        seen.number("nflog.netns.inode") == Some(self.netns.into())
            && seen.text("nflog.hook") == Some(hook)
            && seen.text("network.transport") == Some(self.transport)
    }
}

/// Source and destination; `None` without ports.
pub(crate) fn ends(seen: &Seen) -> Option<(SocketAddr, SocketAddr)> {
    let end = |address: &str, port: &str| {
        let port = u16::try_from(seen.number(port)?).ok()?;
        Some(SocketAddr::new(address_of(seen, address)?, port))
    };
    Some((
        end("source.address", "source.port")?,
        end("destination.address", "destination.port")?,
    ))
}

/// Whether both addresses are of the family of `like`.
pub(crate) fn same_family(seen: &Seen, like: IpAddr) -> bool {
    address_of(seen, "source.address").is_some_and(|address| address.is_ipv4() == like.is_ipv4())
}

/// An address attribute.
pub(crate) fn address_of(seen: &Seen, name: &str) -> Option<IpAddr> {
    seen.text(name)?.parse().ok()
}

/// Entries whose TCP flags include all or none of `flag`.
pub(crate) fn has_flag(seen: &Seen, flag: &str) -> bool {
    seen.text("nflog.tcp.flags")
        .is_some_and(|flags| flags.contains(flag))
}
