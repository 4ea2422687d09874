//! What a cgroup path says about the container, pod and systemd unit. Pure: no I/O, never panics.
//!
//! Grammar, by path segment from the root down; the last container and the last pod win, so that nested ones (kind,
//! Docker in a pod) are named by their innermost level:
//!
//! | segment | meaning |
//! |---|---|
//! | `cri-containerd-ID.scope`, `crio-ID.scope`, `docker-ID.scope`, `libpod-ID.scope`, `nerdctl-ID.scope` | container, systemd driver |
//! | the same without `.scope`, `libpod-payload-ID` | container, cgroupfs driver; podman in a unit |
//! | `SLICE:cri-containerd:ID` | container, containerd told to use systemd paths with the cgroupfs driver |
//! | `ID` | container, cgroupfs driver; the parent `docker` or `nerdctl` tells the runtime |
//! | `crio-conmon-ID.scope`, `libpod-conmon-ID.scope` | the monitor of a container, which is outside of it |
//! | `lxc.payload.NAME`, `lxc.payload/NAME`, `lxc/NAME` | LXC container; its id is its name |
//! | `…kubepods…-podUID.slice` | pod, systemd driver; `_` stands for `-` |
//! | `podUID` below `…kubepods…` | pod, cgroupfs driver |
//! | `syscont-cgroup-root` | all below is inside a Sysbox container and belongs to it |
//! | `NAME.service`, `NAME.scope` outside of containers | systemd unit; the innermost |
//!
//! `ID` is 64 hex digits. `UID` is a UUID, or the 32 hex digits that the kubelet gives static pods. Leading `..` (a reader
//! in a cgroup namespace) are dropped.

use super::Workload;

/// Reads a cgroup path such as the ones in `/proc/PID/cgroup`. What the path does not tell is `None`.
#[must_use]
pub fn parse(path: &str) -> Workload {
    let mut found = Workload::default();
    let mut in_kubepods = false;
    let mut parent = "";
    for segment in path.strip_suffix(" (deleted)").unwrap_or(path).split('/') {
        if segment == "syscont-cgroup-root" {
            break;
        }
        // A segment "SLICE:RUNTIME:ID" is a slice and a container in one.
        let slice = segment.split(':').next().unwrap_or(segment);
        in_kubepods |= slice.contains("kubepods");
        if let Some(uid) = pod_uid(slice, in_kubepods) {
            found.pod_uid = Some(uid);
        }
        if let Some((id, runtime)) = container(segment, parent) {
            found.container_id = Some(id.to_owned());
            found.runtime = runtime;
        } else if found.container_id.is_none()
            && let Some(unit) = unit(segment)
            && !(unit == "init.scope" && found.unit.is_some())
        {
            found.unit = Some(unit.to_owned());
        }
        parent = segment;
    }
    found
}

/// Name prefixes of containers, with the runtime's name as in `container.runtime.name`.
const PREFIXES: [(&str, &str); 6] = [
    ("cri-containerd", "containerd"),
    ("nerdctl", "containerd"),
    ("crio", "cri-o"),
    ("docker", "docker"),
    ("libpod", "podman"),
    ("libpod-payload", "podman"),
];

fn container<'a>(segment: &'a str, parent: &str) -> Option<(&'a str, Option<&'static str>)> {
    if let Some(name) = segment.strip_prefix("lxc.payload.") {
        return (!name.is_empty()).then_some((name, Some("lxc")));
    }
    if matches!(parent, "lxc" | "lxc.payload") && !segment.is_empty() {
        return Some((segment, Some("lxc")));
    }
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    if is_hex(name, 64) {
        return Some((name, runtime(parent)));
    }
    let (prefix, id) = name.rsplit_once([':', '-']).filter(|(_, id)| is_hex(id, 64))?;
    let prefix = prefix.rsplit(':').next().unwrap_or(prefix);
    Some((id, Some(runtime(prefix)?)))
}

fn runtime(prefix: &str) -> Option<&'static str> {
    PREFIXES
        .iter()
        .find(|(known, _)| *known == prefix)
        .map(|(_, runtime)| *runtime)
}

fn pod_uid(segment: &str, in_kubepods: bool) -> Option<String> {
    let uid = match segment.strip_suffix(".slice") {
        Some(slice) if slice.contains("kubepods") => slice.rsplit_once("-pod")?.1,
        Some(_) => return None,
        None if in_kubepods => segment.strip_prefix("pod")?,
        None => return None,
    };
    let uid = uid.replace('_', "-");
    (is_hex(&uid, 32) || is_uuid(&uid)).then_some(uid)
}

fn unit(segment: &str) -> Option<&str> {
    // systemd puts "_" before a name that would clash with a kernel file.
    let name = segment.strip_prefix('_').unwrap_or(segment);
    let (stem, kind) = name.rsplit_once('.')?;
    let is_unit = matches!(kind, "service" | "scope" | "socket" | "mount" | "swap");
    let is_monitor = stem.rsplit_once("conmon-").is_some_and(|(_, id)| is_hex(id, 64));
    (is_unit && !is_monitor && !stem.is_empty()).then_some(name)
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_uuid(text: &str) -> bool {
    let mut groups = text.split('-');
    [8, 4, 4, 4, 12]
        .iter()
        .all(|&length| groups.next().is_some_and(|group| is_hex(group, length)))
        && groups.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "5f3c1e0b9a8d7c6b5a493827160f5e4d3c2b1a0918273645f0e1d2c3b4a59687";
    const INNER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const UID: &str = "b7e1c0de-1234-4abc-9def-0123456789ab";
    const STATIC: &str = "6e1b2c3d4f5a60718293a4b5c6d7e8f9";

    /// Path (`{id}`, `{inner}`, `{uid}`, `{uid_}`, `{static}` are filled in), container id, runtime, pod UID, unit.
    type Row = (
        &'static str,
        Option<&'static str>,
        Option<&'static str>,
        Option<&'static str>,
        Option<&'static str>,
    );

    const TABLE: &[Row] = &[
        // Kubernetes, systemd driver
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/cri-containerd-{id}.scope",
            Some(ID),
            Some("containerd"),
            Some(UID),
            None,
        ),
        (
            "/kubepods.slice/kubepods-pod{uid_}.slice/crio-{id}.scope",
            Some(ID),
            Some("cri-o"),
            Some(UID),
            None,
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid_}.slice/docker-{id}.scope",
            Some(ID),
            Some("docker"),
            Some(UID),
            None,
        ),
        // crun puts the processes into a child, CRI-O's monitor sits beside the container
        (
            "/kubepods.slice/kubepods-pod{uid_}.slice/crio-{id}.scope/container",
            Some(ID),
            Some("cri-o"),
            Some(UID),
            None,
        ),
        (
            "/kubepods.slice/kubepods-pod{uid_}.slice/crio-conmon-{id}.scope",
            None,
            None,
            Some(UID),
            None,
        ),
        // Kubernetes, cgroupfs driver; a guaranteed pod has no QoS level
        (
            "/kubepods/besteffort/pod{uid}/{id}",
            Some(ID),
            None,
            Some(UID),
            None,
        ),
        ("/kubepods/pod{uid}/{id}", Some(ID), None, Some(UID), None),
        (
            "/kubepods/burstable/pod{static}/{id}",
            Some(ID),
            None,
            Some(STATIC),
            None,
        ),
        (
            "/kubepods/burstable/pod{uid}/crio-{id}",
            Some(ID),
            Some("cri-o"),
            Some(UID),
            None,
        ),
        (
            "/system.slice/containerd.service/kubepods-burstable-pod{uid_}.slice:cri-containerd:{id}",
            Some(ID),
            Some("containerd"),
            Some(UID),
            Some("containerd.service"),
        ),
        // Static pod, systemd driver
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{static}.slice/cri-containerd-{id}.scope",
            Some(ID),
            Some("containerd"),
            Some(STATIC),
            None,
        ),
        // A process of the pod but of no container
        (
            "/kubepods.slice/kubepods-pod{uid_}.slice",
            None,
            None,
            Some(UID),
            None,
        ),
        // kind: the node is a Docker container, the pod inside it is what counts
        (
            "/docker/{id}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{uid_}.slice/cri-containerd-{inner}.scope",
            Some(INNER),
            Some("containerd"),
            Some(UID),
            None,
        ),
        (
            "/docker/{id}/kubelet.slice/kubelet.service",
            Some(ID),
            Some("docker"),
            None,
            None,
        ),
        // Docker, nerdctl, podman
        ("/docker/{id}", Some(ID), Some("docker"), None, None),
        (
            "/system.slice/docker-{id}.scope",
            Some(ID),
            Some("docker"),
            None,
            None,
        ),
        (
            "/system.slice/nerdctl-{id}.scope",
            Some(ID),
            Some("containerd"),
            None,
            None,
        ),
        (
            "/machine.slice/libpod-{id}.scope/container",
            Some(ID),
            Some("podman"),
            None,
            None,
        ),
        ("/machine.slice/libpod-conmon-{id}.scope", None, None, None, None),
        ("/libpod_parent/libpod-{id}", Some(ID), Some("podman"), None, None),
        (
            "/system.slice/web.service/libpod-payload-{id}",
            Some(ID),
            Some("podman"),
            None,
            Some("web.service"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container",
            Some(ID),
            Some("podman"),
            None,
            Some("user@1000.service"),
        ),
        ("/actions_job/{id}", Some(ID), None, None, None),
        // systemd inside a container
        ("/docker/{id}/init.scope", Some(ID), Some("docker"), None, None),
        (
            "/docker/{id}/system.slice/nginx.service",
            Some(ID),
            Some("docker"),
            None,
            None,
        ),
        // Docker in a pod, and Sysbox, which hides it
        (
            "/kubepods/pod{uid}/{id}/docker/{inner}",
            Some(INNER),
            Some("docker"),
            Some(UID),
            None,
        ),
        (
            "/docker/{id}/syscont-cgroup-root/docker/{inner}",
            Some(ID),
            Some("docker"),
            None,
            None,
        ),
        // LXC
        (
            "/lxc.payload.web/system.slice/nginx.service",
            Some("web"),
            Some("lxc"),
            None,
            None,
        ),
        ("/lxc/web", Some("web"), Some("lxc"), None, None),
        ("/lxc.monitor.web", None, None, None, None),
        // Units
        ("/system.slice/ssh.service", None, None, None, Some("ssh.service")),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            None,
            None,
            None,
            Some("getty@tty1.service"),
        ),
        (
            "/system.slice/dbus.service/child",
            None,
            None,
            None,
            Some("dbus.service"),
        ),
        (
            "/user.slice/user-0.slice/session-3.scope",
            None,
            None,
            None,
            Some("session-3.scope"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox.service",
            None,
            None,
            None,
            Some("app-firefox.service"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            None,
            None,
            None,
            Some("user@1000.service"),
        ),
        ("/init.scope", None, None, None, Some("init.scope")),
        (
            "/system.slice/_cgroup.service",
            None,
            None,
            None,
            Some("cgroup.service"),
        ),
        // Read from inside a cgroup namespace; removed while the process lives on
        (
            "/../../kubepods-besteffort-pod{uid_}.slice/cri-containerd-{id}.scope",
            Some(ID),
            Some("containerd"),
            Some(UID),
            None,
        ),
        (
            "/../cri-containerd-{id}.scope",
            Some(ID),
            Some("containerd"),
            None,
            None,
        ),
        ("/docker/{id} (deleted)", Some(ID), Some("docker"), None, None),
        // Look-alikes
        ("/", None, None, None, None),
        ("", None, None, None, None),
        ("/system.slice", None, None, None, None),
        ("/process_api/{static}", None, None, None, None),
        ("/other-{id}.scope.d", None, None, None, None),
        ("/pod{uid}", None, None, None, None),
        ("/kubepods/podcast", None, None, None, None),
        (
            "/kubepods.slice/kubepods-podnot_a_uid.slice",
            None,
            None,
            None,
            None,
        ),
        ("/docker/5F3C1E0B", None, None, None, None),
    ];

    fn fill(pattern: &str) -> String {
        pattern
            .replace("{id}", ID)
            .replace("{inner}", INNER)
            .replace("{uid}", UID)
            .replace("{uid_}", &UID.replace('-', "_"))
            .replace("{static}", STATIC)
    }

    #[test]
    fn each_form_of_path_is_read() {
        for &(pattern, container_id, runtime, pod_uid, unit) in TABLE {
            let expected = Workload {
                container_id: container_id.map(str::to_owned),
                runtime,
                pod_uid: pod_uid.map(str::to_owned),
                unit: unit.map(str::to_owned),
                ..Workload::default()
            };
            assert_eq!(parse(&fill(pattern)), expected, "{pattern}");
        }
    }

    #[test]
    fn a_unit_whose_name_ends_in_an_id_is_no_container() {
        let path = format!("/system.slice/backup-{ID}.service");
        let found = parse(&path);
        assert_eq!((found.container_id, found.unit.is_some()), (None, true));
    }

    /// Whatever the path is, ids have the shape of ids and are in it.
    fn check_shape(path: &str) -> Result<(), TestCaseError> {
        let found = parse(path);
        if let Some(id) = &found.container_id {
            prop_assert!(is_hex(id, 64) || found.runtime == Some("lxc"), "{path}: {id}");
            prop_assert!(path.contains(id.as_str()), "{path}: {id}");
        }
        if let Some(uid) = &found.pod_uid {
            prop_assert!(is_hex(uid, 32) || is_uuid(uid), "{path}: {uid}");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(path in ".*") {
            check_shape(&path)?;
        }

        #[test]
        fn pieces_of_the_grammar_in_any_order_keep_their_shape(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "/", ":", "-", ".scope", ".slice", ".service", "kubepods", "pod", "docker", "lxc.payload.", "..",
                    "cri-containerd", "conmon-", ID, STATIC, UID, "é", " (deleted)",
                ]),
                0..24,
            )
        ) {
            check_shape(&pieces.concat())?;
        }
    }
}
