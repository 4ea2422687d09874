//! `top` with a real agent on real rules: the numbers are the rules' own, and the terminal is as it was.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::binary;
use crate::support::{Netns, wait_for};

const RULES: &str = "
    table inet t {
        chain out {
            type filter hook output priority 0
            udp dport 4242 counter log prefix \"flood \" group 7 comment \"flood\"
            udp dport 4243 counter log prefix \"other \" group 7 comment \"other\"
        }
    }";

fn send(netns: &Netns, port: u16, packets: u32) {
    netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..packets {
            // The reply is a port-unreachable error, reported by the next send.
            let _ = socket.send_to(b"payload", ("127.0.0.1", port));
        }
    });
}

fn top(netns: &Netns, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(["top", "--group", "7", "--netns"])
        .arg(netns.path())
        .args(arguments)
        .env("RUST_LOG", "info")
        .env_remove("NO_COLOR");
    command
}

/// Lines of standard error up to the one that says that it reads, and the rest by and by.
fn wait_until_reading(stderr: ChildStderr) -> JoinHandle<String> {
    let mut lines = BufReader::new(stderr).lines();
    let mut seen = String::new();
    for line in lines.by_ref() {
        seen += &(line.unwrap() + "\n");
        if seen.contains("reading group") {
            return spawn(move || lines.map(|line| line.unwrap() + "\n").collect());
        }
    }
    panic!("it never read: {seen}");
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("it runs");
}

/// Packets and bytes of each name of a table of a report.
fn table(report: &str, name: &str) -> Vec<(String, u64, u64)> {
    let lines = report.lines().skip_while(|line| *line != name).skip(2);
    let rows = lines.take_while(|line| !line.is_empty());
    rows.map(|line| {
        let mut words = line.split_whitespace();
        let mut number = |at: usize| words.nth(at).unwrap().parse().unwrap();
        let (packets, bytes) = (number(2), number(0));
        let name = words.skip(1).collect::<Vec<_>>().join(" ");
        (name, packets, bytes)
    })
    .collect()
}

#[test]
fn the_last_report_has_what_the_rules_counted() {
    let netns = Netns::new("top");
    netns.nft(RULES);
    let mut child = top(&netns, &["--batch", "--interval", "100ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = wait_until_reading(child.stderr.take().unwrap());
    for _ in 0..10 {
        send(&netns, 4242, 50);
        send(&netns, 4243, 30);
        std::thread::sleep(Duration::from_millis(40));
    }
    signal(&child, Signal::TERM);
    let mut reports = String::new();
    child.stdout.take().unwrap().read_to_string(&mut reports).unwrap();
    let stderr = stderr.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
    assert!(reports.matches("\nprefixes\n").count() > 2, "{reports}");
    let (_, last) = reports.rsplit_once("after ").unwrap();
    let (flood, other) = (netns.counter("flood"), netns.counter("other"));
    // IPv4 and UDP headers, and the payload.
    let bytes = |packets: u64| packets * (20 + 8 + 7);
    let expected = [
        ("flood".to_owned(), flood, bytes(flood)),
        ("other".to_owned(), other, bytes(other)),
    ];
    let mut prefixes = table(last, "prefixes");
    prefixes.sort();
    assert_eq!(prefixes, expected, "{last}");
    let all = flood + other;
    assert!(all > 700, "{all}");
    for name in ["processes", "workloads", "actions", "owners"] {
        let packets: u64 = table(last, name).iter().map(|(_, packets, _)| packets).sum();
        assert_eq!(packets, all, "{name}: {last}");
    }
    assert!(
        last.contains(&format!("{all} packets, {} bytes, 0 lost", bytes(all))),
        "{last}"
    );
    assert!(last.contains(&format!("{all:>14}  packets received")), "{last}");
    assert!(
        stderr.contains(&format!("{all} received = {all} exported + 0 lost")),
        "{stderr}"
    );
}

#[test]
fn packets_that_were_lost_are_shown() {
    let netns = Netns::new("toploss");
    netns.nft(RULES);
    let mut child = top(
        &netns,
        &[
            "--batch",
            "--interval",
            "100ms",
            "--view",
            "losses",
            "--receive-buffer",
            "100000",
        ],
    )
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let stderr = wait_until_reading(child.stderr.take().unwrap());
    signal(&child, Signal::STOP);
    send(&netns, 4242, 20_000);
    signal(&child, Signal::CONT);
    // What was dropped last shows only when another packet follows and finds room.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        send(&netns, 4242, 1);
        let line = lines.next().expect("it runs").unwrap();
        if line.contains("group 7 in network namespace") {
            break;
        }
    }
    signal(&child, Signal::TERM);
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    let number = |what: &str| {
        let line = rest
            .iter()
            .rev()
            .find(|line| line.contains(what))
            .unwrap_or_else(|| panic!("{what}: {rest:?}"));
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let missed = number("missed before receipt");
    assert_eq!(
        number("packets received") + missed,
        netns.counter("flood"),
        "{rest:?}"
    );
    assert_eq!(number("group 7 in network namespace"), missed, "{rest:?}");
    assert!(missed > 0);
    stderr.join().unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn so_many_reports_as_asked_for_and_only_the_chosen_table() {
    let netns = Netns::new("topcount");
    let output = top(&netns, &["-b", "-i", "100ms", "-n", "2", "--view", "owners"])
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stdout.matches("after ").count(), 2, "{stdout}");
    assert!(
        stdout.matches("\nowners\n").count() == 2 && !stdout.contains("prefixes"),
        "{stdout}"
    );
}

#[test]
fn a_reader_that_goes_away_is_a_quiet_end() {
    let netns = Netns::new("toppipe");
    let mut child = top(&netns, &["-b", "-i", "100ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let stderr = wait_until_reading(child.stderr.take().unwrap()).join().unwrap();
    assert!(child.wait().unwrap().success(), "{stderr}");
}

#[test]
fn a_group_that_is_taken_is_said_with_what_to_do() {
    let netns = Netns::new("topbusy");
    let nflog = netns.reader(7);
    let output = top(&netns, &["--batch"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{stderr}");
    assert!(stderr.contains("second group"), "{stderr}");
    nflog.close(|_| ()).unwrap();
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let netns = Netns::new("topnotty");
    let output = top(&netns, &[]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    assert!(stderr.contains("--batch"), "{stderr}");
}

/// A terminal, with what has been written to it.
struct Terminal {
    master: File,
    /// Kept open, so that what is written stays readable.
    slave: OwnedFd,
    written: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    fn new() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, size).unwrap();
        let master = File::from(master);
        let written: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut input, sink) = (master.try_clone().unwrap(), Arc::clone(&written));
        let reader = spawn(move || {
            let mut buffer = [0; 4096];
            // EIO: nobody has the other side any more.
            while let Ok(length @ 1..) = input.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self {
            master,
            slave,
            written,
            reader,
        }
    }

    fn stdio(&self) -> Stdio {
        self.slave.try_clone().unwrap().into()
    }

    fn has(&self, text: &str) -> bool {
        let written = self.written.lock().unwrap();
        written
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        wait_for(text, || self.has(text).then_some(()));
    }

    fn local_modes(&self) -> LocalModes {
        tcgetattr(&self.slave).unwrap().local_modes
    }

    fn close(self) {
        drop((self.slave, self.master));
        self.reader.join().unwrap();
    }
}

#[test]
fn a_terminal_that_only_shows_is_none() {
    let (netns, terminal) = (Netns::new("topnokeys"), Terminal::new());
    let output = top(&netns, &[])
        .stdin(Stdio::null())
        .stdout(terminal.stdio())
        .stderr(Stdio::piped())
        .env("TERM", "xterm-256color")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    assert!(
        stderr.contains("standard input") && stderr.contains("--batch"),
        "{stderr}"
    );
    assert!(!terminal.has(ENTER));
    terminal.close();
}

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";

/// Starts `top` on a terminal, ends it by `end`, and looks at the terminal afterwards.
#[track_caller]
fn on_a_terminal(
    netns: &Netns,
    environment: &[(&str, &str)],
    end: impl FnOnce(&mut Terminal, &Child),
) -> bool {
    let mut terminal = Terminal::new();
    let before = terminal.local_modes();
    let mut child = top(netns, &["--interval", "100ms"])
        .stdin(terminal.stdio())
        .stdout(terminal.stdio())
        .stderr(Stdio::piped())
        .env("TERM", "xterm-256color")
        .envs(environment.iter().copied())
        .spawn()
        .unwrap();
    let stderr = wait_until_reading(child.stderr.take().unwrap());
    terminal.wait_for("PREFIX");
    assert!(terminal.has(ENTER));
    assert!(
        !terminal.local_modes().contains(LocalModes::ICANON),
        "keys are read at once"
    );
    end(&mut terminal, &child);
    let stderr = stderr.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
    assert!(
        stderr.contains(" received = "),
        "the account is told when the screen is gone: {stderr}"
    );
    terminal.wait_for(LEAVE);
    terminal.wait_for(SHOW_CURSOR);
    assert_eq!(terminal.local_modes(), before);
    let colour = terminal.has("\x1b[38;5;") || terminal.has("\x1b[36m") || terminal.has("\x1b[32m");
    terminal.close();
    colour
}

#[test]
fn keys_are_obeyed_and_q_puts_the_terminal_back() {
    let netns = Netns::new("topkeys");
    netns.nft(RULES);
    let colour = on_a_terminal(&netns, &[], |terminal, _| {
        send(&netns, 4242, 10);
        terminal.wait_for("flood");
        terminal.master.write_all(b"2").unwrap();
        // Only what changes is written: PREFIX becomes PROCESS.
        terminal.wait_for("OCESS");
        terminal.master.write_all(b"/zzz\r6").unwrap();
        terminal.wait_for("receipt");
        terminal.master.write_all(b"q").unwrap();
    });
    assert!(colour);
}

#[test]
fn a_signal_puts_the_terminal_back_and_no_color_is_honoured() {
    let netns = Netns::new("topsignal");
    for end in [Signal::TERM, Signal::HUP] {
        let colour = on_a_terminal(&netns, &[("NO_COLOR", "1")], |_, child| signal(child, end));
        assert!(!colour);
    }
}
