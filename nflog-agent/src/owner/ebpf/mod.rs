//! Owner source of choice: kprobes that write the owner of each logged packet into a map before the NFLOG message exists.
//!
//! This module loads and attaches them and looks answers up. A lookup is one `bpf(2)` call that does not sleep.

mod btf;
mod error;
mod offsets;
mod probes;
mod seed;

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
use probes::attach_all;
pub use seed::{SeedError, Seeded};

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
        probes::require_kprobes(Path::new("/sys"))?;
        let btf = fs::read(KERNEL_BTF).map_err(|source| OpenError::NoBtf {
            path: KERNEL_BTF,
            source,
        })?;
        let offsets = offsets::find(&btf::Btf::parse(&btf)?)?;
        let level = log_level.map_or(0, |level| level as u8);
        let mut ebpf = EbpfLoader::new()
            .override_global("OFFSETS", &offsets, true)
            .override_global(aya_log::LEVEL, &level, true)
            .load(OBJECT)
            .map_err(|source| OpenError::Load(Box::new(source)))?;
        watch(&mut ebpf, groups)?;
        let missing = attach_all(&mut ebpf)?;
        // The probes see all that is opened from here on, and what they saw is never overwritten.
        let outcome = seed::seed(&mut ebpf);
        // Only now: loading a program needs its maps' descriptors, which taking a map moves away.
        let packets = HashMap::try_from(take(&mut ebpf, "PACKETS")?)?;
        let receipts = HashMap::try_from(take(&mut ebpf, "RECEIPTS")?)?;
        let receipts_left = Array::try_from(take(&mut ebpf, "RECEIPTS_LEFT")?)?;
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
            counters,
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
        }
    }

    /// The programs' counters, to be read from any thread.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters.clone()
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
        method::SEEDED => Method::Seeded,
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
