//! `cargo xtask run`: builds the agent and runs it on a demonstration rule set in an nftables table of its own.
//!
//! The table is removed however the agent ends: by itself, by a signal to us, or by a crash. The agent is in a process group of
//! its own, so that one Ctrl-C is one signal to it, the one we pass on.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{Exit, NO_PERMISSION};
use crate::paths::{self, find_program};
use crate::process::{cargo, output, run};
use crate::setup::{self, Purpose};

const TABLE: &str = "nflog_agent_demo";
/// The group to use, unless somebody is bound to it.
const GROUP: u16 = 7;
/// What the kernel knows of bound groups, one a line: group, port, ...
const BOUND_GROUPS: &str = "/proc/net/netfilter/nfnetlink_log";
/// How often to look whether the agent has ended.
const POLL: Duration = Duration::from_millis(20);

/// Options of `cargo xtask run`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Arguments for the agent, after `nflog-agent run --group N`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the verb; the agent's exit code becomes ours.
pub(crate) fn main(options: &Options) -> Result<()> {
    if !geteuid().is_root() {
        let message =
            "binding an NFLOG group and writing nftables rules takes root; run `sudo -E env PATH=$PATH cargo xtask run`"
                .to_owned();
        return Err(Exit {
            code: NO_PERMISSION,
            message,
        }
        .into());
    }
    setup::ensure(Purpose::Run)?;
    let agent = build()?;
    let group = free_group()?;
    // From here on a signal no longer ends us before the table is removed.
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot catch signals")?;
    let table = Table::install(group)?;
    eprintln!("rules in table inet {TABLE} log to group {group}; Ctrl-C ends the agent and removes them");
    thread::spawn(move || {
        // A quiet host would show nothing for a while. If even this fails, the agent's own messages say why.
        if let Err(error) = small_talk(group) {
            eprintln!("no traffic of our own: {error}");
        }
    });
    let status = run_agent(&agent, group, &options.arguments, signals);
    table.remove()?;
    exit_code(status?)
}

/// Once the agent reads the group: a connection and a datagram to ourselves, over loopback, open long enough to be looked up.
fn small_talk(group: u16) -> std::io::Result<()> {
    while first_free(&fs::read_to_string(BOUND_GROUPS).unwrap_or_default(), group) == Some(group) {
        thread::sleep(POLL);
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let server = listener.accept()?;
    let sockets = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
    sockets[0].send_to(b"hello", sockets[1].local_addr()?)?;
    thread::sleep(Duration::from_secs(2));
    drop((client, server, listener, sockets));
    Ok(())
}

fn build() -> Result<PathBuf> {
    run(cargo().args([
        "build",
        "--locked",
        "--release",
        "--package",
        "nflog-agent",
        "--bin",
        "nflog-agent",
    ]))?;
    Ok(paths::target().join("release/nflog-agent"))
}

fn run_agent(agent: &PathBuf, group: u16, arguments: &[String], signals: Signals) -> Result<ExitStatus> {
    let mut command = Command::new(agent);
    command
        .args(["run", "--group", &group.to_string()])
        .args(arguments)
        .process_group(0);
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {}", agent.display()))?;
    wait(child, signals)
}

/// Waits for the agent, passing on the first signal; the second one kills it.
fn wait(mut child: Child, mut signals: Signals) -> Result<ExitStatus> {
    let agent = Pid::from_child(&child);
    let mut passed_on = false;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for the agent")? {
            return Ok(status);
        }
        for signal in signals.pending() {
            let signal = Signal::from_named_raw(signal)
                .filter(|_| !passed_on)
                .unwrap_or(Signal::KILL);
            kill_process(agent, signal).context("cannot pass a signal on to the agent")?;
            passed_on = true;
        }
        thread::sleep(POLL);
    }
}

/// An error that carries the agent's exit code, unless that is 0.
fn exit_code(status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let code = status
        .code()
        .or_else(|| Some(128 + status.signal()?))
        .and_then(|code| u8::try_from(code).ok());
    Err(Exit {
        code: code.unwrap_or(1),
        message: format!("the agent ended with {status}"),
    }
    .into())
}

/// The first group from [`GROUP`] on that nobody is bound to.
fn free_group() -> Result<u16> {
    // Without the module there is no file and nobody is bound.
    let bound = fs::read_to_string(BOUND_GROUPS).unwrap_or_default();
    first_free(&bound, GROUP).context("every NFLOG group is bound")
}

/// The first group from `from` on that is not in the kernel's list of bound groups.
fn first_free(bound: &str, from: u16) -> Option<u16> {
    let bound: Vec<u16> = bound
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    (from..=u16::MAX).find(|group| !bound.contains(group))
}

/// The demonstration table, which is removed when this value goes.
#[derive(Debug)]
struct Table {
    installed: bool,
}

impl Table {
    fn install(group: u16) -> Result<Self> {
        let nft = find_program("nft").context("no program nft")?;
        let mut nft = Command::new(nft)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start nft")?;
        nft.stdin
            .take()
            .context("standard input is a pipe")?
            .write_all(rules(group).as_bytes())?;
        let status = nft.wait().context("cannot wait for nft")?;
        ensure!(
            status.success(),
            "cannot install the demonstration rules: nft failed with {status}"
        );
        Ok(Self { installed: true })
    }

    fn remove(mut self) -> Result<()> {
        self.installed = false;
        delete()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if self.installed
            && let Err(error) = delete()
        {
            eprintln!("cannot remove the demonstration rules: {error:#}");
        }
    }
}

fn delete() -> Result<()> {
    let nft = find_program("nft").context("no program nft")?;
    output(Command::new(nft).args(["delete", "table", "inet", TABLE])).map(|_| ())
}

/// The rule set: what opens a connection, datagrams and pings, in both directions, at a rate that a person can read.
///
/// Adding the table before deleting it makes the deletion work whether or not an earlier run left one behind.
fn rules(group: u16) -> String {
    let mut text = format!("add table inet {TABLE}\ndelete table inet {TABLE}\nadd table inet {TABLE}\n");
    for (hook, short) in [("output", "out"), ("input", "in")] {
        text += &format!(
            "add chain inet {TABLE} {hook} {{ type filter hook {hook} priority filter; policy accept; }}\n"
        );
        for (matching, name) in [
            ("tcp flags & (syn | ack) == syn", "tcp"),
            ("meta l4proto udp", "udp"),
            ("icmp type { echo-request, echo-reply }", "icmp"),
            ("icmpv6 type { echo-request, echo-reply }", "icmp"),
        ] {
            let rate = "limit rate 20/second burst 40 packets";
            text += &format!(
                "add rule inet {TABLE} {hook} {matching} {rate} log prefix \"demo-{short}-{name} \" group {group}\n"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_group_is_passed_over() {
        assert_eq!(first_free("", GROUP), Some(7));
        assert_eq!(
            first_free(
                "    7   1234     0 2 130752   1  2\n    8   1234     0 2 130752   1  2\n",
                GROUP
            ),
            Some(9)
        );
    }

    #[test]
    fn every_rule_logs_to_the_group_at_a_limited_rate() {
        let rules = rules(9);
        let logging: Vec<_> = rules
            .lines()
            .filter(|line| line.starts_with("add rule"))
            .collect();
        assert_eq!(logging.len(), 8);
        assert!(
            logging
                .iter()
                .all(|rule| rule.contains(" limit rate ") && rule.ends_with(" group 9"))
        );
    }

    #[test]
    fn a_signal_to_us_reaches_the_agent_and_its_exit_code_comes_back() {
        let script = "trap 'exit 42' TERM; echo ready; while :; do sleep 0.01; done";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        let mut ready = [0; 6];
        let mut stdout = child.stdout.take().expect("a pipe");
        std::io::Read::read_exact(&mut stdout, &mut ready).expect("it says that it is ready");
        let signals = Signals::new([SIGTERM]).expect("can be caught");
        signal_hook::low_level::raise(SIGTERM).expect("can be raised");
        let status = wait(child, signals).expect("it ends");
        let error = exit_code(status).expect_err("42 is not success");
        assert_eq!(error.downcast_ref::<Exit>().map(|exit| exit.code), Some(42));
    }
}
