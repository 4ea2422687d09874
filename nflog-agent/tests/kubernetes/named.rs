//! The agent as a process: a sender in a pod's cgroup, a rule, and a record with the pod's names.

use serde_json::Value;

use crate::pod_with;
use crate::program::Agent;
use crate::server::Server;
use crate::support::sender::Sender;
use crate::support::{Netns, veth, wait_for};

const UID: &str = "b7e1c0de-1234-4abc-9def-0123456789ab";
const RULES: &str = "table inet t {
    chain out { type filter hook output priority 0; udp dport 9999 log prefix \"pod \" group 7; }
}";

/// Sends from the cgroup of a pod's container, as the kubelet and containerd name it.
pub(crate) fn sender(netns: &Netns, uid: &str, container: &str, to: &str) -> Sender {
    let slice = format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
    let scope = format!("cri-containerd-{container}.scope");
    Sender::start(
        netns,
        &["kubepods.slice", "kubepods-burstable.slice", &slice, &scope],
        to,
    )
}

/// Sends until a record is as wanted; returns it.
pub(crate) fn send_until(agent: &Agent, sender: &mut Sender, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for("the record", || {
        sender.send();
        let lines = agent.take_output();
        let mut records = lines
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.find(|record| wanted(record))
    })
}

#[test]
fn a_record_of_a_pod_has_its_uid_first_and_its_names_once_the_api_server_answers() {
    let netns = Netns::new("pod");
    netns.nft(RULES);
    let server = Server::start();
    server.forbid("pods", true);
    let directory = tempfile::tempdir().unwrap();
    let (config, _) = Server::kubeconfig(server.address(), directory.path());
    let container = "5f3c1e0b9a8d7c6b5a493827160f5e4d3c2b1a0918273645f0e1d2c3b4a59687";
    server.put(pod_with("web-5d4f8c7b9-x7k2p", UID, container));

    let arguments = ["--output", "json", "--kubernetes-labels", "team"];
    let environment = [
        ("KUBECONFIG", config.to_str().unwrap()),
        ("K8S_NODE_NAME", "node-1"),
    ];
    let mut agent = Agent::on(&netns, &arguments, &environment);
    agent.wait_until_said("forbids it");
    let mut sender = sender(&netns, UID, container, "127.0.0.1:9999");
    let mut bare = send_until(&agent, &mut sender, |record| {
        record["resource"]["k8s.pod.uid"] == UID
    });
    let body = format!("pod:{UID}");
    assert!(bare["body"].as_str().unwrap().contains(&body), "{bare}");
    let bare = bare["resource"].take();
    assert_eq!(
        (&bare["container.id"], bare.get("k8s.pod.name")),
        (&Value::from(container), None)
    );

    server.forbid("pods", false);
    agent.wait_until_said("naming the pods of node node-1: 1 are known");
    let mut named = send_until(&agent, &mut sender, |record| {
        record["resource"].get("k8s.pod.name").is_some()
    });
    let body = "pod:shop/web-5d4f8c7b9-x7k2p/app";
    assert!(named["body"].as_str().unwrap().contains(body), "{named}");
    let named = named["resource"].take();
    for (name, value) in [
        ("k8s.pod.name", "web-5d4f8c7b9-x7k2p"),
        ("k8s.namespace.name", "shop"),
        ("k8s.node.name", "node-1"),
        ("k8s.container.name", "app"),
        ("k8s.deployment.name", "web"),
        ("k8s.replicaset.name", "web-5d4f8c7b9"),
        ("k8s.pod.label.team", "shop"),
        ("k8s.pod.uid", UID),
        ("container.id", container),
        ("container.image.name", "registry.example:5000/web"),
        ("service.name", "web"),
    ] {
        assert_eq!(named[name], value, "{name}: {named}");
    }
    assert_eq!(named["container.image.tags"], serde_json::json!(["v2"]));
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages());
    assert_eq!(
        ended.messages().matches("forbids it").count(),
        1,
        "{}",
        ended.messages()
    );
    assert!(!ended.messages().contains("first-token"), "{}", ended.messages());
}

/// A pod that runs and has an address.
pub(crate) fn pod_at(name: &str, uid: &str, container: &str, address: &str) -> Value {
    let mut pod = pod_with(name, uid, container);
    pod["status"]["phase"] = "Running".into();
    pod["status"]["podIP"] = address.into();
    pod["status"]["podIPs"] = serde_json::json!([{ "ip": address }]);
    pod
}

#[test]
fn the_pod_at_the_other_end_is_named_where_its_address_can_mean_no_other() {
    const OTHER: &str = "b7e1c0de-5678-4abc-9def-0123456789ab";
    let (netns, other, outside) = (Netns::new("pod"), Netns::new("other"), Netns::new("outside"));
    let (near, far) = veth(&netns, &other);
    for netns in [&netns, &outside] {
        netns.nft(RULES);
    }
    // The same address, in a network that is none of the cluster's.
    outside.ip(&format!("address add {}/32 dev lo", far.v4));
    let (near, far) = (near.v4.to_string(), far.v4.to_string());
    let (web, db) = ("5f".repeat(32), "6e".repeat(32));
    let server = Server::start();
    let directory = tempfile::tempdir().unwrap();
    let (config, _) = Server::kubeconfig(server.address(), directory.path());
    server.put(pod_at("web", UID, &web, &near));
    server.put(pod_at("db", OTHER, &db, &far));
    let paths = [&netns, &outside].map(|netns| netns.path().display().to_string());
    let arguments = [
        "--group",
        "7",
        "--netns",
        &paths[0],
        "--netns",
        &paths[1],
        "--output",
        "json",
        "--container-sockets",
        "off",
    ];
    let environment = [
        ("KUBECONFIG", config.to_str().unwrap()),
        ("K8S_NODE_NAME", "node-1"),
    ];
    let mut agent = Agent::start(&arguments, &environment);
    agent.wait_until_said("2 are known");
    let to = format!("{far}:9999");
    let (mut inside, mut stranger) = (
        sender(&netns, UID, &web, &to),
        sender(&outside, UID, "ab".repeat(32).as_str(), &to),
    );
    let peer = |record: &Value| record["attributes"]["nflog.peer.k8s.pod.name"].clone();
    let named = |record: &Value| record["resource"].get("k8s.pod.name").is_some();
    let record = send_until(&agent, &mut inside, named);
    let attributes = &record["attributes"];
    // The fixture's pods are of a Deployment.
    for (name, value) in [
        ("nflog.peer.k8s.pod.name", "db"),
        ("nflog.peer.k8s.pod.uid", OTHER),
        ("nflog.peer.k8s.namespace.name", "shop"),
        ("nflog.peer.service.name", "web"),
    ] {
        assert_eq!(attributes[name], value, "{name}: {attributes}");
    }
    // A process of the very pod, but in a network of its own, as in Docker in a pod.
    let record = send_until(&agent, &mut stranger, |record| {
        record["attributes"]["nflog.netns.inode"] == outside.inode() && named(record)
    });
    assert_eq!(peer(&record), Value::Null, "{record}");

    // In the node's network the address is the node's, whoever else the API gives it to.
    let mut on_node = pod_at("db", OTHER, &db, &far);
    on_node["spec"]["hostNetwork"] = true.into();
    server.put(on_node);
    send_until(&agent, &mut inside, |record| {
        named(record) && peer(record).is_null()
    });
    server.put(pod_at("db", OTHER, &db, &far));
    send_until(&agent, &mut inside, |record| peer(record) == "db");
    // Another pod has it, too: nobody can tell.
    server.put(pod_at(
        "late",
        "b7e1c0de-9999-4abc-9def-0123456789ab",
        &"7d".repeat(32),
        &far,
    ));
    send_until(&agent, &mut inside, |record| peer(record).is_null());
    // The first has ended: it is the other's.
    let mut ended = pod_at("db", OTHER, &db, &far);
    ended["status"]["phase"] = "Succeeded".into();
    server.put(ended);
    send_until(&agent, &mut inside, |record| peer(record) == "late");
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages());
}

#[test]
fn what_is_missing_is_said_with_the_remedy() {
    let netns = Netns::new("pod");
    let path = netns.path().display().to_string();
    let run = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut all = vec!["--group", "7", "--netns", &path, "--output", "json"];
        all.extend(arguments);
        Agent::spawn(&all, environment)
    };
    for (arguments, environment, word) in [
        (
            ["--kubernetes", "on"],
            vec![("KUBECONFIG", "")],
            "no Kubernetes API to ask",
        ),
        (
            ["--kubernetes", "on"],
            vec![("KUBECONFIG", "/k"), ("K8S_NODE_NAME", "")],
            "set --kubernetes-node",
        ),
        (["--kubernetes-node", "a,b"], vec![("KUBECONFIG", "/k")], "'a,b'"),
        (["--kubernetes-labels", "a b"], vec![], "'a b'"),
    ] {
        let ended = run(&arguments, &environment).wait();
        assert_eq!(ended.code, Some(64), "{word}: {}", ended.messages());
        assert!(ended.messages().contains(word), "{word}: {}", ended.messages());
    }
}
