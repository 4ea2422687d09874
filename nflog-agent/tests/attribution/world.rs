//! The namespaces that all cases share, the one agent that reads them, and what it has said so far.
//!
//! ```text
//! a ── b        two hosts on one wire
//! c ── r ── d   two hosts and the router between them
//! m             a host behind a macvlan device on a's end of the wire
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::case::Family;
use crate::flow::{Flow, ends};
use crate::program::Agent;
use crate::seen::Seen;
use crate::support::{Netns, Port, veth, wait_for};
use crate::worker::Worker;

/// Hosts log what they send and receive, and drop what goes to port 4001. Group 9.
const HOST_RULES: &str = "
    table inet t {
        chain out { type filter hook output priority 0; log prefix \"out \" group 9; tcp dport 4001 drop; }
        chain in { type filter hook input priority 0; log prefix \"in \" group 9; }
    }";

/// What `c` rewrites: the source of what goes to [`SNAT_PORT`], and [`SERVICE`]. It logs before and after that too.
fn client_nat(alias: (Ipv4Addr, Ipv6Addr), server: &Port) -> String {
    let Port { v4, v6, .. } = server;
    let (alias_v4, alias_v6) = alias;
    format!(
        "table inet n {{
            chain service {{ type nat hook output priority -100;
                ip daddr 10.99.0.1 tcp dport 4020 dnat ip to {v4}:4022
                ip6 daddr fd99::1 tcp dport 4020 dnat ip6 to [{v6}]:4022
            }}
            chain source {{ type nat hook postrouting priority 100;
                tcp dport 4019 snat ip to {alias_v4}
                tcp dport 4019 snat ip6 to {alias_v6}
            }}
            chain after {{ type filter hook postrouting priority 300;
                tcp dport {{ 4019, 4022 }} log prefix \"post \" group 9;
            }}
            chain before {{ type filter hook prerouting priority -300;
                tcp sport {{ 4019, 4022 }} log prefix \"pre \" group 9;
            }}
        }}"
    )
}

/// `d` takes what comes for [`REDIRECT_PORT`] to the port after [`TARGET_PORT`].
const SERVER_NAT: &str = "
    table inet n {
        chain taken { type nat hook prerouting priority -100; tcp dport 4021 redirect to :4023; }
    }";

pub(crate) const SNAT_PORT: u16 = 4019;
pub(crate) const DNAT_PORT: u16 = 4020;
pub(crate) const REDIRECT_PORT: u16 = 4021;
pub(crate) const TARGET_PORT: u16 = 4022;
/// The addresses at [`DNAT_PORT`] behind which, for `c`, is `d` at [`TARGET_PORT`].
pub(crate) const SERVICE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1)),
];

/// The router logs at every hook.
const ROUTER_RULES: &str = "
    table inet t {
        chain before { type filter hook prerouting priority 0; log prefix \"pre \" group 9; }
        chain in { type filter hook input priority 0; log prefix \"in \" group 9; }
        chain through { type filter hook forward priority 0; log prefix \"fwd \" group 9; }
        chain out { type filter hook output priority 0; log prefix \"out \" group 9; }
        chain after { type filter hook postrouting priority 0; log prefix \"post \" group 9; }
    }";

/// What softirqs and timers still have to do after the last system call of a case.
const AFTERMATH: Duration = Duration::from_millis(60);

/// Longer than it takes to start the next test.
const LINGER: Duration = Duration::from_secs(2);

/// Discard. Nobody listens there; the marker only has to be logged.
const MARKER_PORT: u16 = 9;

/// One namespace and its address on its wire; for the router, the address on `c`'s side.
pub(crate) struct Site {
    pub(crate) netns: Netns,
    pub(crate) inode: u32,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Site {
    pub(crate) fn new(netns: Netns, v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self {
            inode: netns.inode(),
            netns,
            v4,
            v6,
        }
    }

    pub(crate) fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// Its address with port 0.
    pub(crate) fn any_port(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.address(family), 0)
    }

    /// The end of a flow that is here.
    pub(crate) const fn flow(&self, transport: &'static str, local: SocketAddr, remote: SocketAddr) -> Flow {
        Flow {
            netns: self.inode,
            transport,
            local,
            remote,
        }
    }

    /// Starts a process here.
    #[track_caller]
    pub(crate) fn worker(&self) -> Worker {
        Worker::start(&self.netns)
    }

    /// Sends a datagram over loopback from a port of its own.
    fn mark(&self) -> SocketAddr {
        self.netns.run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            socket
                .send_to(b"marker", ("127.0.0.1", MARKER_PORT))
                .expect("loopback works");
            socket.local_addr().expect("bound")
        })
    }
}

/// What a test stands on: namespaces and an agent, shared by the tests that run at the same time.
pub(crate) trait Stage: Sized + 'static {
    /// Where those who share it find it.
    fn shelf() -> &'static Mutex<Weak<Self>>;

    fn new() -> Self;

    /// The one that other tests are using, or a new one. It ends with the last test that holds it.
    fn shared() -> Arc<Self> {
        let mut shelf = Self::shelf().lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stage) = shelf.upgrade() {
            return stage;
        }
        let new = Arc::new(Self::new());
        *shelf = Arc::downgrade(&new);
        new
    }

    /// Ends this test's use of it. The last user waits a little for another test to begin, which would have to make a new one.
    fn release(stage: Arc<Self>) {
        let end = Instant::now() + LINGER;
        while Arc::strong_count(&stage) == 1 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(stage);
    }
}

/// An agent, and what it has said so far.
pub(crate) struct Watch {
    agent: Agent,
    seen: Mutex<Vec<Seen>>,
}

/// See the module.
pub(crate) struct World {
    watch: Watch,
    pub(crate) a: Site,
    pub(crate) b: Site,
    pub(crate) c: Site,
    /// The addresses that `c` puts in place of its own.
    pub(crate) alias: [IpAddr; 2],
    pub(crate) d: Site,
    pub(crate) r: Site,
    pub(crate) m: Site,
}

/// A moment: for each site, by namespace inode, the sequence number of the last packet logged before it.
pub(crate) struct Moment(Vec<(u64, u64)>);

impl Deref for World {
    type Target = Watch;

    fn deref(&self) -> &Watch {
        &self.watch
    }
}

impl Stage for World {
    fn shelf() -> &'static Mutex<Weak<Self>> {
        static SHELF: Mutex<Weak<World>> = Mutex::new(Weak::new());
        &SHELF
    }

    fn new() -> Self {
        let [a, b, c, d, r, m] = ["a", "b", "c", "d", "r", "m"].map(Netns::new);
        let (port_a, port_b) = veth(&a, &b);
        let (port_c, port_r) = veth(&c, &r);
        let (right, port_d) = veth(&r, &d);
        c.ip(&format!("route add default via {}", port_r.v4));
        c.ip(&format!("-6 route add default via {}", port_r.v6));
        d.ip(&format!("route add default via {}", right.v4));
        d.ip(&format!("-6 route add default via {}", right.v6));
        r.run(|| {
            for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{switch}"), "1")
                    .expect("forwarding can be switched on");
            }
        });
        let below = &port_a.device;
        a.ip(&format!(
            "link add mac0 link {below} netns {} type macvlan mode bridge",
            m.path().file_name().expect("a name").to_string_lossy()
        ));
        let (v4, v6) = (neighbour_v4(port_a.v4), neighbour_v6(port_a.v6));
        m.ip(&format!("address add {v4}/24 dev mac0"));
        m.ip(&format!("address add {v6}/64 dev mac0 nodad"));
        m.ip("link set mac0 up");
        let alias = (neighbour_v4(port_c.v4), neighbour_v6(port_c.v6));
        c.ip(&format!("address add {}/24 dev {}", alias.0, port_c.device));
        c.ip(&format!("address add {}/64 dev {} nodad", alias.1, port_c.device));
        for host in [&a, &b, &c, &d, &m] {
            host.nft(HOST_RULES);
        }
        c.nft(&client_nat(alias, &port_d));
        d.nft(SERVER_NAT);
        r.nft(ROUTER_RULES);
        let watch = Watch::start(&[&a, &b, &c, &d, &r, &m]);
        let site = Site::new;
        Self {
            watch,
            a: site(a, port_a.v4, port_a.v6),
            b: site(b, port_b.v4, port_b.v6),
            alias: [alias.0.into(), alias.1.into()],
            c: site(c, port_c.v4, port_c.v6),
            d: site(d, port_d.v4, port_d.v6),
            r: site(r, port_r.v4, port_r.v6),
            m: site(m, v4, v6),
        }
    }
}

impl Watch {
    /// Starts an agent for group 9 of these namespaces.
    #[track_caller]
    pub(crate) fn start(namespaces: &[&Netns]) -> Self {
        let paths: Vec<_> = namespaces
            .iter()
            .map(|netns| netns.path().display().to_string())
            .collect();
        let agent = Agent::start(
            &[
                "--group",
                "9",
                "--netns",
                &paths.join(","),
                "--attribution",
                "probes",
                "--output",
                "json",
            ],
            &[],
        );
        Self {
            agent,
            seen: Mutex::default(),
        }
    }

    /// Now.
    #[track_caller]
    pub(crate) fn now(&self, sites: &[&Site]) -> Moment {
        let last = |site: &&Site| (u64::from(site.inode), self.settle(site));
        Moment(sites.iter().map(last).collect())
    }

    /// What was logged at `sites` since `moment`, which must have been of the same sites.
    #[track_caller]
    pub(crate) fn since(&self, moment: &Moment, sites: &[&Site]) -> Vec<Seen> {
        std::thread::sleep(AFTERMATH);
        let Moment(end) = self.now(sites);
        let mut entries = Vec::new();
        for ((inode, first), (other, last)) in moment.0.iter().zip(end) {
            assert_eq!(*inode, other, "the sites of the moment");
            // Batches can overtake each other on their way out; no packet is lost.
            entries.extend(wait_for("all entries", || {
                let seen = self.read();
                let logged_then = |entry: &&Seen| {
                    entry.number("nflog.netns.inode") == Some(*inode)
                        && entry
                            .number("nflog.seq")
                            .is_some_and(|seq| *first < seq && seq <= last)
                };
                let entries: Vec<_> = seen.iter().filter(logged_then).cloned().collect();
                (entries.len() as u64 == last - first).then_some(entries)
            }));
        }
        entries
    }

    /// Has a packet logged at `site`, and answers its sequence number.
    #[track_caller]
    fn settle(&self, site: &Site) -> u64 {
        // An earlier marker can have had the same port.
        let before = self.read().len();
        let marker = site.mark();
        wait_for("a marker", || {
            let seen = self.read();
            let entry = seen[before..]
                .iter()
                .find(|entry| is_marker(entry, site, marker))?;
            entry.number("nflog.seq")
        })
    }

    /// All that came out so far.
    fn read(&self) -> MutexGuard<'_, Vec<Seen>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(Seen::from_json(&self.agent.take_output()));
        seen
    }
}

/// Another host's address on the same wire.
const fn neighbour_v4(address: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, 7)
}

const fn neighbour_v6(address: Ipv6Addr) -> Ipv6Addr {
    let [a, b, c, d, e, f, g, _] = address.segments();
    Ipv6Addr::new(a, b, c, d, e, f, g, 7)
}

fn is_marker(entry: &Seen, site: &Site, marker: SocketAddr) -> bool {
    let to = SocketAddr::new(marker.ip(), MARKER_PORT);
    entry.number("nflog.netns.inode") == Some(site.inode.into())
        && entry.text("nflog.hook") == Some("input")
        && ends(entry) == Some((marker, to))
}
