//! The examples of the NFLOG library, run as programs in namespaces of their own with real traffic. Needs root.
//!
//! Cargo builds them beside this program; where it did not, or not since the last change, the test says what to do.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::SystemTime;

use rustix::process::{Pid, Signal, kill_process};
use support::Netns;
use support::traffic::{PORT, log_to_groups, send};

const REMEDY: &str =
    "run `cargo build -p nflog-agent --examples` with the flags of this test, or `cargo xtask test`";

/// An example's executable, newer than all that it is made of.
#[track_caller]
fn executable(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("target/…/deps/examples-…");
    let path = profile.join("examples").join(name);
    let Ok(built) = modified(&path) else {
        panic!("{} is not built: {REMEDY}", path.display());
    };
    // Cargo's list of everything that it is made of: `executable: file file …`.
    let list = fs::read_to_string(path.with_extension("d")).unwrap();
    let (_, files) = list.trim_end().split_once(": ").expect("a rule of make");
    for file in files.split(' ') {
        let changed = modified(Path::new(file));
        assert!(
            changed.is_ok_and(|changed| changed <= built),
            "{} is older than {file}: {REMEDY}",
            path.display()
        );
    }
    path
}

fn modified(path: &Path) -> std::io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

/// A running example.
struct Example {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Example {
    /// Starts it and waits until it reads.
    #[track_caller]
    fn start(netns: &Netns, name: &str, arguments: &[&str]) -> Self {
        let path = executable(name);
        let mut child = netns
            .command(path.to_str().expect("a path in UTF-8"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        assert!(first.starts_with("reading "), "{first:?}");
        Self { child, output }
    }

    fn signal(&self, signal: Signal) {
        // `ip netns exec` has become the example.
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it prints until it ends, which must be with success.
    #[track_caller]
    fn end(mut self) -> String {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {text}");
        text
    }
}

#[test]
fn print_shows_the_payload_of_icmp_packets() {
    let netns = Netns::new("example-print");
    netns.nft(
        "table inet demo { chain output { type filter hook output priority 0\n meta l4proto icmp log group 100\n }\n}",
    );
    let example = Example::start(&netns, "print", &["100", "2"]);
    // Nobody listens: the kernel answers by ICMP, which quotes the packet.
    netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"quoted", ("127.0.0.1", PORT)).unwrap();
    });
    let text = example.end();
    let [packet, lost] = text.lines().collect::<Vec<_>>()[..] else {
        panic!("{text}");
    };
    assert!(
        packet.starts_with("45") && packet.ends_with("71756f746564"),
        "{text}"
    );
    assert_eq!(lost, "packets lost: 0");
}

#[cfg(feature = "async")]
#[test]
fn async_stream_shows_as_many_packets_as_asked_for() {
    let netns = Netns::new("example-stream");
    support::traffic::log_output(&netns);
    let example = Example::start(&netns, "async_stream", &["5", "3"]);
    send(&netns, 3);
    // 20 bytes of IPv4, 8 of UDP, 7 of payload.
    let line = "Inet 35 bytes, prefix \"sent\"\n";
    assert_eq!(
        example.end(),
        format!("{line}{line}{line}packets lost: 0, not waited for: 0\n")
    );
}

#[test]
fn loss_accounts_for_every_packet_that_the_rule_counts() {
    let netns = Netns::new("example-loss");
    log_to_groups(&netns, &[100]);
    let example = Example::start(&netns, "loss", &["100", "3", "4096"]);
    // A burst while it does not read, and later packets that show how much of it was lost.
    example.signal(Signal::STOP);
    send(&netns, 10_000);
    example.signal(Signal::CONT);
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(300));
        send(&netns, 1);
    }
    let text = example.end();
    assert!(text.lines().count() >= 3, "{text}");
    let last = text.lines().last().expect("is not empty");
    assert!(!last.contains("not counted yet"), "{text}");
    let numbers: Vec<u64> = last
        .split([' ', ','])
        .filter_map(|word| word.parse().ok())
        .collect();
    let [received, lost, datagrams] = numbers[..] else {
        panic!("{last}");
    };
    assert_eq!(received + lost, netns.counter("100"), "{text}");
    assert!(lost > 0 && datagrams > 0, "{text}");
}

#[test]
fn without_rights_each_example_says_so() {
    for name in ["print", "loss", "async_stream"] {
        if cfg!(not(feature = "async")) && name == "async_stream" {
            continue;
        }
        let path = executable(name);
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(path);
        let output = command.output().expect("setpriv is in PATH");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert_eq!(
            complaint,
            format!(
                "{name}: no permission to read NFLOG group 100: CAP_NET_ADMIN is needed in the network namespace\n"
            )
        );
    }
}

#[test]
fn a_wrong_argument_is_an_error() {
    let output = Command::new(executable("print")).arg("many").output().unwrap();
    assert!(!output.status.success());
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("invalid digit"), "{complaint}");
}
