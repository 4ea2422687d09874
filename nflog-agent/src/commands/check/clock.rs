//! The clock, by which records are ordered beside those of other hosts.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::finding::Finding;

/// 2026-01-01: before the agent was written.
const BEFORE: Duration = Duration::from_secs(1_767_225_600);
/// What systemd-timesyncd leaves once it has set the clock.
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";

pub(super) fn check() -> Finding {
    let now = SystemTime::now();
    let shown = humantime::format_rfc3339_seconds(now);
    if now.duration_since(UNIX_EPOCH).unwrap_or_default() < BEFORE {
        let remedy = "set it, and run a time service (systemd-timesyncd, chrony): records have wrong times";
        return Finding::warning("clock", format!("{shown} is past"), remedy);
    }
    let known = if Path::new(SYNCHRONIZED).exists() {
        "synchronized by systemd-timesyncd"
    } else {
        "not known here whether it is synchronized"
    };
    Finding::ok("clock", format!("{shown}, {known}"))
}
