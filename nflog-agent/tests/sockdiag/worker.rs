//! A process that opens sockets on command and tells the truth about them.
//!
//! It is this test binary again, running [`serve`]: one command a line on standard input, one answer a line.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::net::{
    AddressFamily, SocketType, accept, bind, connect, getsockname, ipproto, listen, sendto, socket, sockopt,
};

use crate::namespace::Namespace;

/// Marks answers, as the test harness prints lines of its own.
const MARK: &str = "@worker ";
const ENABLED: &str = "NFLOG_TEST_WORKER";

/// Index of a socket in its worker.
pub(crate) type Slot = usize;

/// A worker in a network namespace; killed on drop.
pub(crate) struct Worker {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What the worker says its pid is.
    pub(crate) pid: u32,
}

impl Worker {
    pub(crate) fn start(namespace: &Namespace) -> Self {
        let program = std::env::current_exe().expect("path of the test binary");
        let mut child = namespace
            .command(&program)
            .args([
                "--exact",
                "worker::serve",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(ENABLED, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a worker");
        let (commands, answers) = (
            child.stdin.take().unwrap(),
            BufReader::new(child.stdout.take().unwrap()),
        );
        let mut worker = Self {
            child,
            commands,
            answers,
            pid: 0,
        };
        worker.pid = worker.ask("pid").parse().unwrap();
        worker
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").expect("the worker is gone");
        let mut line = String::new();
        loop {
            line.clear();
            let length = self.answers.read_line(&mut line).expect("read from the worker");
            assert_ne!(length, 0, "the worker ended at command {command:?}");
            // The harness prints "test worker::serve ... " without a line end before the first answer.
            if let Some((_, answer)) = line.split_once(MARK) {
                return answer.trim_end().to_owned();
            }
        }
    }

    fn open(&mut self, command: &str) -> (Slot, SocketAddr) {
        let answer = self.ask(command);
        let (slot, address) = answer
            .split_once(' ')
            .unwrap_or_else(|| panic!("{command}: {answer}"));
        (
            slot.parse().unwrap_or_else(|_| panic!("{command}: {answer}")),
            address.parse().unwrap(),
        )
    }

    pub(crate) fn tcp_listen(&mut self, address: &str) -> (Slot, SocketAddr) {
        self.open(&format!("tcp-listen {address}"))
    }

    pub(crate) fn tcp_accept(&mut self, listener: Slot) -> (Slot, SocketAddr) {
        self.open(&format!("tcp-accept {listener}"))
    }

    pub(crate) fn tcp_connect(&mut self, from: &str, to: SocketAddr) -> (Slot, SocketAddr) {
        self.open(&format!("tcp-connect {from} {to}"))
    }

    pub(crate) fn udp_bind(&mut self, address: &str) -> (Slot, SocketAddr) {
        self.open(&format!("udp-bind {address}"))
    }

    pub(crate) fn udp_connect(&mut self, from: &str, to: SocketAddr) -> (Slot, SocketAddr) {
        self.open(&format!("udp-connect {from} {to}"))
    }

    /// Sends from a socket that is neither bound nor connected; its port is chosen by the kernel.
    pub(crate) fn udp_send(&mut self, to: SocketAddr) -> (Slot, SocketAddr) {
        self.open(&format!("udp-send {to}"))
    }

    /// A ping socket; the port is the echo identifier.
    pub(crate) fn ping(&mut self, to: IpAddr) -> (Slot, SocketAddr) {
        self.open(&format!("ping {to}"))
    }

    /// Starts a process that holds the socket too.
    pub(crate) fn share(&mut self, slot: Slot) {
        assert_eq!(self.ask(&format!("share {slot}")), "shared");
    }

    /// Ends the processes started by [`Self::share`].
    pub(crate) fn unshare(&mut self) {
        assert_eq!(self.ask("unshare"), "unshared");
    }

    pub(crate) fn close(&mut self, slot: Slot) {
        assert_eq!(self.ask(&format!("close {slot}")), "closed");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Fails only if the worker has ended, which `ask` has reported.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The worker process. Started as a test by hand it has nothing to do, and says so.
#[test]
#[ignore = "runs inside the other tests, as a process of its own"]
fn serve() {
    assert!(
        std::env::var_os(ENABLED).is_some(),
        "not a test: the processes that the tests start run this"
    );
    let mut state = State {
        sockets: Vec::new(),
        sharers: Vec::new(),
    };
    for line in std::io::stdin().lines() {
        let line = line.expect("read a command");
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        println!(
            "{MARK}{}",
            state
                .obey(&words)
                .unwrap_or_else(|error| format!("error: {error}"))
        );
    }
    for mut sharer in state.sharers {
        sharer.kill().expect("end a sharer");
    }
}

struct State {
    sockets: Vec<Option<OwnedFd>>,
    sharers: Vec<Child>,
}

impl State {
    fn obey(&mut self, words: &[&str]) -> std::io::Result<String> {
        let address = |index: usize| -> SocketAddr { words[index].parse().expect("address") };
        match words[0] {
            "pid" => Ok(std::process::id().to_string()),
            "tcp-listen" => {
                let fd = open(address(1), SocketType::STREAM)?;
                bind(&fd, &address(1))?;
                listen(&fd, 16)?;
                self.keep(fd)
            }
            "tcp-accept" => {
                let fd = accept(self.get(words[1]))?;
                self.keep(fd)
            }
            "tcp-connect" => self.connected(address(1), address(2), SocketType::STREAM),
            "udp-connect" => self.connected(address(1), address(2), SocketType::DGRAM),
            "udp-bind" => {
                let fd = open(address(1), SocketType::DGRAM)?;
                bind(&fd, &address(1))?;
                self.keep(fd)
            }
            "udp-send" => {
                let fd = open(address(1), SocketType::DGRAM)?;
                sendto(&fd, b"x", rustix::net::SendFlags::empty(), &address(1))?;
                self.keep(fd)
            }
            "ping" => self.ping(words[1].parse().expect("address")),
            "share" => {
                let fd = self.get(words[1]).try_clone()?;
                self.sharers.push(
                    Command::new(Path::new("/bin/sleep"))
                        .arg("600")
                        .stdin(fd)
                        .spawn()?,
                );
                Ok("shared".to_owned())
            }
            "unshare" => {
                for mut sharer in self.sharers.drain(..) {
                    sharer.kill()?;
                    sharer.wait()?;
                }
                Ok("unshared".to_owned())
            }
            "close" => {
                self.sockets[words[1].parse::<Slot>().expect("slot")] = None;
                Ok("closed".to_owned())
            }
            other => panic!("unknown command {other}"),
        }
    }

    fn connected(&mut self, from: SocketAddr, to: SocketAddr, kind: SocketType) -> std::io::Result<String> {
        // The kernel lets a tuple in TIME_WAIT be used again after a second.
        for _ in 0..300 {
            let fd = open(from, kind)?;
            bind(&fd, &from)?;
            match connect(&fd, &to) {
                Err(rustix::io::Errno::ADDRNOTAVAIL) => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                connected => {
                    connected?;
                    return self.keep(fd);
                }
            }
        }
        Err(std::io::ErrorKind::AddrNotAvailable.into())
    }

    fn ping(&mut self, to: IpAddr) -> std::io::Result<String> {
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
        let (family, protocol, echo) = match to {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, [8, 0, 0, 0, 0, 0, 0, 1]),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, [128, 0, 0, 0, 0, 0, 0, 1]),
        };
        let fd = socket(family, SocketType::DGRAM, Some(protocol))?;
        sendto(
            &fd,
            &echo,
            rustix::net::SendFlags::empty(),
            &SocketAddr::new(to, 0),
        )?;
        self.keep(fd)
    }

    fn get(&self, slot: &str) -> &OwnedFd {
        self.sockets[slot.parse::<Slot>().expect("slot")]
            .as_ref()
            .expect("open socket")
    }

    fn keep(&mut self, fd: OwnedFd) -> std::io::Result<String> {
        let local = SocketAddr::try_from(getsockname(&fd)?)?;
        self.sockets.push(Some(fd));
        Ok(format!("{} {local}", self.sockets.len() - 1))
    }
}

/// All sockets may share their port, so that the tests can build every kind of collision.
fn open(address: SocketAddr, kind: SocketType) -> std::io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let fd = socket(family, kind, None)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    sockopt::set_socket_reuseport(&fd, true)?;
    Ok(fd)
}
