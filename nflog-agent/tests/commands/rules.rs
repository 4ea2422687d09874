//! Rules as people install them: in namespaces of their own, with packets that tell where they come from.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};
use std::time::Duration;

use nflog_agent::nflog::Nflog;

use super::{binary, nflog_agent, stdout};
use crate::support::{Netns, Port, cgroup2_root, feed, kernel, veth, wait_for};

/// A table that is nobody's business.
const FOREIGN: &str = "table inet filter {
    chain input { type filter hook input priority filter; policy accept; udp dport 9 counter comment \"theirs\"; }
}
table ip nflog-agent {
    chain x { }
}";

/// What the wished packets were: hook and name, and how often.
type Logged = BTreeMap<(String, String), u32>;

/// Arguments of `rules install`, and which packets they wish.
type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);

/// A host that forwards between a pod and the world.
struct World {
    host: Netns,
    pod: Netns,
    outside: Netns,
    /// Towards the pod: the host's end, the pod's end.
    inner: (Port, Port),
    /// Towards the outside: the host's end, the other.
    outer: (Port, Port),
}

impl World {
    fn new() -> Self {
        let (host, pod, outside) = (Netns::new("host"), Netns::new("pod"), Netns::new("outside"));
        let inner = veth(&host, &pod);
        let outer = veth(&host, &outside);
        pod.ip(&format!("route add default via {}", inner.0.v4));
        outside.ip(&format!("route add default via {}", outer.0.v4));
        host.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
            .expect("routing can be switched on");
        Self {
            host,
            pod,
            outside,
            inner,
            outer,
        }
    }

    fn rules<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        let path = self.host.path();
        let path = path.to_str().expect("UTF-8").to_owned();
        let mut all = vec!["rules".to_owned()];
        all.extend(arguments.into_iter().map(str::to_owned));
        all.extend(["--netns".to_owned(), path]);
        nflog_agent(all)
    }

    #[track_caller]
    fn install(&self, arguments: &[&str]) -> String {
        let output = self.rules(["install"].into_iter().chain(arguments.iter().copied()));
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    #[track_caller]
    fn remove(&self) {
        let output = self.rules(["remove"]);
        assert!(output.status.success(), "{output:?}");
    }

    fn ruleset(&self) -> String {
        let listed = self
            .host
            .run(|| Command::new("nft").args(["list", "ruleset"]).output());
        String::from_utf8(listed.expect("nft").stdout).expect("text")
    }

    /// Each flow twice, from one socket; all are received, so that there are no errors in return.
    fn traffic(&self) {
        let (pod, outside) = (IpAddr::V4(self.inner.1.v4), IpAddr::V4(self.outer.1.v4));
        let (inner, outer) = (IpAddr::V4(self.inner.0.v4), IpAddr::V4(self.outer.0.v4));
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        flow(&self.pod, pod, &self.outside, outside, 53, "pod-dns");
        flow(&self.pod, pod, &self.outside, outside, 5000, "pod-app");
        flow(&self.pod, pod, &self.host, inner, 53, "pod-node");
        flow(&self.host, outer, &self.outside, outside, 53, "node-dns");
        flow(&self.outside, outside, &self.host, outer, 4000, "in");
        flow(&self.host, local, &self.host, local, 4001, "loop");
        let (from, to) = (IpAddr::V6(self.outer.1.v6), IpAddr::V6(self.outer.0.v6));
        flow(&self.outside, from, &self.host, to, 4000, "in-6");
    }

    /// What a reader of group 7 gets of the traffic, beside what the rules' counters say.
    #[track_caller]
    fn logged(&self, traffic: impl FnOnce(&Self)) -> Logged {
        let mut nflog = self.host.reader(7);
        traffic(self);
        let mut logged = Logged::new();
        let mut count = |entry: &nflog_agent::nflog::Entry<'_>| {
            assert_eq!(entry.lost_before(), 0);
            let name: Vec<u8> = entry
                .payload()
                .iter()
                .rev()
                .copied()
                .take_while(|byte| *byte != 0)
                .collect();
            let name = String::from_utf8(name.into_iter().rev().collect()).expect("a name");
            let hook = entry.hook().expect("a hook").name().to_owned();
            *logged.entry((hook, name)).or_default() += 1;
        };
        while let Some(batch) = nflog.recv(Some(Duration::from_millis(300))).unwrap() {
            for entry in batch {
                count(&entry);
            }
        }
        nflog.close(|_| ()).unwrap();
        let all: u32 = logged.values().sum();
        assert_eq!(
            counters(&stdout_of(self.rules(["list"]))),
            u64::from(all),
            "{logged:?}"
        );
        logged
    }
}

fn stdout_of(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Packets of all counters of a table.
fn counters(text: &str) -> u64 {
    text.split("counter packets ")
        .skip(1)
        .map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Prefixes of what is there to be read.
fn prefixes(mut nflog: Nflog) -> Vec<String> {
    let mut prefixes = Vec::new();
    while let Some(batch) = nflog.recv(Some(Duration::from_millis(300))).unwrap() {
        prefixes.extend(batch.into_iter().map(|entry| entry.prefix_lossy().into_owned()));
    }
    prefixes
}

/// Sends two datagrams that end with a zero and the flow's name.
fn flow(from: &Netns, source: IpAddr, to: &Netns, destination: IpAddr, port: u16, name: &str) {
    // Another test's child may hold the last one until it runs its program.
    let receiver = wait_for("the port to be free", || {
        to.run(|| UdpSocket::bind((destination, port))).ok()
    });
    receiver.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let sender = from.run(|| UdpSocket::bind((source, 0))).expect("a socket");
    let data = [b"\0", name.as_bytes()].concat();
    for _ in 0..2 {
        sender.send_to(&data, (destination, port)).unwrap();
        receiver.recv(&mut [0; 64]).expect("it arrives");
    }
}

#[test]
fn each_wish_logs_what_it_says_and_nothing_else() {
    const IN: [(&str, &str); 4] = [
        ("input", "pod-node"),
        ("input", "in"),
        ("input", "loop"),
        ("input", "in-6"),
    ];
    const OUT: [(&str, &str); 2] = [("output", "node-dns"), ("output", "loop")];
    const POD: [(&str, &str); 3] = [
        ("forward", "pod-dns"),
        ("forward", "pod-app"),
        ("input", "pod-node"),
    ];
    let world = World::new();
    let address = format!("egress:{}", world.inner.1.v4);
    let device = format!("egress:{}", world.inner.0.device);
    let both = [&IN[..], &OUT[..]].concat();
    let cases: [Case<'_>; 14] = [
        (&["new-in"], &IN),
        (&["new-out"], &OUT),
        (&["new"], &both),
        (&["new", "new-in"], &both),
        (&["new-in", "--priority", "10"], &IN),
        (&["new", "--no-loopback"], &[IN[0], IN[1], IN[3], OUT[0]]),
        (&["new-in", "--family", "ipv6"], &[IN[3]]),
        (&["forward"], &POD[..2]),
        (&["port:53"], &[POD[0], POD[2], OUT[0]]),
        (&["port:tcp/53"], &[]),
        (&["port:udp/4000-5000"], &[IN[1], IN[2], IN[3], OUT[1], POD[1]]),
        (&[&address], &POD),
        (&[&device], &POD),
        (
            &["forward", "-e", "--family", "ipv4", &device],
            &[POD[0], POD[1], POD[0], POD[1], POD[2]],
        ),
    ];
    for (wish, flows) in cases {
        world.install(wish);
        let logged = world.logged(World::traffic);
        let mut wanted = Logged::new();
        for (hook, name) in flows {
            *wanted
                .entry(((*hook).to_owned(), (*name).to_owned()))
                .or_default() += 2;
        }
        assert_eq!(logged, wanted, "{wish:?}");
    }
    world.remove();
}

#[test]
fn a_limit_holds_and_a_prefix_arrives() {
    let world = World::new();
    world.install(&[
        "new-in", "--limit", "1/hour", "--burst", "3", "--prefix", "my [in] ",
    ]);
    let nflog = world.host.reader(7);
    world.traffic();
    assert_eq!(prefixes(nflog), ["my [in] "; 3]);
    assert_eq!(
        counters(&stdout_of(world.rules(["list"]))),
        3,
        "what is not logged is not counted"
    );
}

#[test]
fn a_cgroup_egress_is_what_its_processes_send() {
    if kernel() < (5, 13) {
        println!("SKIPPED: this kernel has no socket cgroupv2 match (5.13)");
        return;
    }
    let world = World::new();
    let name = format!("nflog-agent-rules-{}", std::process::id());
    let cgroup = cgroup2_root().join(&name);
    std::fs::create_dir(&cgroup).expect("cgroups can be made");
    let wish = format!("egress:/{name}");
    world.install(&[&wish]);
    let logged = world.logged(|world| {
        world.traffic();
        let (procs, to) = (cgroup.join("cgroup.procs"), world.outer.1.v4);
        let script = format!(
            "echo $$ > {}; printf '\\0mine' > /dev/udp/{to}/4002",
            procs.display()
        );
        let receiver = world.outside.run(|| UdpSocket::bind((to, 4002))).unwrap();
        let sent = world
            .host
            .run(|| Command::new("bash").args(["-c", &script]).status());
        assert!(sent.unwrap().success());
        receiver.recv(&mut [0; 64]).unwrap();
    });
    assert_eq!(
        logged,
        BTreeMap::from([(("output".to_owned(), "mine".to_owned()), 1)])
    );
    wait_for("the cgroup to be empty", || std::fs::remove_dir(&cgroup).ok());
    let again = world.rules(["install", &wish]);
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(64), "{stderr}");
    assert!(stderr.contains("no cgroup") && stderr.contains(&name), "{stderr}");
}

#[test]
fn nothing_else_is_touched_and_installing_twice_is_installing_once() {
    let world = World::new();
    world.host.nft(FOREIGN);
    let before = world.ruleset();
    let said = world.install(&["new", "port:53"]);
    assert!(said.contains("5 rules") && said.contains("group 7"), "{said}");
    let once = world.ruleset();
    assert!(once.starts_with(&before), "{once}");
    world.install(&["new", "port:53"]);
    assert_eq!(world.ruleset(), once);
    world.install(&["forward", "--group", "9"]);
    let other = world.ruleset();
    assert!(other.contains("group 9") && !other.contains("new-in"), "{other}");
    assert_eq!(stdout_of(world.rules(["list"])), other[before.len()..]);
    world.remove();
    assert_eq!(world.ruleset(), before);
    world.remove();
    assert!(stdout_of(world.rules(["list"])).contains("no table"));
}

#[test]
fn a_table_of_that_name_that_is_not_ours_is_refused() {
    let world = World::new();
    world
        .host
        .nft("table inet nflog-agent {\nchain input { type filter hook input priority 0; }\n}");
    let before = world.ruleset();
    for arguments in [&["install", "new"][..], &["remove"], &["list"]] {
        let output = world.rules(arguments.iter().copied());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(75), "{arguments:?}: {stderr}");
        assert!(stderr.contains("rename or delete it"), "{stderr}");
    }
    assert_eq!(world.ruleset(), before);
}

#[test]
fn what_is_printed_is_what_would_be_installed() {
    let world = World::new();
    let wishes = [
        "new",
        "egress:fd00::/8",
        "--limit",
        "10/second",
        "--family",
        "ipv6",
    ];
    let script = stdout(["rules", "print"].into_iter().chain(wishes));
    world.install(&wishes);
    let installed = world.ruleset();
    world.remove();
    world.host.nft(&script);
    assert_eq!(world.ruleset(), installed);
    world.remove();
}

#[test]
fn both_iptables_take_the_rules_that_are_printed_for_them() {
    let world = World::new();
    let script = stdout([
        "rules",
        "print",
        "--format",
        "iptables",
        "new",
        "forward",
        "port:53",
        "port:udp/4000-5000",
        "egress:10.42.0.0/16",
        "egress:fd00::7",
        "egress:cali*",
        "--no-loopback",
        "--limit",
        "100/second",
    ]);
    for program in ["iptables-restore", "ip6tables-restore"] {
        let restore = |arguments: &[&str]| {
            let mut command = Command::new(program);
            world.host.run(|| feed(command.args(arguments), &script))
        };
        restore(&["--noflush", "--test"]).unwrap_or_else(|error| panic!("{program}: {error}\n{script}"));
        restore(&["--noflush"]).unwrap_or_else(|error| panic!("{program}: {error}\n{script}"));
    }
    let saved = world.host.run(|| Command::new("iptables-save").output());
    let saved = String::from_utf8(saved.unwrap().stdout).unwrap();
    assert!(
        saved.contains("-s 10.42.0.0/16") && !saved.contains("fd00"),
        "{saved}"
    );
    // What the comment says removes all of it.
    for line in script.lines().filter_map(|line| line.strip_prefix("#     ")) {
        let removed = world.host.run(|| Command::new("sh").args(["-ec", line]).status());
        assert!(removed.unwrap().success(), "{line}");
    }
    let saved = world.host.run(|| Command::new("iptables-save").output());
    assert!(
        !String::from_utf8(saved.unwrap().stdout)
            .unwrap()
            .contains("NFLOG")
    );
}

#[test]
fn drops_are_logged_by_the_line_for_the_chain_that_drops() {
    let world = World::new();
    let refused = world.rules(["install", "drops"]);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(64), "{stderr}");
    assert!(stderr.contains("print drops"), "{stderr}");
    let text = stdout(["rules", "print", "drops"]);
    assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
    let line = text
        .lines()
        .filter_map(|line| line.strip_prefix("#     "))
        .next_back()
        .unwrap();
    world.host.nft(&format!(
        "table inet mine {{
            chain input {{
                type filter hook input priority 0; policy drop;
                udp dport 53 accept
                meta nfproto ipv6 accept
                {line}
            }}
        }}"
    ));
    let nflog = world.host.reader(7);
    let sender = world
        .outside
        .run(|| UdpSocket::bind((world.outer.1.v4, 0)))
        .unwrap();
    for port in [53, 54] {
        sender.send_to(b"x", (world.outer.0.v4, port)).unwrap();
    }
    assert_eq!(prefixes(nflog), ["drop "]);
}

#[test]
fn without_privileges_and_with_wrong_words_it_says_what_to_do() {
    let output = Command::new(binary())
        .args(["rules", "install", "new"])
        .uid(65534)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{stderr}");
    assert!(stderr.contains("CAP_NET_ADMIN"), "{stderr}");
    for (arguments, word) in [
        (&["everything"][..], "new-in"),
        (&["egress:10.0.0.1", "--family", "ipv6"], "--family"),
        (&["new", "--format", "iptables", "--priority", "5"], "--priority"),
        (&["new", "--burst", "5"], "--limit"),
        (&["egress:a\"b"], "quotation"),
    ] {
        let output = nflog_agent(["rules", "print"].iter().chain(arguments));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {stderr}");
        assert!(stderr.contains(word) && stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn without_nft_it_says_what_to_install_and_what_does_without() {
    let program = binary();
    // On the same file system, for a link.
    let root = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
    std::fs::hard_link(&program, root.path().join("nflog-agent")).unwrap();
    for action in [&["install", "new"][..], &["list"], &["remove"]] {
        let output = Command::new("chroot")
            .arg(root.path())
            .args(["/nflog-agent", "rules"])
            .args(action)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{action:?}: {stderr}");
        assert!(
            stderr.contains("package nftables") && stderr.contains("rules print"),
            "{stderr}"
        );
    }
}

#[test]
fn a_namespace_that_may_not_be_entered_is_a_missing_privilege() {
    let netns = Netns::new("rules");
    for arguments in [
        &["rules", "list"][..],
        &["record", "-g", "7", "-"],
        &["run", "-g", "7"],
    ] {
        let output = Command::new("setpriv")
            .args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"])
            .arg(binary())
            .args(arguments)
            .arg("--netns")
            .arg(netns.path())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(77), "{arguments:?}: {stderr}");
        assert!(stderr.contains("CAP_SYS_ADMIN"), "{stderr}");
    }
}

#[test]
fn what_is_to_be_pasted_into_a_shell_is_quoted_for_it() {
    let text = stdout(["rules", "print", "drops", "--prefix", "it's "]);
    let (_, quoted) = text.rsplit_once("nft add rule FAMILY TABLE CHAIN ").unwrap();
    let shell = format!("printf %s {quoted}");
    let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
    let said = stdout_of(output);
    assert!(
        said.ends_with("log prefix \"it's \" group 7 snaplen 128"),
        "{said}"
    );
}
