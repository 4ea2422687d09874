//! A namespace's number is given to another namespace as soon as it is free: nothing that is remembered of the first one may name an
//! owner in the second.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fs;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command};

use etherparse::TcpHeader;
use socket2::{Domain, Protocol, Socket, Type};

use crate::has_kprobes;
use crate::program::Agent;
use crate::seen::Seen;
use crate::support::{Netns, wait_for};
use crate::workload::Workload;

const RULES: &str = "
    table inet t {
        chain out { type filter hook output priority 0; tcp dport 8080 counter log group 7 comment \"to\"; tcp sport 8080 log group 7; }
        chain in { type filter hook input priority 0; tcp dport 8080 log group 7; tcp sport 8080 log group 7; }
    }";

const SERVER: &str = "127.0.0.1:8080";
const CLIENT: &str = "127.0.0.1:5000";

/// A process in a UTS namespace of its own, whose number is from the same stock as those of network namespaces, and of files in /proc.
struct Filler {
    process: Child,
    number: u64,
}

impl Filler {
    fn start() -> Self {
        let ours = fs::metadata("/proc/self/ns/uts").unwrap().ino();
        let mut unshare = Command::new("unshare");
        let process = unshare.args(["-u", "sleep", "600"]).spawn().unwrap();
        let theirs = format!("/proc/{}/ns/uts", process.id());
        let number = wait_for("a UTS namespace", || {
            let number = fs::metadata(&theirs).unwrap().ino();
            (number != ours).then_some(number)
        });
        Self { process, number }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A namespace with a number that is free, or will be.
///
/// The lowest free number is given, also to files in /proc, of which a network namespace makes some before it takes its own number and more
/// afterwards. So all lower numbers are taken by what has no files, and as many given back as the namespace's first files need.
fn with_number(number: u32) -> Netns {
    let mut fillers = Vec::new();
    let mut first_files = 0;
    wait_for("the number to be given again", || {
        let filler = Filler::start();
        match filler.number.cmp(&number.into()) {
            Ordering::Less => {
                fillers.push(filler);
                return None;
            }
            // It is not free yet.
            Ordering::Greater => return None,
            Ordering::Equal => {}
        }
        fillers.truncate(fillers.len().saturating_sub(first_files));
        drop(filler);
        let netns = Netns::new("reused");
        match netns.inode().cmp(&number) {
            Ordering::Less => first_files = first_files.saturating_sub(1),
            Ordering::Greater => first_files += 1,
            Ordering::Equal => return Some(netns),
        }
        None
    })
}

/// One connection with always the same addresses and ports; the pids of its ends.
fn converse(agent: &mut Agent, netns: &Netns, round: usize) -> HashSet<u64> {
    let [server, client] = [SERVER, CLIENT].map(|address| address.parse::<SocketAddr>().unwrap());
    let server = Workload::start(netns, "tcp-server", server);
    agent.wait_until_said(&format!("(pid {})", server.truth.pid));
    stray(netns);
    let client = Workload::start_from(netns, "tcp-client", client, server.truth.address);
    let pids = HashSet::from([server.truth.pid, client.truth.pid]);
    client.release();
    server.release();
    wait_for("the namespace's reader to end", || {
        let ended = agent.count_said("no longer reading network namespace");
        (ended == round).then_some(())
    });
    pids
}

/// A segment as of a connection that has been before, which no socket expects: here it has been none.
fn stray(netns: &Netns) {
    let [server, client] = [SERVER, CLIENT].map(|address| address.parse::<SocketAddrV4>().unwrap());
    let mut header = TcpHeader::new(client.port(), server.port(), 1, 1024);
    header.ack = true;
    header.checksum = header
        .calc_checksum_ipv4_raw(client.ip().octets(), server.ip().octets(), &[])
        .unwrap();
    netns.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::from(libc::SOCK_RAW), Some(Protocol::TCP)).unwrap();
        socket.send_to(&header.to_bytes(), &server.into()).unwrap();
    });
}

#[test]
fn a_number_that_comes_again_brings_no_owner_along() {
    if !has_kprobes() {
        return;
    }
    let mut netns = Netns::new("first");
    let number = netns.inode();
    // The cgroup of a workload has the number in its name.
    let pattern = format!("/nflog-test-{}-{number}-*", std::process::id());
    let arguments = ["--group", "7", "--output", "json", "--attribution", "probes"];
    let mut agent = Agent::start(&[&arguments[..], &["--netns-of-cgroup", &pattern]].concat(), &[]);
    let mut named = HashSet::new();
    for round in 1..=3 {
        netns.nft(RULES);
        let pids = converse(&mut agent, &netns, round);
        let mut seen = HashSet::new();
        let mut resets = 0;
        for record in Seen::from_json(&agent.take_output()) {
            let flags = record.text("nflog.tcp.flags");
            resets += usize::from(flags.is_some_and(|flags| flags.contains("RST")));
            if let Some(pid) = record.number("process.pid") {
                if pid == u64::from(std::process::id()) {
                    // The stray segment on its way out, from this process's raw socket.
                    continue;
                }
                assert!(pids.contains(&pid), "round {round}, of {pids:?}: {record:?}");
                seen.insert(pid);
            } else {
                let method = record.text("nflog.owner.method");
                assert!(matches!(method, Some("none" | "kernel")), "{record:?}");
            }
        }
        // On its way out and in; the listener's on 7.x.
        assert!(resets >= 2, "the stray segment was not answered in round {round}");
        assert_eq!(seen, pids, "both ends are named in round {round}");
        named.extend(pids);
        drop(netns);
        netns = with_number(number);
    }
    assert_eq!(named.len(), 6);
    assert_eq!(agent.stop().code, Some(0));
}
