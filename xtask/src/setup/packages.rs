//! The distribution's packages: what is missing, and apt to install it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::process::geteuid;

use crate::exit::Exit;
use crate::paths::find_program;
use crate::process::{run, succeeds};

/// Something from the distribution, and how to see whether it is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requirement {
    probe: Probe,
    package: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Probe {
    Program(&'static str),
    File(&'static str),
    PythonModule(&'static str),
    Package,
}

impl Requirement {
    /// A program in PATH.
    pub(crate) const fn program(name: &'static str, package: &'static str) -> Self {
        Self {
            probe: Probe::Program(name),
            package,
        }
    }

    /// A file at a fixed place.
    pub(crate) const fn file(path: &'static str, package: &'static str) -> Self {
        Self {
            probe: Probe::File(path),
            package,
        }
    }

    /// A module of the `python3` in PATH.
    pub(crate) const fn python_module(name: &'static str, package: &'static str) -> Self {
        Self {
            probe: Probe::PythonModule(name),
            package,
        }
    }

    /// A Debian package that shows in no better way.
    pub(crate) const fn package(package: &'static str) -> Self {
        Self {
            probe: Probe::Package,
            package,
        }
    }

    fn is_met(self) -> bool {
        match self.probe {
            Probe::Program(name) => find_program(name).is_some(),
            Probe::File(path) => Path::new(path).exists(),
            Probe::PythonModule(name) => {
                succeeds(Command::new("python3").args(["-c", &format!("import {name}")]))
            }
            Probe::Package => succeeds(Command::new("dpkg-query").args(["--status", self.package])),
        }
    }
}

/// Installs the packages of unmet requirements; an error that names them if this is no Debian or we are not root.
pub(crate) fn ensure(requirements: &[Requirement]) -> Result<()> {
    let missing: Vec<&str> = requirements
        .iter()
        .filter(|needed| !needed.is_met())
        .map(|needed| needed.package)
        .collect();
    install(&missing)
}

/// Installs packages by name.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if find_program("apt-get").is_none() {
        return Err(Exit::unavailable(format!(
            "missing what Debian has in these packages: {}",
            packages.join(" ")
        ))
        .into());
    }
    if !geteuid().is_root() {
        let command = format!(
            "sudo apt-get install --no-install-recommends {}",
            packages.join(" ")
        );
        return Err(Exit::unavailable(format!(
            "packages are missing and we are not root; run `{command}`"
        ))
        .into());
    }
    eprintln!("setup: installing {}", packages.join(" "));
    run(apt_get().arg("update")).context("cannot fetch the package lists")?;
    run(apt_get()
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-qq").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_probe_tells_what_is_there_from_what_is_not() {
        assert!(Requirement::program("sh", "dash").is_met());
        assert!(!Requirement::program("no-such-program", "nothing").is_met());
        assert!(Requirement::file("/proc/self", "linux").is_met());
        assert!(!Requirement::file("/no/such/file", "nothing").is_met());
        assert!(!Requirement::package("no-such-package").is_met());
        assert!(!Requirement::python_module("no_such_module", "nothing").is_met());
    }
}
