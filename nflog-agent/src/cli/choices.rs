//! Values of flags of `run` that are one of a few words.

use clap::ValueEnum;

/// `--attribution`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AttributionArg {
    /// Kernel probes, or socket diagnostics where the kernel has no probes.
    #[default]
    Auto,
    /// Kernel probes, or stop.
    Probes,
    /// Socket diagnostics and /proc only.
    Sockdiag,
}

/// `--conntrack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ConntrackArg {
    /// Ask for it; a kernel that cannot is said once. About 200 bytes more per packet that conntrack knows.
    #[default]
    Auto,
    /// Do without.
    Off,
}

/// `--kubernetes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum KubernetesArg {
    /// In a pod with a service account's token, or where KUBECONFIG names a file.
    #[default]
    Auto,
    /// Or stop.
    On,
    /// Records have pod UIDs and container ids.
    Off,
}

/// `--spool-when-full`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WhenFullArg {
    /// The oldest records, several megabytes at a time.
    #[default]
    DropOldest,
    /// The newest ones.
    DropNewest,
}

/// `--sandbox`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SandboxArg {
    /// As much as this kernel has; what it lacks is said.
    #[default]
    Auto,
    /// Nothing is given up. For debuggers, and for a KUBECONFIG that runs a program for its credentials.
    Off,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormatArg {
    /// Lines for people.
    #[default]
    Text,
    /// A JSON object per line: timestamp, level, message, target.
    Json,
}
