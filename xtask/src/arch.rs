//! The architectures of agents and guests, and what each part of the world calls them.

use std::fmt;

use clap::ValueEnum;

/// An architecture that the agent runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Arch {
    /// The architecture of the host, too.
    #[default]
    #[value(name = "x86-64")]
    X86_64,
    /// Cross-built, and run under emulation only.
    #[value(name = "arm64")]
    Arm64,
}

impl Arch {
    /// What rustc calls it (`target_arch`).
    pub(crate) const fn rustc(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// What Debian calls it.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The program that strips its programs.
    pub(crate) const fn strip(self) -> &'static str {
        match self {
            Self::X86_64 => "strip",
            Self::Arm64 => "aarch64-linux-gnu-strip",
        }
    }

    /// rustc's target triple of the agent.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86-64",
            Self::Arm64 => "arm64",
        })
    }
}
