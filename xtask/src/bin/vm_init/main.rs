//! PID 1 of the guests that `cargo xtask vm` boots: mounts, loads modules, does what the plan says, powers off.
//!
//! Everything it finds out goes to the second serial port as events; the first serial port is for people. It never returns: if
//! it did, or panicked, the kernel would panic, which the host counts as a failure.

mod console;
mod events;
mod kernel_log;
mod mounts;
#[path = "../../vm/protocol.rs"]
mod protocol;
mod trial;

use std::fs::{self, File};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::system::{RebootCommand, finit_module, reboot, uname};

use events::Events;
use kernel_log::KernelLog;
use protocol::{Event, Mode, PLAN_PATH, Plan};

/// Where programs lie in the initramfs.
const PATH: &str = "/bin";

fn main() {
    if std::process::id() != 1 {
        eprintln!("vm_init: for use as PID 1 of a guest of `cargo xtask vm`");
        std::process::exit(64);
    }
    if let Err(error) = mounts::mount_all() {
        println!("vm_init: {error:#}");
    } else if let Err(error) = with_events() {
        println!("vm_init: no events: {error:#}");
    }
    rustix::fs::sync();
    let error = reboot(RebootCommand::PowerOff);
    println!("vm_init: cannot power off: {error:?}");
}

fn with_events() -> Result<()> {
    let mut events = Events::open()?;
    match carry_out(&mut events) {
        Ok(tests) => events.send(&Event::End { tests }),
        Err(error) => {
            println!("vm_init: {error:#}");
            events.send(&Event::Broken {
                reason: format!("{error:#}"),
            })
        }
    }
}

/// Does what the plan says and returns the number of tests run.
fn carry_out(events: &mut Events) -> Result<usize> {
    let plan = fs::read(PLAN_PATH).context("cannot read the plan")?;
    let Plan {
        mode,
        modules,
        environment,
    } = serde_json::from_slice(&plan).context("cannot read the plan")?;
    let mut log = KernelLog::open()?;
    for module in &modules {
        load(module)?;
    }
    run(&mut command(
        "/bin/ip",
        &environment,
        &["link", "set", "lo", "up"],
    ))?;
    let release = uname().release().to_string_lossy().into_owned();
    println!("vm_init: {release} is up with {} modules", modules.len());
    log.report("boot", events)?;
    events.send(&Event::Ready { kernel: release })?;
    match mode {
        Mode::Canary => Ok(0),
        Mode::Test {
            directory,
            filters,
            deadline,
        } => {
            let runner = trial::Runner::new(&environment, &directory, deadline, &filters);
            runner.run_all(&mut log, events)
        }
        Mode::Shell => console::shell(&environment).map(|()| 0),
        Mode::Run { arguments } => console::agent(&environment, &arguments).map(|()| 0),
    }
}

fn load(path: &str) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
    match finit_module(&file, c"", 0) {
        // Loaded by the kernel itself, on behalf of an earlier one.
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot load {path}")),
    }
}

/// A command with the environment that everything in the guest gets.
fn command(program: &str, environment: &[(String, String)], arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/root");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed with {status}");
    Ok(())
}
