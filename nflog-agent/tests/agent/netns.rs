//! Several namespaces at once: named, and found by the cgroup of a process in them, as they come and go.
//!
//! A pod here is a process in a cgroup and a network namespace of its own. The namespace has no name, so it lives as long as the process
//! and what others hold of it; a veth pair tells when the kernel has really freed it, for then the other end is gone.

mod cost;
mod found;
mod limits;
mod named;
mod reused;
mod rights;

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, id};

use nflog_agent::nflog;

use crate::program::{Agent, Ended};
use crate::seen::Seen;
use crate::support::{Netns, cgroup2_root, wait_for};

/// Datagrams to port 4242 are counted and logged.
const RULES: &str = "
    table inet t {
        chain out {
            type filter hook output priority 0
            udp dport 4242 counter log prefix \"pod \" group 7 comment \"sent\"
        }
    }";

/// A cgroup of this test, removed with those below it.
struct Cgroup {
    root: PathBuf,
    /// As in `/proc/PID/cgroup`.
    path: String,
}

impl Cgroup {
    /// In the cgroup v2 hierarchy, which the host may have beside v1.
    #[track_caller]
    fn new(name: &str) -> Self {
        Self::in_hierarchy(&cgroup2_root(), name)
    }

    #[track_caller]
    fn in_hierarchy(mount: &Path, name: &str) -> Self {
        let path = format!("/nflog-test-{}-{name}", id());
        let root = mount.join(&path[1..]);
        fs::create_dir(&root).expect("this test needs root and a cgroup hierarchy that it may write to");
        Self { root, path }
    }

    /// A cgroup below.
    fn child(&self, name: &str) -> PathBuf {
        let child = self.root.join(name);
        if !child.exists() {
            fs::create_dir(&child).unwrap();
        }
        child
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let children = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let children = children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        for directory in children.map(|entry| entry.path()).chain([self.root.clone()]) {
            // Busy for a moment after its last process has ended.
            let gone = (0..50).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                fs::remove_dir(&directory).is_ok()
            });
            if !gone {
                eprintln!("cgroup {} was not removed", directory.display());
            }
        }
    }
}

/// A process in a cgroup and a network namespace; it does nothing.
struct Pod {
    child: Child,
    inode: u32,
}

impl Pod {
    /// In a namespace of its own without a name, with the rules.
    #[track_caller]
    fn new(cgroup: &Path) -> Self {
        let netns = Netns::new("pod");
        netns.nft(RULES);
        Self::inside(&netns, cgroup)
    }

    #[track_caller]
    fn inside(netns: &Netns, cgroup: &Path) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo 0 > $0/cgroup.procs && exec cat"])
            .arg(cgroup);
        let mut child = netns.run(|| command.stdin(Stdio::piped()).spawn()).unwrap();
        let procs = cgroup.join("cgroup.procs");
        wait_for("a process to enter its cgroup", || {
            assert!(child.try_wait().unwrap().is_none(), "the process of a pod ended");
            let inside = fs::read_to_string(&procs).unwrap();
            inside
                .lines()
                .any(|line| line == child.id().to_string())
                .then_some(())
        });
        Self {
            child,
            inode: netns.inode(),
        }
    }

    fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        nflog::Netns::Pid(self.child.id()).run(f).unwrap()
    }

    /// Sends datagrams that the rule logs.
    fn send(&self, packets: u64) {
        self.run(|| flood(packets));
    }

    /// What the rule counted.
    fn counter(&self) -> u64 {
        let rules = self
            .run(|| Command::new("nft").args(["list", "ruleset"]).output())
            .unwrap();
        let rules = String::from_utf8(rules.stdout).unwrap();
        let rest = rules
            .split_once("counter packets ")
            .expect("a rule that counts")
            .1;
        rest.split(' ').next().unwrap().parse().unwrap()
    }

    /// What the agent calls it, from its number to its pid.
    fn named(&self, cgroup: &str) -> String {
        format!(
            "network namespace {} of cgroup {cgroup} (pid {})",
            self.inode,
            self.child.id()
        )
    }

    /// Ends its process.
    fn end(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Ended already, usually.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends datagrams to a port where nobody listens.
fn flood(packets: u64) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..packets {
        // The port-unreachable errors are not reported: the socket is not connected.
        socket.send_to(&number.to_be_bytes(), "127.0.0.1:4242").unwrap();
    }
}

/// An agent that reads group 7, in JSON, without probes.
#[track_caller]
fn agent(arguments: &[&str]) -> Agent {
    let mut all = vec!["--group", "7", "--output", "json", "--attribution", "sockdiag"];
    all.extend(arguments);
    Agent::start(&all, &[])
}

/// Records by the number of their namespace.
fn records_of(ended: &Ended, inode: u32) -> u64 {
    let records = Seen::from_json(&ended.stdout);
    let number = Some(u64::from(inode));
    records
        .iter()
        .filter(|record| record.number("nflog.netns.inode") == number)
        .count() as u64
}

/// What was sent in all namespaces is what was received, and that is what came out.
#[track_caller]
fn assert_account(ended: &Ended, sent: u64) {
    let messages = ended.messages();
    assert_eq!(ended.code, Some(0), "{messages}");
    assert_eq!(
        ended.count("received") + ended.count("missed"),
        sent,
        "{messages}"
    );
    assert_eq!(
        ended.count("exported") + ended.count("lost"),
        ended.count("received"),
        "{messages}"
    );
    let records = Seen::from_json(&ended.stdout).len() as u64;
    assert_eq!(records, ended.count("exported"), "records on standard output");
}

/// Descriptors and threads of the agent.
fn held(agent: &Agent) -> (usize, usize) {
    let count = |what: &str| {
        fs::read_dir(format!("/proc/{}/{what}", agent.pid()))
            .unwrap()
            .count()
    };
    (count("fd"), count("task"))
}

/// Another reader of the agent's group.
fn reader(pod: &Pod) -> nflog::Nflog {
    let config = nflog::Config::builder()
        .netns(nflog::Netns::Pid(pod.child.id()))
        .group(7);
    nflog::Nflog::open(&config.build().unwrap()).unwrap()
}
