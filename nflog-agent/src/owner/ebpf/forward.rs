//! The owners of forwarded packets: what the log probe found by the packet's own addresses, checked and completed by conntrack.
//!
//! The probe proves which namespace the packet comes from and which it goes to. Where addresses are translated on the way, the
//! socket there has other ends than the packet: conntrack knows them.

use aya::maps::MapError;
use nflog_common::{Answer, PacketKey, SocketTuple, peer_hash};

use super::{Lookup, attribution};
use crate::owner::connection::{Claim, Connection, TCP, differs};
use crate::owner::{Attribution, End, Method, Reason};

impl Lookup<'_> {
    /// The sender if it is found; else the receiver; of a packet that was logged at or after `after` (`CLOCK_MONOTONIC` ns).
    pub(super) fn forwarded(
        &self,
        answer: &Answer,
        key: &PacketKey,
        connection: Option<&Connection<'_>>,
        after: u64,
    ) -> Result<Attribution, MapError> {
        let first = attribution(answer, End::Source);
        let Some(connection) = connection else {
            return Ok(untranslated(first, answer));
        };
        let mut lack = first.reason();
        for (end, netns) in [
            (End::Source, answer.source_netns),
            (End::Destination, answer.destination_netns),
        ] {
            if netns == 0 {
                continue;
            }
            let claim = connection.claim_of(end, netns, key.protocol);
            let second = match judge(&first, answer, end, key, &claim) {
                Judgement::Stands(attribution) => return Ok(attribution),
                Judgement::Translated { ends, closing } => self.connection(&ends, closing, after, end)?,
                Judgement::Nobody => None,
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

/// What a connection makes of the first answer, as to one end of the packet.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// The end's owner.
    Stands(Attribution),
    /// The end's TCP socket has these ends.
    Translated { ends: SocketTuple, closing: bool },
    /// The first answer is not about this end, or wrong.
    Nobody,
}

fn judge(first: &Attribution, answer: &Answer, end: End, key: &PacketKey, claim: &Claim) -> Judgement {
    let about_this = first.end() == Some(end);
    match *claim {
        Claim::Socket { ends, closing } if differs(&ends, key, end) => {
            if ends.protocol == TCP {
                Judgement::Translated { ends, closing }
            } else {
                Judgement::Nobody
            }
        }
        Claim::Socket { ends, .. } if about_this && answer.peer != 0 => {
            if peer_hash(&ends.remote, ends.remote_port) == answer.peer {
                Judgement::Stands(by_conntrack(*first))
            } else {
                Judgement::Nobody
            }
        }
        _ if about_this && answer.peer == 0 => Judgement::Stands(*first),
        _ => Judgement::Nobody,
    }
}

/// The first answer, if nothing is known of translation.
const fn untranslated(first: Attribution, answer: &Answer) -> Attribution {
    match first {
        Attribution::Owned { .. } if answer.peer != 0 => Attribution::Unowned(Reason::NoSocket),
        _ => first,
    }
}

/// An owner that the probe found and that only conntrack proves.
const fn by_conntrack(first: Attribution) -> Attribution {
    match first {
        Attribution::Owned { owner, end, .. } => Attribution::Owned {
            owner,
            method: Method::Conntrack,
            end,
        },
        Attribution::Unowned(_) => first,
    }
}

#[cfg(test)]
mod tests {
    use nflog_common::{SocketOwner, end, method, reason};

    use super::*;

    const CLIENT: ([u8; 16], u16) = ([1; 16], 1000);
    const SERVICE: ([u8; 16], u16) = ([2; 16], 53);
    const SERVER: ([u8; 16], u16) = ([3; 16], 5353);
    const UDP: u8 = 17;

    /// The answer to a reply of the server to the client.
    const fn answer(end: u8, peer: u32) -> Answer {
        Answer {
            owner: SocketOwner {
                start_boottime: 1,
                cgroup_id: 2,
                tgid: 3,
                exec_id: 0,
                uid: 0,
                gid: 0,
                comm: [0; 16],
            },
            method: method::LISTENER,
            reason: reason::UNSET,
            end,
            pad: 0,
            source_netns: 4,
            destination_netns: 5,
            peer,
        }
    }

    const fn reply(protocol: u8) -> PacketKey {
        PacketKey {
            netns: 1,
            protocol,
            hook: 2,
            source_port: SERVER.1,
            destination_port: CLIENT.1,
            pad: 0,
            source: SERVER.0,
            destination: CLIENT.0,
        }
    }

    /// The client's socket is connected to this.
    const fn claim(protocol: u8, peer: ([u8; 16], u16)) -> Claim {
        Claim::Socket {
            ends: SocketTuple {
                netns: 5,
                protocol,
                pad: 0,
                pad2: 0,
                local_port: CLIENT.1,
                remote_port: peer.1,
                local: CLIENT.0,
                remote: peer.0,
            },
            closing: false,
        }
    }

    fn judged(answer: &Answer, protocol: u8, claim: &Claim) -> Judgement {
        let first = attribution(answer, End::Source);
        judge(&first, answer, End::Destination, &reply(protocol), claim)
    }

    #[test]
    fn a_datagram_for_a_socket_with_another_peer_is_its_only_if_conntrack_names_that_peer() {
        let connected = answer(end::DESTINATION, peer_hash(&SERVICE.0, SERVICE.1));
        let first = attribution(&connected, End::Source);
        let stands = Judgement::Stands(by_conntrack(first));
        assert_eq!(judged(&connected, UDP, &claim(UDP, SERVICE)), stands);
        assert_eq!(judged(&connected, UDP, &claim(UDP, SERVER)), Judgement::Nobody);
        assert_eq!(judged(&connected, UDP, &Claim::Silent), Judgement::Nobody);
        assert_eq!(
            untranslated(first, &connected),
            Attribution::Unowned(Reason::NoSocket)
        );
    }

    #[test]
    fn a_connection_with_other_ends_is_sought_by_them_and_else_the_first_answer_stands() {
        let found = answer(end::DESTINATION, 0);
        let first = attribution(&found, End::Source);
        assert!(matches!(
            judged(&found, TCP, &claim(TCP, SERVICE)),
            Judgement::Translated { .. }
        ));
        for claim in [claim(TCP, SERVER), Claim::Silent] {
            assert_eq!(judged(&found, TCP, &claim), Judgement::Stands(first));
        }
        // It is about the sender.
        let sent = answer(end::SOURCE, 0);
        assert_eq!(judged(&sent, TCP, &claim(TCP, SERVER)), Judgement::Nobody);
    }

    #[test]
    fn a_peer_is_told_by_its_address_and_its_port() {
        let hash = peer_hash(&SERVICE.0, SERVICE.1);
        assert_ne!(hash, 0);
        assert_ne!(hash, peer_hash(&SERVICE.0, SERVER.1));
        assert_ne!(hash, peer_hash(&SERVER.0, SERVICE.1));
    }
}
