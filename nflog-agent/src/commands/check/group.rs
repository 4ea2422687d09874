//! Whether the groups can be read in each namespace that the configuration names, and with what buffers.
//!
//! They are bound as `run` binds them, and left at once: only that tells everything. A group that a program reads is left alone.

use std::fs;

use super::Subject;
use super::finding::{Cause, Finding};
use crate::agent::{RunError, nflog_config};
use crate::cli::{AttributionArg, ConntrackArg, netns_path};
use crate::nflog::{Netns, Nflog, OpenError, Warning};

/// A namespace that the configuration names.
pub(super) struct Place {
    /// As it is named; none for the agent's own.
    pub(super) name: Option<String>,
    pub(super) netns: Netns,
}

impl Place {
    /// What is behind the name of a check.
    pub(super) fn suffix(&self) -> String {
        self.name
            .as_ref()
            .map_or_else(String::new, |name| format!(" in {name}"))
    }
}

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let mut findings = Vec::new();
    for place in places(subject) {
        for &group in &subject.groups {
            findings.extend(bound(subject, group, &place));
        }
    }
    findings.push(buffer(subject.settings.args.receive_buffer));
    findings
}

/// The namespaces of the configuration.
pub(super) fn places(subject: &Subject) -> Vec<Place> {
    let args = &subject.settings.args;
    if args.netns.is_empty() {
        // What patterns find comes and goes.
        let here = args.netns_of_cgroup.is_empty();
        let place = Place {
            name: None,
            netns: Netns::Current,
        };
        return here.then_some(place).into_iter().collect();
    }
    let place = |value: &String| Place {
        name: Some(value.clone()),
        netns: Netns::Path(netns_path(value)),
    };
    args.netns.iter().map(place).collect()
}

fn bound(subject: &Subject, group: u16, place: &Place) -> Vec<Finding> {
    let (place, netns) = (place.suffix(), place.netns.clone());
    let check = format!("group {group}{place}");
    let mut args = subject.settings.args.clone();
    args.groups = vec![group];
    let conntrack = args.conntrack == ConntrackArg::Auto && args.attribution != AttributionArg::Sockdiag;
    let opened =
        nflog_config(&args, netns, conntrack).and_then(|config| Nflog::open(&config).map_err(RunError::from));
    let reader = match opened {
        Ok(reader) => reader,
        Err(RunError::Open(OpenError::GroupBusy { owner, .. })) => {
            let ours = owner
                .as_ref()
                .and_then(|owner| owner.process.as_ref())
                .is_some_and(|process| process.comm == "nflog-agent");
            let reader = owner.map_or_else(|| "another socket".to_owned(), |owner| owner.to_string());
            let found = format!("read by {reader}");
            let finding = Finding::failed(check, Cause::Busy, found, "stop it, or log to another group");
            // An agent that runs is what is wanted.
            return vec![if ours { finding.soften() } else { finding }];
        }
        Err(error) => {
            return vec![Finding::error(
                check,
                Cause::of_exit_code(error.exit_code()),
                &error,
            )];
        }
    };
    let (lacks, others): (Vec<_>, Vec<_>) = reader
        .effective()
        .warnings
        .iter()
        .partition(|warning| matches!(warning, Warning::ConntrackRefused));
    let found =
        |check: &str, warning: &Warning| Finding::warning(check, warning.to_string(), remedy(warning));
    let mut findings: Vec<_> = others.iter().map(|warning| found(&check, warning)).collect();
    if findings.is_empty() {
        findings.push(Finding::ok(&*check, "free, bound for a moment"));
    }
    findings.extend(
        lacks
            .iter()
            .map(|warning| found(&format!("conntrack{place}"), warning)),
    );
    if conntrack && lacks.is_empty() {
        findings.push(Finding::ok(format!("conntrack{place}"), "attached to packets"));
    }
    if let Err(error) = reader.close(|_| {}) {
        findings.push(Finding::warning(
            check,
            format!("not left in order: {error}"),
            "try again",
        ));
    }
    findings
}

const fn remedy(warning: &Warning) -> &'static str {
    match warning {
        Warning::ConntrackRefused => {
            "load nf_conntrack_netlink, or use --conntrack off: where addresses are translated owners are missing"
        }
        Warning::ReceiveBuffer { .. } => {
            "sysctl -w net.core.rmem_max=..., or give CAP_NET_ADMIN in the first user namespace"
        }
        _ => "see the message",
    }
}

/// What the kernel gives without CAP_NET_ADMIN.
fn buffer(asked: u32) -> Finding {
    let limit = fs::read_to_string("/proc/sys/net/core/rmem_max");
    let limit = limit.ok().and_then(|text| text.trim().parse::<u64>().ok());
    let found = limit.map_or_else(
        || "net.core.rmem_max is not seen here".to_owned(),
        |limit| format!("net.core.rmem_max {limit}"),
    );
    Finding::ok(
        "receive-buffer",
        format!("{asked} bytes are asked for; {found}, which CAP_NET_ADMIN may exceed"),
    )
}
