//! Which kernel modules a guest needs, and in which order they load: the closure over `modules.dep`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process;

/// Modules without which the tests cannot run.
const REQUIRED: [&str; 20] = [
    "bridge",
    "dummy",
    "inet_diag",
    "nf_conntrack_netlink",
    "nf_tables",
    "nfnetlink_log",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_inet",
    "nft_limit",
    "nft_log",
    "nft_masq",
    "nft_nat",
    "nft_redir",
    "nft_reject_inet",
    "tcp_diag",
    "tun",
    "udp_diag",
    "veth",
    "vxlan",
];

/// Modules that only some kernels have, or have under another name.
const OPTIONAL: [&str; 23] = [
    "8021q",
    "ip6_tables",
    "ip_tables",
    "iptable_filter",
    "macvlan",
    "nf_log_bridge",
    "nf_log_common",
    "nf_log_ipv4",
    "nf_log_ipv6",
    "nf_log_netdev",
    "nf_log_syslog",
    "nft_compat",
    "nft_counter",
    "nft_dup_netdev",
    "nft_fwd_netdev",
    "nft_meta_bridge",
    "nft_quota",
    "nft_reject_bridge",
    "raw_diag",
    "sctp",
    "sctp_diag",
    "wireguard",
    "xt_NFLOG",
];

/// A module to pack: where it lies below the kernel's module directory.
pub(crate) type RelativePath = String;

/// Paths of the modules a guest needs, dependencies first.
pub(crate) fn closure(directory: &Path) -> Result<Vec<RelativePath>> {
    let read =
        |name: &str| fs::read_to_string(directory.join(name)).with_context(|| format!("cannot read {name}"));
    let dependencies = Dependencies::parse(&read("modules.dep")?);
    let builtin: BTreeSet<String> = read("modules.builtin")?.lines().map(module_name).collect();
    let mut order = Vec::new();
    for name in REQUIRED {
        if !dependencies.add(name, &mut order) && !builtin.contains(name) {
            bail!("{} has no module {name}", directory.display());
        }
    }
    for name in OPTIONAL {
        dependencies.add(name, &mut order);
    }
    Ok(order)
}

/// A module's content, uncompressed.
pub(crate) fn content(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    let content = process::bytes(Command::new(tool).arg("-dc").arg(path))?;
    ensure!(
        content.starts_with(b"\x7fELF"),
        "{} is no kernel module",
        path.display()
    );
    Ok(content)
}

/// The path without the compression's extension.
pub(crate) fn uncompressed_path(path: &str) -> &str {
    [".xz", ".zst", ".gz"]
        .iter()
        .find_map(|extension| path.strip_suffix(extension))
        .unwrap_or(path)
}

struct Dependencies(BTreeMap<String, Vec<RelativePath>>);

impl Dependencies {
    /// Reads `modules.dep`: `path: all its dependencies, the one to load first at the end`.
    fn parse(text: &str) -> Self {
        let load_order = |(path, dependencies): (&str, &str)| {
            let mut order: Vec<_> = dependencies.split_whitespace().map(str::to_owned).collect();
            order.reverse();
            order.push(path.to_owned());
            (module_name(path), order)
        };
        Self(
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .map(load_order)
                .collect(),
        )
    }

    fn add(&self, name: &str, order: &mut Vec<RelativePath>) -> bool {
        let Some(paths) = self.0.get(name) else {
            return false;
        };
        for path in paths {
            if !order.contains(path) {
                order.push(path.clone());
            }
        }
        true
    }
}

/// `nf_log_ipv4` for `kernel/net/ipv4/netfilter/nf-log-ipv4.ko.xz`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_before_what_needs_them_and_once() {
        let dependencies = Dependencies::parse(
            "net/nft-log.ko.xz: net/nf_tables.ko.xz net/nfnetlink.ko.xz\n\
             net/nfnetlink_log.ko.xz: net/nfnetlink.ko.xz\n\
             net/nfnetlink.ko.xz:\n\
             net/nf_tables.ko.xz: net/nfnetlink.ko.xz\n",
        );
        let mut order = Vec::new();
        assert!(dependencies.add("nft_log", &mut order));
        assert!(dependencies.add("nfnetlink_log", &mut order));
        assert!(!dependencies.add("absent", &mut order));
        let expected = [
            "net/nfnetlink.ko.xz",
            "net/nf_tables.ko.xz",
            "net/nft-log.ko.xz",
            "net/nfnetlink_log.ko.xz",
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn a_path_loses_the_extension_of_its_compression_only() {
        assert_eq!(uncompressed_path("a/b.ko.xz"), "a/b.ko");
        assert_eq!(uncompressed_path("a/b.ko.zst"), "a/b.ko");
        assert_eq!(uncompressed_path("a/b.ko"), "a/b.ko");
    }
}
