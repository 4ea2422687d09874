//! The owners of forwarded packets: what the log probe found by the packet's own addresses, checked and completed by conntrack.
//!
//! The probe proves which namespace the packet comes from and which it goes to. Where addresses are translated on the way, the
//! socket there has other ends than the packet: conntrack knows them.

use aya::maps::MapError;
use nflog_common::{Answer, PacketKey, SocketTuple};

use super::{Lookup, Sighting, attribution};
use crate::owner::connection::{Claim, TCP, differs};
use crate::owner::{Attribution, End, Reason};

impl Lookup<'_> {
    /// The sender if it is found; else the receiver.
    pub(super) fn forwarded(
        &self,
        answer: &Answer,
        key: &PacketKey,
        sighting: &Sighting<'_>,
    ) -> Result<Attribution, MapError> {
        let first = attribution(answer, End::Source);
        let Some(connection) = &sighting.connection else {
            return Ok(first);
        };
        let mut lack = first.reason();
        for (end, netns) in [
            (End::Source, answer.source_netns),
            (End::Destination, answer.destination_netns),
        ] {
            if netns == 0 {
                continue;
            }
            let second = match connection.claim_of(end, netns, key.protocol) {
                Claim::Socket { ends, closing } if translated(&ends, key, end) => {
                    self.sockets
                        .connection(&ends, closing, sighting.logged.after, end)?
                }
                Claim::Socket { ends, .. } if differs(&ends, key, end) => None,
                _ if first.end() == Some(end) => return Ok(first),
                _ => continue,
            };
            match second {
                Some(owned @ Attribution::Owned { .. }) => return Ok(owned),
                Some(Attribution::Unowned(reason)) => lack = Some(reason),
                None => {}
            }
        }
        Ok(Attribution::Unowned(lack.unwrap_or(Reason::NoSocket)))
    }
}

/// Whether a TCP connection's socket has other ends than the packet, so that it is to be sought by those.
fn translated(ends: &SocketTuple, key: &PacketKey, end: End) -> bool {
    ends.protocol == TCP && differs(ends, key, end)
}
