//! Target `cgroup`: a cgroup path, read.

use nflog_agent::cgroup_path::{Place, parse};

/// Reads a path.
///
/// # Panics
/// If what is found does not have the shape of what it is called, is not in the path, or is another with ` (deleted)` behind the path.
pub fn cgroup(path: &[u8]) {
    let path = String::from_utf8_lossy(path);
    let found = parse(&path);
    let Place {
        container_id,
        runtime,
        pod_uid,
        unit,
        slice,
    } = &found;
    if let Some(id) = container_id {
        assert!(path.contains(id.as_str()) && !id.contains('/'), "{id}");
        assert!(is_hex(id, 64) || *runtime == Some("lxc"), "{id}");
    }
    assert!(runtime.is_none() || container_id.is_some(), "{found:?}");
    if let Some(uid) = pod_uid {
        // systemd's slices have `_` for `-`.
        assert!(path.replace('_', "-").contains(uid.as_str()), "{uid}");
        assert!(is_hex(&uid.replace('-', ""), 32), "{uid}");
    }
    for name in [unit, slice].into_iter().flatten() {
        assert!(path.contains(name.as_str()) && !name.contains('/'), "{name}");
    }
    assert!(
        slice.is_none() || unit.is_some() || (container_id.is_none() && pod_uid.is_none()),
        "{found:?}"
    );
    if !path.ends_with(" (deleted)") {
        assert_eq!(parse(&format!("{path} (deleted)")), found);
    }
    // What is above a container's cgroup in another one is of no account to what is in it.
    if container_id.is_none() && pod_uid.is_none() && unit.is_none() && !path.contains("kubepods") {
        let id = "5f3c1e0b".repeat(8);
        let inner = parse(&format!("{path}/cri-containerd-{id}.scope"));
        let closed = path
            .split('/')
            .any(|segment| segment == "syscont-cgroup-root" || segment == "payload");
        assert!(
            closed || inner.container_id.as_deref() == Some(id.as_str()) || inner.runtime == Some("lxc"),
            "{inner:?}"
        );
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
