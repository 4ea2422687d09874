//! Owner source of choice: kprobes that write the owner of each logged packet into a map before the NFLOG message exists.
//!
//! This module loads and attaches them and looks answers up. A lookup is one `bpf(2)` call that does not sleep.

mod btf;
mod error;
mod forward;
mod noop;
mod offsets;
mod probes;
mod seed;
mod sockets;
mod statistics;
mod verify;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use nflog_common::{
    Answer, LoggedOwner, PacketKey, QUIET_NS, RECEIPTS_MAX, ReceiptKey, SocketOwner, SocketTuple, Stat,
    reason,
};

pub use btf::BtfError;
pub use error::OpenError;
pub use noop::Noop;
use probes::attach_all;
pub use seed::{SeedError, Seeded};
use sockets::Sockets;
pub use statistics::{ProgramStatistics, Statistics};
pub use verify::{Verified, verify};

use super::connection::{Claim, Connection, TCP, contradicts};
use super::key::{packet_key, receipt_key};
use super::{Attribution, Comm, End, Method, Owner, Reason};
use crate::packet::Packet;

const OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nflog-ebpf.o"));
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// `NF_INET_FORWARD`.
const FORWARD: u8 = 2;

/// For a packet whose log probe did not run.
const MISSED: Answer = Answer {
    owner: SocketOwner {
        start_boottime: 0,
        cgroup_id: 0,
        tgid: 0,
        tid: 0,
        uid: 0,
        gid: 0,
        comm: [0; 16],
    },
    method: nflog_common::method::NONE,
    reason: reason::MISSED,
    end: nflog_common::end::UNSET,
    pad: 0,
    source_netns: 0,
    destination_netns: 0,
    peer: 0,
};

/// Loaded and attached probes. Dropping it detaches them.
pub struct Probes {
    ebpf: Ebpf,
    packets: HashMap<MapData, PacketKey, LoggedOwner>,
    receipts: HashMap<MapData, ReceiptKey, Answer>,
    receipts_left: Array<MapData, u64>,
    sockets: Sockets,
    counters: Counters,
    statistics: Statistics,
    missing: Vec<OpenError>,
    seeded: Result<Seeded, SeedError>,
}

impl Probes {
    /// Loads the programs, tells them the NFLOG groups to watch, attaches them, and tells them of the sockets that are there
    /// already.
    ///
    /// `log_level` is the highest level of the programs' own messages (`aya-log`); `None` compiles them out at load.
    ///
    /// # Errors
    /// When the kernel has no BTF or lacks a struct member, when it has no kprobes, without CAP_BPF and CAP_PERFMON
    /// (CAP_SYS_ADMIN before 5.8), or when a program is refused.
    pub fn open(groups: &[u16], log_level: Option<aya_log::Level>) -> Result<Self, OpenError> {
        Self::open_with(groups, log_level, MapSizes::default())
    }

    /// The same with maps of other sizes.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(
        groups: &[u16],
        log_level: Option<aya_log::Level>,
        sizes: MapSizes,
    ) -> Result<Self, OpenError> {
        let (mut ebpf, forwarding) = load(log_level, sizes)?;
        watch(&mut ebpf, groups)?;
        let continued = match forwarding {
            Ok(()) => probes::continue_log_probe(&mut ebpf),
            Err(error) => Err(error.into()),
        };
        let mut missing = attach_all(&mut ebpf)?;
        missing.extend(continued.err());
        // The probes see all that is opened from here on, and what they saw is never overwritten.
        let outcome = seed::seed(&mut ebpf);
        let statistics = Statistics::of(probes::loaded(&ebpf));
        // Only now: loading a program needs its maps' descriptors, which taking a map moves away.
        let packets = HashMap::try_from(take(&mut ebpf, "PACKETS")?)?;
        let receipts = HashMap::try_from(take(&mut ebpf, "RECEIPTS")?)?;
        let receipts_left = Array::try_from(take(&mut ebpf, "RECEIPTS_LEFT")?)?;
        let sockets = Sockets::take(&mut ebpf)?;
        let counters = Counters(Arc::new(PerCpuArray::try_from(take(&mut ebpf, "STATS")?)?));
        let seeded = match outcome {
            Ok(()) => Ok(counters.seeded()?),
            Err(error) => Err(error),
        };
        Ok(Self {
            ebpf,
            packets,
            receipts,
            receipts_left,
            sockets,
            counters,
            statistics,
            missing,
            seeded,
        })
    }

    /// Optional probes that this kernel does not take, each with its reason. Without them some packets get no owner; none
    /// gets a wrong one.
    #[must_use]
    pub fn missing(&self) -> &[OpenError] {
        &self.missing
    }

    /// The sockets older than the agent that the probes know, or why they know none or not all of them.
    ///
    /// # Errors
    /// When the kernel has no iterator over files, or refuses it. Packets of such sockets then have no owner until the
    /// process sends, accepts or connects.
    pub const fn seeded(&self) -> Result<Seeded, &SeedError> {
        match &self.seeded {
            Ok(seeded) => Ok(*seeded),
            Err(error) => Err(error),
        }
    }

    /// The programs' messages, to be read with `aya-log`.
    ///
    /// # Errors
    /// When the map is gone: it can be taken once.
    pub fn logger(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, aya_log::Error> {
        aya_log::EbpfLogger::init(&mut self.ebpf)
    }

    /// A handle for lookups by one thread.
    #[must_use]
    pub const fn lookup(&self) -> Lookup<'_> {
        Lookup {
            packets: &self.packets,
            receipts: &self.receipts,
            receipts_left: &self.receipts_left,
            sockets: &self.sockets,
        }
    }

    /// The programs' counters, to be read from any thread.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// What the kernel counts about the programs, to be read from any thread.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics.clone()
    }
}

/// What the programs counted.
#[derive(Clone)]
pub struct Counters(Arc<PerCpuArray<MapData, u64>>);

impl Counters {
    /// Each counter, summed over CPUs.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn read(&self) -> Result<[(Stat, u64); Stat::ALL.len()], MapError> {
        let mut totals = Stat::ALL.map(|stat| (stat, 0));
        for (stat, total) in &mut totals {
            *total = self.0.get(&(*stat as u32), 0)?.iter().sum();
        }
        Ok(totals)
    }

    fn seeded(&self) -> Result<Seeded, MapError> {
        let total = |stat: Stat| -> Result<u64, MapError> { Ok(self.0.get(&(stat as u32), 0)?.iter().sum()) };
        Ok(Seeded {
            sockets: total(Stat::Seeded)?,
            shared: total(Stat::SeededShared)?,
        })
    }
}

/// Looks up whose a logged packet is.
#[derive(Clone, Copy)]
pub struct Lookup<'a> {
    packets: &'a HashMap<MapData, PacketKey, LoggedOwner>,
    receipts: &'a HashMap<MapData, ReceiptKey, Answer>,
    receipts_left: &'a Array<MapData, u64>,
    sockets: &'a Sockets,
}

/// Between what times, `CLOCK_MONOTONIC` ns, an entry's packet was logged.
#[derive(Clone, Copy, Debug)]
pub struct LogTime {
    /// Not before.
    pub after: u64,
    /// Not after: when it was read.
    pub before: u64,
}

/// A packet to find the owner of.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// Inode of the namespace that it was logged in.
    pub netns: u32,
    /// `NF_INET_*` of the hook.
    pub hook: u8,
    /// What its headers say.
    pub packet: &'a Packet,
    /// Its captured bytes from the IP header on.
    pub payload: &'a [u8],
    /// What conntrack knew of it: a second key where addresses are translated, and a check of answers that were found by
    /// addresses which are not the socket's.
    pub connection: Option<Connection<'a>>,
    /// When it was logged.
    pub logged: LogTime,
}

impl Lookup<'_> {
    /// The owner of a packet.
    ///
    /// An answer from before `logged.after` is another packet's: the probe missed this one.
    /// When the answer for this tuple changed since `logged.after`, the packet can be the one's or the other's. A TCP segment
    /// that was logged after the change has left a receipt; without one it is the previous owner's. Where there are no
    /// receipts the answer is `ambiguous`, unless conntrack can tell.
    ///
    /// # Errors
    /// When the kernel refuses the lookup for another reason than that there is no entry.
    pub fn owner(&self, sighting: &Sighting<'_>) -> Result<Attribution, MapError> {
        let Some(key) = packet_key(sighting.netns, sighting.hook, sighting.packet) else {
            return Ok(Attribution::Unowned(Reason::Unparsable));
        };
        let answer = self.logged(key, sighting)?;
        if sighting.hook == FORWARD {
            return match answer {
                Some(answer) => self.forwarded(&answer, &key, sighting),
                None => Ok(Attribution::Unowned(Reason::Ambiguous)),
            };
        }
        let (first, changed) = match answer {
            Some(answer) => (attribution(&answer, End::at_hook(sighting.hook)), false),
            None => (Attribution::Unowned(Reason::Ambiguous), true),
        };
        let connection = sighting.connection.as_ref();
        match connection.map(|connection| connection.claim(sighting.netns, sighting.hook, key.protocol)) {
            None | Some(Claim::Silent) => Ok(first),
            Some(Claim::Undecided) => Ok(undecided(first)),
            Some(Claim::Socket { ends, closing }) => match check(first, changed, &ends, &key) {
                Ok(answer) => Ok(answer),
                Err(reason) if ends.protocol == TCP => {
                    let second = self.sockets.connection(
                        &ends,
                        closing,
                        sighting.logged.after,
                        End::at_hook(sighting.hook),
                    )?;
                    Ok(second.unwrap_or(Attribution::Unowned(reason)))
                }
                Err(reason) => Ok(Attribution::Unowned(reason)),
            },
        }
    }

    /// What the log probe left for the packet's tuple; `None` if it changed and this packet cannot be told from the others.
    fn logged(&self, key: PacketKey, sighting: &Sighting<'_>) -> Result<Option<Answer>, MapError> {
        let missed = Ok(Some(MISSED));
        let logged = sighting.logged;
        let Some(entry) = found(self.packets.get(&key, 0))? else {
            return missed;
        };
        if entry.seen_at < logged.after {
            return missed;
        }
        if entry.changed_at <= logged.after {
            return Ok(Some(entry.now));
        }
        let Some(receipt) = receipt_key(key, sighting.payload) else {
            return Ok(None);
        };
        if let Some(answer) = found(self.receipts.get(&receipt, 0))? {
            return Ok(Some(answer));
        }
        let left = self.receipts_left.get(&0, 0)?;
        Ok(previous_holds(&entry, logged, left).then_some(entry.previous))
    }
}

/// The value, if there is one.
fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a packet without receipt was logged before the change: receipts were left up to now and are all still there, and the
/// packet is not from before the change before that either.
#[expect(clippy::cast_possible_truncation, reason = "the count is kept modulo 2^32")]
const fn previous_holds(entry: &LoggedOwner, logged: LogTime, receipts_left: u64) -> bool {
    logged.before <= entry.receipts_until
        && (receipts_left as u32).wrapping_sub(entry.receipts_before) < RECEIPTS_MAX / 2
        && entry.changed_at.saturating_sub(logged.after) < QUIET_NS
}

/// An owner found by an address that may not be the packet's last one.
const fn undecided(first: Attribution) -> Attribution {
    match first {
        Attribution::Owned { .. } => Attribution::Unowned(Reason::Ambiguous),
        Attribution::Unowned(_) => first,
    }
}

/// The first answer if it stands; else, as an error, the reason to give unless the second key finds an owner. `changed`: two
/// connections, or a connection and the kernel, may have shared the logged tuple; conntrack tells them apart.
fn check(
    first: Attribution,
    changed: bool,
    ends: &SocketTuple,
    key: &PacketKey,
) -> Result<Attribution, Reason> {
    match first {
        Attribution::Unowned(reason) if changed => Err(reason),
        Attribution::Owned { method, .. } if contradicts(ends, key, method == Method::Tombstone) => {
            Err(Reason::NoSocket)
        }
        Attribution::Unowned(reason @ (Reason::NoSocket | Reason::TimeWait | Reason::Missed)) => Err(reason),
        _ => Ok(first),
    }
}

/// An answer that a program gave; `end` is that of its owner if the answer does not say.
fn attribution(answer: &Answer, end: End) -> Attribution {
    match method(answer.method) {
        Some(method) => Attribution::Owned {
            owner: owner(&answer.owner),
            method,
            end: match answer.end {
                nflog_common::end::SOURCE => End::Source,
                nflog_common::end::DESTINATION => End::Destination,
                _ => end,
            },
        },
        None => Attribution::Unowned(no_owner(answer.reason)),
    }
}

/// How the programs found an owner; `None` if they did not.
const fn method(code: u8) -> Option<Method> {
    match code {
        nflog_common::method::SOCKET => Some(Method::Socket),
        nflog_common::method::ACCEPTED => Some(Method::Accepted),
        nflog_common::method::INHERITED => Some(Method::Inherited),
        nflog_common::method::LISTENER => Some(Method::Listener),
        nflog_common::method::TOMBSTONE => Some(Method::Tombstone),
        nflog_common::method::SENDER => Some(Method::Sender),
        nflog_common::method::SEEDED => Some(Method::Seeded),
        _ => None,
    }
}

const fn no_owner(code: u8) -> Reason {
    match code {
        reason::FORWARDED => Reason::Forwarded,
        reason::TIME_WAIT => Reason::TimeWait,
        reason::KERNEL_SOCKET => Reason::KernelSocket,
        reason::KERNEL_TUNNEL => Reason::KernelTunnel,
        reason::KERNEL_TCP => Reason::KernelTcp,
        reason::KERNEL_ICMP => Reason::KernelIcmp,
        reason::FRAGMENT => Reason::Fragment,
        reason::MISSED => Reason::Missed,
        reason::OLDER_THAN_AGENT => Reason::OlderThanAgent,
        reason::AMBIGUOUS => Reason::Ambiguous,
        _ => Reason::NoSocket,
    }
}

fn owner(socket: &SocketOwner) -> Owner {
    let nonzero = |value| if value == 0 { None } else { Some(value) };
    Owner {
        pid: socket.tgid,
        start_boottime: nonzero(socket.start_boottime),
        uid: socket.uid,
        comm: Comm::new(socket.comm),
        cgroup_id: nonzero(socket.cgroup_id),
    }
}

/// Sizes of the programs' maps.
#[derive(Clone, Copy, Debug)]
pub struct MapSizes {
    /// Sockets whose owner is known at the same time, over all namespaces. One more stays unknown and is counted as
    /// [`Stat::SocketMapError`]; a known one is never pushed out.
    pub sockets: u32,
}

impl Default for MapSizes {
    /// As compiled: 65 536 sockets.
    fn default() -> Self {
        Self { sockets: 1 << 16 }
    }
}

/// Creates the maps and makes the programs ready to be loaded.
///
/// The second result is an error if the kernel lacks what leads to the owners of forwarded packets.
fn load(
    log_level: Option<aya_log::Level>,
    sizes: MapSizes,
) -> Result<(Ebpf, Result<(), BtfError>), OpenError> {
    probes::require_kprobes(Path::new("/sys"))?;
    let btf = fs::read(KERNEL_BTF).map_err(|source| OpenError::NoBtf {
        path: KERNEL_BTF,
        source,
    })?;
    let btf = btf::Btf::parse(&btf)?;
    let mut offsets = offsets::find(&btf)?;
    let forwarding = offsets::find_forwarding(&btf).map(|fields| offsets.forwarding = fields);
    let level = log_level.map_or(0, |level| level as u8);
    let mut loader = EbpfLoader::new();
    for map in ["SOCKETS", "TUPLES", "PORTS"] {
        loader.map_max_entries(map, sizes.sockets);
    }
    let ebpf = loader
        .override_global("OFFSETS", &offsets, true)
        .override_global(aya_log::LEVEL, &level, true)
        .load(OBJECT)
        .map_err(|source| OpenError::Load(Box::new(source)))?;
    Ok((ebpf, forwarding))
}

/// Sets the bit of each group in the programs' filter.
fn watch(ebpf: &mut Ebpf, groups: &[u16]) -> Result<(), OpenError> {
    let map = ebpf
        .map_mut("GROUPS")
        .ok_or(OpenError::NoMap { name: "GROUPS" })?;
    let mut filter: Array<_, u64> = Array::try_from(map)?;
    for &group in groups {
        let index = u32::from(group / 64);
        let word = filter.get(&index, 0)? | 1 << (group % 64);
        filter.set(index, word, 0)?;
    }
    Ok(())
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, OpenError> {
    ebpf.take_map(name).ok_or(OpenError::NoMap { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner {
        pid: 7,
        start_boottime: None,
        uid: 0,
        comm: Comm::new([0; 16]),
        cgroup_id: None,
    };

    const fn by(method: Method) -> Attribution {
        Attribution::Owned {
            owner: OWNER,
            method,
            end: End::Source,
        }
    }

    /// A packet of TCP from port 1 of one address to port 2 of another, and the ends of its sender or receiver.
    fn packet(hook: u8) -> (PacketKey, SocketTuple) {
        let key = PacketKey {
            netns: 5,
            protocol: TCP,
            hook,
            source_port: 1,
            destination_port: 2,
            pad: 0,
            source: [1; 16],
            destination: [2; 16],
        };
        let arrives = hook < 2;
        let ends = SocketTuple {
            netns: 5,
            protocol: TCP,
            pad: 0,
            pad2: 0,
            local_port: if arrives { 2 } else { 1 },
            remote_port: if arrives { 1 } else { 2 },
            local: [if arrives { 2 } else { 1 }; 16],
            remote: [if arrives { 1 } else { 2 }; 16],
        };
        (key, ends)
    }

    #[test]
    fn the_second_key_is_asked_where_the_first_found_nobody_or_the_wrong_socket() {
        let none = Attribution::Unowned;
        for hook in [0, 1, 3, 4] {
            let (key, own) = packet(hook);
            let other = SocketTuple {
                remote_port: 3,
                ..own
            };
            let first_try = |first, ends| check(first, false, &ends, &key);
            for reason in [Reason::NoSocket, Reason::TimeWait, Reason::Missed] {
                assert_eq!(first_try(none(reason), own), Err(reason));
            }
            for reason in [
                Reason::Ambiguous,
                Reason::KernelSocket,
                Reason::OlderThanAgent,
                Reason::Forwarded,
            ] {
                assert_eq!(first_try(none(reason), other), Ok(none(reason)));
            }
            for method in Method::ALL {
                assert_eq!(first_try(by(method), own), Ok(by(method)), "{method:?}");
                let believed = hook >= 3 && method != Method::Tombstone;
                let expected = if believed {
                    Ok(by(method))
                } else {
                    Err(Reason::NoSocket)
                };
                assert_eq!(first_try(by(method), other), expected, "{method:?} at {hook}");
            }
            let changed = check(none(Reason::Ambiguous), true, &own, &key);
            assert_eq!(changed, Err(Reason::Ambiguous));
        }
    }

    #[test]
    fn no_owner_is_believed_before_the_destination_is_decided() {
        assert_eq!(
            undecided(by(Method::Listener)),
            Attribution::Unowned(Reason::Ambiguous)
        );
        let none = Attribution::Unowned(Reason::NoSocket);
        assert_eq!(undecided(none), none);
    }
}
