//! What is kept of a pod, and how much memory that takes.

use std::time::Instant;

use allocation_counter::measure;
use nflog_agent::workload::kubernetes::{Chosen, Object, Observed, Pods};
use serde_json::{Value, json};

use crate::{pod, pod_with};

fn observed(pod: &Value, chosen: &Chosen) -> Option<Observed> {
    serde_json::from_value::<Object>(pod.clone())
        .unwrap()
        .observed(chosen)
}

#[test]
fn every_container_of_a_pod_has_its_name_and_image() {
    let observed = observed(&pod(), &Chosen::default()).unwrap();
    let containers: Vec<_> = observed
        .containers
        .iter()
        .map(|(id, container)| {
            let image = container.image.as_ref().unwrap();
            (
                &id[..2],
                container.name.as_str(),
                image.name.as_str(),
                image.tags.join(","),
            )
        })
        .collect();
    let web = "registry.example:5000/web";
    assert_eq!(
        containers,
        [
            ("33", "app", web, "v2".to_owned()),
            ("22", "app", web, "v2".to_owned()),
            ("11", "migrate", "registry.example:5000/migrate", String::new()),
            ("44", "debugger-1", "busybox", "1.36".to_owned()),
        ]
    );
    assert!(observed.containers.iter().all(|(id, _)| id.len() == 64));
    assert_eq!(observed.pod.owners.deployment.as_deref(), Some("web"));
    assert_eq!(observed.pod.node.as_deref(), Some("node-1"));
}

#[test]
fn the_labels_and_annotations_that_are_chosen_are_kept_and_no_others() {
    let chosen = Chosen {
        labels: vec!["team".parse().unwrap(), "ap*".parse().unwrap()],
        annotations: vec!["example.org/*".parse().unwrap()],
    };
    let pairs = observed(&pod(), &chosen).unwrap().pod.chosen;
    let expected = [
        ("k8s.pod.label.app", "web"),
        ("k8s.pod.label.team", "shop"),
        ("k8s.pod.annotation.example.org/build", "42"),
    ];
    assert_eq!(
        pairs,
        expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
    assert!(
        observed(&pod(), &Chosen::default())
            .unwrap()
            .pod
            .chosen
            .is_empty()
    );
}

#[test]
fn a_static_pod_has_the_uid_of_its_cgroup_and_nobody_else_can_take_it() {
    let hash = "6e1b2c3d4f5a60718293a4b5c6d7e8f9";
    let mut mirror = pod();
    mirror["metadata"]["annotations"] =
        json!({"kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": hash});
    let uid = |pod: &Value| observed(pod, &Chosen::default()).unwrap().uid;
    let own = pod()["metadata"]["uid"].as_str().unwrap().to_owned();
    assert_eq!(uid(&mirror), own, "not the node's");
    mirror["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "n", "controller": true}]);
    assert_eq!(uid(&mirror), hash);
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] =
        "b7e1c0de-0000-4abc-9def-0123456789ab".into();
    assert_eq!(uid(&mirror), own, "another pod's UID");
}

#[test]
fn a_pod_has_its_addresses_while_it_runs_and_they_are_its_own() {
    let addresses = |change: &dyn Fn(&mut Value)| {
        let mut pod = pod();
        pod["status"]["phase"] = "Running".into();
        pod["status"]["podIP"] = "10.1.0.7".into();
        pod["status"]["podIPs"] = json!([{"ip": "10.1.0.7"}, {"ip": "fd00::7"}, {}, {"ip": "nonsense"}]);
        change(&mut pod);
        let addresses = observed(&pod, &Chosen::default()).unwrap().addresses;
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&|_| {}), ["10.1.0.7", "fd00::7"]);
    assert_eq!(
        addresses(&|pod| pod["status"]["podIPs"] = Value::Null),
        ["10.1.0.7"]
    );
    let none: [String; 0] = [];
    assert_eq!(addresses(&|pod| pod["spec"]["hostNetwork"] = true.into()), none);
    for phase in ["Succeeded", "Failed"] {
        assert_eq!(
            addresses(&|pod| pod["status"]["phase"] = phase.into()),
            none,
            "{phase}"
        );
    }
    let terminating = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = "2026-11-24T20:00:07Z".into();
    assert_eq!(addresses(&terminating), none);
}

#[test]
fn fields_that_are_null_or_missing_are_no_error() {
    for pod in [
        json!({}),
        json!({"metadata": {"name": "x"}}),
        json!({"metadata": {"name": "x", "uid": ""}, "spec": {}, "status": {}}),
    ] {
        assert_eq!(observed(&pod, &Chosen::default()), None, "{pod}");
    }
    let bare = json!({
        "metadata": {"name": "x", "uid": "u", "labels": null, "annotations": null, "ownerReferences": null},
        "spec": {"containers": null, "nodeName": ""},
        "status": {"containerStatuses": [{"name": "c"}, {"name": "d", "containerID": "", "lastState": null}]},
    });
    let observed = observed(&bare, &Chosen::default()).unwrap();
    assert_eq!((observed.pod.node, observed.containers.len()), (None, 0));
}

#[test]
fn the_addresses_of_a_pods_node_are_known() {
    let mut pod = pod();
    let of_node = |pod: &Value| {
        let of_node = observed(pod, &Chosen::default()).unwrap().of_node;
        of_node.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    pod["status"]["hostIP"] = "192.0.2.1".into();
    pod["status"]["hostIPs"] = json!([{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}]);
    assert_eq!(of_node(&pod), ["192.0.2.1", "2001:db8::1"]);
    pod["status"]["hostIPs"] = Value::Null;
    assert_eq!(of_node(&pod), ["192.0.2.1"]);
}

/// Bytes that the store may hold for each pod.
const KEPT: u64 = 2048;

#[test]
fn memory_for_250_pods_is_bounded_whatever_they_carry() {
    let texts: Vec<String> = (0..250)
        .map(|number| {
            let mut pod = pod_with(
                &format!("web-{number}"),
                &format!("uid-{number}"),
                &format!("{number:064}"),
            );
            pod["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
                "x".repeat(64 << 10).into();
            pod["metadata"]["managedFields"] = (0..500)
                .map(|field| json!({"manager": format!("m{field}")}))
                .collect();
            pod.to_string()
        })
        .collect();
    let input: usize = texts.iter().map(String::len).sum();
    let chosen = Chosen::default();
    let mut pods = None;
    let memory = measure(|| {
        let store = Pods::default();
        for text in &texts {
            let object: Object = serde_json::from_str(text).unwrap();
            assert!(store.see(object.observed(&chosen).unwrap(), Instant::now()));
        }
        pods = Some(store);
    });
    println!(
        "{} bytes of JSON: kept {}, at most {}",
        input, memory.bytes_current, memory.bytes_max
    );
    assert_eq!(pods.unwrap().len(), 250);
    let kept = u64::try_from(memory.bytes_current).unwrap();
    assert!(kept <= 250 * KEPT, "{memory:?}");
    // One pod at a time is whole.
    assert!(memory.bytes_max <= 250 * KEPT + (256 << 10), "{memory:?}");
}
