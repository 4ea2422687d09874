//! Names of pods: the store, the watch against a stand-in for kube-apiserver with faults, and the agent as a process.
//!
//! The package registries have no kube-apiserver binary; `server` answers in the shapes of a real one.
#![cfg(feature = "kubernetes")]

#[path = "../agent/program.rs"]
#[allow(dead_code, reason = "shared with the tests of the agent")]
mod program;
#[path = "../support/mod.rs"]
mod support;

mod model;
mod named;
mod objects;
mod places;
mod server;
mod tls;
mod watch;

use serde_json::Value;

/// Whether this kernel has kprobes. Skipping is allowed only where it provably has none.
fn has_kprobes() -> bool {
    let has = [
        "/sys/bus/event_source/devices/kprobe/type",
        "/sys/kernel/tracing/kprobe_events",
    ]
    .iter()
    .any(|path| std::path::Path::new(path).exists());
    if !has {
        println!("SKIPPED: this kernel is built without kprobes (CONFIG_KPROBE_EVENTS)");
    }
    has
}

/// A pod as kube-apiserver sends it.
fn pod() -> Value {
    serde_json::from_str(include_str!("../data/kubernetes-pod.json")).unwrap()
}

/// The same with another name and UID, and one container with this id.
fn pod_with(name: &str, uid: &str, container: &str) -> Value {
    let mut pod = pod();
    pod["metadata"]["name"] = name.into();
    pod["metadata"]["uid"] = uid.into();
    pod["status"]["initContainerStatuses"] = Value::Null;
    pod["status"]["ephemeralContainerStatuses"] = Value::Null;
    let statuses = pod["status"]["containerStatuses"].as_array_mut().unwrap();
    statuses.truncate(1);
    statuses[0]["lastState"] = serde_json::json!({});
    statuses[0]["containerID"] = format!("containerd://{container}").into();
    pod
}
