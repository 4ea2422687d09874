//! `cargo xtask vm`: boots real Debian kernels under QEMU and runs the integration tests in them as root.

mod accelerator;
mod apt;
mod cpio;
mod initramfs;
mod kernel;
mod modules;
mod protocol;
mod qemu;
mod report;
mod system;

use std::io::{IsTerminal as _, stdin};
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::arch::Arch;
use crate::artifacts::Artifacts;
use crate::cross;
use crate::paths;
use crate::process::render;
use crate::setup::{self, Purpose};
use accelerator::{Accelerator, Choice};
pub(crate) use apt::{Apt, unpack};
use initramfs::{Payload, TEST_PREFIXES};
use kernel::Kernel;
pub(crate) use kernel::{Line, remove_directory};
pub(crate) use protocol::MATRIX;
use protocol::Mode;
use qemu::{Boot, Limits};
pub(crate) use report::Outcome;

/// A test that takes longer is killed; with hardware virtualisation, that is.
const TEST_DEADLINE: Duration = Duration::from_secs(40);
/// Guests that run at a time: two keep the two processors of a CI machine busy, and four took as long.
const AT_ONCE: usize = 2;
/// Tests of what does not depend on the kernel's version: `cargo xtask test` runs them in guests of one line only, because
/// emulated guests are slow. Of the NFLOG library these are the forms in which a reader is driven; what it reads, and what the
/// kernel does with its groups, is tested in all.
const ONCE: [&str; 9] = [
    "!^agent::netns::",
    "!^agent::errors::",
    "!^agent::conservation::",
    "!^agent::console::",
    "!^agent::places::",
    "!^agent::reload::",
    "!^nflog_async::",
    "!^nflog_callback::",
    "!^nflog_pcap::",
];
const ONCE_IN: Line = Line::Linux6_12;
/// Lines of the console to show when a guest never came up.
const CONSOLE_TAIL: usize = 60;

/// Options of `cargo xtask vm`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Option<VmCommand>,
    #[command(flatten)]
    guest: Guest,
    /// An interactive shell in a guest instead of the tests (Ctrl-A x ends it)
    #[arg(long)]
    shell: bool,
    /// Seconds after which a guest has failed [default: 800, emulated 2400]
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
    /// Only tests whose `binary::name` contains one of these, or begins with it after a `^`; and not those after a `!`
    #[arg(last = true)]
    filters: Vec<String>,
}

#[derive(Debug, Args)]
struct Guest {
    /// Kernel lines [default: all for tests, else 6.12]
    #[arg(long, value_enum, num_args = 1.., value_name = "LINE")]
    kernel: Vec<Line>,
    /// The guest's architecture; arm64 is cross-built and emulated
    #[arg(long, value_enum, default_value = "x86-64")]
    arch: Arch,
    /// How QEMU executes the guest
    #[arg(long, value_enum, default_value = "auto")]
    accel: Choice,
    /// Fetch the newest package of each kernel line even if one is cached
    #[arg(long)]
    refresh: bool,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            kernel: Vec::new(),
            arch: Arch::X86_64,
            accel: Choice::Auto,
            refresh: false,
        }
    }
}

#[derive(Debug, Subcommand)]
enum VmCommand {
    /// The agent in a guest, with a demonstration rule set and a little traffic
    Run {
        #[command(flatten)]
        guest: Guest,
        /// Arguments of the agent
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

/// Runs the verb; an error if any test or kernel failed.
pub(crate) fn main(options: Options) -> Result<()> {
    let Options {
        command,
        guest,
        shell,
        deadline,
        filters,
    } = options;
    if let Some(VmCommand::Run { guest, arguments }) = command {
        return interact(&guest, Mode::Run { arguments });
    }
    if shell {
        ensure!(
            stdin().is_terminal(),
            "a shell needs a terminal on standard input"
        );
        return interact(&guest, Mode::Shell);
    }
    let lines = if guest.kernel.is_empty() {
        Line::ALL.to_vec()
    } else {
        guest.kernel.clone()
    };
    let outcomes = run_tests(
        &Guest {
            kernel: lines,
            ..guest
        },
        deadline,
        &filters,
    )?;
    let failed = outcomes.iter().filter(|outcome| outcome.failed() > 0).count();
    if failed > 0 {
        bail!(
            "{failed} of {} kernels failed; their consoles are in {}/*/console.log",
            outcomes.len(),
            paths::vm().display()
        );
    }
    Ok(())
}

/// Runs all tests on every kernel line, for `cargo xtask test`.
pub(crate) fn test_all() -> Result<Vec<Outcome>> {
    run_tests(
        &Guest {
            kernel: Line::ALL.to_vec(),
            ..Guest::default()
        },
        None,
        &ONCE.map(str::to_owned),
    )
}

/// Runs the tests that a filter selects on some kernel lines, for `cargo xtask attribution`.
pub(crate) fn test_some(kernel: Vec<Line>, filter: &str) -> Result<Vec<Outcome>> {
    let guest = Guest {
        kernel,
        ..Guest::default()
    };
    run_tests(&guest, None, &[filter.to_owned()])
}

fn run_tests(guest: &Guest, deadline: Option<u64>, filters: &[String]) -> Result<Vec<Outcome>> {
    let (kernels, payload, accelerator) = prepare(guest)?;
    ensure!(
        payload.tests() > 0,
        "no integration test is named as one that runs in guests"
    );
    let total = deadline.map_or_else(
        || Duration::from_secs(800) * accelerator.slowness(),
        Duration::from_secs,
    );
    let test_deadline = TEST_DEADLINE * accelerator.slowness();
    let limits = Limits {
        total,
        silence: test_deadline + Duration::from_secs(10),
    };
    let mode = |line| Mode::Test {
        directory: paths::root().join("nflog-agent").display().to_string(),
        filters: filters
            .iter()
            .filter(|filter| line != ONCE_IN || !ONCE.contains(&filter.as_str()))
            .cloned()
            .collect(),
        deadline: test_deadline.as_secs(),
    };
    let outcomes = in_turn(&kernels, AT_ONCE, |kernel| {
        test_kernel(kernel, &payload, accelerator, limits, mode(kernel.line))
    })?;
    println!("{}", report::table(&outcomes));
    ensure!(
        outcomes.iter().any(|outcome| !outcome.tests.is_empty()),
        "no test matches {filters:?}"
    );
    Ok(outcomes)
}

/// Carries out `test` for each kernel, for `at_once` of them at a time: the next begins when one ends. The newest begin first,
/// because their guests take longest. The outcomes are in the order of the kernels.
fn in_turn<T: Send>(
    kernels: &[Kernel],
    at_once: usize,
    test: impl Fn(&Kernel) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let waiting = Mutex::new(kernels.iter().enumerate());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next_back();
    let work = || {
        let mut ended = Vec::new();
        while let Some((position, kernel)) = next() {
            ended.push((position, test(kernel)?));
        }
        Ok(ended)
    };
    let ended: Vec<Result<Vec<_>>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once.min(kernels.len()))
            .map(|_| scope.spawn(work))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    let mut outcomes = Vec::new();
    for worker in ended {
        outcomes.extend(worker?);
    }
    outcomes.sort_unstable_by_key(|(position, _)| *position);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

fn prepare(guest: &Guest) -> Result<(Vec<Kernel>, Payload, Accelerator)> {
    ensure!(cfg!(target_arch = "x86_64"), "guests need an x86-64 host");
    setup::ensure(Purpose::Vm)?;
    let kernels = kernel::obtain(&guest.kernel, guest.arch, guest.refresh)?;
    let artifacts = match guest.arch {
        Arch::X86_64 => Artifacts::build()?,
        Arch::Arm64 => build_arm64()?,
    };
    let payload = Payload::new(&artifacts, guest.arch)?;
    let first = kernels.first().context("at least one kernel")?;
    let accelerator = accelerator::choose(guest.accel, first, &payload)?;
    Ok((kernels, payload, accelerator))
}

/// Builds what runs in guests, and no other tests, for arm64.
fn build_arm64() -> Result<Artifacts> {
    setup::ensure_arm64(Purpose::Vm)?;
    let mut command = cross::cargo("build")?;
    command.args(["--package", "nflog-agent", "--bin", "nflog-agent"]);
    command.args(["--package", "xtask", "--bin", "vm_init"]);
    for prefix in TEST_PREFIXES {
        command.arg(format!("--test={prefix}*"));
    }
    println!("building the programs and tests for arm64: {}", render(&command));
    Artifacts::of(&mut command)
}

fn test_kernel(
    kernel: &Kernel,
    payload: &Payload,
    accelerator: Accelerator,
    limits: Limits,
    mode: Mode,
) -> Result<Outcome> {
    let name = kernel.line.name();
    println!("booting {} ({})", kernel.release, accelerator.qemu_name());
    let initramfs = initramfs::write(kernel, payload, mode)?;
    let start = Instant::now();
    let boot = || -> Result<(bool, Boot)> {
        // What comes before PID 1's first line is the kernel's boot log, only of interest if it is the end.
        let mut up = false;
        let boot = qemu::boot(kernel, &initramfs, accelerator, limits, |line| {
            up |= line.starts_with("vm_init: ");
            if up {
                println!("{name:>4} | {line}");
            }
        })?;
        if !up {
            for line in &boot.console[boot.console.len().saturating_sub(CONSOLE_TAIL)..] {
                println!("{name:>4} | {line}");
            }
        }
        Ok((up, boot))
    };
    let (up, mut ended) = boot()?;
    // Seen once on 7.x: a processor ran into the breakpoint under which another one had just patched the kernel's text, which real
    // ones do not. None of our code had run by then.
    if !up && accelerator == Accelerator::Tcg {
        println!("{name:>4} | the emulated kernel did not come up: once more");
        ended = boot()?.1;
    }
    Ok(Outcome::judge(
        kernel.line,
        &kernel.release,
        &ended,
        start.elapsed().as_secs_f64(),
    ))
}

fn interact(guest: &Guest, mode: Mode) -> Result<()> {
    let lines = if guest.kernel.is_empty() {
        vec![Line::Linux6_12]
    } else {
        guest.kernel.clone()
    };
    ensure!(lines.len() == 1, "one kernel at a time");
    let guest = Guest {
        kernel: lines,
        ..*guest
    };
    let (kernels, payload, accelerator) = prepare(&guest)?;
    let initramfs = initramfs::write(&kernels[0], &payload, mode)?;
    qemu::interact(&kernels[0], &initramfs, accelerator)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Barrier;

    use super::*;

    fn kernel(line: Line) -> Kernel {
        Kernel {
            line,
            arch: Arch::X86_64,
            directory: PathBuf::new(),
            release: line.name().to_owned(),
        }
    }

    #[test]
    fn guests_run_at_the_same_time_and_their_outcomes_are_in_order() {
        let kernels = Line::ALL.map(kernel);
        // Nobody passes it alone.
        let pairs = Barrier::new(2);
        let names = in_turn(&kernels, 2, |kernel| {
            pairs.wait();
            Ok(kernel.release.clone())
        });
        assert_eq!(names.expect("no error"), Line::ALL.map(Line::name));
    }

    #[test]
    fn a_guest_that_cannot_be_started_is_an_error_of_all() {
        let kernels = Line::ALL.map(kernel);
        let outcome = in_turn(&kernels, 3, |kernel| {
            ensure!(kernel.line != Line::Linux6_1, "no such kernel");
            Ok(())
        });
        assert_eq!(outcome.expect_err("one is missing").to_string(), "no such kernel");
    }
}
