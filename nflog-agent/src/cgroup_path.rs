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
//! | `libpod_parent/ID` | a pod of podman, which is no container |
//! | `syscont-cgroup-root` | all below is inside a Sysbox container and belongs to it |
//! | `payload` in a unit of systemd-nspawn | all below is inside that machine and belongs to the unit |
//! | `NAME.service`, `NAME.scope` outside of containers | systemd unit; the innermost |
//! | `NAME.slice` above that, or alone | its slice; the innermost |
//!
//! `ID` is 64 hex digits. `UID` is a UUID, or the 32 hex digits that the kubelet gives static pods. Leading `..` (a reader
//! in a cgroup namespace) are dropped.

/// What a path tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Full container id: 64 hex digits, for LXC its name.
    pub container_id: Option<String>,
    /// `containerd`, `cri-o`, `docker`, `podman` or `lxc`.
    pub runtime: Option<&'static str>,
    /// Kubernetes pod UID, with dashes.
    pub pod_uid: Option<String>,
    /// systemd unit.
    pub unit: Option<String>,
    /// The unit's slice; without a unit, container and pod, the process's.
    pub slice: Option<String>,
}

/// Reads a cgroup path such as the ones in `/proc/PID/cgroup`. What the path does not tell is `None`.
#[must_use]
pub fn parse(path: &str) -> Place {
    let mut found = Place::default();
    let mut in_kubepods = false;
    let mut parent = "";
    let mut slice = None;
    for segment in path.strip_suffix(" (deleted)").unwrap_or(path).split('/') {
        if segment == "syscont-cgroup-root" || (segment == "payload" && is_machine(parent)) {
            break;
        }
        // A segment "SLICE:RUNTIME:ID" is a slice and a container in one.
        let first = segment.split(':').next().unwrap_or(segment);
        in_kubepods |= first.contains("kubepods");
        if let Some(uid) = pod_uid(first, in_kubepods) {
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
            found.slice = slice.map(str::to_owned);
        } else if segment.len() > ".slice".len() && segment.ends_with(".slice") {
            slice = Some(segment);
        }
        parent = segment;
    }
    if found.unit.is_none() && found.container_id.is_none() && found.pod_uid.is_none() {
        found.slice = slice.map(str::to_owned);
    }
    found
}

/// Whether the segment is a machine of systemd-nspawn.
fn is_machine(segment: &str) -> bool {
    let service = segment.starts_with("systemd-nspawn@") && segment.ends_with(".service");
    service || (segment.starts_with("machine-") && segment.ends_with(".scope"))
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
        return (parent != "libpod_parent").then(|| (name, runtime(parent)));
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
        // k3d and minikube: the node is a container, with either driver inside
        (
            "/docker/{id}/kubepods/besteffort/pod{uid}/{inner}",
            Some(INNER),
            None,
            Some(UID),
            None,
        ),
        (
            "/docker/{id}/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/docker-{inner}.scope",
            Some(INNER),
            Some("docker"),
            Some(UID),
            None,
        ),
        // kind in podman
        (
            "/machine.slice/libpod-{id}.scope/container/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{uid_}.slice/cri-containerd-{inner}.scope",
            Some(INNER),
            Some("containerd"),
            Some(UID),
            None,
        ),
        // cri-dockerd with the cgroupfs driver, all QoS classes; the kubelet's --cgroup-root above
        (
            "/kubepods/burstable/pod{uid}/{id}",
            Some(ID),
            None,
            Some(UID),
            None,
        ),
        (
            "/foo.slice/foo-kubepods.slice/foo-kubepods-burstable.slice/foo-kubepods-burstable-pod{uid_}.slice/crio-{id}.scope",
            Some(ID),
            Some("cri-o"),
            Some(UID),
            None,
        ),
        // CRI-O with the cgroupfs driver: its monitor is beside the container
        (
            "/kubepods/burstable/pod{uid}/crio-conmon-{id}",
            None,
            None,
            Some(UID),
            None,
        ),
        ("/system.slice/crio-conmon-{id}.scope", None, None, None, None),
        // crun's child groups, of any name
        (
            "/kubepods/besteffort/pod{uid}/crio-{id}/container",
            Some(ID),
            Some("cri-o"),
            Some(UID),
            None,
        ),
        (
            "/machine.slice/libpod-{id}.scope/workers/1",
            Some(ID),
            Some("podman"),
            None,
            None,
        ),
        // podman's pods, with either driver
        (
            "/machine.slice/machine-libpod_pod_{inner}.slice/libpod-{id}.scope/container",
            Some(ID),
            Some("podman"),
            None,
            None,
        ),
        (
            "/libpod_parent/{inner}/libpod-{id}",
            Some(ID),
            Some("podman"),
            None,
            None,
        ),
        ("/libpod_parent/{inner}/conmon", None, None, None, None),
        // Docker: a cgroup parent of its own, rootless, the API of containerd without Kubernetes, Amazon's
        (
            "/web.slice/docker-{id}.scope",
            Some(ID),
            Some("docker"),
            None,
            None,
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/docker-{id}.scope",
            Some(ID),
            Some("docker"),
            None,
            Some("user@1000.service"),
        ),
        ("/default/{id}", Some(ID), None, None, None),
        ("/ecs/{static}/{id}", Some(ID), None, None, None),
        // Sysbox in Kubernetes
        (
            "/kubepods.slice/kubepods-pod{uid_}.slice/crio-{id}.scope/syscont-cgroup-root/system.slice/docker-{inner}.scope",
            Some(ID),
            Some("cri-o"),
            Some(UID),
            None,
        ),
        // LXC, with Docker inside
        (
            "/lxc.payload.web/docker/{id}",
            Some(ID),
            Some("docker"),
            None,
            None,
        ),
        (
            "/lxc.payload/web/init.scope",
            Some("web"),
            Some("lxc"),
            None,
            None,
        ),
        ("/lxc.monitor/web", None, None, None, None),
        // systemd-nspawn: what runs inside is the machine's
        (
            "/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service",
            None,
            None,
            None,
            Some("systemd-nspawn@web.service"),
        ),
        (
            "/machine.slice/machine-web.scope/payload/init.scope",
            None,
            None,
            None,
            Some("machine-web.scope"),
        ),
        (
            "/system.slice/web.service/payload/a.service",
            None,
            None,
            None,
            Some("a.service"),
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
            let found = parse(&fill(pattern));
            let expected = Place {
                container_id: container_id.map(str::to_owned),
                runtime,
                pod_uid: pod_uid.map(str::to_owned),
                unit: unit.map(str::to_owned),
                slice: found.slice.clone(),
            };
            assert_eq!(found, expected, "{pattern}");
        }
    }

    #[test]
    fn a_unit_has_its_slice_and_a_container_has_none() {
        for (pattern, slice) in [
            ("/system.slice/ssh.service", Some("system.slice")),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                Some("system-getty.slice"),
            ),
            ("/user.slice/user-0.slice/session-3.scope", Some("user-0.slice")),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox.service",
                Some("app.slice"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/init.scope",
                Some("user-1000.slice"),
            ),
            // The unit's, not one below it.
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container",
                Some("user-1000.slice"),
            ),
            (
                "/system.slice/web.service/libpod-payload-{id}",
                Some("system.slice"),
            ),
            ("/system.slice", Some("system.slice")),
            ("/init.scope", None),
            ("/.slice", None),
            ("/system.slice/docker-{id}.scope", None),
            ("/kubepods.slice/kubepods-pod{uid_}.slice", None),
            ("/docker/{id}/system.slice/nginx.service", None),
        ] {
            assert_eq!(parse(&fill(pattern)).slice.as_deref(), slice, "{pattern}");
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
        for name in [&found.unit, &found.slice].into_iter().flatten() {
            prop_assert!(
                path.contains(name.as_str()) && !name.contains('/'),
                "{path}: {name}"
            );
        }
        prop_assert!(
            found.slice.is_none() || found.unit.is_some() || found.container_id.is_none(),
            "{path}"
        );
        Ok(())
    }

    /// A pod's cgroup as the kubelet makes it, for either driver; `above` are the parts of its `--cgroup-root`.
    fn of_pod(systemd: bool, above: &[&str], class: &str, uid: &str) -> String {
        if !systemd {
            let above: String = above.iter().map(|part| format!("/{part}")).collect();
            let class = if class.is_empty() {
                String::new()
            } else {
                format!("/{class}")
            };
            return format!("{above}/kubepods{class}/pod{uid}");
        }
        let pod = format!("pod{}", uid.replace('-', "_"));
        let mut slice = String::new();
        let mut path = String::new();
        let parts = above.iter().copied().chain(["kubepods", class, &pod]);
        for part in parts.filter(|part| !part.is_empty()) {
            slice = if slice.is_empty() {
                part.to_owned()
            } else {
                format!("{slice}-{part}")
            };
            path.push_str(&format!("/{slice}.slice"));
        }
        path
    }

    /// A container's cgroup in that of its pod, as each runtime makes it, and the runtime that can be told from it.
    fn of_container(systemd: bool, runtime: usize, id: &str) -> (String, Option<&'static str>) {
        let (prefix, name) = [
            ("cri-containerd", "containerd"),
            ("crio", "cri-o"),
            ("docker", "docker"),
        ][runtime];
        match (systemd, prefix) {
            (true, _) => (format!("{prefix}-{id}.scope"), Some(name)),
            (false, "crio") => (format!("crio-{id}"), Some(name)),
            (false, _) => (id.to_owned(), None),
        }
    }

    prop_compose! {
        fn uid()(parts in ("[0-9a-f]{8}", "[0-9a-f]{4}", "[0-9a-f]{4}", "[0-9a-f]{4}", "[0-9a-f]{12}"), fixed in "[0-9a-f]{32}", is_static: bool) -> String {
            let (a, b, c, d, e) = parts;
            if is_static { fixed } else { format!("{a}-{b}-{c}-{d}-{e}") }
        }
    }

    proptest! {
        #[test]
        fn what_kubelet_and_runtime_make_is_read_back(
            (systemd, runtime, nested) in (any::<bool>(), 0..3_usize, any::<bool>()),
            class in prop::sample::select(vec!["", "burstable", "besteffort"]),
            above in prop::sample::select(vec![&[] as &[&str], &["kubelet"], &["kubelet", "node"]]),
            (uid, id, node) in (uid(), "[0-9a-f]{64}", "[0-9a-f]{64}"),
            below in prop::sample::select(vec!["", "/container", "/init.scope", "/system.slice/nginx.service", "/a/b"]),
        ) {
            let (container, runtime) = of_container(systemd, runtime, &id);
            let node = if nested { format!("/docker/{node}") } else { String::new() };
            let path = format!("{node}{}/{container}{below}", of_pod(systemd, above, class, &uid));
            let expected = Place {
                container_id: Some(id),
                runtime,
                pod_uid: Some(uid),
                ..Place::default()
            };
            prop_assert_eq!(parse(&path), expected, "{}", path);
        }

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
