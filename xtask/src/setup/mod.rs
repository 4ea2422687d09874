//! `cargo xtask setup`: finds what the other verbs need and installs what is missing, or says exactly what to install.
//!
//! The distribution's packages come by apt, as root on Debian; everything else goes below `target/tools`. Each part looks before
//! it acts, so that a second run takes a moment.

mod bpf_linker;
mod deny;
mod packages;
pub(crate) mod prometheus;
#[path = "../../../nflog-agent/build/toolchain.rs"]
pub(crate) mod toolchain;
mod venv;

use std::path::Path;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::arch::Arch;
use packages::Requirement;
use toolchain::Toolchain;

/// Options of `cargo xtask setup`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only what this purpose needs
    #[arg(long = "for", value_enum, default_value = "test")]
    purpose: Purpose,
}

/// What the set-up is for; each purpose includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Purpose {
    /// To build and run the agent.
    Run,
    /// To boot kernels.
    Vm,
    /// To run every test.
    Test,
}

/// Runs the verb.
pub(crate) fn main(options: &Options) -> Result<()> {
    ensure(options.purpose)?;
    println!("setup: everything is there");
    Ok(())
}

/// Installs what is missing for a purpose.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    packages::ensure(&requirements(purpose))?;
    bpf_linker::ensure()?;
    if purpose >= Purpose::Test {
        venv::ensure()?;
        deny::ensure()?;
        prometheus::ensure()?;
    }
    Ok(())
}

/// Installs what `cargo xtask fuzz` needs besides Rust: libFuzzer is C++.
pub(crate) fn ensure_fuzzing() -> Result<()> {
    packages::ensure(&[CXX])
}

/// Installs what `cargo xtask dist` needs, and the trial of its packages.
pub(crate) fn ensure_packaging(arch: Arch) -> Result<()> {
    packages::ensure(&PACKAGING)?;
    if arch == Arch::Arm64 {
        packages::ensure(&[EMULATOR])?;
        ensure_arm64(Purpose::Run)?;
    }
    ensure(Purpose::Run)
}

/// Runs programs for arm64.
const EMULATOR: Requirement = Requirement::program("qemu-aarch64-static", "qemu-user-static");

const PACKAGING: [Requirement; 8] = [
    Requirement::program("strip", "binutils"),
    Requirement::program("dpkg-deb", "dpkg"),
    Requirement::program("rpmbuild", "rpm"),
    Requirement::program("rpm", "rpm"),
    Requirement::program("gzip", "gzip"),
    Requirement::program("man", "man-db"),
    Requirement::program("busybox", "busybox-static"),
    Requirement::file("/usr/lib/systemd/systemd", "systemd"),
];

/// Installs what cross-building for arm64 needs, and for guests of that architecture what runs them.
pub(crate) fn ensure_arm64(purpose: Purpose) -> Result<()> {
    let guests = usize::from(purpose >= Purpose::Vm);
    packages::ensure(&ARM64[..2 + guests])
}

const ARM64: [Requirement; 3] = [
    Requirement::program("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    Requirement::file("/usr/aarch64-linux-gnu/lib/libc.a", "libc6-dev-arm64-cross"),
    Requirement::program("qemu-system-aarch64", "qemu-system-arm"),
];

/// What the guides' commands and the container image are tried with.
const GUIDES: [Requirement; 4] = [
    Requirement::program("iptables-legacy", "iptables"),
    Requirement::program("ufw", "ufw"),
    Requirement::program("buildah", "buildah"),
    Requirement::program("runc", "runc"),
];

/// Only where no systemd would start it: installing it must not take over the host's firewall. Its guide's commands are left out then.
const FIREWALLD: [Requirement; 2] = [
    Requirement::program("firewalld", "firewalld"),
    Requirement::program("dbus-daemon", "dbus"),
];

const CXX: Requirement = Requirement::program("c++", "g++");

const VM_PROGRAMS: [Requirement; 11] = [
    Requirement::program("setpriv", "util-linux"),
    Requirement::program("qemu-system-x86_64", "qemu-system-x86"),
    Requirement::program("busybox", "busybox-static"),
    Requirement::program("depmod", "kmod"),
    Requirement::program("ip", "iproute2"),
    Requirement::program("objcopy", "binutils"),
    Requirement::program("ldd", "libc-bin"),
    Requirement::program("dpkg-deb", "dpkg"),
    Requirement::program("wg", "wireguard-tools"),
    Requirement::program("xz", "xz-utils"),
    Requirement::program("zstd", "zstd"),
];

fn requirements(purpose: Purpose) -> Vec<Requirement> {
    let mut requirements = vec![Requirement::program("nft", "nftables")];
    if Toolchain::find().is_none() {
        requirements.extend(["rustc-web", "cargo-web", "rust-web-src"].map(Requirement::package));
    }
    if purpose >= Purpose::Vm {
        requirements.extend(VM_PROGRAMS);
    }
    if purpose >= Purpose::Test {
        requirements.extend(PACKAGING);
        requirements.push(Requirement::program("tcpdump", "tcpdump"));
        requirements.push(Requirement::program("tshark", "tshark"));
        requirements.push(Requirement::program("iptables-restore", "iptables"));
        requirements.push(Requirement::program("python3", "python3"));
        requirements.extend(GUIDES);
        if !Path::new("/run/systemd/system").exists() {
            requirements.extend(FIREWALLD);
        }
        requirements.push(venv::REQUIREMENT);
        requirements.push(prometheus::REQUIREMENT);
        requirements.push(CXX);
        if Toolchain::find() != Some(Toolchain::Nightly) {
            requirements.push(Requirement::file("/usr/bin/clippy-driver", "rust-web-clippy"));
        }
    }
    requirements
}
