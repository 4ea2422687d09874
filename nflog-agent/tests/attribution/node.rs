//! A host that routes for containers, as seen from its FORWARD chain.
//!
//! ```text
//! p, q   pods, each at the other end of a device of the node
//! s, t   pods on a bridge of the node
//! u, v   pods with the same addresses, behind two devices
//! x, y   pods with the same addresses and the same hardware address, on another bridge
//! k      a pod that masquerades for i, which is behind it
//! e      outside: the node's device on that wire is no pair, so nothing says what is behind it
//! ```
//!
//! Only the node logs. It masquerades what goes outside, publishes [`PUBLISHED`] and has the services [`INSIDE`] and
//! [`OUTSIDE`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::sync::{Mutex, Weak};

use crate::case::Family;
use crate::support::{Netns, Port, veth};
use crate::world::{Site, Stage, Watch};

/// Port of the node's outer address that leads to [`s`](Node::s) at [`TARGET`].
pub(crate) const PUBLISHED: u16 = 4081;
/// Port of the services' addresses.
pub(crate) const SERVICE: u16 = 4080;
/// Port that published and service addresses lead to.
pub(crate) const TARGET: u16 = 4088;

/// What `k` does with all that leaves it.
const MASQUERADE: &str = "
    table inet n {
        chain after { type nat hook postrouting priority 100; oifname \"veth*\" masquerade; }
    }";

/// A service whose server is [`t`](Node::t).
pub(crate) const INSIDE: [IpAddr; 2] = service(1);
/// A service whose server is outside.
pub(crate) const OUTSIDE: [IpAddr; 2] = service(2);

const fn service(number: u8) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::new(10, 98, 0, number)),
        IpAddr::V6(Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0, number as u16)),
    ]
}

/// See the module.
pub(crate) struct Node {
    watch: Watch,
    /// The node itself; its address is the outer one.
    pub(crate) n: Site,
    pub(crate) p: Site,
    pub(crate) q: Site,
    pub(crate) s: Site,
    pub(crate) t: Site,
    pub(crate) u: Site,
    pub(crate) v: Site,
    pub(crate) x: Site,
    /// Is only there.
    _y: Site,
    pub(crate) k: Site,
    pub(crate) i: Site,
    pub(crate) e: Site,
    /// Between the node's outer device and `e`.
    _wire: Netns,
}

impl Deref for Node {
    type Target = Watch;

    fn deref(&self) -> &Watch {
        &self.watch
    }
}

impl Stage for Node {
    fn shelf() -> &'static Mutex<Weak<Self>> {
        static SHELF: Mutex<Weak<Node>> = Mutex::new(Weak::new());
        &SHELF
    }

    fn new() -> Self {
        let [n, wire, e] = ["n", "w", "e"].map(Netns::new);
        forward(&n);
        let outside = uplink(&n, &wire, &e);
        let (p, q) = (routed(&n, "p"), routed(&n, "q"));
        bridge(&n, "cni0", 78);
        let (s, t) = (bridged(&n, "s", 78, 2, None), bridged(&n, "t", 78, 3, None));
        bridge(&n, "twin0", 81);
        let twin = "02:78:00:00:00:99";
        let (x, y) = (
            bridged(&n, "x", 81, 2, Some(twin)),
            bridged(&n, "y", 81, 2, Some(twin)),
        );
        let (u, v) = (overlapping(&n, "u"), overlapping(&n, "v"));
        let k = routed(&n, "k");
        forward(&k.netns);
        k.netns.nft(MASQUERADE);
        let i = routed(&k.netns, "i");
        n.nft(&rules(&s, &t, &outside));
        let watch = Watch::start(&[&n]);
        Self {
            watch,
            n: Site::new(n, outer_v4(outside.v4), outer_v6(outside.v6)),
            p,
            q,
            s,
            t,
            u,
            v,
            x,
            _y: y,
            k,
            i,
            e: Site::new(e, outside.v4, outside.v6),
            _wire: wire,
        }
    }
}

impl Node {
    /// A service's address.
    pub(crate) const fn of(family: Family, [v4, v6]: [IpAddr; 2]) -> IpAddr {
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// Sends what is for the address of `u` and `v` to this one. The other family's test runs at the same time, and leads its
    /// own way.
    #[track_caller]
    pub(crate) fn lead_to(&self, pod: &str, family: Family) {
        self.n.netns.ip(&match family {
            Family::V4 => format!("route replace 10.79.0.2/32 dev ov-{pod}"),
            Family::V6 => format!("-6 route replace fd79::2/128 dev ov-{pod}"),
        });
    }
}

fn forward(netns: &Netns) {
    netns.run(|| {
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{switch}"), "1").expect("forwarding can be switched on");
        }
    });
}

fn rules(s: &Site, t: &Site, outside: &Port) -> String {
    let mut translations = String::new();
    for protocol in ["tcp", "udp"] {
        for (family, ip, bare) in [(Family::V4, "ip", true), (Family::V6, "ip6", false)] {
            let to = |address: IpAddr| {
                if bare {
                    format!("dnat ip to {address}:{TARGET}")
                } else {
                    format!("dnat ip6 to [{address}]:{TARGET}")
                }
            };
            let nfproto = if bare { "ipv4" } else { "ipv6" };
            let beyond = match family {
                Family::V4 => IpAddr::from(outside.v4),
                Family::V6 => outside.v6.into(),
            };
            translations += &format!(
                "iifname \"up0\" meta nfproto {nfproto} {protocol} dport {PUBLISHED} {}\n
                 {ip} daddr {} {protocol} dport {SERVICE} {}\n
                 {ip} daddr {} {protocol} dport {SERVICE} {}\n",
                to(s.address(family)),
                Node::of(family, INSIDE),
                to(t.address(family)),
                Node::of(family, OUTSIDE),
                to(beyond),
            );
        }
    }
    format!(
        "table inet t {{
            chain in {{ type filter hook input priority 0; log prefix \"in \" group 9; }}
            chain through {{ type filter hook forward priority 0; log prefix \"fwd \" group 9; }}
        }}
        table inet n {{
            chain before {{ type nat hook prerouting priority -100; {translations} }}
            chain after {{ type nat hook postrouting priority 100; oifname \"up0\" masquerade; }}
        }}"
    )
}

/// The node's address on the wire to the outside.
const fn outer_v4(address: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, 7)
}

const fn outer_v6(address: Ipv6Addr) -> Ipv6Addr {
    let [a, b, c, d, e, f, g, _] = address.segments();
    Ipv6Addr::new(a, b, c, d, e, f, g, 7)
}

/// Connects the node with the outside; answers the outside's port.
fn uplink(n: &Netns, wire: &Netns, e: &Netns) -> Port {
    let (outside, below) = veth(e, wire);
    wire.ip(&format!(
        "link add up0 link {} netns {} type macvlan mode bridge",
        below.device,
        name(n)
    ));
    let (v4, v6) = (outer_v4(outside.v4), outer_v6(outside.v6));
    n.ip(&format!("address add {v4}/24 dev up0"));
    n.ip(&format!("address add {v6}/64 dev up0 nodad"));
    n.ip("link set up0 up");
    outside
}

/// A pod at the other end of a device.
fn routed(n: &Netns, pod: &str) -> Site {
    let netns = Netns::new(pod);
    let (here, there) = veth(n, &netns);
    netns.ip(&format!("route add default via {}", here.v4));
    netns.ip(&format!("-6 route add default via {}", here.v6));
    Site::new(netns, there.v4, there.v6)
}

fn bridge(n: &Netns, device: &str, net: u8) {
    n.ip(&format!("link add {device} type bridge"));
    n.ip(&format!("address add 10.{net}.0.1/24 dev {device}"));
    n.ip(&format!("address add fd{net}::1/64 dev {device} nodad"));
    n.ip(&format!("link set {device} up"));
}

/// A pod on the bridge of `net`.
fn bridged(n: &Netns, pod: &str, net: u8, host: u8, hardware: Option<&str>) -> Site {
    let netns = Netns::new(pod);
    let bridge = if net == 78 { "cni0" } else { "twin0" };
    n.ip(&format!(
        "link add port-{pod} type veth peer name eth0 netns {}",
        name(&netns)
    ));
    n.ip(&format!("link set port-{pod} master {bridge} up"));
    if let Some(hardware) = hardware {
        netns.ip(&format!("link set eth0 address {hardware}"));
    }
    pod_addresses(&netns, net, host);
    Site::new(
        netns,
        Ipv4Addr::new(10, net, 0, host),
        Ipv6Addr::new(0xfd00 | hex(net), 0, 0, 0, 0, 0, 0, host.into()),
    )
}

/// A pod behind a device of its own, with an address that another one has too.
fn overlapping(n: &Netns, pod: &str) -> Site {
    let netns = Netns::new(pod);
    let device = format!("ov-{pod}");
    n.ip(&format!(
        "link add {device} type veth peer name eth0 netns {}",
        name(&netns)
    ));
    n.ip(&format!("address add 10.79.0.1/32 dev {device}"));
    n.ip(&format!("address add fd79::1/128 dev {device} nodad"));
    n.ip(&format!("link set {device} up"));
    pod_addresses(&netns, 79, 2);
    Site::new(
        netns,
        Ipv4Addr::new(10, 79, 0, 2),
        Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, 2),
    )
}

fn pod_addresses(netns: &Netns, net: u8, host: u8) {
    netns.ip(&format!("address add 10.{net}.0.{host}/24 dev eth0"));
    netns.ip(&format!("address add fd{net}::{host}/64 dev eth0 nodad"));
    netns.ip("link set eth0 up");
    netns.ip(&format!("route add default via 10.{net}.0.1"));
    netns.ip(&format!("-6 route add default via fd{net}::1"));
}

/// The digits of a number below 100, read as hexadecimal.
const fn hex(net: u8) -> u16 {
    (net / 10 * 16 + net % 10) as u16
}

fn name(netns: &Netns) -> String {
    let path = netns.path();
    path.file_name().expect("a name").to_string_lossy().into_owned()
}
