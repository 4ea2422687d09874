//! The namespaces that all cases share, the one agent that reads them, and what it has said so far.
//!
//! ```text
//! a ── b        two hosts on one wire
//! c ── r ── d   two hosts and the router between them
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::case::Family;
use crate::flow::{Flow, ends};
use crate::program::Agent;
use crate::seen::Seen;
use crate::support::{Netns, veth, wait_for};
use crate::worker::Worker;

/// Hosts log what they send and receive, and drop what goes to port 4001. Group 9.
const HOST_RULES: &str = "
    table inet t {
        chain out { type filter hook output priority 0; log prefix \"out \" group 9; tcp dport 4001 drop; }
        chain in { type filter hook input priority 0; log prefix \"in \" group 9; }
    }";

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

    /// Sends a datagram over loopback from a port of its own; what was logged here before it comes out before it.
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

/// See the module.
pub(crate) struct World {
    agent: Agent,
    seen: Mutex<Vec<Seen>>,
    pub(crate) a: Site,
    pub(crate) b: Site,
    pub(crate) c: Site,
    pub(crate) d: Site,
    pub(crate) r: Site,
}

/// A moment in what the agent says.
#[derive(Clone, Copy)]
pub(crate) struct Moment(usize);

impl World {
    /// The one that other tests are using, or a new one. It ends with the last test that holds it.
    pub(crate) fn shared() -> Arc<Self> {
        static WORLD: Mutex<Weak<World>> = Mutex::new(Weak::new());
        let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(world) = world.upgrade() {
            return world;
        }
        let new = Arc::new(Self::new());
        *world = Arc::downgrade(&new);
        new
    }

    fn new() -> Self {
        let [a, b, c, d, r] = ["a", "b", "c", "d", "r"].map(Netns::new);
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
        for host in [&a, &b, &c, &d] {
            host.nft(HOST_RULES);
        }
        r.nft(ROUTER_RULES);
        let paths = [&a, &b, &c, &d, &r].map(|netns| netns.path().display().to_string());
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
        let site = |netns: Netns, v4, v6| Site {
            inode: netns.inode(),
            netns,
            v4,
            v6,
        };
        Self {
            agent,
            seen: Mutex::default(),
            a: site(a, port_a.v4, port_a.v6),
            b: site(b, port_b.v4, port_b.v6),
            c: site(c, port_c.v4, port_c.v6),
            d: site(d, port_d.v4, port_d.v6),
            r: site(r, port_r.v4, port_r.v6),
        }
    }

    /// Now. Everything that is logged at `sites` later comes out later.
    pub(crate) fn now(&self, sites: &[&Site]) -> Moment {
        self.settle(sites);
        Moment(self.seen.lock().unwrap().len())
    }

    /// What was logged at `sites` since `moment`, and whatever else came out meanwhile.
    pub(crate) fn since(&self, moment: Moment, sites: &[&Site]) -> Vec<Seen> {
        std::thread::sleep(AFTERMATH);
        self.settle(sites);
        self.seen.lock().unwrap()[moment.0..].to_vec()
    }

    /// Waits until all that was logged so far at `sites` has come out.
    #[track_caller]
    fn settle(&self, sites: &[&Site]) {
        for site in sites {
            let marker = site.mark();
            wait_for("a marker", || {
                let mut seen = self.seen.lock().unwrap();
                seen.extend(Seen::from_json(&self.agent.take_output()));
                seen.iter()
                    .rev()
                    .any(|entry| is_marker(entry, site, marker))
                    .then_some(())
            });
        }
    }
}

fn is_marker(entry: &Seen, site: &Site, marker: SocketAddr) -> bool {
    let to = SocketAddr::new(marker.ip(), MARKER_PORT);
    entry.number("nflog.netns.inode") == Some(site.inode.into())
        && entry.text("nflog.hook") == Some("input")
        && ends(entry) == Some((marker, to))
}
