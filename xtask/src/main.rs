//! The only entry point: set up, run, test, boot kernels.
//!
//! One module for each verb. Whatever a verb needs it installs or builds itself, below the target directory.

mod artifacts;
mod paths;
mod process;
mod vm;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Set up, run, test and boot kernels")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the integration tests on real Debian kernels under QEMU
    Vm(vm::Options),
}

fn main() -> Result<()> {
    match Cli::parse().verb {
        Verb::Vm(options) => vm::main(options),
    }
}
