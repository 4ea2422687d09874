//! What the agent may do: capabilities, limits, and what it can confine itself with.

use std::fs;

use procfs::process::Process;
use procfs::sys::kernel::Version;
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;

use super::Subject;
use super::finding::{Cause, Finding};
use crate::cli::{AttributionArg, SandboxArg};

/// BPF maps count against the limit of locked memory before this kernel.
const MEMLOCK_BEFORE: (u8, u8) = (5, 11);
/// CAP_BPF and CAP_PERFMON are part of CAP_SYS_ADMIN before this kernel.
const BPF_SINCE: (u8, u8) = (5, 8);
/// Room for the probes' maps.
const MEMLOCK: u64 = 64 << 20;

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let Some(held) = effective() else {
        let found = "/proc/self/status cannot be read";
        return vec![Finding::failed(
            "capabilities",
            Cause::Unavailable,
            found,
            "mount /proc",
        )];
    };
    let mut findings: Vec<_> = needs(subject)
        .into_iter()
        .map(|need| need.finding(held))
        .collect();
    if subject.settings.args.attribution != AttributionArg::Sockdiag {
        findings.push(limits(held));
    }
    findings.push(sandbox(subject));
    findings
}

/// Those that this process has.
pub(super) fn effective() -> Option<CapabilitySet> {
    let status = Process::myself().and_then(|myself| myself.status()).ok()?;
    Some(CapabilitySet::from_bits_retain(status.capeff))
}

/// Whether they suffice for the probes.
pub(super) fn may_load(held: CapabilitySet) -> bool {
    held.contains(CapabilitySet::SYS_ADMIN) || held.contains(CapabilitySet::BPF | CapabilitySet::PERFMON)
}

/// A capability and what it is for.
struct Need {
    name: &'static str,
    wanted: CapabilitySet,
    /// Does as well.
    instead: CapabilitySet,
    what_for: &'static str,
    without: &'static str,
    required: bool,
}

impl Need {
    fn finding(&self, held: CapabilitySet) -> Finding {
        if held.contains(self.wanted) {
            return Finding::ok(self.name, format!("there: {}", self.what_for));
        }
        if !self.instead.is_empty() && held.contains(self.instead) {
            return Finding::ok(
                self.name,
                format!("CAP_SYS_ADMIN is there instead: {}", self.what_for),
            );
        }
        let found = format!("missing: {}", self.what_for);
        let remedy = format!(
            "run as root, or give it (AmbientCapabilities= in a unit, securityContext.capabilities in a pod); {}",
            self.without
        );
        let finding = Finding::failed(self.name, Cause::Permission, found, remedy);
        if self.required { finding } else { finding.soften() }
    }
}

fn needs(subject: &Subject) -> Vec<Need> {
    let args = &subject.settings.args;
    let old = Version::current().is_ok_and(|version| (version.major, version.minor) < BPF_SINCE);
    let instead = CapabilitySet::SYS_ADMIN;
    let none = CapabilitySet::empty();
    let mut needs = vec![Need {
        name: "CAP_NET_ADMIN",
        wanted: CapabilitySet::NET_ADMIN,
        instead: none,
        what_for: "bind NFLOG groups, enlarge receive buffers",
        without: "without it nothing is read",
        required: true,
    }];
    if args.attribution != AttributionArg::Sockdiag {
        let required = args.attribution == AttributionArg::Probes;
        let without = "without it owners come from inet_diag and /proc (sockdiag)";
        let (bpf, perfmon) = if old {
            (instead, instead)
        } else {
            (CapabilitySet::BPF, CapabilitySet::PERFMON)
        };
        needs.extend([
            Need {
                name: "CAP_BPF",
                wanted: bpf,
                instead,
                what_for: "make maps and load the probes (CAP_SYS_ADMIN before Linux 5.8)",
                without,
                required,
            },
            Need {
                name: "CAP_PERFMON",
                wanted: perfmon,
                instead,
                what_for: "let the probes read kernel memory, attach them (CAP_SYS_ADMIN before Linux 5.8)",
                without,
                required,
            },
        ]);
    }
    if args.attribution != AttributionArg::Probes {
        needs.push(Need {
            name: "CAP_DAC_READ_SEARCH",
            wanted: CapabilitySet::DAC_READ_SEARCH,
            instead: CapabilitySet::DAC_OVERRIDE,
            what_for: "list the descriptors of other users' processes: only where there are no probes",
            without: "without it the fallback finds the owners of this user's sockets only",
            required: false,
        });
    }
    needs.push(Need {
        name: "CAP_SYS_PTRACE",
        wanted: CapabilitySet::SYS_PTRACE,
        instead: none,
        what_for: "executables of other users' processes, their namespaces, their descriptors without probes",
        without: "without it those stay unknown",
        required: !args.netns_of_cgroup.is_empty(),
    });
    if !args.netns.is_empty() || !args.netns_of_cgroup.is_empty() {
        needs.push(Need {
            name: "CAP_SYS_ADMIN",
            wanted: instead,
            instead: none,
            what_for: "enter the network namespaces of --netns and --netns-of-cgroup",
            without: "or read in the agent's own namespace only",
            required: true,
        });
    }
    needs
}

/// Settings of the kernel that matter to programs without all rights.
fn limits(held: CapabilitySet) -> Finding {
    let sysctl = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/kernel/{name}"));
        text.map_or_else(|_| "not there".to_owned(), |text| text.trim().to_owned())
    };
    let memlock = getrlimit(Resource::Memlock).current;
    let found = format!(
        "unprivileged_bpf_disabled {}, perf_event_paranoid {}, locked memory {}",
        sysctl("unprivileged_bpf_disabled"),
        sysctl("perf_event_paranoid"),
        memlock.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{bytes} bytes"))
    );
    let counts = Version::current().is_ok_and(|version| (version.major, version.minor) < MEMLOCK_BEFORE);
    let short = memlock.is_some_and(|bytes| bytes < MEMLOCK) && !held.contains(CapabilitySet::SYS_RESOURCE);
    if counts && short {
        let remedy = "raise it: LimitMEMLOCK=infinity, or ulimit -l unlimited; before Linux 5.11 maps count against it";
        return Finding::warning("bpf-limits", found, remedy);
    }
    // With the capabilities above neither of the others is asked.
    Finding::ok("bpf-limits", found)
}

/// What the agent can give up its rights with.
fn sandbox(subject: &Subject) -> Finding {
    if subject.settings.args.sandbox == SandboxArg::Off {
        return Finding::warning(
            "sandbox",
            "off, as asked",
            "leave --sandbox off away, unless for a debugger",
        );
    }
    let seccomp = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail")
        .is_ok_and(|actions| actions.contains("errno"));
    let landlock = fs::read_to_string("/sys/kernel/security/lsm")
        .ok()
        .map(|lsm| lsm.split(',').any(|name| name.trim() == "landlock"));
    let word = |there: bool| if there { "there" } else { "not in this kernel" };
    let found = format!(
        "capabilities are dropped; seccomp {}; Landlock {}",
        word(seccomp),
        landlock.map_or("is tried (securityfs is not here)", word)
    );
    if seccomp && landlock != Some(false) {
        return Finding::ok("sandbox", found);
    }
    let remedy =
        "none is needed; a kernel with CONFIG_SECCOMP_FILTER and lsm=landlock,... leaves an intruder less";
    Finding::warning("sandbox", found, remedy)
}
