//! `/proc/PID/cgroup`: one line per hierarchy, of which one tells best where the process runs.
//!
//! Lines are `HIERARCHY:CONTROLLERS:PATH`. cgroup v2 has one line, `0::PATH`; v1 one per hierarchy, systemd's own being
//! `name=systemd`; a hybrid system has both, and often only the v1 lines name the container.

use super::Workload;
use crate::cgroup_path::parse;

/// The line of a process that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    /// cgroup path as in the file, without ` (deleted)`.
    pub(super) path: String,
    pub(super) workload: Workload,
}

impl Membership {
    /// That of a path, as far as it tells anything.
    pub(super) fn of_path(path: &str) -> Self {
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        Self {
            path: path.to_owned(),
            workload: parse(path).into(),
        }
    }
}

/// Chooses the line that tells most; among equals v2, then systemd's, then the first. `None` for a file without lines.
pub(super) fn read(file: &[u8]) -> Option<Membership> {
    let text = String::from_utf8_lossy(file);
    let mut best: Option<(Rank, Membership)> = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let membership = Membership::of_path(path);
        let workload = &membership.workload;
        let rank = Rank {
            container: workload.container_id.is_some(),
            pod: workload.pod_uid.is_some(),
            unit: workload.unit.is_some(),
            below_root: membership.path != "/",
            unified: id == "0" && controllers.is_empty(),
            systemd: controllers == "name=systemd",
        };
        if best.as_ref().is_none_or(|(best, _)| rank > *best) {
            best = Some((rank, membership));
        }
    }
    best.map(|(_, membership)| membership)
}

/// Whether the file has the v2 line alone: then that line is the one that [`read`] chooses for every process.
pub(super) fn is_unified(file: &[u8]) -> bool {
    file.starts_with(b"0::") && file.trim_ascii_end().split(|&byte| byte == b'\n').count() == 1
}

/// How much a line tells, the most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    container: bool,
    pod: bool,
    unit: bool,
    below_root: bool,
    unified: bool,
    systemd: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &[u8] = include_bytes!("../../tests/data/cgroup-v2");
    const V1: &[u8] = include_bytes!("../../tests/data/cgroup-v1");
    const HYBRID: &[u8] = include_bytes!("../../tests/data/cgroup-hybrid");

    #[test]
    fn the_only_line_of_v2_is_taken() {
        let found = read(V2).unwrap();
        assert_eq!(found.path, "/system.slice/ssh.service");
        assert!(is_unified(V2) && !is_unified(V1) && !is_unified(HYBRID) && !is_unified(b""));
        assert_eq!(found.workload.unit.as_deref(), Some("ssh.service"));
    }

    #[test]
    fn the_v1_line_that_names_the_container_is_taken() {
        let found = read(V1).unwrap();
        assert!(
            found.path.starts_with("/kubepods/besteffort/pod"),
            "{}",
            found.path
        );
        assert!(found.workload.container_id.is_some() && found.workload.pod_uid.is_some());
    }

    #[test]
    fn on_a_hybrid_system_a_root_v2_line_does_not_hide_the_unit() {
        let found = read(HYBRID).unwrap();
        assert_eq!(found.path, "/system.slice/cron.service");
        assert_eq!(found.workload.unit.as_deref(), Some("cron.service"));
    }

    #[test]
    fn a_path_with_colons_is_kept_whole() {
        let found = read(b"0::/a.slice:docker:b\n").unwrap();
        assert_eq!(found.path, "/a.slice:docker:b");
    }

    #[test]
    fn a_removed_cgroup_keeps_its_path() {
        assert_eq!(
            read(b"0::/system.slice/x.service (deleted)\n").unwrap().path,
            "/system.slice/x.service"
        );
    }

    #[test]
    fn an_empty_or_broken_file_is_nothing() {
        for file in [b"".as_slice(), b"\n", b"0:", b"nonsense\n"] {
            assert_eq!(read(file), None);
        }
    }
}
