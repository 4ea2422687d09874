//! Pods as kube-apiserver sends them.

use serde_json::Value;

/// A pod as kube-apiserver sends it.
pub(crate) fn pod() -> Value {
    serde_json::from_str(include_str!("../data/kubernetes-pod.json")).unwrap()
}

/// The same with another name and UID, and one container with this id.
pub(crate) fn pod_with(name: &str, uid: &str, container: &str) -> Value {
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
