//! cargo-deny, which checks the licences and sources of dependencies.

use std::process::Command;

use anyhow::Result;

use crate::paths;
use crate::process::{cargo, path_with_tools, run, succeeds};

const VERSION: &str = "0.20.2";

/// Builds cargo-deny into `target/tools` unless one that runs is there or in PATH.
pub(crate) fn ensure() -> Result<()> {
    if succeeds(
        Command::new("cargo-deny")
            .arg("--version")
            .env("PATH", path_with_tools()),
    ) {
        return Ok(());
    }
    println!("setup: building cargo-deny {VERSION}");
    // Unoptimised, because it runs for two seconds and builds in two minutes.
    run(cargo()
        .args([
            "install",
            "cargo-deny",
            "--version",
            VERSION,
            "--locked",
            "--quiet",
            "--debug",
            "--root",
        ])
        .arg(paths::tools())
        .env_remove("CARGO_TARGET_DIR"))
}
