//! A process that opens, uses and closes sockets as fast as it can. It is this test binary again, running [`work`].

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};

use crate::storm::Storm;
use crate::support::cgroup2_root;

/// The order, for the worker's process.
const ORDER: &str = "NFLOG_STORM_ORDER";
/// Tries to get a pid that another process may be just about to take.
const TRIES: u32 = 5;

/// What a worker shall do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) mark: u32,
    /// UDP sockets that send once each.
    pub(crate) datagrams: u32,
    /// TCP connections that are made and closed.
    pub(crate) connections: u32,
    /// Before each UDP socket, so many that take a port and close, and send nothing.
    pub(crate) silent: u32,
    /// UDP sockets stay open until the worker's end.
    pub(crate) keep: bool,
}

impl Order {
    pub(crate) const fn new(mark: u32) -> Self {
        Self {
            mark,
            datagrams: 0,
            connections: 0,
            silent: 0,
            keep: false,
        }
    }
}

/// Who a worker was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Truth {
    pub(crate) mark: u32,
    pub(crate) pid: u32,
    /// Inode of its cgroup.
    pub(crate) cgroup: u64,
    /// Sockets that it opened, used and closed.
    pub(crate) sockets: u64,
    /// When it began and ended that, `CLOCK_MONOTONIC` ns.
    pub(crate) span: (u64, u64),
}

/// How the line begins in which a worker says its [`Truth::span`].
const SPAN: &str = "SPAN ";

/// The cgroup of the workers with this mark, below where cgroup v2 is mounted.
fn cgroup(mark: &str) -> PathBuf {
    cgroup2_root().join(format!("nflog-storm-{mark}"))
}

/// A running worker.
pub(crate) struct Worker {
    child: Child,
    mark: u32,
    cgroup: u64,
    sockets: u64,
}

impl Worker {
    #[track_caller]
    pub(crate) fn start(storm: &Storm, order: Order) -> Self {
        Self::start_as(storm, order, None)
    }

    /// Starts one, if possible with this pid: the kernel gives the next free one after the last that it gave.
    #[track_caller]
    pub(crate) fn start_as(storm: &Storm, order: Order, pid: Option<u32>) -> Self {
        let Order {
            mark,
            datagrams,
            connections,
            silent,
            keep,
        } = order;
        let (udp, tcp) = (storm.udp, storm.tcp);
        let directory = cgroup(&mark.to_string());
        fs::create_dir_all(&directory).expect("a cgroup");
        let cgroup = fs::metadata(&directory).expect("a cgroup").ino();
        let mut command = Command::new(std::env::current_exe().expect("path of the test binary"));
        command
            .args([
                "--exact",
                "worker::work",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(
                ORDER,
                format!("{mark} {datagrams} {connections} {silent} {keep} {udp} {tcp}"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let child = storm.netns.run(move || {
            for _ in 0..TRIES {
                if let Some(pid) = pid {
                    fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())
                        .expect("the kernel has CONFIG_CHECKPOINT_RESTORE");
                }
                let mut child = command.spawn().expect("a worker starts");
                if pid.is_none_or(|pid| pid == child.id()) {
                    return child;
                }
                // Ends at the end of its input, before it has an order to go.
                drop(child.stdin.take());
                child.wait().expect("a worker ends");
            }
            command.spawn().expect("a worker starts")
        });
        let sockets = u64::from(datagrams * (1 + silent) + connections);
        let mut worker = Self {
            child,
            mark,
            cgroup,
            sockets,
        };
        let mut stdin = worker.child.stdin.take().expect("piped");
        stdin.write_all(b"go").expect("the worker reads");
        worker
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn finish(self) -> Truth {
        let pid = self.child.id();
        let output = self.child.wait_with_output().expect("a worker ends");
        assert!(output.status.success(), "a worker ended with {}", output.status);
        let said = String::from_utf8_lossy(&output.stdout);
        let span = said.lines().find_map(|line| {
            let (began, ended) = line.split_once(SPAN)?.1.split_once(' ')?;
            Some((began.parse().ok()?, ended.parse().ok()?))
        });
        Truth {
            mark: self.mark,
            pid,
            cgroup: self.cgroup,
            sockets: self.sockets,
            span: span.unwrap_or_else(|| panic!("a worker does not say how long it took: {said}")),
        }
    }
}

/// Not a test: the body of a worker's process.
#[test]
#[ignore = "runs inside the other tests, as the process under observation"]
fn work() {
    let order = std::env::var(ORDER).expect("started by a test, not by hand");
    let words: Vec<_> = order.split(' ').collect();
    let [mark, datagrams, connections, silent, keep, udp, tcp] = words[..] else {
        panic!("an order of seven words: {order}");
    };
    let mut go = String::new();
    std::io::stdin().read_to_string(&mut go).expect("the test's word");
    if go != "go" {
        return;
    }
    fs::write(cgroup(mark).join("cgroup.procs"), "0").expect("the cgroup takes this process");
    let mark = mark.parse().expect("a mark");
    let marked = |kind| {
        let socket = Socket::new(Domain::IPV4, kind, None).expect("a socket");
        socket.set_mark(mark).expect("root may mark");
        socket
    };
    let at = |port: &str| SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().expect("a port")));
    let (udp, tcp) = (at(udp), at(tcp));
    let silent: u32 = silent.parse().expect("a number");
    let mut kept = Vec::new();
    let began = monotonic();
    for _ in 0..datagrams.parse::<u32>().expect("a number") {
        for _ in 0..silent {
            drop(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
        }
        let socket = marked(Type::DGRAM);
        socket.send_to(b"storm", &udp.into()).expect("loopback works");
        if keep == "true" {
            kept.push(socket);
        }
    }
    for _ in 0..connections.parse::<u32>().expect("a number") {
        let mut socket = marked(Type::STREAM);
        // At once, by a reset: the port is free for the next one.
        socket
            .set_linger(Some(std::time::Duration::ZERO))
            .expect("an option");
        socket.connect(&tcp.into()).expect("loopback works");
        socket.write_all(b"storm").expect("the server is there");
    }
    println!("{SPAN}{began} {}", monotonic());
}

/// `CLOCK_MONOTONIC`, ns.
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
