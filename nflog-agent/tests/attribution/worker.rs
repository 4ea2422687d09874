//! A process that does with sockets what a case tells it to, and tells the truth about itself.
//!
//! It is this test binary again, running [`serve`]: one command a line over a Unix socket, one answer a line. Every worker
//! lives in a cgroup of its own, so that the agent's cgroup can be judged too.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::support::{Netns, cgroup2_root};

mod obey;
mod ring;
mod tap;

/// Where a worker finds its commands.
const CONTROL: &str = "NFLOG_MATRIX_CONTROL";
/// Set for a process that has a socket as standard input, as inetd's children have.
const HEIR: &str = "NFLOG_MATRIX_HEIR";

/// Index of a socket in its worker.
pub(crate) type Slot = usize;

/// What a worker says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truth {
    pub(crate) pid: u64,
    /// Inode of its cgroup.
    pub(crate) cgroup: u64,
}

/// A running worker. It ends on drop.
pub(crate) struct Worker {
    /// `None` for the child of another worker, which ends by itself.
    child: Option<Child>,
    control: BufReader<UnixStream>,
    directory: PathBuf,
    pub(crate) truth: Truth,
}

impl Worker {
    /// Starts one in a namespace.
    #[track_caller]
    pub(crate) fn start(netns: &Netns) -> Self {
        let (directory, listener) = rendezvous();
        let mut command = program(&directory);
        // Not by `ip netns exec`, which hides the cgroup file system behind a new /sys.
        let child = netns.run(|| command.spawn()).expect("a worker starts");
        Self::meet(&listener, directory, Some(child))
    }

    /// Starts a child of this worker that has the socket as its standard input, in slot 0, as inetd does.
    #[track_caller]
    pub(crate) fn heir(&mut self, slot: Slot) -> Self {
        let (directory, listener) = rendezvous();
        self.ask(&format!("heir {slot} {}", directory.display()));
        Self::meet(&listener, directory, None)
    }

    #[track_caller]
    fn meet(listener: &UnixListener, directory: PathBuf, child: Option<Child>) -> Self {
        let (stream, _) = listener.accept().expect("a worker calls back");
        stream
            .set_read_timeout(Some(crate::support::PATIENCE))
            .expect("a timeout");
        let mut worker = Self {
            child,
            control: BufReader::new(stream),
            directory,
            truth: Truth { pid: 0, cgroup: 0 },
        };
        let answer = worker.ask("truth");
        let (pid, cgroup) = answer.split_once(' ').expect("two numbers");
        worker.truth = Truth {
            pid: pid.parse().expect("a pid"),
            cgroup: cgroup.parse().expect("an inode"),
        };
        worker
    }

    /// Gives a command; panics with the worker's words if it fails.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.attempt(command)
            .unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Gives a command that may fail.
    #[track_caller]
    pub(crate) fn attempt(&mut self, command: &str) -> Result<String, String> {
        writeln!(self.control.get_mut(), "{command}").expect("the worker is there");
        let mut line = String::new();
        let length = self
            .control
            .read_line(&mut line)
            .unwrap_or_else(|error| panic!("no answer to {command}: {error}"));
        assert_ne!(length, 0, "the worker ended at {command}");
        let line = line.trim_end();
        match line.split_once(' ').unwrap_or((line, "")) {
            ("ok", answer) => Ok(answer.to_owned()),
            (_, error) => Err(error.to_owned()),
        }
    }

    #[track_caller]
    fn ask_slot(&mut self, command: &str) -> Slot {
        self.ask(command).parse().expect("a slot")
    }

    /// Opens a socket: `tcp`, `udp`, `udplite`, `sctp`, `mptcp`, `ping`, `raw N`; the family is that of `like`.
    #[track_caller]
    pub(crate) fn socket(&mut self, kind: &str, like: SocketAddr) -> Slot {
        let family = if like.is_ipv4() { "v4" } else { "v6" };
        self.ask_slot(&format!("socket {family} {kind}"))
    }

    /// Opens and binds; answers the local address too.
    #[track_caller]
    pub(crate) fn bound(&mut self, kind: &str, address: SocketAddr) -> (Slot, SocketAddr) {
        let slot = self.socket(kind, address);
        (slot, self.bind(slot, address))
    }

    #[track_caller]
    pub(crate) fn bind(&mut self, slot: Slot, address: SocketAddr) -> SocketAddr {
        self.ask(&format!("bind {slot} {address}"));
        self.local(slot)
    }

    /// Opens, binds and listens.
    #[track_caller]
    pub(crate) fn listener(&mut self, kind: &str, address: SocketAddr) -> (Slot, SocketAddr) {
        let (slot, local) = self.bound(kind, address);
        self.ask(&format!("listen {slot}"));
        (slot, local)
    }

    #[track_caller]
    pub(crate) fn local(&mut self, slot: Slot) -> SocketAddr {
        self.ask(&format!("local {slot}")).parse().expect("an address")
    }

    /// Opens and connects; answers the local address too.
    #[track_caller]
    pub(crate) fn connected(&mut self, kind: &str, remote: SocketAddr) -> (Slot, SocketAddr) {
        let slot = self.socket(kind, remote);
        self.ask(&format!("connect {slot} {remote}"));
        (slot, self.local(slot))
    }

    #[track_caller]
    pub(crate) fn accept(&mut self, listener: Slot) -> Slot {
        self.ask_slot(&format!("accept {listener}"))
    }

    #[track_caller]
    pub(crate) fn send(&mut self, slot: Slot, bytes: usize) {
        self.ask(&format!("send {slot} {bytes}"));
    }

    #[track_caller]
    pub(crate) fn send_to(&mut self, slot: Slot, bytes: usize, to: SocketAddr) {
        self.ask(&format!("send-to {slot} {bytes} {to}"));
    }

    /// The same with a first byte that is not 0: the type of an ICMP message.
    #[track_caller]
    pub(crate) fn send_to_as(&mut self, slot: Slot, first: u8, bytes: usize, to: SocketAddr) {
        self.ask(&format!("send-to {slot} {first}:{bytes} {to}"));
    }

    /// Makes a tap device in its namespace.
    #[track_caller]
    pub(crate) fn tap(&mut self, name: &str) -> Slot {
        self.ask_slot(&format!("tap {name}"))
    }

    /// Writes bytes to a descriptor, such as a frame to a tap device.
    #[track_caller]
    pub(crate) fn write(&mut self, slot: Slot, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.ask(&format!("write {slot} {hex}"));
    }

    /// Receives exactly so many bytes from a stream, or one message of at most that size.
    #[track_caller]
    pub(crate) fn receive(&mut self, slot: Slot, bytes: usize) {
        self.ask(&format!("receive {slot} {bytes}"));
    }

    /// Receives a message and sends one back to whom it came from.
    #[track_caller]
    pub(crate) fn answer(&mut self, slot: Slot, bytes: usize) {
        self.ask(&format!("answer {slot} {bytes}"));
    }

    #[track_caller]
    pub(crate) fn close(&mut self, slot: Slot) {
        self.ask(&format!("close {slot}"));
    }

    /// Gives another worker its own descriptor of a socket (`SCM_RIGHTS`), and closes this one's.
    #[track_caller]
    pub(crate) fn pass(&mut self, slot: Slot, heir: &mut Self) -> Slot {
        let path = heir.directory.join("passed");
        heir.ask(&format!("expect {}", path.display()));
        self.ask(&format!("pass {slot} {}", path.display()));
        let passed = heir.ask_slot("take");
        self.close(slot);
        passed
    }

    /// Lets it end, and waits for that: its sockets are closed.
    #[track_caller]
    pub(crate) fn end(mut self) {
        let child = self.child.take();
        drop(self.control.get_mut().shutdown(std::net::Shutdown::Both));
        if let Some(mut child) = child {
            child.wait().expect("a worker ends");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.control.get_mut().shutdown(std::net::Shutdown::Both);
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
        // Busy for a moment after its last process has ended.
        for _ in 0..50 {
            if fs::remove_dir(cgroup_of(&self.directory)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A directory of its own for a worker, and the socket in it that the worker calls.
fn rendezvous() -> (PathBuf, UnixListener) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("nflog-matrix-{}-{count}", std::process::id()));
    fs::create_dir_all(&directory).expect("a temporary directory");
    let listener = UnixListener::bind(directory.join("control")).expect("a Unix socket");
    (directory, listener)
}

fn program(directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("path of the test binary"));
    command
        .args([
            "--exact",
            "worker::serve",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CONTROL, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// The cgroup of the worker with this directory.
fn cgroup_of(directory: &Path) -> PathBuf {
    cgroup2_root().join(directory.file_name().expect("a name"))
}

/// Not a test: the body of a worker's process.
#[test]
#[ignore = "runs inside the other tests, as the process under observation"]
fn serve() {
    let directory = PathBuf::from(std::env::var_os(CONTROL).expect("started by a test, not by hand"));
    let cgroup = cgroup_of(&directory);
    fs::create_dir_all(&cgroup).expect("a cgroup");
    fs::write(cgroup.join("cgroup.procs"), "0").expect("the cgroup takes this process");
    let stream = UnixStream::connect(directory.join("control")).expect("the test listens");
    let mut hands = obey::Hands::new(std::env::var_os(HEIR).is_some());
    let mut answers = stream.try_clone().expect("a second handle");
    for line in BufReader::new(stream).lines() {
        // The test has gone away.
        let Ok(line) = line else { return };
        let mut answer = String::new();
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let written = match words.as_slice() {
            ["truth"] => {
                let inode = fs::metadata(&cgroup).expect("my cgroup").ino();
                writeln!(answer, "ok {} {inode}", std::process::id())
            }
            words => match hands.obey(words) {
                Ok(text) => writeln!(answer, "ok {text}"),
                Err(error) => writeln!(answer, "error {error}"),
            },
        };
        written.expect("memory");
        if answers.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
