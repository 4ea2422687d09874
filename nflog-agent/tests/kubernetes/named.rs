//! The agent as a process: a sender in a pod's cgroup, a rule, and a record with the pod's names.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::pod_with;
use crate::program::Agent;
use crate::server::Server;
use crate::support::{Netns, cgroup2_root, wait_for};

const UID: &str = "b7e1c0de-1234-4abc-9def-0123456789ab";
const RULES: &str = "table inet t {
    chain out { type filter hook output priority 0; udp dport 9999 log prefix \"pod \" group 7; }
}";

/// A shell in a cgroup that is named as the kubelet and containerd do it. It sends a datagram for each line it is given.
struct Sender {
    child: Child,
    cgroups: Vec<PathBuf>,
}

impl Sender {
    fn start(netns: &Netns, container: &str) -> Self {
        let slice = cgroup2_root().join(format!(
            "nflogtest{}-kubepods-burstable-pod{}.slice",
            std::process::id(),
            UID.replace('-', "_")
        ));
        let scope = slice.join(format!("cri-containerd-{container}.scope"));
        fs::create_dir_all(&scope).expect("this test needs root and cgroup v2: it makes a pod's cgroup");
        let script = format!(
            "echo $$ > {}/cgroup.procs; exec 3>/dev/udp/127.0.0.1/9999; while read -r line; do echo x >&3; done",
            scope.display()
        );
        // Not by `ip netns exec`, which hides the cgroup file system behind a new /sys.
        let child = netns.run(|| {
            let mut command = Command::new("bash");
            command
                .args(["-c", &script])
                .stdin(Stdio::piped())
                .stderr(Stdio::null());
            command.spawn().unwrap()
        });
        Self {
            child,
            cgroups: vec![scope, slice],
        }
    }

    fn send(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for cgroup in &self.cgroups {
            // Busy for a moment after its last process has ended.
            for _ in 0..50 {
                if fs::remove_dir(cgroup).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}

/// Sends until a record's Resource is as wanted; returns the record.
fn send_until(agent: &Agent, sender: &mut Sender, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for("the record", || {
        sender.send();
        let lines = agent.take_output();
        let mut records = lines
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.find(|record| wanted(&record["resource"]))
    })
}

#[test]
fn a_record_of_a_pod_has_its_uid_first_and_its_names_once_the_api_server_answers() {
    let netns = Netns::new("pod");
    netns.nft(RULES);
    let server = Server::start();
    server.forbid(true);
    let directory = tempfile::tempdir().unwrap();
    let (config, _) = Server::kubeconfig(server.address(), directory.path());
    let container = "5f3c1e0b9a8d7c6b5a493827160f5e4d3c2b1a0918273645f0e1d2c3b4a59687";
    server.put(pod_with("web-5d4f8c7b9-x7k2p", UID, container));

    let path = netns.path().display().to_string();
    let arguments = [
        "--group",
        "7",
        "--netns",
        &path,
        "--output",
        "json",
        "--kubernetes-labels",
        "team",
    ];
    let environment = [
        ("KUBECONFIG", config.to_str().unwrap()),
        ("K8S_NODE_NAME", "node-1"),
    ];
    let mut agent = Agent::start(&arguments, &environment);
    agent.wait_until_said("forbids it");
    let mut sender = Sender::start(&netns, container);
    let mut bare = send_until(&agent, &mut sender, |resource| resource["k8s.pod.uid"] == UID);
    let body = format!("pod:{UID}");
    assert!(bare["body"].as_str().unwrap().contains(&body), "{bare}");
    let bare = bare["resource"].take();
    assert_eq!(
        (&bare["container.id"], bare.get("k8s.pod.name")),
        (&Value::from(container), None)
    );

    server.forbid(false);
    agent.wait_until_said("naming the pods of node node-1: 1 are known");
    let mut named = send_until(&agent, &mut sender, |resource| {
        resource.get("k8s.pod.name").is_some()
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
