//! clippy with warnings denied: the workspace, the NFLOG library without the agent, the eBPF crate.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Counts;
use crate::artifacts;
use crate::paths;
use crate::process::{output, run};
use crate::setup::toolchain::{REMEDY, Toolchain};

pub(super) fn workspace() -> Result<Counts> {
    run(artifacts::cargo("clippy").args(artifacts::WORKSPACE).args([
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    Ok(Counts::default())
}

/// Without and with its features; with its examples, which are for people who use it alone.
pub(super) fn library_alone() -> Result<Counts> {
    for features in ["", "async", "async,pcap,serde"] {
        let mut command = artifacts::cargo("clippy");
        command.args(["--package", "nflog-agent", "--lib", "--examples"]);
        command.args(["--no-default-features", "--features", features]);
        run(command.args(["--", "-D", "warnings"]))?;
    }
    Ok(Counts::default())
}

/// With the toolchain that builds it. `cargo clippy` would pick rustup's driver; so the driver is named, as `cargo clippy` does
/// inside. A nightly without clippy at least denies the compiler's warnings.
pub(super) fn ebpf() -> Result<Counts> {
    let toolchain = Toolchain::find().context(REMEDY)?;
    let mut command = toolchain.ebpf_crate("check", &paths::root(), &paths::target().join("ebpf-lint"));
    command.env(
        "CARGO_ENCODED_RUSTFLAGS",
        "--cfg=bpf_target_arch=\"x86_64\"\u{1f}-Cpanic=abort\u{1f}-Dwarnings",
    );
    match clippy_driver(&toolchain) {
        Some(driver) => {
            command.env("RUSTC_WORKSPACE_WRAPPER", driver);
            command.env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
        }
        None => println!(
            "SKIPPED: clippy of the eBPF crate, because {toolchain:?} has no clippy-driver; warnings are denied"
        ),
    }
    run(&mut command)?;
    Ok(Counts::default())
}

fn clippy_driver(toolchain: &Toolchain) -> Option<PathBuf> {
    let path = match toolchain {
        Toolchain::DebianWeb => PathBuf::from("/usr/bin/clippy-driver"),
        Toolchain::Nightly => {
            let found =
                output(Command::new("rustup").args(["which", "--toolchain", "nightly", "clippy-driver"]));
            PathBuf::from(found.ok()?.trim())
        }
    };
    path.exists().then_some(path)
}
