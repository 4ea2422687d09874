//! bpf-linker, built for the LLVM version of the compiler whose output it links: bitcode of a newer LLVM is unreadable to it.

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::packages::{self, Requirement};
use super::toolchain::{REMEDY, Toolchain, bpf_linker};
use crate::exit::Exit;
use crate::paths;
use crate::process::{cargo, output, run};

const VERSION: &str = "0.13.0";
/// LLVM versions that this bpf-linker can be built for, and Debian's packages of them.
const LLVM_PACKAGES: [(u32, [&str; 2]); 3] = [
    (21, ["llvm-21-dev", "libpolly-21-dev"]),
    (22, ["llvm-22-dev", "libpolly-22-dev"]),
    (23, ["llvm-23-dev", "libpolly-23-dev"]),
];

/// What else it is linked with.
const LIBRARIES: [Requirement; 3] = [
    Requirement::file("/usr/include/zstd.h", "libzstd-dev"),
    Requirement::file("/usr/include/zlib.h", "zlib1g-dev"),
    Requirement::program("c++", "g++"),
];

/// Builds bpf-linker into `target/tools` unless one that runs is there or in PATH.
pub(crate) fn ensure() -> Result<()> {
    if bpf_linker(&paths::target()).is_some() {
        return Ok(());
    }
    let toolchain =
        Toolchain::find().ok_or_else(|| Exit::unavailable(format!("no compiler for BPF; {REMEDY}")))?;
    let llvm = llvm_version(&toolchain)?;
    let Some((_, own)) = LLVM_PACKAGES.iter().find(|(version, _)| *version == llvm) else {
        bail!(
            "bpf-linker {VERSION} cannot be built for LLVM {llvm} of {toolchain:?}; put one that can into PATH"
        );
    };
    let mut requirements = own.map(Requirement::package).to_vec();
    requirements.extend(LIBRARIES);
    packages::ensure(&requirements)?;
    eprintln!("setup: building bpf-linker {VERSION} for LLVM {llvm}");
    // Unoptimised: what takes its time is LLVM, which is built already.
    run(cargo()
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--quiet",
            "--debug",
            "--root",
        ])
        .arg(paths::tools())
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
        .env_remove("CARGO_TARGET_DIR")
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}")))?;
    ensure!(
        bpf_linker(&paths::target()).is_some(),
        "the bpf-linker just built does not run"
    );
    Ok(())
}

/// The major version of LLVM in a toolchain's compiler.
fn llvm_version(toolchain: &Toolchain) -> Result<u32> {
    let mut rustc = match toolchain {
        Toolchain::Nightly => {
            let mut rustup = Command::new("rustup");
            rustup.args(["run", "nightly", "rustc"]);
            rustup
        }
        Toolchain::DebianWeb => Command::new("/usr/bin/rustc"),
    };
    let text = output(rustc.arg("-vV"))?;
    parse_llvm_version(&text)
        .with_context(|| format!("`rustc -vV` of {toolchain:?} names no LLVM version: {text}"))
}

fn parse_llvm_version(text: &str) -> Option<u32> {
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_version_is_read_from_what_rustc_says_of_itself() {
        assert_eq!(
            parse_llvm_version("rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n"),
            Some(22)
        );
        assert_eq!(parse_llvm_version("rustc 1.96.0\n"), None);
    }
}
