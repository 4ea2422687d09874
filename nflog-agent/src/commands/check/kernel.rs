//! The kernel: version, BTF, kprobes, lockdown, modules; and whether it takes the probes.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use flate2::read::GzDecoder;
use procfs::sys::kernel::Version;

use super::Subject;
use super::finding::{Cause, Finding};
use super::privileges::{effective, may_load};
use crate::cli::AttributionArg;
use crate::owner::{MapSizes, Probes, ProbesError, Seeded};

const BTF: &str = "/sys/kernel/btf/vmlinux";
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";
const SYMBOLS: &str = "/proc/kallsyms";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// The oldest kernel whose ring buffers the probes answer through.
const OLDEST_FOR_PROBES: (u8, u8) = (5, 8);

/// A module that NFLOG takes.
struct Module {
    name: &'static str,
    /// A function of it: the kernel has it among its symbols if the module is built in.
    function: &'static str,
    /// What is missing without it.
    without: &'static str,
}

const MODULES: [Module; 4] = [
    Module {
        name: "nfnetlink_log",
        function: "nfulnl_log_packet",
        without: "no group can be read",
    },
    Module {
        name: "nft_log",
        function: "nft_log_eval",
        without: "nftables rules cannot log",
    },
    Module {
        name: "xt_NFLOG",
        function: "nflog_tg",
        without: "iptables rules cannot log; nothing else needs it",
    },
    Module {
        name: "nf_conntrack_netlink",
        function: "ctnetlink_new_conntrack",
        without: "no owners where addresses are translated",
    },
];

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let release = release();
    let mut findings = vec![subject.for_probes(version(&release))];
    if subject.settings.args.attribution == AttributionArg::Sockdiag {
        findings.push(Finding::ok("probes", "not wanted: --attribution sockdiag"));
    } else {
        let parts = [btf(), kprobes(&release), lockdown(), probes(subject)];
        findings.extend(parts.into_iter().map(|finding| subject.for_probes(finding)));
    }
    let symbols = fs::read_to_string(SYMBOLS).unwrap_or_default();
    findings.extend(MODULES.map(|module| module.finding(&release, &symbols)));
    findings
}

fn release() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().to_owned()
}

fn version(release: &str) -> Finding {
    let found = format!("Linux {release} on {}", std::env::consts::ARCH);
    match Version::current() {
        Ok(version) if (version.major, version.minor) < OLDEST_FOR_PROBES => Finding::failed(
            "kernel",
            Cause::Unavailable,
            found,
            "the probes need Linux 5.8; tested are 5.10 and later",
        ),
        Ok(_) => Finding::ok("kernel", found),
        Err(error) => Finding::failed("kernel", Cause::Unavailable, error.to_string(), "mount /proc"),
    }
}

fn btf() -> Finding {
    match fs::File::open(BTF).and_then(|file| file.metadata()) {
        Ok(data) => Finding::ok("btf", format!("{BTF}, {} bytes", data.len())),
        Err(error) => Finding::failed(
            "btf",
            Cause::Unavailable,
            format!("{BTF}: {error}"),
            "use a kernel with CONFIG_DEBUG_INFO_BTF; in a container give it the host's /sys",
        ),
    }
}

fn kprobes(release: &str) -> Finding {
    match fs::read_to_string(KPROBES) {
        Ok(number) => Finding::ok("kprobes", format!("perf event source {}", number.trim())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let configured = match option(release, "CONFIG_KPROBE_EVENTS") {
                Some(true) => "CONFIG_KPROBE_EVENTS is set, but /sys does not show it",
                Some(false) => "the kernel is built without CONFIG_KPROBE_EVENTS",
                None => "the kernel's configuration is not known",
            };
            Finding::failed(
                "kprobes",
                Cause::Unavailable,
                format!("no {KPROBES}: {configured}"),
                "use a distribution kernel (CONFIG_KPROBE_EVENTS, CONFIG_BPF_EVENTS); in a container give it the host's /sys",
            )
        }
        Err(error) => Finding::failed(
            "kprobes",
            Cause::Permission,
            format!("{KPROBES}: {error}"),
            "run as root",
        ),
    }
}

/// Whether an option of the kernel is set; `None` if its configuration is nowhere.
fn option(release: &str, name: &str) -> Option<bool> {
    let mut text = String::new();
    match fs::File::open("/proc/config.gz") {
        Ok(file) => GzDecoder::new(file).read_to_string(&mut text).ok()?,
        Err(_) => fs::File::open(format!("/boot/config-{release}"))
            .and_then(|mut file| file.read_to_string(&mut text))
            .ok()?,
    };
    Some(
        text.lines()
            .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with("=y"))),
    )
}

fn lockdown() -> Finding {
    match fs::read_to_string(LOCKDOWN) {
        Ok(text) => lockdown_of(text.trim()),
        Err(error) if error.kind() == ErrorKind::NotFound => Finding::ok("lockdown", "none"),
        Err(error) => Finding::warning(
            "lockdown",
            format!("{LOCKDOWN}: {error}"),
            "run as root to see it",
        ),
    }
}

/// Of the modes in the file, the one in brackets is in force.
fn lockdown_of(modes: &str) -> Finding {
    let mode = modes.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    match mode.map(|(mode, _)| mode) {
        Some("confidentiality") => Finding::failed(
            "lockdown",
            Cause::Unavailable,
            "confidentiality: programs may not read kernel memory",
            "boot with lockdown=integrity or without",
        ),
        Some(mode) => Finding::ok("lockdown", mode),
        None => Finding::ok("lockdown", format!("not understood: {modes}")),
    }
}

/// Loads and attaches them, as `run` does, and lets them go.
fn probes(subject: &Subject) -> Finding {
    let args = &subject.settings.args;
    let sizes = MapSizes {
        sockets: args.max_sockets,
        process_events: args.process_buffer,
        process_arguments: args.process_command_line,
        ..MapSizes::default()
    };
    let probes = match Probes::open_with(&subject.groups, None, sizes) {
        Ok(probes) => probes,
        Err(error) => return refused(&error),
    };
    if let Some(missing) = probes.missing().first() {
        let found = format!("{} probes are missing: {missing}", probes.missing().len());
        return Finding::warning(
            "probes",
            found,
            "use a newer kernel; some packets will have no owner",
        );
    }
    match probes.seeded() {
        Ok(Seeded { sockets, shared }) => Finding::ok(
            "probes",
            format!("taken; {sockets} sockets are open, {shared} of them shared by several processes"),
        ),
        Err(error) => Finding::warning(
            "probes",
            format!("taken, but sockets older than the agent stay unknown: {error}"),
            "none is needed: the agent asks inet_diag and /proc for them (Linux 5.8 has what is missing)",
        ),
    }
}

fn refused(error: &ProbesError) -> Finding {
    let cause = match error {
        ProbesError::NoKprobes | ProbesError::NoBtf { .. } | ProbesError::Btf(_) => Cause::Unavailable,
        _ if is_privileged() => Cause::Unavailable,
        _ => Cause::Permission,
    };
    Finding::failed(
        "probes",
        cause,
        error.to_string(),
        "see btf, kprobes, lockdown and the capabilities; without probes owners come from inet_diag and /proc (sockdiag)",
    )
}

fn is_privileged() -> bool {
    effective().is_some_and(may_load)
}

impl Module {
    fn finding(&self, release: &str, symbols: &str) -> Finding {
        let (name, check) = (self.name, format!("module {}", self.name));
        let directory = Path::new("/lib/modules").join(release);
        let listed = |list: &str| {
            let text = fs::read_to_string(directory.join(list)).ok()?;
            Some(text.lines().any(|line| is_module(line, name)))
        };
        if Path::new("/sys/module").join(name).exists() {
            return Finding::ok(check, "loaded");
        }
        match (listed("modules.builtin"), listed("modules.dep")) {
            (Some(true), _) => Finding::ok(check, "built in"),
            _ if self.is_among(symbols) => Finding::ok(check, "built in"),
            (_, Some(true)) => Finding::ok(check, "not loaded; the kernel loads it when it is needed"),
            (None, None) => Finding::ok(
                check,
                "not loaded; the kernel looks for it when it is needed, and whether it will find one is not seen here (no /lib/modules)",
            ),
            _ => Finding::warning(
                check,
                format!("not there: {}", self.without),
                "install the kernel's package of modules",
            ),
        }
    }

    /// Whether the kernel has it in itself: symbols of a loaded module have its name behind them.
    fn is_among(&self, symbols: &str) -> bool {
        symbols
            .lines()
            .any(|line| line.split_ascii_whitespace().skip(2).eq([self.function]))
    }
}

/// Whether a line of `modules.builtin` or `modules.dep` is about a module.
fn is_module(line: &str, name: &str) -> bool {
    let path = line.split(':').next().unwrap_or_default();
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split_once(".ko")
        .is_some_and(|(module, _)| module.replace('-', "_") == name)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;

    #[test]
    fn the_mode_in_brackets_is_in_force() {
        assert_eq!(lockdown_of("[none] integrity confidentiality").found, "none");
        let strict = lockdown_of("none integrity [confidentiality]");
        assert_eq!(strict.status, Status::Failed);
        assert_eq!(lockdown_of("none [integrity] confidentiality").status, Status::Ok);
    }

    #[test]
    fn a_module_that_is_built_in_has_its_function_among_the_kernels_symbols() {
        let module = &MODULES[1];
        assert!(module.is_among("0 t nft_log_eval.cold\n0 t nft_log_eval\n"));
        assert!(!module.is_among("0 t nft_log_eval\t[nft_log]\n0 t nft_log_eval_x\n"));
    }

    #[test]
    fn modules_are_found_by_their_files_name_alone() {
        assert!(is_module("kernel/net/netfilter/nft_log.ko", "nft_log"));
        assert!(is_module(
            "kernel/net/netfilter/xt_NFLOG.ko.xz: kernel/net/x_tables.ko.xz",
            "xt_NFLOG"
        ));
        assert!(is_module(
            "kernel/net/netfilter/nf-conntrack-netlink.ko.zst:",
            "nf_conntrack_netlink"
        ));
        assert!(!is_module("kernel/net/netfilter/nft_log_x.ko:", "nft_log"));
        assert!(!is_module(
            "kernel/a.ko: kernel/net/netfilter/nft_log.ko",
            "nft_log"
        ));
    }
}
