//! The fallback owner source: asks the kernel after the fact, by `inet_diag` and `/proc/PID/fd`.
//!
//! For kernels without kprobes. It needs no eBPF, and knows less: a socket that is closed before its packets are read
//! from NFLOG has no owner any more.
//!
//! # What is answered
//!
//! - The hook selects the local end: destination in PREROUTING and INPUT, source in OUTPUT and POSTROUTING. In
//!   PREROUTING and POSTROUTING the local address must be one of this namespace.
//! - TCP: the socket with the packet's tuple. A connection that is not accepted yet, and a handshake, belong to the
//!   listener. A listener never answers for another packet: its connection is gone.
//! - UDP: received, the socket the kernel would deliver to; sent, any socket on the local port can be the sender.
//! - ICMP echo: the ping socket with that identifier. Raw sockets have no identifier and are not answered.
//! - Several sockets, or several processes that hold one socket, are an owner only if all lead to one process; else
//!   the reason is [`Reason::Ambiguous`]. systemd as pid 1 does not count beside another process: it keeps the sockets of
//!   services that it activates open and does not use them.
//!
//! # What an answer is worth
//!
//! Nothing is remembered by tuple: each packet asks the kernel which socket has it now, and an owner is named only
//! after reading back that it holds that socket now. So a reused port, pid or inode number never brings up an earlier
//! process. The reverse is possible and inherent: a packet whose socket was closed, and whose exact tuple (UDP: local
//! port) another process took in the time between logging and reading (NFLOG flush timeout plus time in the socket
//! queue), is given to the later process. A process that comes to share a socket is noticed within a second, a socket
//! that joins a port within 100 ms.
//!
//! # What it costs
//!
//! One or two system calls that never wait for each packet, and scans of all descriptors of the host, which take at most
//! 1/5 of the time. When a scan is due and not affordable the reason is [`Reason::Missed`].

mod budget;
mod error;
mod flow;
mod holders;
mod inet;
mod namespace;
pub(super) mod netlink;
mod ping;
mod ports;
pub(crate) mod process;
mod route;
mod select;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use netlink_sys::protocols::{NETLINK_ROUTE, NETLINK_SOCK_DIAG};

pub use error::{OpenError, QueryError};
pub use flow::Place;

use self::flow::{Flow, IPPROTO_TCP, IPPROTO_UDP, Kind, Role};
use self::holders::{Holders, Lack};
use self::inet::{InetDiag, Socket};
use self::netlink::Requests;
use self::ping::PingSockets;
use self::ports::Ports;
use self::route::LocalAddresses;
use self::select::Tcp;
use crate::owner::{Attribution, End, Method, Owner, Reason};
use crate::packet::Packet;

const PROC: &str = "/proc";
const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_ECHO: u8 = 8;
const ICMPV6_ECHO_REQUEST: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;

/// Finds the owners of packets logged in one network namespace.
///
/// Needs CAP_SYS_PTRACE to see the descriptors of other users' processes (and CAP_DAC_READ_SEARCH if it does not run as
/// root), the host's pid namespace, and CAP_SYS_ADMIN to open another namespace than its own.
#[derive(Debug)]
pub struct SockDiag {
    inet: InetDiag,
    addresses: LocalAddresses,
    ping: PingSockets,
    ports: Ports,
    holders: Holders,
}

impl SockDiag {
    /// Opens sockets in the network namespace that the file `netns` stands for, or in the caller's.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; among others, if the kernel has no `inet_diag` for TCP or UDP.
    pub fn open(netns: Option<&Path>) -> Result<Self, OpenError> {
        let (diag, route, ping) = namespace::within(netns, || {
            let open = |family, name| {
                Requests::open(family).map_err(|source| OpenError::Socket { family: name, source })
            };
            let diag = open(NETLINK_SOCK_DIAG, "NETLINK_SOCK_DIAG")?;
            let route = open(NETLINK_ROUTE, "NETLINK_ROUTE")?;
            let path = || PathBuf::from("/proc/thread-self/net/icmp");
            let ping = PingSockets::open().map_err(|source| OpenError::Proc { path: path(), source })?;
            Ok((diag, route, ping))
        })?;
        let mut inet = InetDiag::new(diag);
        check_support(&mut inet)?;
        let holders = Holders::open(Path::new(PROC)).map_err(|source| OpenError::Proc {
            path: PathBuf::from(PROC),
            source,
        })?;
        Ok(Self {
            inet,
            addresses: LocalAddresses::new(route),
            ping,
            ports: Ports::new(),
            holders,
        })
    }

    /// The owner of a packet, or the reason why none can be named.
    pub fn lookup(&mut self, place: impl Into<Place>, packet: &Packet) -> Attribution {
        match self.find(place.into(), packet) {
            Ok(attribution) => attribution,
            Err(reason) => Attribution::Unowned(reason),
        }
    }

    fn find(&mut self, place: Place, packet: &Packet) -> Result<Attribution, Reason> {
        let flow = Flow::new(place, packet)?;
        if flow.may_be_routed && !self.addresses.contains(flow.local).map_err(|_| Reason::Missed)? {
            return Err(Reason::Forwarded);
        }
        let owner = match flow.kind {
            Kind::Tcp(flags) => self.find_tcp(&flow, flags),
            Kind::Udp => self.find_udp(&flow),
            Kind::Echo(kind) => self.find_ping(&flow, kind),
        }?;
        Ok(Attribution::Owned {
            owner,
            method: Method::SockDiag,
            end: match flow.role {
                Role::Receives => End::Destination,
                Role::Sends => End::Source,
            },
        })
    }

    fn find_tcp(&mut self, flow: &Flow, flags: u8) -> Result<Owner, Reason> {
        let found = self.ask(flow)?.ok_or(Reason::NoSocket)?;
        match select::tcp(&found, flow.role, flags) {
            Tcp::Holder => self.common_owner(flow, &[found]),
            Tcp::Listener => self.find_listener(flow),
            Tcp::Unowned(reason) => Err(reason),
        }
    }

    fn find_listener(&mut self, flow: &Flow) -> Result<Owner, Reason> {
        let at_port = Flow {
            role: Role::Receives,
            ..flow.without_peer()
        };
        let listener = self
            .ask(&at_port)?
            .filter(|found| found.state == inet::LISTEN)
            .ok_or(Reason::NoSocket)?;
        self.on_port(&at_port, true, Some(&listener))
    }

    fn find_udp(&mut self, flow: &Flow) -> Result<Owner, Reason> {
        match self.ask(flow)? {
            None if flow.role == Role::Receives => Err(Reason::NoSocket),
            // No socket would receive from that peer, but one that is connected to another can have sent to it.
            found => self.on_port(flow, false, found.as_ref()),
        }
    }

    /// The owner of all sockets on the local port that can be the packet's.
    fn on_port(&mut self, flow: &Flow, listening: bool, found: Option<&Socket>) -> Result<Owner, Reason> {
        let sockets = self
            .ports
            .get(&mut self.inet, flow, listening, found)
            .ok_or(Reason::Missed)?;
        let candidates: Vec<Socket> = select::candidates(sockets, flow).into_iter().copied().collect();
        self.common_owner(flow, &candidates)
    }

    fn find_ping(&mut self, flow: &Flow, kind: u8) -> Result<Owner, Reason> {
        match (flow.role, kind) {
            (Role::Sends, ICMP_ECHO | ICMPV6_ECHO_REQUEST)
            | (Role::Receives, ICMP_ECHO_REPLY | ICMPV6_ECHO_REPLY) => {
                let inodes = self.ping.find(flow).map_err(|_| Reason::Missed)?;
                // Without a ping socket it is a raw socket's, or that of a process that has finished.
                self.owner_of(&inodes)
                    .map_err(|lack| lack.map_or(Reason::Missed, reason))
            }
            // The kernel itself answers pings.
            _ => Err(Reason::KernelSocket),
        }
    }

    fn common_owner(&mut self, flow: &Flow, sockets: &[Socket]) -> Result<Owner, Reason> {
        let inodes: Vec<u32> = sockets.iter().map(|socket| socket.inode).collect();
        match self.owner_of(&inodes) {
            Ok(owner) => Ok(owner),
            Err(None) => Err(Reason::NoSocket),
            // Nobody holds it: has it been closed meanwhile, or is it not a process's?
            Err(Some(Lack::Unheld)) if sockets.len() == 1 => match self.ask(flow)? {
                Some(again) if again.cookie == sockets[0].cookie && again.inode == sockets[0].inode => {
                    Err(Reason::KernelSocket)
                }
                _ => Err(Reason::ProcessGone),
            },
            Err(Some(lack)) => Err(reason(lack)),
        }
    }

    /// The process that holds all of these sockets; `Err(None)` if there are no sockets.
    fn owner_of(&mut self, inodes: &[u32]) -> Result<Owner, Option<Lack>> {
        let mut common = None;
        for &inode in inodes {
            let owner = self.holders.owner(inode)?;
            if common.is_some_and(|other: Owner| other.pid != owner.pid) {
                return Err(Some(Lack::Shared));
            }
            common = Some(owner);
        }
        common.ok_or(None)
    }

    fn ask(&mut self, flow: &Flow) -> Result<Option<Socket>, Reason> {
        self.inet.find(flow).map_err(|_| Reason::Missed)
    }
}

const fn reason(lack: Lack) -> Reason {
    match lack {
        Lack::Unheld => Reason::ProcessGone,
        Lack::Shared => Reason::Ambiguous,
        Lack::Unknown => Reason::Missed,
    }
}

/// Asks for the listeners on port 1, of which there is hardly ever one. It also makes the kernel load the modules that
/// answer, which takes time, before a packet waits.
fn check_support(inet: &mut InetDiag) -> Result<(), OpenError> {
    for (number, protocol, module) in [(IPPROTO_TCP, "TCP", "tcp_diag"), (IPPROTO_UDP, "UDP", "udp_diag")] {
        inet.on_port(number, IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1, true)
            .map_err(|source| OpenError::Unsupported {
                protocol,
                module,
                source,
            })?;
    }
    Ok(())
}
