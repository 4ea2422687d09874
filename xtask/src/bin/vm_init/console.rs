//! Guests for people: a shell, or the agent with something to see, with the first serial port as its terminal.

use std::fs::File;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{getpid, ioctl_tiocsctty, setsid};
use rustix::termios::tcsetpgrp;

use crate::command;
use crate::protocol::AGENT_PATH;

const RULES: &str = "\
add table inet nflog_agent_demo
add chain inet nflog_agent_demo output { type filter hook output priority 0; }
add chain inet nflog_agent_demo input { type filter hook input priority 0; }
add rule inet nflog_agent_demo output log prefix \"demo-output \" group 7
add rule inet nflog_agent_demo input log prefix \"demo-input \" group 7
";

/// A TCP request over IPv4 and over IPv6 and a ping, every two seconds.
const TRAFFIC: &str = "\
(while true; do echo hello | nc -l -p 8080 >/dev/null 2>&1; done) &
while true; do
    sleep 2
    echo hi | nc -w 1 127.0.0.1 8080 >/dev/null 2>&1
    ping -c 1 -W 1 127.0.0.1 >/dev/null 2>&1
    ping -c 1 -W 1 ::1 >/dev/null 2>&1
done";

const TERMINAL: &str = if cfg!(target_arch = "aarch64") {
    "/dev/ttyAMA0"
} else {
    "/dev/ttyS0"
};

type Environment = [(String, String)];

/// An interactive shell, until it ends.
pub(crate) fn shell(environment: &Environment) -> Result<()> {
    take_terminal()?;
    println!("vm_init: `exit` powers the guest off; the agent is {AGENT_PATH}, the tests are in /tests");
    command("/bin/sh", environment, &[])
        .current_dir("/root")
        .status()
        .context("cannot start the shell")?;
    Ok(())
}

/// The agent, until it ends; Ctrl-C reaches it.
pub(crate) fn agent(environment: &Environment, arguments: &[String]) -> Result<()> {
    take_terminal()?;
    load_rules(environment)?;
    let mut traffic = background(&mut command("/bin/sh", environment, &["-c", TRAFFIC]))?;
    let mut agent = command(AGENT_PATH, environment, &["run", "--group", "7"]);
    let status = agent.args(arguments).status().context("cannot start the agent")?;
    println!("vm_init: the agent ended with {status}");
    traffic.kill().context("cannot end the traffic")
}

fn load_rules(environment: &Environment) -> Result<()> {
    let mut nft = command("/bin/nft", environment, &["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start nft")?;
    nft.stdin
        .take()
        .context("standard input is a pipe")?
        .write_all(RULES.as_bytes())?;
    let status = nft.wait()?;
    ensure!(status.success(), "nft failed with {status}");
    Ok(())
}

fn background(command: &mut Command) -> Result<Child> {
    command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))
}

/// Makes the serial port the terminal of our session, so that Ctrl-C reaches what we start. PID 1 itself ignores the signal.
fn take_terminal() -> Result<()> {
    setsid().context("cannot start a session")?;
    let terminal = File::options()
        .read(true)
        .write(true)
        .open(TERMINAL)
        .context("cannot open the console")?;
    ioctl_tiocsctty(&terminal).context("cannot take the console as the terminal")?;
    tcsetpgrp(&terminal, getpid()).context("cannot come to the terminal's foreground")
}
