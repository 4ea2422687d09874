//! Owner source of choice: kprobes that hand over the owner of each logged packet before the NFLOG message exists.
//!
//! This module loads and attaches them and looks answers up. A lookup waits for nothing but another reader's lookup.

mod answers;
mod btf;
mod error;
mod forward;
mod noop;
mod offsets;
mod probes;
mod process;
mod seed;
mod sockets;
mod statistics;
mod verify;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use nflog_common::{Answer, PacketKey, ProcessOffsets, SocketOwner, SocketTuple, Stat, reason};

use answers::{Answers, Told};
pub use btf::BtfError;
pub use error::OpenError;
pub use noop::Noop;
use probes::attach_all;
pub use process::ProcessEvents;
pub use seed::{SeedError, Seeded};
use sockets::{Closing, Sockets};
pub use statistics::{ProgramStatistics, Statistics};
pub use verify::{Verified, verify};

use super::cgroups::v1_controller;
use super::connection::{Claim, Connection, TCP, contradicts};
use super::key::{fingerprint, packet_key};
use super::{Attribution, Comm, End, Method, Owner, Reason};
use crate::nflog::monotonic_ns;
use crate::packet::Packet;

const OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nflog-ebpf.o"));
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// `NF_INET_FORWARD`.
const FORWARD: u8 = 2;

/// Loaded and attached probes. Dropping it detaches them.
pub struct Probes {
    ebpf: Ebpf,
    namespaces: Mutex<HashMap<MapData, u32, u64>>,
    answers: Mutex<Answers>,
    sockets: Sockets,
    counters: Counters,
    statistics: Statistics,
    missing: Vec<OpenError>,
    seeded: Result<Seeded, SeedError>,
    processes: Result<ProcessEvents, OpenError>,
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
        let (mut ebpf, fields) = load(log_level, sizes)?;
        watch(&mut ebpf, groups)?;
        let followed = fields.process.and_then(|()| process::follow(&mut ebpf));
        let continued = fields
            .forwarding
            .and_then(|()| probes::continue_log_probe(&mut ebpf));
        let mut missing = attach_all(&mut ebpf)?;
        missing.extend(continued.err());
        // The probes see all that is opened from here on, and what they saw is never overwritten.
        let outcome = seed::seed(&mut ebpf);
        let statistics = Statistics::of(probes::loaded(&ebpf));
        // Only now: loading a program needs its maps' descriptors, which taking a map moves away.
        let namespaces = Mutex::new(HashMap::try_from(take(&mut ebpf, "NAMESPACES")?)?);
        let answers = Mutex::new(Answers::take(&mut ebpf)?);
        let sockets = Sockets::take(&mut ebpf)?;
        let counters = Counters(Arc::new(PerCpuArray::try_from(take(&mut ebpf, "STATS")?)?));
        let processes = match followed {
            Ok(()) => ProcessEvents::take(&mut ebpf),
            Err(error) => Err(error),
        };
        let seeded = match outcome {
            Ok(()) => Ok(counters.seeded()?),
            Err(error) => Err(error),
        };
        Ok(Self {
            ebpf,
            namespaces,
            answers,
            sockets,
            counters,
            statistics,
            missing,
            seeded,
            processes,
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

    /// What happens to processes from now on, once; or why that cannot be followed.
    ///
    /// # Errors
    /// When the kernel refuses a program, or lacks a struct member. Also when they were taken before.
    pub fn take_process_events(&mut self) -> Result<ProcessEvents, OpenError> {
        std::mem::replace(&mut self.processes, Err(OpenError::NoMap { name: process::MAP }))
    }

    /// The programs' messages, to be read with `aya-log`.
    ///
    /// # Errors
    /// When the map is gone: it can be taken once.
    pub fn logger(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, aya_log::Error> {
        aya_log::EbpfLogger::init(&mut self.ebpf)
    }

    /// A handle for lookups by the one reader of the namespace with inode `netns`. The probes answer for packets that are logged
    /// there from now on, until it is dropped.
    ///
    /// # Errors
    /// When the kernel does not take the namespace.
    pub fn lookup(&self, netns: u32) -> Result<Lookup<'_>, OpenError> {
        let since = monotonic_ns();
        unpoisoned(&self.namespaces).insert(netns, since, 0)?;
        Ok(Lookup {
            probes: self,
            netns,
            since,
        })
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

/// Looks up whose the packets are that are logged in one namespace.
pub struct Lookup<'a> {
    probes: &'a Probes,
    netns: u32,
    /// `CLOCK_MONOTONIC` ns.
    since: u64,
}

impl Drop for Lookup<'_> {
    fn drop(&mut self) {
        if let Err(error) = unpoisoned(&self.probes.namespaces).remove(&self.netns) {
            tracing::warn!(
                "the probes go on to answer for the network namespace {}: {error}",
                self.netns
            );
        }
    }
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
    /// It is the answer for just this packet: told from others of its tuple by sequence numbers and the like. Where the capture
    /// is too short for that the answer for the tuple counts, and is `ambiguous` if that changed since `logged.after`, unless
    /// conntrack can tell.
    ///
    /// # Errors
    /// When the kernel refuses the lookup for another reason than that there is no entry.
    pub fn owner(&self, sighting: &Sighting<'_>) -> Result<Attribution, MapError> {
        let Some(key) = packet_key(self.netns, sighting.hook, sighting.packet) else {
            return Ok(Attribution::Unowned(Reason::Unparsable));
        };
        let print = fingerprint(key, sighting.packet, sighting.payload);
        let told = unpoisoned(&self.probes.answers).find(&key, print.as_ref(), sighting.logged);
        let end = End::at_hook(sighting.hook);
        let (first, after, changed) = match told {
            Told::Answer(answer, after) if sighting.hook == FORWARD => {
                return self.forwarded(&answer, &key, sighting.connection.as_ref(), after);
            }
            Told::Answer(answer, after) => (attribution(&answer, end), after, false),
            Told::Nothing => (Attribution::Unowned(Reason::Missed), sighting.logged.after, false),
            Told::Changed => (
                Attribution::Unowned(Reason::Ambiguous),
                sighting.logged.after,
                true,
            ),
        };
        let connection = sighting.connection.as_ref();
        match connection.map(|connection| connection.claim(self.netns, sighting.hook, key.protocol)) {
            None | Some(Claim::Silent) => Ok(first),
            Some(Claim::Undecided) => Ok(undecided(first)),
            Some(Claim::Socket { ends, closing }) => match check(first, changed, &ends, &key) {
                Ok(answer) => Ok(answer),
                Err(reason) if ends.protocol == TCP => {
                    let second = self.connection(&ends, closing, after, end)?;
                    Ok(match second {
                        // That the probe did not run is why nothing better is known.
                        Some(Attribution::Unowned(_)) if reason == Reason::Missed => {
                            Attribution::Unowned(reason)
                        }
                        _ => second.unwrap_or(Attribution::Unowned(reason)),
                    })
                }
                Err(reason) => Ok(Attribution::Unowned(reason)),
            },
        }
    }

    /// See [`Sockets::connection`].
    fn connection(
        &self,
        ends: &SocketTuple,
        closing: bool,
        logged_after: u64,
        end: End,
    ) -> Result<Option<Attribution>, MapError> {
        // Of another namespace than the reader's it is not known since when the number is its.
        let since = if ends.netns == self.netns { self.since } else { 0 };
        let closing = Closing { closing, since };
        self.probes.sockets.connection(ends, closing, logged_after, end)
    }
}

/// A panic of another reader leaves the maps as they are: whole.
fn unpoisoned<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The value, if there is one.
fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
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
        reason::MAP_FULL => Reason::MapFull,
        reason::AMBIGUOUS => Reason::Ambiguous,
        _ => Reason::NoSocket,
    }
}

fn owner(socket: &SocketOwner) -> Owner {
    let nonzero = |value| if value == 0 { None } else { Some(value) };
    Owner {
        pid: socket.tgid,
        start_boottime: nonzero(socket.start_boottime),
        exec_id: Some(socket.exec_id).filter(|id| *id != 0),
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
    /// Bytes of the ring buffer with the answers for packets that are logged and not read yet, 152 for each; a power of two and
    /// a multiple of the page size. One more is lost and counted as [`Stat::AnswerLost`].
    pub answers: u32,
    /// Bytes of the ring buffer for what happens to processes; a power of two and a multiple of the page size. An event takes
    /// 88 bytes and the executable's path; what does not fit is counted as [`Stat::ProcessEventsLost`].
    pub process_events: u32,
    /// Whether programs' arguments are read, too: up to 512 bytes of each.
    pub process_arguments: bool,
}

impl Default for MapSizes {
    /// As compiled: 65 536 sockets, 16 MiB of answers, 1 MiB of process events, no arguments.
    fn default() -> Self {
        Self {
            sockets: 1 << 16,
            answers: 1 << 24,
            process_events: 1 << 20,
            process_arguments: false,
        }
    }
}

/// Whether this kernel has the fields that only a part of the programs needs.
struct Fields {
    process: Result<(), OpenError>,
    forwarding: Result<(), OpenError>,
}

/// Creates the maps and makes the programs ready to be loaded.
fn load(log_level: Option<aya_log::Level>, sizes: MapSizes) -> Result<(Ebpf, Fields), OpenError> {
    probes::require_kprobes(Path::new("/sys"))?;
    let btf = fs::read(KERNEL_BTF).map_err(|source| OpenError::NoBtf {
        path: KERNEL_BTF,
        source,
    })?;
    let btf = btf::Btf::parse(&btf)?;
    let mut offsets = offsets::find(&btf)?;
    let forwarding = offsets::find_forwarding(&btf).map(|fields| offsets.forwarding = fields);
    // On a kernel without the member ids are those of cgroup v2.
    offsets.css_set_controller = v1_controller(Path::new("/proc"))
        .and_then(|name| offsets::controller(&btf, name).ok())
        .unwrap_or(0);
    let process = offsets::find_process(&btf);
    let process_offsets: ProcessOffsets = process.as_ref().copied().unwrap_or_default();
    let arguments = u8::from(sizes.process_arguments);
    let level = log_level.map_or(0, |level| level as u8);
    let mut loader = EbpfLoader::new();
    for map in ["SOCKETS", "TUPLES", "PORTS"] {
        loader.map_max_entries(map, sizes.sockets);
    }
    loader.map_max_entries("ANSWERS", sizes.answers);
    let ebpf = loader
        .map_max_entries(process::MAP, sizes.process_events)
        .override_global("PROCESS_OFFSETS", &process_offsets, true)
        .override_global("PROCESS_ARGS", &arguments, true)
        .override_global("OFFSETS", &offsets, true)
        .override_global(aya_log::LEVEL, &level, true)
        .load(OBJECT)
        .map_err(|source| OpenError::Load(Box::new(source)))?;
    let fields = Fields {
        process: process.map(|_| ()).map_err(OpenError::Btf),
        forwarding: forwarding.map_err(OpenError::Btf),
    };
    Ok((ebpf, fields))
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
        exec_id: None,
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
