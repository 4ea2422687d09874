//! Finds a toolchain that can build for `bpfel-unknown-none`: rustup nightly with `rust-src`, else Debian's
//! `rustc-web`, `cargo-web` and `rust-web-src`, whose stable compiler is told to accept `-Zbuild-std`.
//!
//! Used by the build script and, by path, by xtask's setup. Only std.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is missing when no toolchain is found, with the remedy.
pub(crate) const REMEDY: &str = "run `cargo xtask setup` as root, or install one of: \
    (a) rustup's nightly toolchain with `rustup component add rust-src --toolchain nightly`, \
    (b) Debian's packages rustc-web, cargo-web and rust-web-src; \
    and bpf-linker (`cargo install bpf-linker`) in PATH or target/tools/bin";

/// A compiler that can build `core` for the BPF target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// rustup's nightly with the `rust-src` component.
    Nightly,
    /// Debian's stable compiler for web browsers, newer than its `rustc`.
    DebianWeb,
}

const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

impl Toolchain {
    /// The toolchain to use, or `None` if neither is complete.
    pub(crate) fn find() -> Option<Self> {
        if has_library_source(nightly_rustc()) {
            return Some(Self::Nightly);
        }
        let debian = Path::new(DEBIAN_CARGO).exists() && has_library_source(Command::new(DEBIAN_RUSTC));
        debian.then_some(Self::DebianWeb)
    }

    /// `cargo` of this toolchain, free of what an outer cargo put into the environment.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = match self {
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
                command
            }
            Self::DebianWeb => {
                let mut command = Command::new(DEBIAN_CARGO);
                command
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("RUSTC", DEBIAN_RUSTC)
                    .env("RUSTDOC", "/usr/bin/rustdoc");
                command
            }
        };
        for key in [
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_WRAPPER",
            "CARGO_BUILD_TARGET",
            "RUSTUP_TOOLCHAIN",
            "RUSTFLAGS",
            // Set for build scripts, and aya's look at it: all is built anew when it comes and goes.
            "HOST",
        ] {
            command.env_remove(key);
        }
        if *self == Self::Nightly {
            command.env_remove("RUSTC");
        }
        command
    }

    /// `cargo <verb>` of the eBPF crate in `workspace`, for the BPF target, with `core` built from source.
    pub(crate) fn ebpf_crate(&self, verb: &str, workspace: &Path, target_dir: &Path) -> Command {
        let mut command = self.cargo();
        command
            .current_dir(workspace)
            .args([verb, "--locked", "--package", "nflog-ebpf", "--release"])
            .args([
                "--target",
                "bpfel-unknown-none",
                "-Z",
                "build-std=core",
                "--target-dir",
            ])
            .arg(target_dir);
        command
    }

    /// Builds the eBPF object for kernels of one architecture, which is what rustc calls it (`target_arch`), and returns the object's
    /// path. The architectures share `<target>/ebpf`, and each has its object in a directory of its own there.
    pub(crate) fn build_ebpf(
        &self,
        workspace: &Path,
        target_dir: &Path,
        arch: &str,
    ) -> Result<PathBuf, String> {
        let linker = bpf_linker(target_dir).ok_or_else(|| format!("no bpf-linker; {REMEDY}"))?;
        let ebpf = target_dir.join("ebpf");
        let place = ebpf.join(arch);
        let mut command = self.ebpf_crate("build", workspace, &ebpf);
        command
            .args(["-Z", "unstable-options", "--artifact-dir"])
            .arg(&place)
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&linker, arch));
        let status = command
            .status()
            .map_err(|error| format!("{command:?}: {error}"))?;
        if !status.success() {
            return Err(format!("{command:?} failed with {status}"));
        }
        Ok(place.join("nflog-ebpf"))
    }
}

/// `bpf_target_arch` decides where the programs find a probed function's arguments: in which fields of `pt_regs`, or on the stack.
fn rustflags(linker: &Path, arch: &str) -> String {
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "-Cpanic=abort".to_owned(),
    ];
    flags.join("\x1f")
}

/// bpf-linker: in `<target>/tools/bin`, where `cargo xtask setup` puts it, else in PATH.
pub(crate) fn bpf_linker(target_dir: &Path) -> Option<PathBuf> {
    let own = target_dir.join("tools/bin/bpf-linker");
    [own, PathBuf::from("bpf-linker")].into_iter().find(|path| {
        Command::new(path)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

fn nightly_rustc() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "rustc"]);
    command
}

fn has_library_source(mut rustc: Command) -> bool {
    let Ok(output) = rustc.args(["--print", "sysroot"]).stderr(Stdio::null()).output() else {
        return false;
    };
    let sysroot = String::from_utf8_lossy(&output.stdout);
    output.status.success()
        && Path::new(sysroot.trim())
            .join("lib/rustlib/src/rust/library/core")
            .exists()
}
