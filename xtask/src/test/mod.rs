//! `cargo xtask test`: everything CI runs, each step timed, all steps run even if one fails.
//!
//! All builds share the one configuration of `artifacts`, so that dependencies are compiled once for lints and once for tests.

mod cargo_tests;
mod lints;
mod registers;

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::artifacts;
use crate::cross;
use crate::dist;
use crate::fuzz;
use crate::paths;
use crate::process::{cargo, path_with_tools, run};
use crate::setup::{self, Purpose};
use crate::vm;

/// Options of `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Without guests, fuzzing and cargo-deny
    #[arg(long)]
    fast: bool,
    /// Only steps whose name contains this, as the summary has it
    #[arg(long, value_name = "TEXT")]
    step: Option<String>,
}

/// Tests that ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
}

/// A step's name, and what it does.
type Step = (&'static str, fn() -> Result<Counts>);

const FAST: &[Step] = &[
    ("format", format),
    ("clippy", lints::workspace),
    ("clippy, library alone", lints::library_alone),
    ("clippy, eBPF", lints::ebpf),
    ("tests on this kernel", cargo_tests::run_all),
    ("eBPF, x86-64 and arm64", registers::both),
    ("agent for arm64", arm64),
    ("packages", packages),
    ("benchmarks run", benchmarks),
    ("docs", docs),
];

const SLOW: &[Step] = &[
    ("licences, sources, duplicates", deny),
    ("fuzzing", fuzzing),
    ("tests on Debian kernels", guests),
];

/// Runs the verb; an error if any step or test failed.
pub(crate) fn main(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Test)?;
    let slow = if options.fast { &[] } else { SLOW };
    let mut total = Counts::default();
    let mut report = Vec::new();
    let mut broken = 0;
    let wanted = |name: &str| options.step.as_deref().is_none_or(|text| name.contains(text));
    let steps: Vec<_> = FAST.iter().chain(slow).filter(|(name, _)| wanted(name)).collect();
    ensure!(!steps.is_empty(), "no step is called so: {:?}", options.step);
    for (name, step) in steps {
        println!("\n=== {name}");
        let started = Instant::now();
        let outcome = step();
        let verdict = match outcome {
            Ok(counts) => {
                total.passed += counts.passed;
                total.failed += counts.failed;
                if counts.failed == 0 {
                    "ok".to_owned()
                } else {
                    format!("{} tests FAILED", counts.failed)
                }
            }
            Err(error) => {
                broken += 1;
                format!("FAILED: {error:#}")
            }
        };
        println!("=== {name}: {verdict}");
        report.push(format!(
            "{:>6.0} s  {name}: {verdict}",
            started.elapsed().as_secs_f64()
        ));
    }
    println!("\n{}\n", report.join("\n"));
    println!("{} passed, {} failed", total.passed, total.failed + broken);
    if total.failed + broken > 0 {
        bail!(
            "{} tests failed, {broken} steps could not be carried out",
            total.failed
        );
    }
    Ok(())
}

fn format() -> Result<Counts> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    Ok(Counts::default())
}

/// The packages of the program that the tests have, installed and removed.
fn packages() -> Result<Counts> {
    let (passed, failed) = dist::trial::run_all(&dist::test_program()?)?;
    Ok(Counts { passed, failed })
}

/// Benchmarks are built and each is run once, so that they do not rot; their times mean nothing here.
fn benchmarks() -> Result<Counts> {
    run(artifacts::cargo("test").args(["--package", "nflog-agent", "--benches", "--quiet"]))?;
    Ok(Counts::default())
}

fn docs() -> Result<Counts> {
    let mut command = artifacts::cargo("doc");
    run(command
        .args(artifacts::WORKSPACE)
        .args(["--no-deps", "--lib"])
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(Counts::default())
}

fn arm64() -> Result<Counts> {
    cross::check()?;
    Ok(Counts::default())
}

fn deny() -> Result<Counts> {
    run(cargo_deny().args(["--offline", "check", "licenses", "bans", "sources"]))?;
    // The advisory database is a git repository, which closed networks do not reach: then, and only then, is this left out.
    if let Err(error) = run(cargo_deny().args(["fetch", "db"])) {
        println!(
            "SKIPPED: security advisories were NOT checked, their database cannot be fetched: {error:#}"
        );
        return Ok(Counts::default());
    }
    run(cargo_deny().args(["--offline", "check", "advisories"]))?;
    Ok(Counts::default())
}

fn cargo_deny() -> Command {
    let mut command = Command::new("cargo-deny");
    command.current_dir(paths::root()).env("PATH", path_with_tools());
    command
}

/// Every target for ten seconds, and the canary.
fn fuzzing() -> Result<Counts> {
    let outcome = fuzz::run(&fuzz::Options::default())?;
    Ok(Counts {
        passed: outcome.passed,
        failed: outcome.failed,
    })
}

fn guests() -> Result<Counts> {
    let outcomes = vm::test_all()?;
    Ok(Counts {
        passed: outcomes.iter().map(vm::Outcome::passed).sum(),
        failed: outcomes.iter().map(vm::Outcome::failed).sum(),
    })
}
