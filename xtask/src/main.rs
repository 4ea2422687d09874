//! The only entry point: set up, run, test, fuzz, boot kernels.
//!
//! One module for each verb. Whatever a verb needs it installs or builds itself, below the target directory.

mod arch;
mod artifacts;
mod attribution;
mod cross;
mod dist;
mod exit;
mod fuzz;
mod paths;
mod process;
mod run;
mod setup;
mod test;
#[cfg(test)]
mod tidy;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use exit::Exit;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Set up, run, test, fuzz and boot kernels")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install what the other verbs need, or say what to install
    Setup(setup::Options),
    /// Run the agent on a demonstration rule set
    Run(run::Options),
    /// Run everything CI runs
    Test(test::Options),
    /// Feed mutated messages to the NFLOG library under libFuzzer
    Fuzz(fuzz::Options),
    /// Run the attribution matrix on real Debian kernels and write its table into RELIABILITY.md
    Attribution(attribution::Options),
    /// Build what is installed on machines: deb, rpm, archive, with SBOM and checksums
    Dist(dist::Options),
    /// Build the agent for arm64, statically linked, with optimisation
    Arm64,
    /// Run the integration tests on real Debian kernels under QEMU
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let error = match carry_out(Cli::parse().verb) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    eprintln!("error: {error:#}");
    error
        .downcast_ref::<Exit>()
        .map_or(ExitCode::FAILURE, |exit| ExitCode::from(exit.code))
}

fn carry_out(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup(options) => setup::main(&options),
        Verb::Run(options) => run::main(&options),
        Verb::Test(options) => test::main(&options),
        Verb::Fuzz(options) => fuzz::main(&options),
        Verb::Attribution(options) => attribution::main(&options),
        Verb::Dist(options) => dist::main(&options),
        Verb::Arm64 => cross::main(),
        Verb::Vm(options) => vm::main(options),
    }
}
