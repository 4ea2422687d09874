//! Processes that make traffic and tell the truth about themselves: their pid and their cgroup's inode.
//!
//! A workload is this test binary again, started to run [`workload`] alone.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::support::{Netns, cgroup2_root, wait_for};

const ROLE: &str = "NFLOG_TEST_ROLE";
const ADDRESS: &str = "NFLOG_TEST_ADDRESS";
/// Local address of a client that must not choose it.
const FROM: &str = "NFLOG_TEST_FROM";
const CGROUP: &str = "NFLOG_TEST_CGROUP";
const ROUNDS: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(30);

/// A running workload. It keeps its socket open until [`Workload::release`].
pub(crate) struct Workload {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Open to the end: the test harness in the child writes to it.
    stdout: BufReader<ChildStdout>,
    cgroup: PathBuf,
    /// What it said about itself.
    pub(crate) truth: Truth,
}

/// What a workload says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truth {
    pub(crate) pid: u64,
    pub(crate) cgroup: u64,
    /// Its socket's local address.
    pub(crate) address: SocketAddr,
}

impl Workload {
    /// Starts a workload in `netns`, in a cgroup of its own, and waits until its part is under way: a server listens, a
    /// client has exchanged its messages.
    #[track_caller]
    pub(crate) fn start(netns: &Netns, role: &str, address: SocketAddr) -> Self {
        Self::spawn(netns, role, None, address, Stdio::piped())
    }

    /// The same, with `stdin` in place of the pipe by which it is told and released.
    #[track_caller]
    pub(crate) fn start_with(netns: &Netns, role: &str, address: SocketAddr, stdin: Stdio) -> Self {
        Self::spawn(netns, role, None, address, stdin)
    }

    /// The same, for a client with a given local address.
    #[track_caller]
    pub(crate) fn start_from(netns: &Netns, role: &str, from: SocketAddr, address: SocketAddr) -> Self {
        Self::spawn(netns, role, Some(from), address, Stdio::piped())
    }

    #[track_caller]
    fn spawn(netns: &Netns, role: &str, from: Option<SocketAddr>, address: SocketAddr, stdin: Stdio) -> Self {
        let program = env::current_exe().unwrap();
        let mut command = Command::new(program);
        let cgroup = cgroup2_root().join(format!(
            "nflog-test-{}-{}-{role}-{}-{}",
            std::process::id(),
            netns.inode(),
            if address.is_ipv4() { "inet" } else { "inet6" },
            address.port()
        ));
        command.args([
            "--exact",
            "workload::workload",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ]);
        command
            .env(ROLE, role)
            .env(ADDRESS, address.to_string())
            .env(CGROUP, &cgroup)
            .envs(from.map(|from| (FROM, from.to_string())));
        command.stdin(stdin).stdout(Stdio::piped());
        // Not by `ip netns exec`, which hides the cgroup file system behind a new /sys.
        let mut child = netns.run(|| command.spawn()).unwrap();
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let truth = stdout
            .by_ref()
            .lines()
            .map(Result::unwrap)
            .find_map(|line| Truth::parse(&line));
        let truth = truth.unwrap_or_else(|| panic!("{role} on {address} ended without a word"));
        Self {
            child,
            stdin,
            stdout,
            cgroup,
            truth,
        }
    }

    /// Lets it act, and waits until it has.
    #[track_caller]
    pub(crate) fn act(&mut self) {
        self.stdin.as_mut().expect("a pipe").write_all(b"act\n").unwrap();
        let done = self
            .stdout
            .by_ref()
            .lines()
            .map(Result::unwrap)
            .any(|line| line == "DONE");
        assert!(done, "process {} ended before it had acted", self.truth.pid);
    }

    /// Stops it and its children where they are, or lets them go on; the kernel goes on in either case.
    #[track_caller]
    pub(crate) fn freeze(&self, frozen: bool) {
        fs::write(self.cgroup.join("cgroup.freeze"), u8::from(frozen).to_string()).unwrap();
        let event = format!("frozen {}", u8::from(frozen));
        wait_for("the freezer", || {
            let events = fs::read_to_string(self.cgroup.join("cgroup.events")).unwrap();
            events.lines().any(|line| line == event).then_some(())
        });
    }

    /// Lets it close its socket and end.
    #[track_caller]
    pub(crate) fn release(mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "a workload failed: {status}");
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Busy for a moment after its last process has ended.
        for _ in 0..50 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Truth {
    pub(crate) fn print(self) {
        println!("\nTRUTH {} {} {}", self.pid, self.cgroup, self.address);
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("TRUTH ")?.split(' ');
        Some(Self {
            pid: words.next()?.parse().ok()?,
            cgroup: words.next()?.parse().ok()?,
            address: words.next()?.parse().ok()?,
        })
    }

    /// About this process, which moves into its cgroup first.
    pub(crate) fn about_myself(address: SocketAddr) -> Self {
        let cgroup = env::var_os(CGROUP).unwrap();
        Self {
            pid: std::process::id().into(),
            cgroup: fs::metadata(cgroup).unwrap().ino(),
            address,
        }
    }
}

/// Not a test: the body of a workload's process.
#[test]
#[ignore = "run by the other tests as the process under observation"]
fn workload() {
    let address: SocketAddr = env::var(ADDRESS).unwrap().parse().unwrap();
    let cgroup = PathBuf::from(env::var_os(CGROUP).unwrap());
    fs::create_dir_all(&cgroup).unwrap();
    fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
    match env::var(ROLE).unwrap().as_str() {
        "tcp-server" => tcp_server(address),
        "tcp-hub" => tcp_hub(address),
        "tcp-client" => tcp_client(address),
        "udp-server" => udp_server(address),
        "udp-client" => udp_client(address),
        role => crate::older::play(role, address),
    }
}

fn tcp_server(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    Truth::about_myself(listener.local_addr().unwrap()).print();
    let (mut connection, _) = listener.accept().unwrap();
    connection.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut byte = [0];
    while connection.read(&mut byte).unwrap() == 1 {
        connection.write_all(&byte).unwrap();
    }
    until_released();
}

/// Serves any number of connections.
fn tcp_hub(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    Truth::about_myself(listener.local_addr().unwrap()).print();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || std::io::copy(&mut connection.try_clone().unwrap(), &mut connection));
        }
    });
    until_released();
}

/// The local address that the test wants, or any.
fn local(peer: SocketAddr) -> SocketAddr {
    let any = if peer.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    env::var(FROM).as_deref().unwrap_or(any).parse().unwrap()
}

/// Connects; from a given port even if another process uses it for another peer.
fn connect(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let local = local(address);
    if local.port() != 0 {
        socket.bind(&local.into()).unwrap();
    }
    socket.connect_timeout(&address.into(), TIMEOUT).unwrap();
    socket.into()
}

fn tcp_client(address: SocketAddr) {
    let mut connection = connect(address);
    connection.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut byte = [7];
    for _ in 0..ROUNDS {
        connection.write_all(&byte).unwrap();
        connection.read_exact(&mut byte).unwrap();
    }
    Truth::about_myself(connection.local_addr().unwrap()).print();
    until_released();
}

fn udp_server(address: SocketAddr) {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    Truth::about_myself(socket.local_addr().unwrap()).print();
    let mut message = [0; 16];
    for _ in 0..ROUNDS {
        let (length, peer) = socket.recv_from(&mut message).unwrap();
        socket.send_to(&message[..length], peer).unwrap();
    }
    until_released();
}

fn udp_client(address: SocketAddr) {
    let socket = UdpSocket::bind(local(address)).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut message = [0; 16];
    for _ in 0..ROUNDS {
        socket.send_to(b"question", address).unwrap();
        socket.recv_from(&mut message).unwrap();
    }
    Truth::about_myself(socket.local_addr().unwrap()).print();
    until_released();
}

/// Until the test closes our standard input.
pub(crate) fn until_released() {
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}
