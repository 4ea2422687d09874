//! Owner source of choice: kprobes that write the owner of each logged packet into a map before the NFLOG message exists.
//!
//! This module loads and attaches them and looks answers up. A lookup is one `bpf(2)` call that does not sleep.

mod btf;
mod error;
mod noop;
mod offsets;
mod probes;
mod statistics;
mod verify;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use nflog_common::{
    Answer, LoggedOwner, PacketKey, QUIET_NS, RECEIPTS_MAX, ReceiptKey, SocketOwner, Stat, method, reason,
};

pub use btf::BtfError;
pub use error::OpenError;
pub use noop::Noop;
use probes::attach_all;
pub use statistics::{ProgramStatistics, Statistics};
pub use verify::{Verified, verify};

use super::key::{packet_key, receipt_key};
use super::{Attribution, Comm, Method, Owner, Reason};
use crate::packet::Packet;

const OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nflog-ebpf.o"));
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Loaded and attached probes. Dropping it detaches them.
pub struct Probes {
    ebpf: Ebpf,
    packets: HashMap<MapData, PacketKey, LoggedOwner>,
    receipts: HashMap<MapData, ReceiptKey, Answer>,
    receipts_left: Array<MapData, u64>,
    counters: Counters,
    statistics: Statistics,
    missing: Vec<OpenError>,
}

impl Probes {
    /// Loads the programs, tells them the NFLOG groups to watch, and attaches them.
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
        let mut ebpf = load(log_level, sizes)?;
        watch(&mut ebpf, groups)?;
        let missing = attach_all(&mut ebpf)?;
        let statistics = Statistics::of(probes::loaded(&ebpf));
        // Only now: loading a program needs its maps' descriptors, which taking a map moves away.
        let packets = HashMap::try_from(take(&mut ebpf, "PACKETS")?)?;
        let receipts = HashMap::try_from(take(&mut ebpf, "RECEIPTS")?)?;
        let receipts_left = Array::try_from(take(&mut ebpf, "RECEIPTS_LEFT")?)?;
        let counters = Counters(Arc::new(PerCpuArray::try_from(take(&mut ebpf, "STATS")?)?));
        Ok(Self {
            ebpf,
            packets,
            receipts,
            receipts_left,
            counters,
            statistics,
            missing,
        })
    }

    /// Optional probes that this kernel does not take, each with its reason. Without them some packets get no owner; none
    /// gets a wrong one.
    #[must_use]
    pub fn missing(&self) -> &[OpenError] {
        &self.missing
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
}

/// Looks up whose a logged packet is.
#[derive(Clone, Copy)]
pub struct Lookup<'a> {
    packets: &'a HashMap<MapData, PacketKey, LoggedOwner>,
    receipts: &'a HashMap<MapData, ReceiptKey, Answer>,
    receipts_left: &'a Array<MapData, u64>,
}

/// Between what times, `CLOCK_MONOTONIC` ns, an entry's packet was logged.
#[derive(Clone, Copy, Debug)]
pub struct LogTime {
    /// Not before.
    pub after: u64,
    /// Not after: when it was read.
    pub before: u64,
}

impl Lookup<'_> {
    /// The owner of `packet`, logged in namespace `netns` at `hook` (`NF_INET_*`); `payload` is its captured bytes from the IP
    /// header on.
    ///
    /// An answer from before `logged.after` is another packet's: the probe missed this one.
    /// When the answer for this tuple changed since `logged.after`, the packet can be the one's or the other's. A TCP segment
    /// that was logged after the change has left a receipt; without one it is the previous owner's. Where there are no
    /// receipts the answer is `ambiguous`.
    ///
    /// # Errors
    /// When the kernel refuses the lookup for another reason than that there is no entry.
    pub fn owner(
        &self,
        netns: u32,
        hook: u8,
        packet: &Packet,
        payload: &[u8],
        logged: LogTime,
    ) -> Result<Attribution, MapError> {
        let Some(key) = packet_key(netns, hook, packet) else {
            return Ok(Attribution::Unowned(Reason::Unparsable));
        };
        let entry = match self.packets.get(&key, 0) {
            Ok(entry) => entry,
            Err(MapError::KeyNotFound) => return Ok(Attribution::Unowned(Reason::Missed)),
            Err(error) => return Err(error),
        };
        if entry.seen_at < logged.after {
            return Ok(Attribution::Unowned(Reason::Missed));
        }
        if entry.changed_at <= logged.after {
            return Ok(attribution(&entry.now));
        }
        let Some(receipt) = receipt_key(key, payload) else {
            return Ok(Attribution::Unowned(Reason::Ambiguous));
        };
        match self.receipts.get(&receipt, 0) {
            Ok(answer) => Ok(attribution(&answer)),
            Err(MapError::KeyNotFound) => {
                let left = self.receipts_left.get(&0, 0)?;
                Ok(if previous_holds(&entry, logged, left) {
                    attribution(&entry.previous)
                } else {
                    Attribution::Unowned(Reason::Ambiguous)
                })
            }
            Err(error) => Err(error),
        }
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

fn attribution(answer: &Answer) -> Attribution {
    let method = match answer.method {
        method::SOCKET => Method::Socket,
        method::ACCEPTED => Method::Accepted,
        method::INHERITED => Method::Inherited,
        method::LISTENER => Method::Listener,
        method::TOMBSTONE => Method::Tombstone,
        method::SENDER => Method::Sender,
        _ => return Attribution::Unowned(no_owner(answer.reason)),
    };
    Attribution::Owned {
        owner: owner(&answer.owner),
        method,
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
fn load(log_level: Option<aya_log::Level>, sizes: MapSizes) -> Result<Ebpf, OpenError> {
    probes::require_kprobes(Path::new("/sys"))?;
    let btf = fs::read(KERNEL_BTF).map_err(|source| OpenError::NoBtf {
        path: KERNEL_BTF,
        source,
    })?;
    let offsets = offsets::find(&btf::Btf::parse(&btf)?)?;
    let level = log_level.map_or(0, |level| level as u8);
    let mut loader = EbpfLoader::new();
    for map in ["SOCKETS", "TUPLES", "PORTS"] {
        loader.map_max_entries(map, sizes.sockets);
    }
    loader
        .override_global("OFFSETS", &offsets, true)
        .override_global(aya_log::LEVEL, &level, true)
        .load(OBJECT)
        .map_err(|source| OpenError::Load(Box::new(source)))
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
