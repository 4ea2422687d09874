//! The build for arm64 on x86-64, statically linked like the tests' own build.
//!
//! The standard library for arm64 is rustup's, if the user has added that target to the toolchain in use; else Debian's, whose
//! `rustc-web` on x86-64 takes the library from the arm64 package of the same version. Nothing is installed by rustup from here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::artifacts::Artifacts;
use crate::paths;
use crate::process::{self, in_workspace, output, run};
use crate::setup;
use crate::setup::toolchain::Toolchain;
use crate::vm::{Apt, remove_directory, unpack};

/// The standard library to link with.
enum Library {
    /// That of the toolchain in use.
    Rustup,
    /// Debian's, below this sysroot, with Debian's compiler.
    Debian(PathBuf),
}

/// Builds the release agent for arm64, and says where it is.
pub(crate) fn main() -> Result<()> {
    setup::ensure(setup::Purpose::Run)?;
    println!("{}", build("release")?.display());
    Ok(())
}

/// Builds the agent for arm64 by one of cargo's profiles.
pub(crate) fn build(profile: &str) -> Result<PathBuf> {
    setup::ensure_arm64(setup::Purpose::Run)?;
    let mut command = cargo("build")?;
    command.args(["--package", "nflog-agent", "--bin", "nflog-agent"]);
    Artifacts::of(command.args(["--profile", profile]))?.program("nflog-agent")
}

/// Compiles the agent for arm64, as far as there is no machine code yet: fast, and finds what does not hold there.
pub(crate) fn check() -> Result<()> {
    setup::ensure_arm64(setup::Purpose::Run)?;
    run(cargo("check")?
        .args(["--package", "nflog-agent", "--bin", "nflog-agent"])
        .args(["--no-default-features", "--features", "agent"]))
}

/// `cargo <verb>` for arm64.
pub(crate) fn cargo(verb: &str) -> Result<Command> {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.push("-Clinker=aarch64-linux-gnu-gcc".to_owned());
    let mut command = match library()? {
        Library::Rustup => process::cargo(),
        Library::Debian(sysroot) => {
            flags.push(format!("--sysroot={}", sysroot.display()));
            let mut command = in_workspace(Toolchain::DebianWeb.cargo());
            // Crates that see it use features that are unstable.
            command.env_remove("RUSTC_BOOTSTRAP");
            command
        }
    };
    command
        .args([verb, "--locked", "--target", Arch::Arm64.target()])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS");
    Ok(command)
}

fn library() -> Result<Library> {
    let mut rustc = Command::new("rustc");
    rustc
        .current_dir(paths::root())
        .args(["--print", "target-libdir", "--target", Arch::Arm64.target()]);
    let rustup = output(&mut rustc).is_ok_and(|directory| Path::new(directory.trim()).exists());
    if rustup {
        return Ok(Library::Rustup);
    }
    let version = output(Command::new("dpkg-query").args(["--show", "--showformat", "${Version}", "rustc-web"]))
        .context(
            "no standard library for arm64: run `rustup target add aarch64-unknown-linux-gnu`, or install Debian's rustc-web and \
             cargo-web",
        )?;
    debian_library(version.trim()).map(Library::Debian)
}

/// The sysroot with Debian's library of one version, fetched once.
fn debian_library(version: &str) -> Result<PathBuf> {
    let place = paths::tools().join("arm64").join(version);
    if !place.exists() {
        let staging = place.with_added_extension("new");
        remove_directory(&staging)?;
        fs::create_dir_all(&staging).with_context(|| format!("cannot create {}", staging.display()))?;
        let archive = Apt::update(Arch::Arm64)?.download(&format!("libstd-rust-web-dev={version}"))?;
        unpack(&archive, &staging)?;
        fs::rename(&staging, &place).with_context(|| format!("cannot move to {}", place.display()))?;
    }
    Ok(place.join("usr"))
}
