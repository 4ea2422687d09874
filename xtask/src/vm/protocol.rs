//! What the host tells PID 1 of a guest (one [`Plan`] in the initramfs) and what PID 1 answers: one [`Event`] a line,
//! as JSON, on the second serial port, where no console output can get in between.
//!
//! Compiled into both `xtask` and `vm_init`.

use serde::{Deserialize, Serialize};

/// Where the plan lies in the initramfs.
pub(crate) const PLAN_PATH: &str = "/etc/vm-plan.json";
/// Where the test binaries lie in the initramfs.
pub(crate) const TESTS_DIRECTORY: &str = "/tests";
/// Where the agent lies in the initramfs.
pub(crate) const AGENT_PATH: &str = "/bin/nflog-agent";

/// How a line begins by which a test of the attribution matrix tells what it judged.
pub(crate) const MATRIX: &str = "MATRIX ";

/// What the guest is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// What to do after mounting and loading modules.
    pub(crate) mode: Mode,
    /// Paths of the kernel modules in the order to load them.
    pub(crate) modules: Vec<String>,
    /// Environment of everything that PID 1 starts, besides PATH and HOME.
    pub(crate) environment: Vec<(String, String)>,
}

/// What the guest does once it is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Say that it is up and power off.
    Canary,
    /// Run each test of each binary as a process of its own.
    Test {
        /// Working directory of the tests: the package's directory on the host, so that relative paths agree.
        directory: String,
        /// What `binary::test` must contain one of, or begin with after a `^`; all tests if empty.
        filters: Vec<String>,
        /// Seconds after which a test is killed.
        deadline: u64,
    },
    /// An interactive shell on the console.
    Shell,
    /// The agent on the console beside a demonstration rule set and a little traffic.
    Run {
        /// Arguments for the agent.
        arguments: Vec<String>,
    },
}

/// Something that happened in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// PID 1 has mounted everything and loaded the modules.
    Ready {
        /// `uname -r` of the guest.
        kernel: String,
    },
    /// A test ended.
    Test {
        /// The test binary's name.
        binary: String,
        /// The test's name in it.
        name: String,
        /// How it ended.
        verdict: Verdict,
        /// How long it took, in milliseconds.
        millis: u64,
    },
    /// A test printed a line for the host: it begins with [`MATRIX`].
    Matrix {
        /// The line.
        line: String,
    },
    /// The kernel complained while something ran.
    Splat {
        /// What ran.
        during: String,
        /// The kernel's line.
        line: String,
    },
    /// PID 1 could not do what the plan says.
    Broken {
        /// Why.
        reason: String,
    },
    /// Everything in the plan was done; the guest powers off.
    End {
        /// Number of tests that were run.
        tests: usize,
    },
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Exit code 0.
    Passed,
    /// It ran out of time, and passed when it was run once more; the text says how it ended first.
    PassedAgain(String),
    /// Exit code 0, and it printed a line `SKIPPED: reason`: this kernel lacks what the test needs.
    Skipped(String),
    /// Marked `#[ignore]`.
    Ignored,
    /// Any other end; the text says which.
    Failed(String),
}

/// The kernel's own words for "something is wrong with me".
const SPLATS: [&str; 10] = [
    "BUG:",
    "WARNING:",
    "Oops:",
    "Kernel panic",
    "KASAN",
    "general protection fault",
    "refcount_t:",
    "unregister_netdevice: waiting",
    "possible circular locking",
    "INFO: task",
];

/// Whether a line of the kernel's log (with or without its `[   1.234567] ` time stamp) is a complaint.
pub(crate) fn is_splat(line: &str) -> bool {
    SPLATS.iter().any(|word| line.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_the_serial_line() {
        let event = Event::Test {
            binary: "kprobe".to_owned(),
            name: "tcp::client \"quoted\"".to_owned(),
            verdict: Verdict::Failed("exit status: 101".to_owned()),
            millis: 12,
        };
        let line = serde_json::to_string(&event).expect("encodes");
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Event>(&line).expect("decodes"), event);
    }

    #[test]
    fn warnings_of_the_kernel_are_splats_and_other_lines_are_not() {
        assert!(is_splat(
            "[    1.5] WARNING: CPU: 0 PID: 1 at net/netfilter/core.c:12"
        ));
        assert!(is_splat(
            "BUG: kernel NULL pointer dereference, address: 0000000000000008"
        ));
        assert!(!is_splat("[    1.5] nf_tables: (c) 2007-2009 Patrick McHardy"));
    }
}
