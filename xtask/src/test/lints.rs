//! clippy with warnings denied: the workspace, the NFLOG library without the agent, the eBPF crate.

use anyhow::{Context as _, Result};

use super::Counts;
use crate::artifacts;
use crate::paths;
use crate::process::run;
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

pub(super) fn library_alone() -> Result<Counts> {
    let mut command = artifacts::cargo("clippy");
    run(command.args([
        "--package",
        "nflog-agent",
        "--lib",
        "--no-default-features",
        "--",
        "-D",
        "warnings",
    ]))?;
    Ok(Counts::default())
}

/// With the toolchain that builds it; rustup's nightly may come without clippy, Debian's is a package of setup's.
pub(super) fn ebpf() -> Result<Counts> {
    let toolchain = Toolchain::find().context(REMEDY)?;
    let mut command = toolchain.cargo();
    command
        .current_dir(paths::root())
        .args([
            "clippy",
            "--locked",
            "--package",
            "nflog-ebpf",
            "--release",
            "--target",
            "bpfel-unknown-none",
        ])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(paths::target().join("ebpf"))
        .args(["--", "-D", "warnings"])
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "--cfg=bpf_target_arch=\"x86_64\"\u{1f}-Cpanic=abort",
        );
    run(&mut command)?;
    Ok(Counts::default())
}
