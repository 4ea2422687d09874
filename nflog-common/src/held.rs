//! Which process a socket belongs to that several may hold, decided while the process table is walked.
//!
//! One process holds most sockets, and that is the owner. A server that forks workers shares its listener with them: it
//! belongs to the parent, which is what the probes would have seen listen. Whatever else is shared belongs to nobody in
//! particular: an arbitrary holder is never named. systemd as pid 1 does not count beside another process: it keeps the
//! sockets of services that it activates open and does not use them.

use core::mem::{align_of, size_of};

/// pid of init.
const INIT: u32 = 1;

/// A process that holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Start of the thread group leader, ns since boot.
    pub start_boottime: u64,
    /// cgroup id: see [`CGROUP_V1`](crate::CGROUP_V1).
    pub cgroup_id: u64,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Process id of the parent.
    pub parent: u32,
    /// Whether `comm` is `systemd`.
    pub systemd: bool,
}

/// What is known of a socket's holders so far.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Of the process that stands for all holders; 0 while it is not seen.
    pub start_boottime: u64,
    /// cgroup of that process, and so of all.
    pub cgroup_id: u64,
    /// The process that stands for all holders.
    pub tgid: u32,
    /// Its parent; [`ORPHANS`](state::ORPHANS): 0.
    pub parent: u32,
    /// One of [`state`].
    pub state: u32,
    /// Always 0.
    pub pad: u32,
}

/// Values of [`Held::state`].
pub mod state {
    /// `tgid` alone holds it.
    pub const ONE: u32 = 0;
    /// systemd holds it, on behalf of a service that is not seen yet.
    pub const ACTIVATOR: u32 = 1;
    /// `tgid` and children of its hold it.
    pub const FAMILY: u32 = 2;
    /// Children of `tgid` hold it, which itself is not seen yet.
    pub const ORPHANS: u32 = 3;
    /// Processes hold it of which none stands for all.
    pub const SEVERAL: u32 = 4;
}

/// What the end of the walk says about one holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It owns the socket.
    Owner,
    /// Another process owns it.
    NotOwner,
    /// Several processes share it, and none can be named.
    Shared,
}

impl Held {
    /// The first holder.
    #[inline(always)]
    #[must_use]
    pub const fn by(holder: &Holder) -> Self {
        Self {
            start_boottime: holder.start_boottime,
            cgroup_id: holder.cgroup_id,
            tgid: holder.tgid,
            parent: holder.parent,
            state: if is_activator(holder) {
                state::ACTIVATOR
            } else {
                state::ONE
            },
            pad: 0,
        }
    }

    /// One more holder, or one that is met again: by another descriptor or thread.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, holder: &Holder) -> Self {
        if self.state == state::SEVERAL || is_activator(holder) {
            return self;
        }
        if self.state == state::ACTIVATOR {
            return Self::by(holder);
        }
        let known = holder.tgid == self.tgid;
        if known && self.state != state::ORPHANS {
            return self;
        }
        if holder.cgroup_id != self.cgroup_id {
            // A parent hands its listener to workers of its own; across cgroups it is somebody else's.
            return self.several();
        }
        let leads = known || (self.state == state::ONE && holder.tgid == self.parent);
        if leads {
            return Self {
                state: state::FAMILY,
                ..Self::by(holder)
            };
        }
        if holder.parent == self.tgid {
            return if self.state == state::ONE {
                Self {
                    state: state::FAMILY,
                    ..self
                }
            } else {
                self
            };
        }
        if self.state == state::ONE && holder.parent == self.parent {
            return Self {
                start_boottime: 0,
                tgid: self.parent,
                parent: 0,
                state: state::ORPHANS,
                ..self
            };
        }
        self.several()
    }

    /// What the process `tgid` that started at `start_boottime`, one of the holders, is to the socket.
    ///
    /// `listening`: it is a listener. A worker that shares a connection or a datagram socket is as likely to be the one who
    /// uses it as its parent; a handshake is nobody's until it is accepted.
    #[inline(always)]
    #[must_use]
    pub const fn claim(&self, tgid: u32, start_boottime: u64, listening: bool) -> Claim {
        let one = self.state == state::ONE || self.state == state::ACTIVATOR;
        if !(one || self.state == state::FAMILY && listening) {
            Claim::Shared
        } else if self.tgid == tgid && self.start_boottime == start_boottime {
            Claim::Owner
        } else {
            Claim::NotOwner
        }
    }

    const fn several(self) -> Self {
        Self {
            state: state::SEVERAL,
            ..self
        }
    }
}

#[inline(always)]
const fn is_activator(holder: &Holder) -> bool {
    holder.systemd && holder.tgid == INIT
}

const _: () = assert!(size_of::<Held>() == 32 && align_of::<Held>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    const fn process(tgid: u32, parent: u32) -> Holder {
        Holder {
            start_boottime: tgid as u64 * 1000,
            cgroup_id: 77,
            tgid,
            parent,
            systemd: false,
        }
    }

    const SYSTEMD: Holder = Holder {
        cgroup_id: 1,
        systemd: true,
        ..process(1, 0)
    };

    /// What a walk knows at its end, for every order in which it can meet the holders.
    fn orders(holders: &[Holder]) -> impl Iterator<Item = Held> + '_ {
        // Every sequence of as many indices that is a permutation.
        (0..holders.len().pow(4)).filter_map(move |number| {
            let mut seen = 0_u32;
            let mut held: Option<Held> = None;
            let mut rest = number;
            for _ in holders {
                let index = rest % holders.len();
                rest /= holders.len();
                seen |= 1 << index;
                let holder = &holders[index];
                held = Some(match held {
                    Some(held) => held.and(holder),
                    None => Held::by(holder),
                });
            }
            let complete = usize::try_from(seen.count_ones()) == Ok(holders.len());
            held.filter(|_| complete)
        })
    }

    fn assert_owner(holders: &[Holder], owner: u32, listening: bool) {
        for held in orders(holders) {
            for each in holders {
                let expected = if each.tgid == owner {
                    Claim::Owner
                } else {
                    Claim::NotOwner
                };
                assert_eq!(
                    held.claim(each.tgid, each.start_boottime, listening),
                    expected,
                    "{held:?}"
                );
            }
        }
    }

    fn assert_shared(holders: &[Holder], listening: bool) {
        for held in orders(holders) {
            for each in holders {
                let claim = held.claim(each.tgid, each.start_boottime, listening);
                assert_eq!(claim, Claim::Shared, "{held:?}");
            }
        }
    }

    #[test]
    fn a_process_that_holds_it_alone_owns_it_by_any_number_of_threads() {
        assert_owner(&[process(10, 1)], 10, false);
        assert_owner(&[process(10, 1), process(10, 1), process(10, 1)], 10, false);
    }

    #[test]
    fn a_listener_shared_with_forked_workers_is_the_parents_in_any_order() {
        let [parent, a, b, c] = [process(30, 1), process(31, 30), process(5, 30), process(32, 30)];
        assert_owner(&[parent, a], 30, true);
        assert_owner(&[parent, a, b], 30, true);
        assert_owner(&[parent, a, b, c], 30, true);
        assert_owner(&[parent, a, a, b], 30, true);
    }

    #[test]
    fn what_else_is_shared_with_children_is_nobodys() {
        assert_shared(&[process(30, 1), process(31, 30)], false);
        assert_shared(&[process(30, 1), process(31, 30), process(32, 30)], false);
    }

    #[test]
    fn unrelated_holders_leave_nobody_to_name() {
        assert_shared(&[process(30, 1), process(40, 2)], true);
        assert_shared(&[process(30, 1), process(31, 30), process(40, 2)], true);
        assert_shared(&[process(30, 1), process(40, 2)], false);
    }

    #[test]
    fn siblings_whose_parent_does_not_hold_it_leave_nobody_to_name() {
        assert_shared(&[process(31, 30), process(32, 30)], true);
        assert_shared(&[process(31, 30), process(32, 30), process(33, 30)], true);
        assert_shared(&[process(31, 1), process(32, 1)], true);
    }

    #[test]
    fn a_parent_in_another_cgroup_is_no_parent() {
        let child = Holder {
            cgroup_id: 78,
            ..process(31, 30)
        };
        assert_shared(&[process(30, 1), child], true);
        assert_shared(&[process(30, 1), process(32, 30), child], true);
    }

    #[test]
    fn systemd_does_not_count_beside_the_service() {
        assert_owner(&[SYSTEMD, process(30, 1)], 30, false);
        assert_owner(&[SYSTEMD, process(30, 1), process(31, 30)], 30, true);
        assert_shared(&[SYSTEMD, process(30, 1), process(40, 1)], false);
        assert_owner(&[SYSTEMD], 1, true);
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let held = Held::by(&process(30, 1));
        assert_eq!(held.claim(30, 30_001, true), Claim::NotOwner);
    }
}
