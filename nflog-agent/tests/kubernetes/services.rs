//! Services: what is kept of them, whose an address is, the watch, and the agent as a process.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use allocation_counter::measure;
use nflog_agent::workload::kubernetes::{Access, Frontend, Holder, Service, ServiceObject, Services, Watch};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::named::{pod_at, send_until, sender};
use crate::program::Agent;
use crate::server::{Fault, Server};
use crate::support::{Netns, veth, wait_for};
use crate::watch::pace;

/// A Service as kube-apiserver sends it.
pub(crate) fn service(name: &str, address: &str) -> Value {
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "labels": {"app": name},
            "managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:ports": {}}}}]},
        "spec": {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "selector": {"app": name},
            "ipFamilies": ["IPv4"], "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}]},
        "status": {"loadBalancer": {}},
    })
}

fn frontends(service: &Value) -> Vec<Frontend> {
    let object: ServiceObject = serde_json::from_value(service.clone()).unwrap();
    object.frontends()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn whole(text: &str) -> Frontend {
    Frontend::whole(address(text))
}

fn at(text: &str, protocol: u8, port: u16) -> Frontend {
    Frontend::at(address(text), (protocol, port))
}

#[test]
fn a_service_has_its_cluster_addresses_and_shared_ones_by_port() {
    let plain = service("web", "10.96.0.10");
    assert_eq!(frontends(&plain), [whole("10.96.0.10")]);

    let mut dual = plain.clone();
    dual["spec"]["clusterIPs"] = json!(["10.96.0.10", "fd96::10"]);
    assert_eq!(frontends(&dual), [whole("10.96.0.10"), whole("fd96::10")]);

    let mut balanced = plain.clone();
    balanced["spec"]["externalIPs"] = json!(["192.0.2.5"]);
    balanced["spec"]["ports"] = json!([{"port": 53, "protocol": "UDP"}, {"port": 53}, {"port": 9, "protocol": "SCTP"},
        {"port": 9, "protocol": "QUIC"}, {}]);
    balanced["status"]["loadBalancer"] = json!({"ingress": [{"ip": "198.51.100.1", "ipMode": "VIP"},
        {"ip": "198.51.100.2", "ipMode": "Proxy"}, {"hostname": "lb.example"}]});
    let shared = ["192.0.2.5", "198.51.100.1"].map(|ip| [at(ip, 6, 53), at(ip, 17, 53), at(ip, 132, 9)]);
    assert_eq!(
        frontends(&balanced),
        [&[whole("10.96.0.10")], &shared.concat()[..]].concat()
    );

    // kube-proxy serves nothing of these.
    let mut headless = balanced.clone();
    headless["spec"]["clusterIP"] = "None".into();
    headless["spec"]["clusterIPs"] = json!(["None"]);
    assert_eq!(frontends(&headless), []);
    balanced["spec"]["type"] = "ExternalName".into();
    assert_eq!(frontends(&balanced), []);
}

#[test]
fn fields_of_a_service_that_are_null_or_missing_are_no_error_and_many_are_bounded() {
    for text in [
        json!({}),
        json!({"metadata": {"name": "x"}, "spec": {"clusterIPs": null, "ports": null}, "status": {"loadBalancer": null}}),
    ] {
        let object: ServiceObject = serde_json::from_value(text.clone()).unwrap();
        assert_eq!((object.service(), object.frontends()), (None, vec![]), "{text}");
    }
    let mut wide = service("wide", "10.96.0.10");
    wide["spec"]["externalIPs"] = json!(["192.0.2.5"]);
    wide["spec"]["ports"] = (1..1000).map(|port| json!({"port": port})).collect();
    let kept = frontends(&wide);
    assert_eq!((kept.len(), kept[0]), (64, whole("10.96.0.10")));
}

fn named(name: &str) -> Service {
    Service {
        uid: format!("uid-{name}").into(),
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn holder(services: &Services, text: &str) -> Option<(String, bool)> {
    match services.find(address(text), None) {
        Holder::One { service, second_hand } => Some((service.name.to_string(), second_hand)),
        Holder::Nobody | Holder::Several => None,
    }
}

#[test]
fn an_address_that_changed_hands_is_known_as_such_unless_the_service_was_only_made_anew() {
    const ADDRESS: &str = "10.96.0.10";
    let is = |name: &str, second_hand| Some((name.to_owned(), second_hand));
    let services = Services::default();
    let see = |service: Service| assert!(services.see(service, vec![whole(ADDRESS)]));
    see(named("web"));
    services.delete("uid-web");
    assert_eq!(services.find(address(ADDRESS), None), Holder::Nobody);
    see(Service {
        uid: "another".into(),
        ..named("web")
    });
    assert_eq!(holder(&services, ADDRESS), is("web", false));
    // Both are there at once, as in a list after an interruption.
    see(named("db"));
    assert_eq!(services.find(address(ADDRESS), None), Holder::Several);
    services.keep_only(|uid| uid == "uid-db");
    assert_eq!(holder(&services, ADDRESS), is("db", true));
    assert_eq!(services.len(), 1);
}

#[test]
fn one_address_of_two_services_is_told_by_the_port_where_only_the_port_is_theirs() {
    let services = Services::default();
    let shared = "198.51.100.1";
    assert!(services.see(named("web"), vec![at(shared, 6, 443)]));
    assert!(services.see(named("mail"), vec![at(shared, 6, 25)]));
    let name = |port| match services.find(address(shared), port) {
        Holder::One { service, .. } => service.name.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(
        (name(Some((6, 443))), name(Some((6, 25)))),
        ("web".into(), "mail".into())
    );
    assert_eq!(
        (name(None), name(Some((17, 443)))),
        ("Nobody".into(), "Nobody".into())
    );
    // A cluster address that is another's external one.
    assert!(services.see(named("odd"), vec![whole(shared)]));
    assert_eq!(
        (name(Some((6, 443))), name(None)),
        ("Several".into(), "odd".into())
    );
}

#[test]
fn services_beyond_the_capacity_are_left_out_and_have_room_again_later() {
    let services = Services::new(2);
    assert!(services.see(named("a"), vec![whole("10.96.0.1")]));
    assert!(services.see(named("headless"), vec![]));
    assert!(services.see(named("b"), vec![whole("10.96.0.2")]));
    assert!(!services.see(named("c"), vec![whole("10.96.0.3")]));
    assert_eq!(holder(&services, "10.96.0.3"), None);
    services.delete("uid-a");
    assert!(services.see(named("c"), vec![whole("10.96.0.3")]));
    assert_eq!(services.len(), 2);
    for number in 0..5000_u32 {
        let address = IpAddr::from(number.to_be_bytes());
        services.see(named("c"), vec![Frontend::whole(address)]);
    }
    assert_eq!(services.find(IpAddr::from(4999_u32.to_be_bytes()), None), {
        Holder::One {
            service: Arc::new(named("c")),
            second_hand: false,
        }
    });
}

proptest! {
    /// Service number, which of four addresses it has; `None`: it is deleted.
    #[test]
    fn whose_an_address_is_follows_from_who_has_it_now(
        steps in prop::collection::vec((0..4_u8, prop::option::of(prop::collection::btree_set(0..4_u8, 0..3))), 1..40)
    ) {
        let services = Services::new(1000);
        let mut model = BTreeMap::new();
        let address = |number: u8| IpAddr::from([10, 96, 0, number]);
        for (number, addresses) in steps {
            let name = format!("s{number}");
            match addresses {
                Some(addresses) => {
                    let frontends = addresses.iter().map(|&number| Frontend::whole(address(number))).collect();
                    prop_assert!(services.see(named(&name), frontends));
                    model.insert(name, addresses);
                }
                None => {
                    services.delete(&format!("uid-{name}"));
                    model.remove(&name);
                }
            }
            prop_assert_eq!(services.len(), model.values().filter(|addresses| !addresses.is_empty()).count());
            for number in 0..4 {
                let having: Vec<_> = model.iter().filter(|(_, addresses)| addresses.contains(&number)).collect();
                match services.find(address(number), None) {
                    Holder::Nobody => prop_assert!(having.is_empty()),
                    Holder::One { service, .. } => {
                        prop_assert_eq!(having.len(), 1);
                        prop_assert_eq!(&*service.name, having[0].0.as_str());
                    }
                    Holder::Several => prop_assert!(having.len() > 1),
                }
            }
        }
    }
}

/// Bytes that the store may hold for each Service.
const KEPT: u64 = 512;

#[test]
fn memory_for_5000_services_is_bounded_whatever_they_carry() {
    let texts: Vec<String> = (0..5000_u32)
        .map(|number| {
            let address = IpAddr::from((0x0a60_0000 + number).to_be_bytes());
            let mut service = service(&format!("service-{number}"), &address.to_string());
            service["metadata"]["uid"] = format!("b7e1c0de-1234-4abc-9def-{number:012}").into();
            service["spec"]["clusterIPs"] = json!([address, format!("fd96::{number:x}")]);
            service["metadata"]["annotations"] =
                json!({"kubectl.kubernetes.io/last-applied-configuration": "x".repeat(2048)});
            service.to_string()
        })
        .collect();
    let input: usize = texts.iter().map(String::len).sum();
    let mut services = None;
    let memory = measure(|| {
        let store = Services::default();
        for text in &texts {
            let object: ServiceObject = serde_json::from_str(text).unwrap();
            assert!(store.see(object.service().unwrap(), object.frontends()));
        }
        services = Some(store);
    });
    println!(
        "{} bytes of JSON: kept {}, at most {}",
        input, memory.bytes_current, memory.bytes_max
    );
    assert_eq!(services.unwrap().len(), 5000);
    let kept = u64::try_from(memory.bytes_current).unwrap();
    assert!(kept <= 5000 * KEPT, "{memory:?}");
}

/// A watch on Services that runs, and what it knows.
struct Running {
    services: Arc<Services>,
    _directory: tempfile::TempDir,
    _runtime: Runtime,
}

impl Running {
    fn of(server: &Server) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (config, _) = Server::kubeconfig(server.address(), directory.path());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let services = Arc::new(Services::default());
        let watch = Watch {
            access: Access::Kubeconfig(config),
            of: Arc::clone(&services),
            pace: pace(),
        };
        runtime.spawn(watch.run());
        Self {
            services,
            _directory: directory,
            _runtime: runtime,
        }
    }

    #[track_caller]
    fn expect(&self, address: &str, name: Option<&str>) {
        wait_for(&format!("{address} is {name:?}'s"), || {
            let found = holder(&self.services, address).map(|(name, _)| name);
            (found.as_deref() == name).then_some(())
        });
    }
}

fn numbered(number: usize) -> String {
    format!("10.96.{}.{}", number / 256, number % 256)
}

#[test]
fn services_of_the_whole_cluster_are_listed_in_pages_and_followed() {
    let server = Server::start();
    for number in 0..1200 {
        server.put(service(&format!("web-{number}"), &numbered(number)));
    }
    server.put(crate::pod());
    let running = Running::of(&server);
    for number in [0, 700, 1199] {
        running.expect(&numbered(number), Some(&format!("web-{number}")));
    }
    server.put(service("new", "10.97.0.1"));
    running.expect("10.97.0.1", Some("new"));
    server.put(service("new", "10.97.0.2"));
    running.expect("10.97.0.2", Some("new"));
    running.expect("10.97.0.1", None);
    server.delete("uid-new");
    running.expect("10.97.0.2", None);

    let requests = server.requests();
    let lists = requests.iter().filter(|path| !path.contains("watch=true"));
    assert_eq!(lists.count(), 3, "{requests:?}");
    let is_plain = |path: &String| path.starts_with("/api/v1/services?") && !path.contains("fieldSelector");
    assert!(requests.iter().all(is_plain), "{requests:?}");
}

#[test]
fn services_are_listed_anew_where_the_history_is_gone_and_a_server_that_refuses_is_asked_again() {
    let server = Server::start();
    server.forbid("services", true);
    server.fail(&[Fault::Status(500), Fault::HangUp]);
    server.put(service("old", "10.96.0.1"));
    let running = Running::of(&server);
    wait_for("refusals", || (server.requests().len() > 4).then_some(()));
    assert!(running.services.is_empty());
    server.forbid("services", false);
    running.expect("10.96.0.1", Some("old"));
    server.cut();
    server.delete("uid-old");
    server.put(service("new", "10.96.0.2"));
    server.compact();
    running.expect("10.96.0.2", Some("new"));
    running.expect("10.96.0.1", None);
}

/// An agent in a pod's namespace, with a second pod and an address beside it that leads nowhere.
struct Scene {
    server: Server,
    agent: Agent,
    near: String,
    far: String,
    netns: Netns,
    _other: Netns,
    _directory: tempfile::TempDir,
}

const UID: &str = "b7e1c0de-1234-4abc-9def-0123456789ab";
const ADDRESS: &str = "10.96.0.10";
const RULES: &str = "table inet t {
    chain out { type filter hook output priority 0; udp dport 9999 log prefix \"service \" group 7; }
}";

impl Scene {
    fn start(more: &[&str], forbidden: bool) -> Self {
        let (netns, other) = (Netns::new("pod"), Netns::new("other"));
        let (near, far) = veth(&netns, &other);
        netns.nft(RULES);
        let (near, far) = (near.v4.to_string(), far.v4.to_string());
        netns.ip(&format!("route add {ADDRESS}/32 via {far}"));
        let server = Server::start();
        server.forbid("services", forbidden);
        server.put(pod_at("web", UID, &"5f".repeat(32), &near));
        server.put(service("db", ADDRESS));
        let directory = tempfile::tempdir().unwrap();
        let (config, _) = Server::kubeconfig(server.address(), directory.path());
        let arguments = [&["--output", "json", "--container-sockets", "off"], more].concat();
        let environment = [
            ("KUBECONFIG", config.to_str().unwrap()),
            ("K8S_NODE_NAME", "node-1"),
        ];
        let mut agent = Agent::on(&netns, &arguments, &environment);
        agent.wait_until_said("naming the pods of node node-1: 1 are known");
        Self {
            server,
            agent,
            near,
            far,
            netns,
            _other: other,
            _directory: directory,
        }
    }

    fn record(&self, to: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut sender = sender(&self.netns, UID, &"5f".repeat(32), &format!("{to}:9999"));
        send_until(&self.agent, &mut sender, |record| {
            record["resource"].get("k8s.pod.name").is_some() && wanted(&record["attributes"])
        })
    }

    fn end(self) -> String {
        let ended = self.agent.stop();
        assert_eq!(ended.code, Some(0), "{}", ended.messages());
        ended.messages()
    }
}

const NAME: &str = "nflog.peer.k8s.service.name";

#[test]
fn a_record_names_the_service_at_the_other_end_while_the_address_is_its_alone() {
    let mut scene = Scene::start(&["--kubernetes-services"], false);
    scene
        .agent
        .wait_until_said("naming the Services of the cluster: 1 are known");
    let record = scene.record(ADDRESS, |record| record.get(NAME).is_some());
    let attributes = &record["attributes"];
    for (name, value) in [
        (NAME, json!("db")),
        ("nflog.peer.k8s.service.uid", json!("uid-db")),
        ("nflog.peer.k8s.namespace.name", json!("shop")),
        ("nflog.peer.k8s.pod.name", Value::Null),
        ("nflog.peer.service.name", Value::Null),
    ] {
        assert_eq!(attributes[name], value, "{name}: {attributes}");
    }
    // A Service that another one's address, or a pod's, is given to: nobody's, as long as it is.
    scene.server.put(service("second", ADDRESS));
    scene.record(ADDRESS, |record| record[NAME].is_null());
    scene.server.delete("uid-second");
    scene.record(ADDRESS, |record| record[NAME] == "db");
    let uid = "b7e1c0de-5678-4abc-9def-0123456789ab";
    scene
        .server
        .put(pod_at("late", uid, &"6e".repeat(32), &scene.far));
    scene.record(&scene.far, |record| record["nflog.peer.k8s.pod.name"] == "late");
    scene.server.put(service("third", &scene.far));
    let far = scene.record(&scene.far, |record| record["nflog.peer.k8s.pod.name"].is_null());
    assert_eq!(far["attributes"][NAME], Value::Null);
    // The node's own address, which an external one may be.
    let mut external = service("external", "10.96.0.77");
    external["spec"]["externalIPs"] = json!([ADDRESS]);
    external["spec"]["ports"] = json!([{"port": 9999, "protocol": "UDP"}]);
    scene.server.put(external);
    scene.server.delete("uid-db");
    scene.record(ADDRESS, |record| record[NAME] == "external");
    let mut own = pod_at("web", UID, &"5f".repeat(32), &scene.near);
    own["status"]["hostIP"] = ADDRESS.into();
    scene.server.put(own);
    scene.record(ADDRESS, |record| record[NAME].is_null());
    scene.end();
}

#[test]
fn without_the_setting_services_are_not_asked_for() {
    let scene = Scene::start(&[], false);
    let record = scene.record(ADDRESS, |_| true);
    assert_eq!(record["attributes"][NAME], Value::Null, "{record}");
    let requests = scene.server.requests();
    assert!(
        requests.iter().all(|path| path.starts_with("/api/v1/pods?")),
        "{requests:?}"
    );
    scene.end();
}

#[test]
fn a_refusal_names_services_and_the_role_and_pods_are_named_all_the_same() {
    let mut scene = Scene::start(&["--kubernetes-services"], true);
    scene
        .agent
        .wait_until_said("Services of the cluster are not named");
    scene.record(ADDRESS, |record| record[NAME].is_null());
    scene.server.forbid("services", false);
    scene.record(ADDRESS, |record| record[NAME] == "db");
    let said = scene.end();
    let remedy = "get, list and watch of services, as in deploy/kustomize/services";
    assert_eq!(said.matches(remedy).count(), 1, "{said}");
}

#[test]
fn check_asks_for_services_and_says_what_is_not_allowed() {
    let server = Server::start();
    server.put(crate::pod());
    let directory = tempfile::tempdir().unwrap();
    let (config, _) = Server::kubeconfig(server.address(), directory.path());
    let check = |more: &[&str]| {
        let mut command = std::process::Command::new(crate::program::binary());
        command
            .args(["check", "--output", "json", "--group", "7", "--"])
            .args(more)
            .env("KUBECONFIG", &config)
            .env("K8S_NODE_NAME", "node-1");
        let output = command.output().unwrap();
        let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {output:?}");
        });
        let of = |name: &str| all.iter().find(|finding| finding["check"] == name).cloned();
        (of("kubernetes").unwrap(), of("kubernetes-services"))
    };
    let (pods, services) = check(&[]);
    assert_eq!((pods["status"].as_str(), services), (Some("ok"), None), "{pods}");
    let asked = server.requests();
    assert!(
        asked.iter().all(|path| path.starts_with("/api/v1/pods?")),
        "{asked:?}"
    );

    let (_, services) = check(&["--kubernetes-services"]);
    assert_eq!(services.unwrap()["status"], "ok");
    server.forbid("services", true);
    let (pods, services) = check(&["--kubernetes-services"]);
    let services = services.unwrap();
    assert_eq!(
        (&pods["status"], &services["status"]),
        (&json!("ok"), &json!("warning"))
    );
    let text = services.to_string();
    assert!(text.contains("get, list and watch of services"), "{text}");
    // To list is not enough.
    server.forbid("services", false);
    server.forbid_watching("services");
    let (_, services) = check(&["--kubernetes-services"]);
    assert_eq!(services.unwrap()["status"], "warning");
}
