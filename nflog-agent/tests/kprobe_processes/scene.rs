//! A namespace where all datagrams to one port are logged, the agent that reads them, and the processes that send them.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::program::Agent;
use crate::seen::Seen;
use crate::support::Netns;

/// Where a sender sends to, and with which mark.
const ORDER: &str = "NFLOG_PROCESS_ORDER";

/// What a sender runs instead of sending, from a thread of its own.
pub(crate) const INSTEAD: &str = "NFLOG_PROCESS_INSTEAD";

/// How a sender is called: this test binary again, to run [`send`] alone.
pub(crate) const ARGUMENTS: [&str; 4] = ["scene::send", "--ignored", "--nocapture", "--test-threads=1"];

/// Tries to get a pid that another process may be just about to take.
const TRIES: u32 = 5;

pub(crate) struct Scene {
    netns: Netns,
    files: tempfile::TempDir,
    sink: UdpSocket,
    agent: Agent,
}

/// What came out.
pub(crate) struct Ended {
    pub(crate) records: Vec<Seen>,
    pub(crate) messages: String,
}

impl Scene {
    /// Starts the agent; `None` on a kernel that provably has no kprobes.
    pub(crate) fn begin(arguments: &[&str]) -> Option<Self> {
        if !Path::new("/sys/bus/event_source/devices/kprobe/type").exists() {
            println!("SKIPPED: this kernel is built without kprobes (CONFIG_KPROBE_EVENTS)");
            return None;
        }
        let netns = Netns::new("processes");
        let sink = netns.run(|| UdpSocket::bind("127.0.0.1:0")).expect("a port");
        let port = sink.local_addr().expect("bound").port();
        netns.nft(&format!(
            "table ip t {{ chain out {{ type filter hook output priority 0; udp dport {port} log group 12; }}; }}"
        ));
        let path = netns.path().display().to_string();
        let mut all = vec!["--group", "12", "--netns", &path, "--attribution", "probes"];
        all.extend(["--output", "json", "--flush-timeout", "500ms"]);
        all.extend(arguments);
        let agent = Agent::start(&all, &[]);
        assert!(!agent.said("do not follow processes"), "they are followed");
        Some(Self {
            netns,
            files: tempfile::tempdir().expect("a directory"),
            sink,
            agent,
        })
    }

    /// Where the programs are.
    pub(crate) fn directory(&self) -> &Path {
        self.files.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// The port whose datagrams are logged.
    pub(crate) fn port(&self) -> u16 {
        self.sink.local_addr().expect("bound").port()
    }

    /// A program of this name: this test binary.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let original = self.path(".original");
        if !original.exists() {
            let binary = std::env::current_exe().expect("path of the test binary");
            fs::copy(binary, &original).expect("room for a copy");
        }
        fs::hard_link(original, &path).expect("a hard link");
        path
    }

    /// A command that sends one datagram with this mark.
    pub(crate) fn sender(&self, program: &Path, mark: u32) -> Command {
        let mut command = self.order(program, mark);
        command.args(ARGUMENTS);
        command
    }

    /// A command that runs a sender somehow.
    pub(crate) fn order(&self, program: impl AsRef<OsStr>, mark: u32) -> Command {
        let mut command = Command::new(program);
        command.env(ORDER, format!("{mark} {}", self.port()));
        command.stdout(Stdio::null());
        command
    }

    /// Runs it to its end; its pid.
    #[track_caller]
    pub(crate) fn run(&self, command: &mut Command) -> u32 {
        self.run_as(command, None)
    }

    /// The same, if possible with this pid: the kernel gives the next free one after the last that it gave.
    #[track_caller]
    pub(crate) fn run_as(&self, command: &mut Command, pid: Option<u32>) -> u32 {
        let mut child = self.netns.run(move || {
            for _ in 0..TRIES {
                let Some(pid) = pid else { break };
                fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())
                    .expect("the kernel has CONFIG_CHECKPOINT_RESTORE");
                // Takes the pid that the sender would get, to see which one that is: it ends at once.
                let mut probe = Command::new("true").spawn().expect("true starts");
                let free = probe.id() == pid;
                probe.wait().expect("true ends");
                if free {
                    fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("as before");
                    break;
                }
            }
            command.spawn().expect("a sender starts")
        });
        let status = child.wait().expect("a sender ends");
        assert!(status.success(), "a sender ended with {status}");
        child.id()
    }

    /// Runs a command inside to its end; what it prints.
    #[track_caller]
    pub(crate) fn output(&self, command: &mut Command) -> String {
        let output = self.netns.run(|| command.output()).expect("it starts");
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Starts a command inside.
    #[track_caller]
    pub(crate) fn spawn(&self, command: &mut Command) -> Child {
        self.netns.run(|| command.spawn()).expect("it starts")
    }

    /// What has come out so far.
    pub(crate) fn records(&self) -> Vec<Seen> {
        Seen::from_json(&self.agent.output())
    }

    /// To the agent.
    pub(crate) fn signal(&self, signal: Signal) {
        self.agent.signal(signal);
    }

    /// Stops the agent.
    #[track_caller]
    pub(crate) fn end(self) -> Ended {
        let ended = self.agent.stop();
        assert_eq!(ended.code, Some(0), "{}", ended.messages());
        Ended {
            records: Seen::from_json(&ended.stdout),
            messages: ended.messages(),
        }
    }
}

impl Ended {
    /// The one record with this mark.
    #[track_caller]
    pub(crate) fn only(&self, mark: u32) -> &Seen {
        self.only_with(Some(mark.into()))
    }

    /// The one record without a mark.
    #[track_caller]
    pub(crate) fn only_unmarked(&self) -> &Seen {
        self.only_with(None)
    }

    #[track_caller]
    fn only_with(&self, mark: Option<u64>) -> &Seen {
        let mut marked = self
            .records
            .iter()
            .filter(|record| record.number("nflog.mark") == mark);
        match (marked.next(), marked.next()) {
            (Some(one), None) => one,
            other => panic!("not one record of mark {mark:?}: {other:?}\n{}", self.messages),
        }
    }
}

/// `comm` of this process's main thread.
pub(crate) fn comm() -> String {
    let path = format!("/proc/{}/comm", std::process::id());
    fs::read_to_string(path)
        .expect("/proc is mounted")
        .trim_end()
        .to_owned()
}

/// Not a test: the body of a sender's process.
#[test]
#[ignore = "runs inside the other tests, as the process under observation"]
fn send() {
    let order = std::env::var(ORDER).expect("started by a test, not by hand");
    if let Some(program) = std::env::var_os(INSTEAD) {
        let mut command = Command::new(program);
        command.args(ARGUMENTS).env_remove(INSTEAD);
        let failed = std::thread::spawn(move || command.exec()).join();
        panic!("still here: {failed:?}");
    }
    let (mark, port) = order.split_once(' ').expect("two words");
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().expect("a port")));
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    socket
        .set_mark(mark.parse().expect("a mark"))
        .expect("root may mark");
    socket.send_to(b"here", &to.into()).expect("loopback works");
}
