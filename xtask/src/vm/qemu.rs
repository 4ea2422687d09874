//! One boot of a guest: starts QEMU, watches the console, and ends it when it is silent for too long, has been up for too
//! long, or panicked.
//!
//! One serial port is the kernel's console; another carries PID 1's events into a file. A PC has several; the arm64 machine has one,
//! so the other is a card there.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::process::{render, run};
use crate::vm::accelerator::Accelerator;
use crate::vm::kernel::Kernel;
use crate::vm::protocol::{Event, is_splat};

/// The watchdogs and the timer's check at boot are off because under emulation they measure the load of the host; a guest that
/// hangs meets the deadline. RCU does not take its time: to detach one agent's probes takes dozens of grace periods. What guards
/// against flaws of processors that are not there, and AppArmor, which has no profiles here, would only take time.
const KERNEL_COMMAND_LINE: &str = "panic=-1 oops=panic loglevel=5 net.ifnames=0 nowatchdog no_timer_check \
                                   rcupdate.rcu_cpu_stall_suppress=1 rcupdate.rcu_expedited=1 \
                                   mitigations=off init_on_alloc=0 apparmor=0 audit=0 tsc=reliable";

/// How long a guest may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From power-on to power-off.
    pub(crate) total: Duration,
    /// Between two lines on the console.
    pub(crate) silence: Duration,
}

/// What a boot left behind.
#[derive(Debug, Default)]
pub(crate) struct Boot {
    /// What PID 1 said, in order.
    pub(crate) events: Vec<Event>,
    /// The console, line by line.
    pub(crate) console: Vec<String>,
    /// Why QEMU had to be ended, or ended badly by itself.
    pub(crate) failure: Option<String>,
}

/// Boots a kernel without a terminal and waits for its end; `show` gets each line of the console as it comes.
pub(crate) fn boot(
    kernel: &Kernel,
    initramfs: &Path,
    accelerator: Accelerator,
    limits: Limits,
    mut show: impl FnMut(&str),
) -> Result<Boot> {
    let events = events_path(kernel);
    fs::write(&events, "").with_context(|| format!("cannot write {}", events.display()))?;
    let mut command = command(kernel, initramfs, accelerator);
    command.args(["-serial", "stdio"]);
    send_events_to(&events, kernel.arch, &mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{}`", render(&command)))?;
    let lines = console_lines(child.stdout.take().context("standard output is a pipe")?);
    let mut log = File::create(kernel.directory.join("console.log"))?;
    let mut console = Vec::new();
    let failure = watch(&lines, limits, |line| {
        show(line);
        console.push(line.to_owned());
        writeln!(log, "{line}")
    })?;
    let failure = finish(&mut child, failure)?;
    Ok(Boot {
        events: read_events(&events)?,
        console,
        failure,
    })
}

/// Boots a kernel with this terminal as its console, until it powers off.
pub(crate) fn interact(kernel: &Kernel, initramfs: &Path, accelerator: Accelerator) -> Result<()> {
    let mut command = command(kernel, initramfs, accelerator);
    command.args([
        "-chardev",
        "stdio,id=console,mux=on,signal=off",
        "-serial",
        "chardev:console",
        "-mon",
        "console",
    ]);
    send_events_to(&events_path(kernel), kernel.arch, &mut command);
    run(&mut command)
}

fn events_path(kernel: &Kernel) -> PathBuf {
    kernel.directory.join("events.jsonl")
}

/// Gives the guest a second serial port whose output is a file: `/dev/ttyS1` on x86-64, `/dev/ttyS0` on arm64.
fn send_events_to(file: &Path, arch: Arch, command: &mut Command) {
    match arch {
        Arch::X86_64 => {
            command.arg("-serial").arg(format!("file:{}", file.display()));
        }
        Arch::Arm64 => {
            command
                .arg("-chardev")
                .arg(format!("file,id=events,path={}", file.display()))
                .args(["-device", "pci-serial,chardev=events"]);
        }
    }
}

fn command(kernel: &Kernel, initramfs: &Path, accelerator: Accelerator) -> Command {
    let (program, console) = match kernel.arch {
        Arch::X86_64 => ("qemu-system-x86_64", "ttyS0"),
        Arch::Arm64 => ("qemu-system-aarch64", "ttyAMA0"),
    };
    let mut command = Command::new(program);
    match kernel.arch {
        // What is cheap in hardware and dear in emulation is off: a fifth level of page tables, `rep movsb` (byte by byte), ends of
        // basic blocks around each access to user memory, and large register files to save at each switch.
        Arch::X86_64 => command.args([
            "-cpu",
            "max,la57=off,erms=off,fsrm=off,smap=off,smep=off,avx=off,xsave=off",
        ]),
        // Pointer authentication by QEMU's own cheap hash: the architecture's takes most of the time. Kernels before 5.12 do not
        // boot with 52-bit addresses.
        Arch::Arm64 => command.args(["-machine", "virt", "-cpu", "max,pauth-impdef=on,lpa2=off"]),
    };
    command
        .args(["-nodefaults", "-no-reboot", "-display", "none"])
        .args(["-m", "1024", "-smp", "2", "-accel"])
        .arg(accelerator.qemu_name())
        .arg("-kernel")
        .arg(kernel.image())
        .arg("-initrd")
        .arg(initramfs)
        .arg("-append")
        .arg(format!("console={console} {KERNEL_COMMAND_LINE}"));
    command
}

fn console_lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Passes lines on until the console closes; the reason if the guest has to be ended.
fn watch(
    lines: &Receiver<String>,
    limits: Limits,
    mut each: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<Option<String>> {
    let start = Instant::now();
    loop {
        let left = limits.total.saturating_sub(start.elapsed());
        match lines.recv_timeout(left.min(limits.silence)) {
            Ok(line) => {
                each(&line)?;
                if line.contains("Kernel panic") {
                    return Ok(Some(line));
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) if left <= limits.silence => {
                return Ok(Some(format!("not done after {} s", limits.total.as_secs())));
            }
            Err(RecvTimeoutError::Timeout) => {
                return Ok(Some(format!("silent for {} s", limits.silence.as_secs())));
            }
        }
    }
}

fn finish(child: &mut Child, failure: Option<String>) -> Result<Option<String>> {
    if failure.is_some() {
        child.kill().context("cannot end QEMU")?;
        child.wait()?;
        return Ok(failure);
    }
    let status = child.wait()?;
    Ok((!status.success()).then(|| format!("QEMU ended with {status}")))
}

fn read_events(path: &Path) -> Result<Vec<Event>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let parse = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|_| Event::Broken {
            reason: format!("unreadable event: {line}"),
        })
    };
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(parse)
        .collect())
}

/// Lines of the console in which the kernel complains. The time stamp tells them from what a test prints.
pub(crate) fn splats(console: &[String]) -> impl Iterator<Item = &String> {
    console
        .iter()
        .filter(|line| line.trim_start().starts_with('[') && is_splat(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(lines: &[&str], keep_open: bool, limits: Limits) -> (Option<String>, usize) {
        let (sender, receiver) = mpsc::channel();
        for line in lines {
            sender.send((*line).to_owned()).expect("the receiver is alive");
        }
        let sender = keep_open.then_some(sender);
        let mut seen = 0;
        let failure = watch(&receiver, limits, |_| {
            seen += 1;
            Ok(())
        });
        drop(sender);
        (failure.expect("no I/O error"), seen)
    }

    const LIMITS: Limits = Limits {
        total: Duration::from_millis(200),
        silence: Duration::from_millis(20),
    };

    #[test]
    fn a_guest_that_closes_its_console_is_done() {
        assert_eq!(watched(&["booting", "bye"], false, LIMITS), (None, 2));
    }

    #[test]
    fn a_silent_guest_a_panicked_guest_and_a_late_guest_are_ended() {
        assert_eq!(
            watched(&["booting"], true, LIMITS),
            (Some("silent for 0 s".to_owned()), 1)
        );
        let panic = "[    1.0] Kernel panic - not syncing: Attempted to kill init!";
        assert_eq!(
            watched(&[panic, "more"], true, LIMITS),
            (Some(panic.to_owned()), 1)
        );
        let late = Limits {
            total: Duration::ZERO,
            ..LIMITS
        };
        assert_eq!(watched(&[], true, late).0, Some("not done after 0 s".to_owned()));
    }

    #[test]
    fn only_time_stamped_lines_of_the_console_are_splats() {
        let console = [
            "[    2.1] WARNING: CPU: 1 at net/core",
            "test prints WARNING: x",
            "[    2.2] fine",
        ]
        .map(str::to_owned);
        assert_eq!(splats(&console).count(), 1);
    }
}
