//! Builds the eBPF object of the agent and leaves it in `OUT_DIR`, from where the loader embeds it.
//!
//! The NFLOG library alone (no `agent` feature) needs no eBPF toolchain.

mod toolchain;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use toolchain::{REMEDY, Toolchain};

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=build");
    if env::var_os("CARGO_FEATURE_AGENT").is_none() {
        return ExitCode::SUCCESS;
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("cannot build the eBPF programs: {message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let workspace = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("..");
    for input in [
        "nflog-ebpf/src",
        "nflog-ebpf/Cargo.toml",
        "nflog-common/src",
        "nflog-common/Cargo.toml",
        "Cargo.toml",
    ] {
        println!("cargo:rerun-if-changed={}", workspace.join(input).display());
    }
    let target_dir = target_dir(&out_dir)?;
    let toolchain = Toolchain::find().ok_or_else(|| format!("no compiler for the BPF target; {REMEDY}"))?;
    // The kernel's architecture, which is the agent's: not that of the machine that builds.
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let object = toolchain.build_ebpf(&workspace, target_dir, &arch)?;
    fs::copy(&object, out_dir.join("nflog-ebpf.o"))
        .map_err(|error| format!("{}: {error}", object.display()))?;
    Ok(())
}

/// `OUT_DIR` is `<target>/<profile>/build/<package>/out`, with the target triple before the profile when one was asked for.
fn target_dir(out_dir: &Path) -> Result<&Path, String> {
    let triple = variable("TARGET")?;
    let above_profile = out_dir.ancestors().nth(4);
    let target_dir = above_profile.and_then(|path| {
        if path.ends_with(&triple) {
            path.parent()
        } else {
            Some(path)
        }
    });
    target_dir.ok_or_else(|| format!("{} is not below a cargo target directory", out_dir.display()))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}; build with cargo"))
}
