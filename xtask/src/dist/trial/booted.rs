//! The deb on a machine that systemd runs: the real one, as process 1 of namespaces of its own, on this machine's kernel.
//!
//! Its root directory is an overlay of this machine's, whose changes are in memory. Nothing outlives the trial, and nothing is written outside: no
//! command is run before process 1 is systemd in that root, known by a file there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::Dist;
use crate::process::{output, run, succeeds};
use crate::vm::remove_directory;

/// In a mount namespace of its own: enters a cgroup, and from there makes the machine's namespaces.
const OUTSIDE: &str = r#"
set -e
mount -t cgroup2 trial "$1/cgroup"
mkdir "$1/cgroup/$2"
echo $$ > "$1/cgroup/$2/cgroup.procs"
exec unshare --pid --fork --kill-child --mount --cgroup --net --ipc --uts sh -c "$3" inside "$1"
"#;

/// In those namespaces: becomes systemd. Of this machine's units only those are there that no target wants by itself.
const INSIDE: &str = r#"
set -e
mount -t tmpfs trial "$1/machine"
cd "$1/machine"
mkdir changes work root
mount -t overlay trial -o lowerdir=/,upperdir=changes,workdir=work root
cd root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs run run
mount -t tmpfs tmp tmp
mount --rbind /dev dev
rm -rf etc/systemd/system usr/lib/systemd/system/*.wants
mkdir -p etc/systemd/system
touch run/trial
mount --make-rprivate .
pivot_root . mnt
cd /
umount -l mnt
exec env -i container=other /usr/lib/systemd/systemd --system --log-target=null --unit=basic.target
"#;

/// Sends until it is told to stop. That nobody listens does not matter.
const TRAFFIC: &str = "exec 3<>/dev/udp/127.0.0.1/9 2> /run/refused; while [ -e /run/traffic ]; do for _ in {1..20}; do echo >&3; done; sleep 0.01; done";

const RULES: &str = "table inet trial {
    counter sent { }
    chain output {
        type filter hook output priority filter
        udp dport 9 counter name sent log prefix \"trial-out \" group 7
    }
}
";

/// What the agent writes goes there, as the machine has no journal.
const DROP_IN: &str = "[Service]\nStandardOutput=append:/run/said\n";

/// Starts, restarts, reloads, upgrades and removes the package while packets are logged.
pub(super) fn systemd(first: &Dist, second: &Dist) -> Result<()> {
    let machine = Machine::boot(&super::home().join("booted"))?;
    machine.write("etc/systemd/system/nflog-agent.service.d/trial.conf", DROP_IN)?;
    machine.write("run/rules.nft", RULES)?;
    machine.write("run/traffic", "")?;
    machine.run(&["ip", "link", "set", "lo", "up"])?;
    machine.run(&["nft", "--file", "/run/rules.nft"])?;
    machine.install(&first.deb())?;
    // Until it is ready, as it says itself.
    machine.run(&["systemctl", "enable", "--now", "nflog-agent"])?;
    let before = machine.main_process()?;
    machine.run(&["nflog-agent", "check", "--running"])?;

    let mut traffic = machine.command(&["bash", "-c", TRAFFIC]).spawn()?;
    machine.wait_for_records(1)?;
    machine.run(&["systemctl", "restart", "nflog-agent"])?;
    machine.wait_for_records(2)?;
    machine.run(&["systemctl", "reload", "nflog-agent"])?;
    machine.install(&second.deb())?;
    machine.wait_for_records(3)?;
    machine.remove("run/traffic")?;
    ensure!(traffic.wait()?.success(), "the traffic failed");
    let after = machine.main_process()?;
    ensure!(
        before != after,
        "process {before} is still there after an upgrade"
    );
    machine.run(&["systemctl", "stop", "nflog-agent"])?;
    machine.expect_all_recorded()?;

    machine.run(&["systemctl", "start", "nflog-agent"])?;
    machine.run(&["dpkg", "--purge", "nflog-agent"])?;
    machine.expect_removed()
}

/// systemd, in namespaces.
struct Machine {
    /// The `unshare` whose child systemd is.
    outside: Child,
    init: u32,
    place: PathBuf,
    cgroup: String,
}

impl Machine {
    fn boot(place: &Path) -> Result<Self> {
        remove_directory(place)?;
        for name in ["cgroup", "machine"] {
            fs::create_dir_all(place.join(name))
                .with_context(|| format!("cannot create {}", place.display()))?;
        }
        let cgroup = format!("nflog-trial-{}", std::process::id());
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                OUTSIDE,
                "outside",
            ])
            .arg(place)
            .args([&cgroup, INSIDE]);
        let outside = command.spawn().context("cannot start unshare")?;
        let mut machine = Self {
            outside,
            init: 0,
            place: place.to_owned(),
            cgroup,
        };
        machine.init = wait("systemd as process 1", || machine.systemd())?;
        wait("systemd to have started", || {
            succeeds(&mut machine.command(&["systemctl", "is-active", "basic.target"])).then_some(())
        })?;
        Ok(machine)
    }

    /// The process, once it is systemd in the root directory that was made for it.
    fn systemd(&self) -> Option<u32> {
        let id = self.outside.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        let init: u32 = children.trim().parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{init}/comm")).ok()?;
        let there = below(init, "run/trial").exists();
        (name.trim() == "systemd" && there).then_some(init)
    }

    /// A command in the machine, which gets a minute.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=1", "60", "nsenter", "--target"])
            .arg(self.init.to_string())
            .args(["--mount", "--pid", "--net", "--cgroup", "--ipc", "--uts"])
            .args([
                "env",
                "-i",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "DEBIAN_FRONTEND=noninteractive",
            ])
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        run(&mut self.command(arguments))
    }

    fn path(&self, path: &str) -> PathBuf {
        below(self.init, path)
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        super::write(&self.path(path), text.as_bytes(), "0644")
    }

    fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.path(path)).with_context(|| format!("no /{path} in the machine"))
    }

    fn remove(&self, path: &str) -> Result<()> {
        fs::remove_file(self.path(path)).with_context(|| format!("cannot remove /{path} in the machine"))
    }

    fn install(&self, package: &Path) -> Result<()> {
        let there = self.path("run/package.deb");
        fs::copy(package, &there).with_context(|| format!("cannot copy {}", package.display()))?;
        self.run(&["dpkg", "--force-confold", "--install", "/run/package.deb"])
    }

    /// Its number in the machine; an error unless the unit is active, and its user another one than root.
    fn main_process(&self) -> Result<u32> {
        let properties = ["--property=ActiveState", "--property=MainPID"];
        let said =
            output(&mut self.command(&[&["systemctl", "show", "nflog-agent"], &properties[..]].concat()))?;
        ensure!(
            said.contains("ActiveState=active"),
            "the unit is not active: {said}"
        );
        let process = said.lines().find_map(|line| line.strip_prefix("MainPID="));
        let process = process.with_context(|| format!("no process: {said}"))?;
        let status = self.read(&format!("proc/{process}/status"))?;
        ensure!(!status.contains("Uid:\t0\t"), "it runs as root:\n{status}");
        process.parse().context("a process is a number")
    }

    /// Waits until the agent of this number has written a record.
    fn wait_for_records(&self, agent: usize) -> Result<()> {
        wait(&format!("a record of agent {agent}"), || {
            let said = self.read("run/said").ok()?;
            let last = said.split("reading group 7").nth(agent)?;
            last.contains("trial-out").then_some(())
        })
    }

    /// As many records as the rule has counted, by three agents, none of which missed one.
    fn expect_all_recorded(&self) -> Result<()> {
        let text = output(&mut self.command(&["nft", "--json", "list", "counter", "inet", "trial", "sent"]))?;
        let answer: Value = serde_json::from_str(&text).context("nft answers with JSON")?;
        let counters = answer["nftables"].as_array().context("nft lists objects")?;
        let sent = counters
            .iter()
            .find_map(|object| object["counter"]["packets"].as_u64());
        let sent = sent.with_context(|| format!("no counter in {text}"))?;
        let said = self.read("run/said")?;
        let of = |word: &str| said.lines().filter(|line| line.contains(word)).count();
        let (records, agents) = (of(" trial-out "), of("stopping: SIGTERM"));
        ensure!(agents == 3, "{agents} agents stopped instead of 3:\n{said}");
        ensure!(
            of("; 0 missed before receipt") == of(" missed before receipt"),
            "an agent missed some:\n{said}"
        );
        ensure!(
            records as u64 == sent,
            "{records} records of {sent} packets:\n{said}"
        );
        println!("        {sent} packets, {records} records over a restart and an upgrade");
        Ok(())
    }

    fn expect_removed(&self) -> Result<()> {
        if succeeds(&mut self.command(&["systemctl", "is-active", "nflog-agent"])) {
            bail!("the unit is still active");
        }
        for path in [
            "etc/nflog-agent",
            "etc/systemd/system/multi-user.target.wants/nflog-agent.service",
            "var/lib/nflog-agent",
            "var/lib/private/nflog-agent",
        ] {
            ensure!(
                self.path(path).symlink_metadata().is_err(),
                "/{path} is still there"
            );
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With it goes its child, and with that all that runs in the machine. An error means that it has ended already.
        let _ = self.outside.kill();
        let _ = self.outside.wait();
        let tidy =
            r#"mount -t cgroup2 trial "$1/cgroup" && find "$1/cgroup/$2" -depth -type d -exec rmdir {} +"#;
        let tidied = wait("the machine's cgroups to be empty", || {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-c", tidy, "tidy"]);
            succeeds(command.arg(&self.place).arg(&self.cgroup)).then_some(())
        });
        if let Err(error) = tidied {
            eprintln!("cgroup {} stays: {error:#}", self.cgroup);
        }
    }
}

/// A file in the root directory of a process.
fn below(process: u32, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/root")).join(path)
}

/// Asks ten times a second, for half a minute.
fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(30) {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("waited in vain for {what}")
}
