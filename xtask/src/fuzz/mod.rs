//! `cargo xtask fuzz`: the fuzz targets of the NFLOG library under libFuzzer, on stable Rust.
//!
//! The flags are cargo-fuzz's without the sanitizers, which need a nightly; the code under test has no `unsafe`. Whether the
//! programs are instrumented is not believed but seen: from libFuzzer's counters, and from the target `canary`, whose error takes
//! coverage and comparisons to find.

mod log;
mod session;

use std::fs;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::artifacts::{Artifacts, TARGET};
use crate::paths;
use crate::process::{cargo, render};
use crate::setup;
use session::{Outcome, Session};

/// The target that is wrong on purpose.
const CANARY: &str = "canary";
/// The bytes of its error.
const CANARY_MAGIC: &[u8] = b"fuzz";
/// It is found in a second or two; an unlucky run on a busy machine takes longer.
const CANARY_SECONDS: u32 = 120;

/// What cargo-fuzz passes, for programs without sanitizers. Checks and optimisation are in the profile `fuzz`.
const RUSTFLAGS: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cforce-frame-pointers",
];

/// Options of `cargo xtask fuzz`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Targets; without any, all
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, default_value_t = Self::default().seconds, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            seconds: 10,
        }
    }
}

/// Targets that ran, with the canary.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Summary {
    /// Nothing found; for the canary: found.
    pub(crate) passed: usize,
    /// The others.
    pub(crate) failed: usize,
}

/// Runs the verb; an error if an input was found.
pub(crate) fn main(options: &Options) -> Result<()> {
    setup::ensure_fuzzing()?;
    let summary = run(options)?;
    ensure!(summary.failed == 0, "{} fuzz targets failed", summary.failed);
    Ok(())
}

/// Builds the programs, then runs the canary and the targets, as many at a time as there are cores.
pub(crate) fn run(options: &Options) -> Result<Summary> {
    let artifacts = build()?;
    let queue = Mutex::new(sessions(&artifacts, options)?.into_iter());
    let next = || queue.lock().ok()?.next();
    let summary = Mutex::new(Summary::default());
    let work = || -> Result<()> {
        while let Some(session) = next() {
            let good = report(&session, &session.run()?);
            let mut summary = summary.lock().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
            *(if good {
                &mut summary.passed
            } else {
                &mut summary.failed
            }) += 1;
        }
        Ok(())
    };
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")))
    })?;
    summary.into_inner().context("a worker panicked")
}

/// For an explicit target, so that build scripts and procedural macros are not instrumented; in a directory of its own, because
/// the flags differ from everybody else's.
fn build() -> Result<Artifacts> {
    let mut command = cargo();
    command
        .args(["build", "--locked", "--package", "nflog-fuzz", "--bins"])
        .args(["--profile", "fuzz", "--target", TARGET])
        .env("CARGO_TARGET_DIR", paths::target().join("fuzz"))
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\u{1f}"));
    println!("building the fuzz targets: {}", render(&command));
    Artifacts::of(&mut command)
}

fn sessions(artifacts: &Artifacts, options: &Options) -> Result<Vec<Session>> {
    let mut programs = artifacts.programs();
    programs.retain(|(name, _)| *name != CANARY);
    let known: Vec<_> = programs.iter().map(|(name, _)| *name).collect();
    for wanted in &options.targets {
        ensure!(
            known.contains(&wanted.as_str()),
            "there is no target {wanted}; there are {}",
            known.join(", ")
        );
    }
    if !options.targets.is_empty() {
        programs.retain(|(name, _)| options.targets.iter().any(|wanted| wanted == name));
    }
    let mut sessions = vec![canary(artifacts)?];
    for (name, program) in programs {
        sessions.push(target(name, program.clone(), options.seconds)?);
    }
    Ok(sessions)
}

/// From nothing, each time.
fn canary(artifacts: &Artifacts) -> Result<Session> {
    let corpus = paths::target().join("fuzz-corpus").join(CANARY);
    if corpus.exists() {
        fs::remove_dir_all(&corpus).with_context(|| format!("cannot empty {}", corpus.display()))?;
    }
    let mut session = target(CANARY, artifacts.program(CANARY)?, CANARY_SECONDS)?;
    session.options.push("-use_value_profile=1");
    Ok(session)
}

/// The corpus is kept from run to run; what is committed is read beside it.
fn target(name: &str, program: PathBuf, seconds: u32) -> Result<Session> {
    let committed = paths::root().join("nflog-agent/fuzz");
    let inputs = ["seeds", "regressions"]
        .map(|folder| committed.join(folder).join(name))
        .into_iter()
        .filter(|directory| directory.exists())
        .collect();
    let session = Session {
        name: name.to_owned(),
        program,
        seconds,
        corpus: paths::target().join("fuzz-corpus").join(name),
        inputs,
        crashes: paths::target().join("fuzz-crashes").join(name),
        options: Vec::new(),
    };
    for directory in [&session.corpus, &session.crashes] {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    Ok(session)
}

/// Prints what came of a session; whether that is good.
fn report(session: &Session, outcome: &Outcome) -> bool {
    let name = &session.name;
    match outcome {
        Outcome::Found { input, .. } if name == CANARY => {
            let right = fs::read(input).is_ok_and(|bytes| bytes.windows(4).any(|four| four == CANARY_MAGIC));
            println!(
                "fuzz {name}: {}",
                if right {
                    "found, as it must be"
                } else {
                    "FAILED: another input was found than its magic"
                }
            );
            right
        }
        Outcome::Clean(coverage) if name == CANARY => {
            println!(
                "fuzz {name}: FAILED: not found after {coverage}; so the other targets find nothing either"
            );
            false
        }
        Outcome::Clean(coverage) => {
            println!("fuzz {name}: ok, {coverage}");
            true
        }
        Outcome::Found { input, message } => {
            println!(
                "fuzz {name}: FAILED\n{message}\n\
                 input:  {input}\n\
                 replay: cargo run --package nflog-fuzz --bin {name} -- {input}\n\
                 then:   mend it, and commit the input as nflog-agent/fuzz/regressions/{name}/<what it is>",
                input = input.display(),
            );
            false
        }
        Outcome::Broken(reason) => {
            println!("fuzz {name}: FAILED: {reason}");
            false
        }
    }
}
