//! End to end: processes in cgroups as each runtime names them, in a network namespace, and what the records say of them. In cgroup v2,
//! and in a v1 hierarchy beside it.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};

use crate::pods::pod_with;
use crate::program::Agent;
use crate::server::Server;
use crate::support::sender::Sender;
use crate::support::{Netns, cgroup2_root, mount as mounted, veth, wait_for};

const TO: &str = "127.0.0.1:9999";
const RULES: &str = "table inet t {
    chain out { type filter hook output priority 0; udp dport 9999 log prefix \"place \" group 7; }
}";

/// Names of the cgroups, with `{id}`, `{uid}` and `{uid_}`; the runtime; whether it is in a pod, in a unit, in a slice.
struct Style {
    names: &'static [&'static str],
    runtime: Option<&'static str>,
    pod: bool,
    unit: Option<(&'static str, &'static str)>,
}

const fn pod(names: &'static [&'static str], runtime: Option<&'static str>) -> Style {
    Style {
        names,
        runtime,
        pod: true,
        unit: None,
    }
}

const fn container(names: &'static [&'static str], runtime: &'static str) -> Style {
    Style {
        names,
        runtime: Some(runtime),
        pod: false,
        unit: None,
    }
}

const STYLES: [Style; 12] = [
    pod(
        &[
            "kubepods.slice",
            "kubepods-burstable.slice",
            "kubepods-burstable-pod{uid_}.slice",
            "cri-containerd-{id}.scope",
        ],
        Some("containerd"),
    ),
    // Guaranteed, and crun's child group.
    pod(
        &[
            "kubepods.slice",
            "kubepods-pod{uid_}.slice",
            "crio-{id}.scope",
            "container",
        ],
        Some("cri-o"),
    ),
    // cri-dockerd
    pod(
        &[
            "kubepods.slice",
            "kubepods-besteffort.slice",
            "kubepods-besteffort-pod{uid_}.slice",
            "docker-{id}.scope",
        ],
        Some("docker"),
    ),
    pod(&["kubepods", "burstable", "pod{uid}", "{id}"], None),
    pod(&["kubepods", "pod{uid}", "crio-{id}"], Some("cri-o")),
    // containerd that is told to use systemd's paths without systemd
    pod(
        &[
            "system.slice",
            "kubepods-besteffort-pod{uid_}.slice:cri-containerd:{id}",
        ],
        Some("containerd"),
    ),
    // kind
    pod(
        &[
            "docker",
            "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
            "kubelet.slice",
            "kubelet-kubepods.slice",
            "kubelet-kubepods-pod{uid_}.slice",
            "cri-containerd-{id}.scope",
        ],
        Some("containerd"),
    ),
    container(&["docker", "{id}"], "docker"),
    container(&["machine.slice", "libpod-{id}.scope", "container"], "podman"),
    // Sysbox
    container(&["docker", "{id}", "syscont-cgroup-root", "init.scope"], "docker"),
    container(&["lxc.payload.web", "system.slice", "nginx.service"], "lxc"),
    Style {
        names: &["system.slice", "web.service"],
        runtime: None,
        pod: false,
        unit: Some(("web.service", "system.slice")),
    },
];

impl Style {
    fn id(&self, number: usize) -> Option<String> {
        match self.runtime {
            Some("lxc") => Some("web".to_owned()),
            None if !self.pod => None,
            _ => Some(format!("{number:02x}").repeat(32)),
        }
    }

    fn uid(number: usize) -> String {
        format!("b7e1c0de-1234-4abc-9def-0123456789{number:02x}")
    }

    fn names(&self, number: usize) -> Vec<String> {
        let (id, uid) = (format!("{number:02x}").repeat(32), Self::uid(number));
        let fill = |name: &&str| {
            name.replace("{id}", &id)
                .replace("{uid}", &uid)
                .replace("{uid_}", &uid.replace('-', "_"))
        };
        self.names.iter().map(fill).collect()
    }

    fn start(&self, number: usize, root: &Path, netns: &Netns, to: &str) -> Sender {
        let names = self.names(number);
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        Sender::start_below(root, netns, &names, to)
    }

    /// Its pod, as the API has it.
    fn of_api(&self, number: usize) -> Value {
        pod_with(
            &format!("pod-{number}"),
            &Self::uid(number),
            &self.id(number).unwrap(),
        )
    }

    /// What a record's Resource must say.
    fn check(&self, number: usize, record: &Value) {
        let resource = &record["resource"];
        let text = |value: Option<&str>| value.map_or(Value::Null, Value::from);
        let pod = |value: &str| if self.pod { Value::from(value) } else { Value::Null };
        for (name, expected) in [
            ("container.id", text(self.id(number).as_deref())),
            ("container.runtime.name", text(self.runtime)),
            ("k8s.pod.uid", pod(&Self::uid(number))),
            ("k8s.pod.name", pod(&format!("pod-{number}"))),
            ("k8s.namespace.name", pod("shop")),
            ("k8s.container.name", pod("app")),
            ("nflog.systemd.unit", text(self.unit.map(|(unit, _)| unit))),
            ("nflog.systemd.slice", text(self.unit.map(|(_, slice)| slice))),
        ] {
            assert_eq!(resource[name], expected, "{name} of {:?}: {record}", self.names);
        }
    }
}

/// An agent that watches the pods of all styles, in a namespace with a rule.
struct Scene {
    netns: Netns,
    server: Server,
    agent: Agent,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn start(more: &[&str]) -> Self {
        let netns = Netns::new("place");
        netns.nft(RULES);
        let server = Server::start();
        for (number, style) in STYLES.iter().enumerate().filter(|(_, style)| style.pod) {
            server.put(style.of_api(number));
        }
        let pods = STYLES.iter().filter(|style| style.pod).count();
        Self::with(netns, server, more, &format!("{pods} are known"))
    }

    /// `said`: by the agent, once it knows all.
    fn with(netns: Netns, server: Server, more: &[&str], said: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (config, _) = Server::kubeconfig(server.address(), directory.path());
        name_an_authority(&config, directory.path());
        let arguments = [&["--output", "json", "--container-sockets", "off"], more].concat();
        let environment = [
            ("KUBECONFIG", config.to_str().unwrap()),
            ("K8S_NODE_NAME", "node-1"),
        ];
        let mut agent = Agent::on(&netns, &arguments, &environment);
        agent.wait_until_said(said);
        Self {
            netns,
            server,
            agent,
            _directory: directory,
        }
    }

    /// The next record of a process.
    fn record_of(&self, pid: u32, act: impl FnMut()) -> Value {
        self.record(&format!("of process {pid}"), act, |record| {
            record["attributes"]["process.pid"] == pid
        })
    }

    /// The next record that is as wanted.
    fn record(&self, what: &str, mut act: impl FnMut(), wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(&format!("a record {what}"), || {
            act();
            let lines = self.agent.take_output();
            let mut records = lines
                .iter()
                .map(|line| serde_json::from_str::<Value>(line).unwrap());
            records.find(|record| wanted(record))
        })
    }

    fn end(self) {
        let ended = self.agent.stop();
        assert_eq!(ended.code, Some(0), "{}", ended.messages());
    }
}

/// Without an authority of its own in the file the client wants those of the system, and a guest has none.
fn name_an_authority(config: &Path, directory: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let authority = directory.join("ca.crt");
    fs::write(&authority, pem).unwrap();
    let text = fs::read_to_string(config).unwrap();
    let line = format!(
        "\n    certificate-authority: {}\n    server: ",
        authority.display()
    );
    fs::write(config, text.replacen("\n    server: ", &line, 1)).unwrap();
}

/// A v1 hierarchy of the controller `pids`: the host's, or one of this test beside cgroup v2.
struct Hierarchy {
    root: PathBuf,
    _own: Option<Mounted>,
}

struct Mounted(tempfile::TempDir);

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.0.path(), UnmountFlags::DETACH) {
            eprintln!("{} is still mounted: {error}", self.0.path().display());
        }
    }
}

impl Hierarchy {
    /// `None`, with a word, where the kernel has the controller in cgroup v2 or not at all.
    fn find() -> Option<Self> {
        let of_host =
            mounted(|fields| fields[2] == "cgroup" && fields[3].split(',').any(|option| option == "pids"));
        if let Some(root) = of_host {
            return Some(Self { root, _own: None });
        }
        let directory = tempfile::tempdir().unwrap();
        let options = CString::new("pids").unwrap();
        match mount(
            "cgroup",
            directory.path(),
            "cgroup",
            MountFlags::empty(),
            options.as_c_str(),
        ) {
            Ok(()) => Some(Self {
                root: directory.path().to_owned(),
                _own: Some(Mounted(directory)),
            }),
            Err(error) => {
                println!("SKIPPED: this kernel has no v1 hierarchy of the controller pids to give: {error}");
                None
            }
        }
    }
}

fn each_style(root: &Path) -> Vec<Value> {
    let scene = Scene::start(&[]);
    let mut records = Vec::new();
    for (number, style) in STYLES.iter().enumerate() {
        let mut sender = style.start(number, root, &scene.netns, TO);
        let record = scene.record_of(sender.pid(), || sender.send());
        style.check(number, &record);
        assert_eq!(
            record["attributes"]["process.linux.cgroup"],
            sender.path.as_str(),
            "{record}"
        );
        records.push(record);
    }
    scene.end();
    records
}

#[test]
fn each_style_of_cgroup_path_leads_to_its_container_pod_and_unit() {
    for record in each_style(&cgroup2_root()) {
        assert!(record["attributes"]["nflog.cgroup.id"].is_u64(), "{record}");
    }
}

#[test]
fn each_style_in_a_v1_hierarchy_leads_to_its_container_pod_and_unit() {
    let Some(hierarchy) = Hierarchy::find() else {
        return;
    };
    for record in each_style(&hierarchy.root) {
        // Ids of different hierarchies must not be taken for each other.
        assert_eq!(record["attributes"].get("nflog.cgroup.id"), None, "{record}");
    }
}

/// The kernel holds the packet until process, cgroup and pod are gone.
fn gone(root: &Path) {
    if !crate::has_kprobes() {
        return;
    }
    let scene = Scene::start(&["--flush-timeout", "4s"]);
    let number = 0;
    let style = &STYLES[number];
    let mut sender = style.start(number, root, &scene.netns, TO);
    let (pid, path) = (sender.pid(), sender.path.clone());
    sender.send();
    wait_for("the packet", || (sent(&scene.netns) > 0).then_some(()));
    sender.end();
    assert!(!root.join(path.trim_start_matches('/')).exists());
    scene.server.delete(&Style::uid(number));
    let record = scene.record_of(pid, || {});
    style.check(number, &record);
    assert_eq!(
        record["attributes"]["process.linux.cgroup"],
        path.as_str(),
        "{record}"
    );
    assert_eq!(
        record["attributes"]["process.executable.name"],
        json!("bash"),
        "{record}"
    );
    scene.end();
}

/// UDP datagrams that the namespace has sent.
fn sent(netns: &Netns) -> u64 {
    let snmp = netns.run(|| fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "OutDatagrams").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

#[test]
fn a_container_that_is_gone_before_its_packet_is_read_keeps_its_names() {
    gone(&cgroup2_root());
}

#[test]
fn a_container_in_a_v1_hierarchy_that_is_gone_before_its_packet_is_read_keeps_its_names() {
    let Some(hierarchy) = Hierarchy::find() else {
        return;
    };
    gone(&hierarchy.root);
}

/// Logs before and after a Service's address is translated into a pod's, as kube-proxy does it.
fn service_rules(service: &str, pod: &str) -> String {
    format!(
        "table inet t {{
            chain before {{ type filter hook output priority -150; udp dport 9999 log prefix \"before\" group 7; }}
            chain translate {{ type nat hook output priority -100; ip daddr {service} udp dport 9999 dnat ip to {pod}:9999; }}
            chain after {{ type filter hook output priority 0; udp dport 9999 log prefix \"after\" group 7; }}
        }}"
    )
}

#[test]
fn a_connection_to_a_service_has_the_pod_that_it_reached_and_the_service() {
    const SERVICE: &str = "10.96.0.10";
    if !crate::has_kprobes() {
        return;
    }
    let (netns, other) = (Netns::new("pod"), Netns::new("other"));
    let (near, far) = veth(&netns, &other);
    netns.ip(&format!("route add {SERVICE}/32 via {}", far.v4));
    netns.nft(&service_rules(SERVICE, &far.v4.to_string()));
    let server = Server::start();
    let pod = |number: usize, namespace: &str, address: std::net::Ipv4Addr| {
        let mut pod = STYLES[number].of_api(number);
        pod["metadata"]["namespace"] = namespace.into();
        pod["status"]["phase"] = "Running".into();
        pod["status"]["podIP"] = address.to_string().into();
        pod["status"]["podIPs"] = json!([{ "ip": address.to_string() }]);
        pod
    };
    server.put(pod(0, "shop", near.v4));
    server.put(pod(1, "shop", far.v4));
    server.put(json!({
        "kind": "Service", "metadata": {"name": "db", "namespace": "shop", "uid": "uid-db"},
        "spec": {"clusterIP": SERVICE, "clusterIPs": [SERVICE]},
    }));
    let said = "naming the Services of the cluster: 1 are known";
    let scene = Scene::with(netns, server, &["--kubernetes-services"], said);
    let mut sender = STYLES[0].start(0, &cgroup2_root(), &scene.netns, &format!("{SERVICE}:9999"));
    let mut expect = |prefix: &str, pod: Value, namespace: &str, service: Value| {
        let wanted = [
            ("nflog.prefix", prefix.into()),
            ("nflog.peer.k8s.pod.name", pod),
            ("nflog.peer.k8s.namespace.name", namespace.into()),
            ("nflog.peer.k8s.service.name", service),
        ];
        scene.record(
            &format!("with {wanted:?}"),
            || sender.send(),
            |record| {
                wanted
                    .iter()
                    .all(|(name, value)| record["attributes"][name] == *value)
            },
        );
    };
    expect("before", Value::Null, "shop", "db".into());
    expect("after", "pod-1".into(), "shop", "db".into());
    // A record has room for one namespace.
    scene.server.put(pod(1, "other", far.v4));
    expect("after", "pod-1".into(), "other", Value::Null);
    drop(sender);
    scene.end();
}
