//! A program of one architecture, and the names of what is made of it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use object::{Architecture, Object as _};

use crate::arch::Arch;

/// A version for an architecture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Release<'a> {
    pub(super) version: &'a str,
    pub(super) arch: Arch,
}

impl Release<'_> {
    pub(super) fn deb(self) -> String {
        format!("nflog-agent_{}-1_{}.deb", self.version, self.arch.debian())
    }

    pub(super) fn rpm(self) -> String {
        format!("nflog-agent-{}-1.{}.rpm", self.version, self.arch.rustc())
    }

    /// Without its ending, as the directory in it is called.
    pub(super) fn archive(self) -> String {
        format!("nflog-agent-{}-{}-linux", self.version, self.arch.rustc())
    }
}

/// The agent, built.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(super) path: PathBuf,
    pub(super) arch: Arch,
}

impl Program {
    /// An error if it is for another architecture.
    pub(super) fn of(path: PathBuf, arch: Arch) -> Result<Self> {
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let found = object::File::parse(&*content)
            .with_context(|| format!("{} is no program", path.display()))?
            .architecture();
        let wanted = match arch {
            Arch::X86_64 => Architecture::X86_64,
            Arch::Arm64 => Architecture::Aarch64,
        };
        if found != wanted {
            bail!(
                "{} is for {found:?}, not for {arch}: --arch says what it is for",
                path.display()
            );
        }
        Ok(Self { path, arch })
    }

    /// Runs it on this machine, if need be under emulation.
    pub(super) fn command(&self) -> Command {
        match self.arch {
            Arch::X86_64 => Command::new(&self.path),
            Arch::Arm64 => {
                let mut command = Command::new("qemu-aarch64-static");
                command.arg(&self.path);
                command
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::env::current_exe;

    use super::*;

    #[test]
    fn each_package_is_called_as_its_manager_calls_the_architecture() {
        let names = |arch| {
            let release = Release {
                version: "1.2.3",
                arch,
            };
            [release.deb(), release.rpm(), release.archive()]
        };
        assert_eq!(
            names(Arch::X86_64),
            [
                "nflog-agent_1.2.3-1_amd64.deb",
                "nflog-agent-1.2.3-1.x86_64.rpm",
                "nflog-agent-1.2.3-x86_64-linux"
            ]
        );
        assert_eq!(
            names(Arch::Arm64),
            [
                "nflog-agent_1.2.3-1_arm64.deb",
                "nflog-agent-1.2.3-1.aarch64.rpm",
                "nflog-agent-1.2.3-aarch64-linux"
            ]
        );
    }

    #[test]
    fn a_program_of_another_architecture_is_not_packaged() {
        let this = current_exe().expect("a test has a program");
        assert!(Program::of(this.clone(), Arch::X86_64).is_ok());
        let error = Program::of(this, Arch::Arm64).expect_err("it is for x86-64");
        assert!(
            error.to_string().contains("is for X86_64, not for arm64"),
            "{error}"
        );
    }
}
