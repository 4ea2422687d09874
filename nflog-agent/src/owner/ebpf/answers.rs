//! The log probe's answers, one for each logged packet, read from its ring buffer and found again by the packet's fingerprint.
//!
//! The probe writes before the NFLOG message exists, so a packet's answer is in the ring when its message is read. No `bpf(2)`
//! call is made: during one the kernel leaves out the programs of its CPU, the log probe among them.
//!
//! The ring is read no further than the answer that is looked for; what comes before it (other namespaces' packets, and those
//! whose message the kernel lost) is parked. Memory is bounded: what nobody asks for makes room for what comes later.

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use nflog_common::{Answer, Fingerprint, Logged, PacketKey, method};

use super::{LogTime, OpenError, take};
use crate::lingering::Lingering;

/// Answers that are parked, at most.
const PARKED_MAX: usize = 1 << 17;

/// Tuples of which the last answer is kept, at most.
const FLOWS_MAX: usize = 1 << 16;

/// The kernel may hold a packet back for longer than it should, ns: on a busy machine its timers are late.
const LATE: u64 = 1_000_000_000;

/// How often the ring is looked at again: an answer that another CPU is still writing hides those behind it.
const TURNS: u32 = 64;

/// How many packets in a row may be waited for in vain.
const PATIENCE: u32 = 16;

/// What the log probe said of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    /// This, of a packet that was logged at or after the time (`CLOCK_MONOTONIC` ns).
    Answer(Answer, u64),
    /// Different things of packets that cannot be told from this one.
    Changed,
    /// Nothing: it did not run.
    Nothing,
}

/// The ring and what was read from it.
pub(super) struct Answers {
    ring: RingBuf<MapData>,
    known: Known,
}

impl Answers {
    /// Takes the map; the programs are loaded.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, OpenError> {
        Ok(Self {
            ring: RingBuf::try_from(take(ebpf, "ANSWERS")?)?,
            known: Known::new(),
        })
    }

    /// What the log probe said of the packet with this key. `print`: what tells it from the key's other packets, if enough of
    /// it was captured.
    pub(super) fn find(&mut self, key: &PacketKey, print: Option<&Fingerprint>, logged: LogTime) -> Told {
        let Self { ring, known } = self;
        known.find(key, print, logged, || {
            ring.next().and_then(|item| Logged::from_bytes(&item))
        })
    }
}

/// The answers for packets with the same fingerprint: equal bytes.
#[derive(Debug)]
struct Parked {
    answer: Answer,
    /// `CLOCK_MONOTONIC` ns of the first and the last.
    first: u64,
    last: u64,
    count: u32,
    /// They name different owners.
    mixed: bool,
}

/// The last answer for a tuple.
#[derive(Debug)]
struct Flow {
    answer: Answer,
    /// `CLOCK_MONOTONIC` ns since when all answers name the same owner.
    since: u64,
    last: u64,
    /// No answer before `since` is known.
    first: bool,
}

/// What was read from the ring.
struct Known {
    parked: Lingering<Fingerprint, Parked>,
    flows: Lingering<PacketKey, Flow>,
    patience: u32,
}

impl Known {
    fn new() -> Self {
        Self {
            parked: Lingering::new(PARKED_MAX),
            flows: Lingering::new(FLOWS_MAX),
            patience: PATIENCE,
        }
    }

    fn find(
        &mut self,
        key: &PacketKey,
        print: Option<&Fingerprint>,
        logged: LogTime,
        mut next: impl FnMut() -> Option<Logged>,
    ) -> Told {
        let Some(print) = print else {
            while let Some(one) = next() {
                self.note(&one);
                self.park(&one);
            }
            return self.by_flow(key, logged, false);
        };
        if let Some(told) = self.unpark(print, logged) {
            return told;
        }
        for turn in 0..TURNS {
            while let Some(one) = next() {
                self.note(&one);
                if one.print == *print && (logged.after..=logged.before).contains(&one.at) {
                    self.patience = PATIENCE;
                    return Told::Answer(one.answer, one.at);
                }
                self.park(&one);
            }
            if turn == 0 {
                // Everything is read by now, so that an equal packet of the right time would have been found.
                let late = LogTime {
                    after: logged.after.saturating_sub(LATE),
                    ..logged
                };
                if let Some(told) = self.unpark(print, late) {
                    return told;
                }
                if self.patience == 0 {
                    break;
                }
                self.patience -= 1;
            }
            std::thread::yield_now();
        }
        self.by_flow(key, logged, true)
    }

    /// Notes what an answer says about its tuple.
    fn note(&mut self, one: &Logged) {
        let Some(flow) = self.flows.get_mut(&one.print.packet) else {
            let flow = Flow {
                answer: one.answer,
                since: one.at,
                last: one.at,
                first: true,
            };
            self.flows.insert(one.print.packet, flow);
            return;
        };
        // Answers of two CPUs can be a little out of order.
        flow.last = flow.last.max(one.at);
        if !same(&flow.answer, &one.answer) {
            flow.since = flow.last;
            flow.first = false;
        }
        flow.answer = one.answer;
    }

    /// Keeps an answer for later.
    fn park(&mut self, one: &Logged) {
        let Some(parked) = self.parked.get_mut(&one.print) else {
            let parked = Parked {
                answer: one.answer,
                first: one.at,
                last: one.at,
                count: 1,
                mixed: false,
            };
            self.parked.insert(one.print, parked);
            return;
        };
        parked.first = parked.first.min(one.at);
        parked.last = parked.last.max(one.at);
        parked.count = parked.count.saturating_add(1);
        parked.mixed |= !same(&parked.answer, &one.answer);
        parked.answer = one.answer;
    }

    /// Takes back a kept answer; `None` if there is none for a packet of that time.
    fn unpark(&mut self, print: &Fingerprint, logged: LogTime) -> Option<Told> {
        // What is out of this time is of messages that the kernel lost.
        let in_time = |parked: &&mut Parked| parked.last >= logged.after && parked.first <= logged.before;
        let parked = self.parked.get_mut(print).filter(in_time)?;
        let told = if parked.mixed {
            Told::Changed
        } else {
            Told::Answer(parked.answer, parked.first)
        };
        parked.count -= 1;
        if parked.count == 0 {
            self.parked.remove(print);
        }
        Some(told)
    }

    /// What is known of the tuple, if all of its packets of that time have one owner. `missed`: the packet's own answer would
    /// have been recognised, and is not there.
    fn by_flow(&mut self, key: &PacketKey, logged: LogTime, missed: bool) -> Told {
        let Some(flow) = self.flows.get(key).filter(|flow| flow.last >= logged.after) else {
            return Told::Nothing;
        };
        if flow.since <= logged.after || (flow.first && !missed) {
            return Told::Answer(flow.answer, logged.after);
        }
        if missed { Told::Nothing } else { Told::Changed }
    }
}

/// Whether two answers name the same process and program, or none for the same reason.
fn same(one: &Answer, other: &Answer) -> bool {
    let nobody = method::NONE;
    one.owner.tgid == other.owner.tgid
        && one.owner.start_boottime == other.owner.start_boottime
        && one.owner.exec_id == other.owner.exec_id
        && (one.method == nobody) == (other.method == nobody)
        && one.reason == other.reason
        && one.end == other.end
        && one.source_netns == other.source_netns
        && one.destination_netns == other.destination_netns
        && one.peer == other.peer
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use nflog_common::{IDENTITY_LEN, SocketOwner, reason};

    use super::*;

    const KEY: PacketKey = PacketKey {
        netns: 1,
        protocol: 17,
        hook: 3,
        source_port: 1,
        destination_port: 2,
        pad: 0,
        source: [1; 16],
        destination: [2; 16],
    };

    fn print(number: u8) -> Fingerprint {
        Fingerprint {
            packet: KEY,
            identity: [number; IDENTITY_LEN],
        }
    }

    fn by(tgid: u32) -> Answer {
        Answer {
            owner: SocketOwner {
                start_boottime: u64::from(tgid),
                cgroup_id: 0,
                tgid,
                exec_id: 1,
                uid: 0,
                gid: 0,
                comm: [0; 16],
            },
            method: if tgid == 0 { method::NONE } else { method::SOCKET },
            reason: if tgid == 0 { reason::NO_SOCKET } else { 0 },
            end: 0,
            pad: 0,
            source_netns: 0,
            destination_netns: 0,
            peer: 0,
        }
    }

    fn logged(at: u64, number: u8, tgid: u32) -> Logged {
        Logged {
            at,
            answer: by(tgid),
            print: print(number),
            pad: 0,
        }
    }

    const fn between(after: u64, before: u64) -> LogTime {
        LogTime { after, before }
    }

    /// tgid of the answer, or why there is none.
    fn find(
        known: &mut Known,
        ring: &mut VecDeque<Logged>,
        number: Option<u8>,
        time: LogTime,
    ) -> Result<u32, &'static str> {
        let print = number.map(print);
        match known.find(&KEY, print.as_ref(), time, || ring.pop_front()) {
            Told::Answer(answer, _) => Ok(answer.owner.tgid),
            Told::Changed => Err("changed"),
            Told::Nothing => Err("nothing"),
        }
    }

    #[test]
    fn each_packet_of_a_tuple_that_changes_hands_has_its_own_owner() {
        let mut known = Known::new();
        let mut ring = VecDeque::from([logged(10, 1, 7), logged(11, 2, 8), logged(12, 3, 7)]);
        let time = between(5, 20);
        for (number, tgid) in [(1, 7), (2, 8), (3, 7)] {
            assert_eq!(find(&mut known, &mut ring, Some(number), time), Ok(tgid));
        }
        assert_eq!(known.parked.len(), 0, "nothing is kept that was asked for");
    }

    #[test]
    fn messages_in_another_order_than_the_log_calls_find_their_answers() {
        let mut known = Known::new();
        let mut ring = VecDeque::from([logged(10, 1, 7), logged(11, 2, 8), logged(12, 3, 9)]);
        let time = between(5, 20);
        for (number, tgid) in [(3, 9), (1, 7), (2, 8)] {
            assert_eq!(find(&mut known, &mut ring, Some(number), time), Ok(tgid));
        }
        assert_eq!(known.parked.len(), 0);
    }

    #[test]
    fn equal_packets_of_one_process_are_counted_and_of_two_not_told_apart() {
        let mut known = Known::new();
        let time = between(5, 30);
        let mut ring = VecDeque::from([logged(10, 1, 7), logged(11, 1, 7), logged(12, 2, 7)]);
        assert_eq!(find(&mut known, &mut ring, Some(2), time), Ok(7));
        assert_eq!(find(&mut known, &mut ring, Some(1), time), Ok(7));
        assert_eq!(find(&mut known, &mut ring, Some(1), time), Ok(7));
        assert_eq!(known.parked.len(), 0);
        ring.extend([logged(20, 1, 7), logged(21, 1, 8), logged(22, 2, 7)]);
        assert_eq!(find(&mut known, &mut ring, Some(2), time), Ok(7));
        assert_eq!(find(&mut known, &mut ring, Some(1), time), Err("changed"));
    }

    #[test]
    fn a_packet_that_was_held_back_for_too_long_finds_its_answer() {
        let mut known = Known::new();
        let mut ring = VecDeque::from([logged(10, 1, 7)]);
        let time = between(10 + LATE, 20 + LATE);
        assert_eq!(find(&mut known, &mut ring, Some(1), time), Ok(7));
        ring.extend([logged(10, 2, 7), logged(15 + LATE, 2, 8)]);
        assert_eq!(
            find(&mut known, &mut ring, Some(2), time),
            Ok(8),
            "the later one is of the right time"
        );
        assert_eq!(
            find(&mut known, &mut ring, Some(2), time),
            Ok(7),
            "the other one was only late"
        );
    }

    #[test]
    fn an_answer_of_another_time_is_another_packets() {
        let mut known = Known::new();
        let mut ring = VecDeque::from([logged(10, 1, 7), logged(30 + LATE, 2, 8)]);
        let time = between(15 + LATE, 20 + LATE);
        for number in [1, 2] {
            assert_eq!(find(&mut known, &mut ring, Some(number), time), Err("nothing"));
        }
        ring.extend([logged(10, 3, 7), logged(16 + LATE, 3, 8), logged(16 + LATE, 4, 8)]);
        assert_eq!(find(&mut known, &mut ring, Some(4), time), Ok(8));
        assert_eq!(
            find(&mut known, &mut ring, Some(3), time),
            Err("changed"),
            "one of them, but which?"
        );
    }

    #[test]
    fn a_missed_packet_is_its_tuples_owners_only_if_that_was_so_before_and_after_it() {
        let mut known = Known::new();
        let mut ring = VecDeque::from([logged(10, 1, 7), logged(20, 2, 7)]);
        assert_eq!(find(&mut known, &mut ring, Some(9), between(15, 30)), Ok(7));
        assert_eq!(
            find(&mut known, &mut ring, Some(9), between(21, 30)),
            Err("nothing"),
            "none after it"
        );
        ring.extend([logged(40, 3, 8)]);
        assert_eq!(
            find(&mut known, &mut ring, Some(9), between(35, 50)),
            Err("nothing"),
            "changed"
        );
        let mut known = Known::new();
        let mut ring = VecDeque::from([logged(10, 1, 7)]);
        assert_eq!(
            find(&mut known, &mut ring, Some(9), between(5, 20)),
            Err("nothing"),
            "none before it"
        );
    }

    #[test]
    fn a_packet_cut_short_is_its_tuples_owners_unless_that_changed() {
        let mut known = Known::new();
        let mut ring = VecDeque::from([logged(10, 1, 7)]);
        assert_eq!(find(&mut known, &mut ring, None, between(5, 20)), Ok(7));
        ring.extend([logged(30, 1, 8)]);
        assert_eq!(find(&mut known, &mut ring, None, between(25, 40)), Err("changed"));
        ring.extend([logged(50, 1, 8)]);
        assert_eq!(find(&mut known, &mut ring, None, between(45, 60)), Ok(8));
        assert_eq!(find(&mut known, &mut ring, None, between(55, 60)), Err("nothing"));
    }

    #[test]
    fn waiting_in_vain_ends() {
        let mut known = Known::new();
        let mut looks = 0;
        for _ in 0..100 {
            known.find(&KEY, Some(&print(1)), between(0, 1), || {
                looks += 1;
                None
            });
        }
        assert_eq!(looks, PATIENCE * TURNS + 100 - PATIENCE);
    }

    #[test]
    fn memory_is_bounded_when_nobody_asks() {
        let mut known = Known::new();
        for number in 0..u32::try_from(2 * PARKED_MAX).unwrap() {
            let mut one = logged(10, 0, 7);
            one.print.identity[..4].copy_from_slice(&number.to_ne_bytes());
            one.print.packet.source[..4].copy_from_slice(&number.to_ne_bytes());
            known.note(&one);
            known.park(&one);
        }
        assert!(known.parked.len() <= PARKED_MAX && known.flows.len() <= FLOWS_MAX);
    }
}
