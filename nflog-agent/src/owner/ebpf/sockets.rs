//! The probes' own tables of live and lately closed connections, asked by a tuple that is not the logged one.
//!
//! They are read later than the packet was logged. An answer counts only if it held already when the packet can have been
//! logged at the earliest; else the packet may be of the owner before, and the answer is `ambiguous`.

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError};
use nflog_common::{SocketOwner, SocketTuple, TOMBSTONE_NS, Tombstone, TrackedSocket};

use super::{OpenError, found, method, owner, take};
use crate::owner::{Attribution, End, Method, Reason};

/// The maps of `nflog-ebpf/src/maps.rs` that name sockets.
pub(super) struct Sockets {
    tuples: HashMap<MapData, SocketTuple, u64>,
    sockets: HashMap<MapData, u64, TrackedSocket>,
    tombstones: HashMap<MapData, SocketTuple, Tombstone>,
}

/// What closed connections a packet may be of.
#[derive(Clone, Copy)]
pub(super) struct Closing {
    /// The packet was logged when an end of its connection had been seen.
    pub(super) closing: bool,
    /// Those that died since then, `CLOCK_MONOTONIC` ns: an older one may be of another namespace that had the number.
    pub(super) since: u64,
}

impl Sockets {
    /// Takes the maps; the programs are loaded.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, OpenError> {
        Ok(Self {
            tuples: HashMap::try_from(take(ebpf, "TUPLES")?)?,
            sockets: HashMap::try_from(take(ebpf, "SOCKETS")?)?,
            tombstones: HashMap::try_from(take(ebpf, "TOMBSTONES")?)?,
        })
    }

    /// Whose the TCP connection with these ends is, which is the packet's `end`, for a packet logged after `logged_after`
    /// (`CLOCK_MONOTONIC` ns). `None` if there is no such connection.
    pub(super) fn connection(
        &self,
        ends: &SocketTuple,
        closing: Closing,
        logged_after: u64,
        end: End,
    ) -> Result<Option<Attribution>, MapError> {
        if let Some(address) = found(self.tuples.get(ends, 0))?
            && let Some(socket) = found(self.sockets.get(&address, 0))?
            && socket.tuple == *ends
        {
            // The kernel may use an element anew while it is copied out.
            let again = found(self.sockets.get(&address, 0))?;
            return Ok(Some(if again == Some(socket) {
                living(&socket, logged_after, end)
            } else {
                Attribution::Unowned(Reason::Ambiguous)
            }));
        }
        let Some(stone) = found(self.tombstones.get(ends, 0))?.filter(|stone| stone.died_at >= closing.since)
        else {
            return Ok(None);
        };
        if found(self.tombstones.get(ends, 0))? != Some(stone) {
            return Ok(Some(Attribution::Unowned(Reason::Ambiguous)));
        }
        Ok(buried(&stone, closing.closing, logged_after, end))
    }
}

fn living(socket: &TrackedSocket, logged_after: u64, end: End) -> Attribution {
    if method(socket.method).is_none() || socket.shared != 0 || socket.since > logged_after {
        return Attribution::Unowned(Reason::Ambiguous);
    }
    named(&socket.owner, end)
}

/// A packet logged after the death is the closed connection's only while conntrack, too, sees it close: a connection that has
/// begun since, and of which no probe heard, is open.
fn buried(stone: &Tombstone, closing: bool, logged_after: u64, end: End) -> Option<Attribution> {
    if stone.since > logged_after {
        return Some(Attribution::Unowned(Reason::Ambiguous));
    }
    let dead_for = logged_after.saturating_sub(stone.died_at);
    (dead_for == 0 || (closing && dead_for <= TOMBSTONE_NS)).then(|| named(&stone.owner, end))
}

fn named(socket: &SocketOwner, end: End) -> Attribution {
    Attribution::Owned {
        owner: owner(socket),
        method: Method::Conntrack,
        end,
    }
}

#[cfg(test)]
mod tests {
    use nflog_common::{PortKey, method};

    use super::*;

    const OWNER: SocketOwner = SocketOwner {
        start_boottime: 5,
        cgroup_id: 6,
        tgid: 7,
        exec_id: 7,
        uid: 0,
        gid: 0,
        comm: [0; 16],
    };

    const fn socket(since: u64, method: u8) -> TrackedSocket {
        TrackedSocket {
            owner: OWNER,
            since,
            tuple: SocketTuple {
                netns: 1,
                protocol: 6,
                pad: 0,
                pad2: 0,
                local_port: 1,
                remote_port: 2,
                local: [1; 16],
                remote: [2; 16],
            },
            port: PortKey {
                netns: 0,
                protocol: 0,
                pad: 0,
                port: 0,
                address: [0; 16],
            },
            method,
            shared: 0,
            inherited: 0,
            pad: 0,
        }
    }

    #[test]
    fn a_connection_that_changed_hands_after_the_earliest_log_time_is_ambiguous() {
        for method in [method::SOCKET, method::ACCEPTED, method::INHERITED] {
            assert_eq!(
                living(&socket(0, method), 0, End::Source),
                named(&OWNER, End::Source)
            );
            assert_eq!(
                living(&socket(100, method), 100, End::Source),
                named(&OWNER, End::Source)
            );
            assert_eq!(
                living(&socket(101, method), 100, End::Source),
                Attribution::Unowned(Reason::Ambiguous)
            );
        }
        assert_eq!(
            living(&socket(0, method::NONE), 0, End::Source),
            Attribution::Unowned(Reason::Ambiguous)
        );
    }

    #[test]
    fn a_dead_connection_owns_what_it_may_have_sent_alive_and_its_last_packets() {
        let stone = Tombstone {
            owner: OWNER,
            died_at: 100,
            since: 50,
        };
        let cases = [
            (false, 49, Some(Attribution::Unowned(Reason::Ambiguous))),
            (false, 50, Some(named(&OWNER, End::Source))),
            (false, 100, Some(named(&OWNER, End::Source))),
            (false, 101, None),
            (true, 101, Some(named(&OWNER, End::Source))),
            (true, 100 + TOMBSTONE_NS, Some(named(&OWNER, End::Source))),
            (true, 101 + TOMBSTONE_NS, None),
        ];
        for (closing, logged_after, expected) in cases {
            assert_eq!(
                buried(&stone, closing, logged_after, End::Source),
                expected,
                "{closing} {logged_after}"
            );
        }
    }
}
