//! What integration tests share: network namespaces of their own, rules in them, and waiting with a bound.
//!
//! Needs root, `ip` and `nft`; says so. Everything made here is removed on drop.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod sender;
pub(crate) mod traffic;

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio, id};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nflog_agent::nflog;
use rustix::net::netdevice::name_to_index;

/// Bound of every wait; long, because emulated machines are slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A network namespace of this test, with `lo` up. Deleted on drop.
#[derive(Debug)]
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace; `name` is completed to be unique on this machine.
    #[track_caller]
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU8 = AtomicU8::new(0);
        let uid = fs::metadata("/proc/self").expect("/proc is mounted").uid();
        assert_eq!(
            uid, 0,
            "this test needs root: it makes network namespaces and nftables rules"
        );
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let netns = Self {
            name: format!("{name}-{}-{count}", id()),
        };
        run(Command::new("ip").args(["netns", "add", &netns.name]));
        netns.ip("link set lo up");
        netns
    }

    /// File that stands for the namespace.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// The namespace, for a reader's configuration.
    pub(crate) fn netns(&self) -> nflog::Netns {
        nflog::Netns::Path(self.path())
    }

    /// A reader of a group.
    #[track_caller]
    pub(crate) fn reader(&self, group: u16) -> nflog::Nflog {
        let config = nflog::Config::builder().netns(self.netns()).group(group).build();
        let config = config.expect("the defaults are good");
        nflog::Nflog::open(&config).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Inode number of the namespace.
    pub(crate) fn inode(&self) -> u32 {
        let inode = fs::metadata(self.path()).expect("the namespace exists").ino();
        u32::try_from(inode).expect("namespace inodes are 32-bit")
    }

    /// A command that will run inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `ip` inside with arguments split at blanks; returns what it prints.
    #[track_caller]
    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.try_ip(arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs `ip` inside, or returns what it says against it.
    pub(crate) fn try_ip(&self, arguments: &str) -> Result<String, String> {
        let mut command = Command::new("ip");
        try_run(
            command
                .args(["-netns", &self.name])
                .args(arguments.split_ascii_whitespace()),
        )
    }

    /// Runs `ip` inside once for all lines: to start a program takes long in an emulated guest.
    #[track_caller]
    pub(crate) fn ip_all(&self, lines: &str) {
        let mut command = Command::new("ip");
        command.args(["-netns", &self.name, "-batch", "-"]);
        if let Err(error) = feed(&mut command, lines) {
            panic!("ip refuses:\n{lines}\n{error}");
        }
    }

    /// Loads rules.
    #[track_caller]
    pub(crate) fn nft(&self, ruleset: &str) {
        if let Err(error) = self.try_nft(ruleset) {
            panic!("nft refuses:\n{ruleset}\n{error}");
        }
    }

    /// Loads rules, or returns what nft says against them.
    pub(crate) fn try_nft(&self, ruleset: &str) -> Result<(), String> {
        self.run(|| feed(Command::new("nft").args(["-f", "-"]), ruleset))
    }

    /// Packets counted by the rule that has a `counter` and the comment `comment`.
    #[track_caller]
    pub(crate) fn counter(&self, comment: &str) -> u64 {
        let rules = self.run(|| run(Command::new("nft").args(["list", "ruleset"])));
        let tag = format!("comment \"{comment}\"");
        rules
            .lines()
            .find(|line| line.contains(&tag))
            .and_then(|line| line.split_once("counter packets "))
            .and_then(|(_, rest)| rest.split_ascii_whitespace().next()?.parse().ok())
            .unwrap_or_else(|| panic!("no rule with a counter and {tag} in:\n{rules}"))
    }

    /// The groups that are bound inside, as the kernel lists them; none without NFLOG.
    pub(crate) fn bound_groups(&self) -> Vec<u16> {
        let listed = self.run(|| fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_log"));
        let listed = listed.unwrap_or_default();
        let groups = listed.lines().filter_map(|line| line.split_whitespace().next());
        groups.map(|group| group.parse().expect("a group")).collect()
    }

    /// Runs a closure on a thread inside the namespace; sockets that it opens stay there, and so do processes.
    #[track_caller]
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        match self.netns().run(f) {
            Ok(value) => value,
            Err(error) => panic!("{error}"),
        }
    }

    /// Index of a device inside.
    #[track_caller]
    pub(crate) fn ifindex(&self, device: &str) -> u32 {
        let index = self.run(|| {
            let socket = UnixDatagram::unbound().expect("a socket");
            name_to_index(&socket, device)
        });
        index.unwrap_or_else(|error| panic!("no device {device}: {error}"))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let deleted = Command::new("ip").args(["netns", "del", &self.name]).status();
        if !matches!(deleted, Ok(status) if status.success()) {
            eprintln!("network namespace {} was not deleted: {deleted:?}", self.name);
        }
    }
}

/// One end of a veth pair.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    /// Device name.
    pub(crate) device: String,
    /// Device index in its namespace.
    pub(crate) index: u32,
    /// Hardware address.
    pub(crate) mac: [u8; 6],
    /// IPv4 address, in a /24 shared with the other end.
    pub(crate) v4: Ipv4Addr,
    /// IPv6 address, in a /64 shared with the other end.
    pub(crate) v6: Ipv6Addr,
}

/// Connects two namespaces by a veth pair with addresses; both ends are usable at once.
#[track_caller]
pub(crate) fn veth(a: &Netns, b: &Netns) -> (Port, Port) {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let device = format!("veth{number}");
    let peer = b.name.clone();
    a.ip(&format!(
        "link add {device} type veth peer name {device} netns {peer}"
    ));
    let port = |netns: &Netns, host: u8| {
        let mac = [0x02, 0x77, 0, 0, number, host];
        let v4 = Ipv4Addr::new(10, 77, number, host);
        let v6 = Ipv6Addr::new(0xfd77, 0, 0, number.into(), 0, 0, 0, host.into());
        let text = mac.map(|byte| format!("{byte:02x}")).join(":");
        netns.ip_all(&format!(
            "link set {device} address {text}
             address add {v4}/24 dev {device}
             address add {v6}/64 dev {device} nodad
             link set {device} up"
        ));
        Port {
            device: device.clone(),
            index: netns.ifindex(&device),
            mac,
            v4,
            v6,
        }
    };
    (port(a, 1), port(b, 2))
}

/// Asks `ready` until it answers, for at most [`PATIENCE`].
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} in vain for {what}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// Version of the running kernel, as (major, minor).
pub(crate) fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor),
        _ => panic!("no version in {release:?}"),
    }
}

/// Runs a command with this on its standard input, or returns what it says against it.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(input.as_bytes()).expect("it reads its input");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Runs a command that must succeed; returns what it prints.
#[track_caller]
fn run(command: &mut Command) -> String {
    try_run(command).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a command; returns what it prints, or what went wrong.
fn try_run(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(format!("{command:?} failed: {complaint}"))
    }
}

/// Mount point of the first file system with these fields of `/proc/mounts`.
pub(crate) fn mount(wanted: impl Fn(&[&str]) -> bool) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mounts
        .find(|fields| wanted(fields))
        .map(|fields| PathBuf::from(fields[1]))
}

/// Where cgroup v2 is mounted: alone, or beside v1 on a hybrid host.
pub(crate) fn cgroup2_root() -> PathBuf {
    mount(|fields| fields[2] == "cgroup2").expect("cgroup v2 is mounted")
}
