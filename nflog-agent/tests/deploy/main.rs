//! Every file below `deploy/` is judged by the program that judges such files elsewhere, and the files agree with each other.
//!
//! Needs root (nft), systemd-analyze, and the Python environment of `cargo xtask setup` (`NFLOG_TEST_VENV` names another).

mod collectors;
mod helm;
mod kustomize;
mod pod;
#[allow(dead_code, reason = "shared with the agent's tests")]
#[path = "../agent/program.rs"]
mod program;
#[path = "../support/mod.rs"]
mod support;
mod tools;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nflog_agent::telemetry::endpoint::DEFAULT;
use serde_json::Value;
use support::{Netns, wait_for};
use tools::{deploy, documents, keys, read, scratch, strings, tool, verdict};

const GROUP: &str = "7";

/// The object of this kind and name among all manifests.
fn object(kind: &str, name: &str) -> Value {
    let all = manifests()
        .into_iter()
        .flat_map(|file| documents(&read(&format!("kubernetes/{file}"))));
    let mut found = all.filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let object = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
    assert_eq!(found.next(), None, "two of {kind} {name}");
    object
}

fn manifests() -> Vec<String> {
    let mut files: Vec<String> = fs::read_dir(deploy("kubernetes"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml") && name != "kustomization.yaml")
        .collect();
    files.sort();
    files
}

#[test]
fn manifests_pass_the_strict_kubernetes_schema() {
    let files = manifests();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let path = deploy("kubernetes").join(&file);
        let (ok, text) = verdict(tool("kubernetes-validate").arg("--strict").arg(path));
        assert!(ok && text.contains("passed"), "{file}: {text}");
    }
}

#[test]
fn the_kubernetes_schema_rejects_a_misspelt_field() {
    let manifest = read("kubernetes/daemonset.yaml").replace("hostNetwork:", "hostNetwrok:");
    let (_directory, path) = scratch("daemonset.yaml", &manifest);
    let (ok, text) = verdict(tool("kubernetes-validate").arg("--strict").arg(path));
    assert!(!ok && text.contains("hostNetwrok"), "{text}");
}

#[test]
fn the_kustomization_applies_every_manifest() {
    let kustomization = documents(&read("kubernetes/kustomization.yaml")).remove(0);
    let mut resources = strings(&kustomization["resources"]);
    resources.sort_unstable();
    assert_eq!(resources, manifests());
    let image = &object("DaemonSet", "nflog-agent")["spec"]["template"]["spec"]["containers"][0]["image"];
    let images = &kustomization["images"][0];
    let named = format!(
        "{}:{}",
        images["name"].as_str().unwrap(),
        images["newTag"].as_str().unwrap()
    );
    assert_eq!(image, &named);
}

#[test]
fn the_agent_has_only_the_capabilities_it_has_reasons_for() {
    let pod = &object("DaemonSet", "nflog-agent")["spec"]["template"]["spec"];
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(strings(&context["capabilities"]["drop"]), ["ALL"]);
    assert_eq!(
        strings(&context["capabilities"]["add"]),
        ["NET_ADMIN", "BPF", "PERFMON", "SYS_PTRACE"]
    );
    for (field, expected) in [
        ("privileged", false),
        ("allowPrivilegeEscalation", false),
        ("readOnlyRootFilesystem", true),
    ] {
        assert_eq!(context[field], expected, "{field}");
    }
    assert_eq!(
        (&pod["hostNetwork"], &pod["hostPID"]),
        (&Value::Bool(true), &Value::Bool(true))
    );
}

#[test]
fn the_agents_account_may_read_pods_and_nothing_else() {
    let role = object("ClusterRole", "nflog-agent");
    let rules = role["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 1);
    assert_eq!(strings(&rules[0]["apiGroups"]), [""]);
    assert_eq!(strings(&rules[0]["resources"]), ["pods"]);
    assert_eq!(strings(&rules[0]["verbs"]), ["get", "list", "watch"]);
    let binding = object("ClusterRoleBinding", "nflog-agent");
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    let account = object("ServiceAccount", "nflog-agent");
    let subjects = binding["subjects"].as_array().unwrap();
    assert_eq!(subjects.len(), 1);
    for field in ["name", "namespace"] {
        assert_eq!(subjects[0][field], account["metadata"][field]);
    }
    let pod = &object("DaemonSet", "nflog-agent")["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], true);
    let node = pod["containers"][0]["env"].as_array().unwrap();
    let node = node
        .iter()
        .find(|variable| variable["name"] == "K8S_NODE_NAME")
        .unwrap();
    assert_eq!(node["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
}

#[test]
fn what_the_daemonset_refers_to_is_there() {
    let pod = object("DaemonSet", "nflog-agent")["spec"]["template"]["spec"].clone();
    let namespace = object("Namespace", "nflog-agent");
    let account = object("ServiceAccount", pod["serviceAccountName"].as_str().unwrap());
    assert_eq!(account["metadata"]["namespace"], namespace["metadata"]["name"]);
    let config = object(
        "ConfigMap",
        pod["containers"][0]["envFrom"][0]["configMapRef"]["name"]
            .as_str()
            .unwrap(),
    );
    // http://SERVICE.NAMESPACE.svc:PORT
    let endpoint = config["data"]["OTEL_EXPORTER_OTLP_ENDPOINT"].as_str().unwrap();
    let (host, port) = endpoint
        .strip_prefix("http://")
        .and_then(|rest| rest.rsplit_once(':'))
        .unwrap();
    let (service, namespace) = host
        .strip_suffix(".svc")
        .and_then(|rest| rest.split_once('.'))
        .unwrap();
    let service = object("Service", service);
    assert_eq!(service["metadata"]["namespace"], namespace);
    let port: u16 = port.parse().unwrap();
    let ports = service["spec"]["ports"].as_array().unwrap();
    let grpc = ports.iter().find(|candidate| candidate["port"] == port).unwrap();
    assert_eq!(grpc["appProtocol"], config["data"]["OTEL_EXPORTER_OTLP_PROTOCOL"]);
}

#[test]
fn only_variables_that_the_agent_reads_are_set() {
    const KNOWN: [&str; 10] = [
        "NFLOG_AGENT_KUBERNETES_LABELS",
        "NFLOG_AGENT_LISTEN",
        "NFLOG_AGENT_SPOOL",
        "OTEL_EXPORTER_OTLP_COMPRESSION",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "OTEL_RESOURCE_ATTRIBUTES",
        "RUST_LOG",
    ];
    let known = BTreeSet::from(KNOWN);
    let config = object("ConfigMap", "nflog-agent");
    assert!(keys(&config["data"]).is_subset(&known), "{}", config["data"]);
    let file = read("systemd/nflog-agent.env");
    let variables: BTreeSet<&str> = file
        .lines()
        .map(|line| line.trim_start_matches('#'))
        .filter_map(|line| line.split_once('=').map(|(name, _)| name))
        .filter(|name| !name.contains(' '))
        .collect();
    assert!(
        variables.len() >= 4 && variables.is_subset(&known),
        "{variables:?}"
    );
}

/// The kubelet is in the node's network namespace, as the agent is: they share the loopback device.
#[test]
fn the_daemonsets_probes_ask_where_the_agent_listens() {
    let config = object("ConfigMap", "nflog-agent");
    let listen: SocketAddr = config["data"]["NFLOG_AGENT_LISTEN"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(listen, DEFAULT);
    let pod = &object("DaemonSet", "nflog-agent")["spec"]["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    let container = &pod["containers"][0];
    let port = &container["ports"][0];
    assert_eq!(
        (&port["name"], &port["containerPort"]),
        (&"metrics".into(), &listen.port().into())
    );
    for (probe, path) in [("livenessProbe", "/live"), ("readinessProbe", "/ready")] {
        let get = &container[probe]["httpGet"];
        assert_eq!(
            (&get["path"], &get["port"]),
            (&path.into(), &port["name"]),
            "{probe}"
        );
        assert_eq!(get["host"].as_str().unwrap(), listen.ip().to_string(), "{probe}");
        // The agent notices after 20 s; a probe must not be more impatient than a busy node.
        assert!(
            container[probe]["timeoutSeconds"].as_u64().unwrap() >= 5,
            "{probe}"
        );
    }
}

/// What is wrong with the pipelines of a collector configuration.
fn pipeline_problems(config: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let service = &config["service"];
    let pipelines = service["pipelines"].as_object().cloned().unwrap_or_default();
    if pipelines.is_empty() {
        problems.push("no pipelines".to_owned());
    }
    for (name, pipeline) in &pipelines {
        for required in ["receivers", "exporters"] {
            if pipeline[required].as_array().is_none_or(Vec::is_empty) {
                problems.push(format!("pipeline {name} has no {required}"));
            }
        }
    }
    for section in ["receivers", "processors", "exporters"] {
        let used: BTreeSet<&str> = pipelines
            .values()
            .filter_map(|pipeline| pipeline.get(section))
            .flat_map(strings)
            .collect();
        problems.extend(compare(section, &keys(&config[section]), &used));
    }
    let used = service
        .get("extensions")
        .map(strings)
        .unwrap_or_default()
        .into_iter()
        .collect();
    problems.extend(compare("extensions", &keys(&config["extensions"]), &used));
    problems
}

fn compare(section: &str, defined: &BTreeSet<&str>, used: &BTreeSet<&str>) -> Vec<String> {
    let undefined = used
        .difference(defined)
        .map(|name| format!("{section}: {name} is used and not defined"));
    let unused = defined
        .difference(used)
        .map(|name| format!("{section}: {name} is defined and not used"));
    undefined.chain(unused).collect()
}

fn collector_config() -> Value {
    let map = object("ConfigMap", "nflog-collector");
    documents(map["data"]["config.yaml"].as_str().unwrap()).remove(0)
}

#[test]
fn the_collector_defines_what_its_pipelines_use_and_nothing_else() {
    let config = collector_config();
    assert_eq!(pipeline_problems(&config), [] as [String; 0]);
    for pipeline in ["logs", "metrics"] {
        assert_eq!(
            strings(&config["service"]["pipelines"][pipeline]["receivers"]),
            ["otlp"],
            "{pipeline}"
        );
    }
    assert!(strings(&config["service"]["pipelines"]["logs"]["processors"]).contains(&"k8s_attributes"));
    let first = &config["processors"]["k8s_attributes"]["pod_association"][0]["sources"][0];
    assert_eq!(
        (&first["from"], &first["name"]),
        (&"resource_attribute".into(), &"k8s.pod.uid".into())
    );
}

/// `over` on top of `config`, as the collector does with several `--config`: maps are merged, lists are replaced.
fn merge(config: &mut Value, over: Value) {
    match (config, over) {
        (Value::Object(config), Value::Object(over)) => {
            for (name, value) in over {
                merge(config.entry(name).or_insert(Value::Null), value);
            }
        }
        (config, over) => *config = over,
    }
}

#[test]
fn each_backends_file_completes_the_collectors_configuration() {
    for (backend, exporter) in [("loki", "otlp_http/loki"), ("elasticsearch", "elasticsearch")] {
        let mut config = collector_config();
        merge(
            &mut config,
            documents(&read(&format!("collector/{backend}.yaml"))).remove(0),
        );
        assert_eq!(pipeline_problems(&config), [] as [String; 0], "{backend}");
        let logs = &config["service"]["pipelines"]["logs"];
        assert_eq!(strings(&logs["exporters"]), [exporter]);
        // What limits memory comes first, what makes batches last, and names before what sorts by them.
        let processors = strings(&logs["processors"]);
        assert_eq!(
            (processors[0], processors[1]),
            ("memory_limiter", "k8s_attributes"),
            "{backend}"
        );
        assert_eq!(processors.last(), Some(&"batch"), "{backend}");
        let endpoint = config["exporters"][exporter]["endpoint"].as_str().unwrap();
        assert!(endpoint.starts_with("http"), "{endpoint}");
        if backend == "loki" {
            assert!(
                endpoint.ends_with("/otlp"),
                "{endpoint}: the exporter adds /v1/logs"
            );
        }
    }
}

/// What Loki makes index labels of by default, as far as the agent has it.
#[test]
fn the_resource_has_what_backends_look_for() {
    use nflog_agent::record::semconv::{ALL, Place};
    let of_resource: BTreeSet<&str> = ALL
        .iter()
        .filter(|key| key.place() == Place::Resource)
        .map(|key| key.name())
        .collect();
    for name in [
        "service.name",
        "container.name",
        "k8s.namespace.name",
        "k8s.pod.name",
        "k8s.container.name",
        "k8s.deployment.name",
        "k8s.replicaset.name",
        "k8s.statefulset.name",
        "k8s.daemonset.name",
        "k8s.cronjob.name",
        "k8s.job.name",
    ] {
        assert!(of_resource.contains(name), "{name}");
        // What the example promises.
        let mentioned = read("collector/loki.yaml").contains(name) || name.starts_with("k8s.");
        assert!(mentioned, "{name}");
    }
    // k8s_attributes finds a pod by what the agent sends without any API.
    let association = &collector_config()["processors"]["k8s_attributes"]["pod_association"];
    let names: Vec<_> = association
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| rule["sources"].as_array().unwrap())
        .map(|source| source["name"].as_str().unwrap())
        .collect();
    assert!(
        !names.is_empty() && names.iter().all(|name| of_resource.contains(name)),
        "{names:?}"
    );
}

#[test]
fn undefined_and_unused_pipeline_components_are_noticed() {
    let mut config = collector_config();
    config["service"]["pipelines"]["logs"]["exporters"] = serde_json::json!(["otlp"]);
    config["service"]["pipelines"]["metrics"]["exporters"] = serde_json::json!([]);
    let problems = pipeline_problems(&config);
    let expected = [
        "pipeline metrics has no exporters",
        "exporters: otlp is used and not defined",
        "exporters: debug is defined and not used",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn the_collectors_ports_lead_to_its_receivers() {
    let config = collector_config();
    let protocols = &config["receivers"]["otlp"]["protocols"];
    let deployment = object("Deployment", "nflog-collector");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let service = object("Service", "nflog-collector");
    for (name, endpoint) in [
        ("otlp-grpc", &protocols["grpc"]["endpoint"]),
        ("otlp-http", &protocols["http"]["endpoint"]),
        ("health", &config["extensions"]["health_check"]["endpoint"]),
    ] {
        let port: u16 = endpoint
            .as_str()
            .unwrap()
            .rsplit_once(':')
            .unwrap()
            .1
            .parse()
            .unwrap();
        let named = |ports: &Value| {
            ports
                .as_array()
                .unwrap()
                .iter()
                .find(|item| item["name"] == name)
                .cloned()
        };
        assert_eq!(
            named(&container["ports"]).unwrap()["containerPort"],
            port,
            "{name}"
        );
        if name != "health" {
            assert_eq!(named(&service["spec"]["ports"]).unwrap()["targetPort"], name);
        }
    }
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(
        service["spec"]["selector"]["app.kubernetes.io/name"],
        labels["app.kubernetes.io/name"]
    );
}

#[test]
fn the_dockerfile_passes_hadolint() {
    let (ok, text) = verdict(tool("hadolint").arg(deploy("container/Dockerfile")));
    assert!(ok && text.is_empty(), "{text}");
    let (_directory, path) = scratch("Dockerfile", "FROM debian\nRUN cd /tmp\n");
    let (ok, text) = verdict(tool("hadolint").arg(path));
    assert!(!ok && text.contains("DL3006"), "{text}");
}

/// The unit with the program of this build in place of the installed one, in a directory of its own.
fn unit(change: impl Fn(String) -> String) -> (tempfile::TempDir, PathBuf) {
    let unit = read("systemd/nflog-agent.service");
    let command = "ExecStart=/usr/bin/nflog-agent ";
    assert!(unit.contains(command));
    let unit = unit.replace(
        command,
        &format!("ExecStart={} ", env!("CARGO_BIN_EXE_nflog-agent")),
    );
    scratch("nflog-agent.service", &change(unit))
}

#[test]
fn the_systemd_unit_passes_verification() {
    let verify = |path: &Path| {
        verdict(
            Command::new("systemd-analyze")
                .args(["verify", "--man=no"])
                .arg(path),
        )
    };
    let (_directory, path) = unit(|unit| unit);
    let (ok, text) = verify(&path);
    assert!(ok && text.is_empty(), "{text}");
    let (_directory, path) = unit(|unit| unit.replace("ProtectHome=", "ProtectHouse="));
    assert!(verify(&path).1.contains("ProtectHouse"));
}

#[test]
fn the_systemd_unit_is_confined() {
    let (_directory, path) = unit(|unit| unit);
    // Exposure from 0 to 10.0, times ten; a unit without any confinement has 96.
    let analyze = |path: &Path| {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--threshold=28", "--no-pager"]);
        verdict(command.arg(path))
    };
    let (ok, text) = analyze(&path);
    assert!(ok, "{text}");
    let (_directory, path) = unit(|unit| unit.replace("SystemCallFilter=", "#"));
    let (ok, text) = analyze(&path);
    assert!(!ok && text.contains("SystemCallFilter"), "{text}");
}

#[test]
fn the_nft_rules_are_accepted_by_the_kernel() {
    let check = |path: &Path| {
        verdict(
            Command::new("unshare")
                .args(["--net", "nft", "--check", "--file"])
                .arg(path),
        )
    };
    let (ok, text) = check(&deploy("nftables/example.nft"));
    assert!(ok, "{text} (root and nftables are needed)");
    let (_directory, path) = scratch(
        "bad.nft",
        &read("nftables/example.nft").replace("snaplen 128", "snaplen many"),
    );
    assert!(!check(&path).0);
}

#[test]
fn all_files_name_the_same_group() {
    let group = format!("--group {GROUP}");
    let config: toml::Table = read("systemd/nflog-agent.toml").parse().unwrap();
    assert_eq!(
        config["group"],
        toml::Value::from(vec![GROUP.parse::<i64>().unwrap()])
    );
    let daemonset = object("DaemonSet", "nflog-agent");
    let args = strings(&daemonset["spec"]["template"]["spec"]["containers"][0]["args"]).join(" ");
    assert!(args.contains(&group), "{args}");
    assert!(read("container/Dockerfile").contains(&format!("\"--group\", \"{GROUP}\"")));
    let rules = read("nftables/example.nft");
    let logging: Vec<&str> = rules.lines().filter(|line| line.contains(" log ")).collect();
    assert!(logging.len() >= 4, "{logging:?}");
    for line in logging.iter().filter(|line| !line.trim_start().starts_with('#')) {
        assert!(line.contains(&format!("group {GROUP} ")), "{line}");
    }
}

#[test]
fn the_shipped_configuration_shows_every_key() {
    let schema: Value = serde_json::from_str(&read("nflog-agent.schema.json")).unwrap();
    let file = read("systemd/nflog-agent.toml");
    // `#key = …`, `[table]` or `#[[table]]`; prose is behind `# `.
    let shown: BTreeSet<&str> = file
        .lines()
        .filter_map(|line| line.trim_start_matches(['#', '[']).split([' ', ']', '.']).next())
        .collect();
    let missing: Vec<_> = keys(&schema["properties"]).difference(&shown).copied().collect();
    assert_eq!(missing, [] as [&str; 0]);
}

#[test]
fn the_agent_understands_the_arguments_it_is_started_with() {
    let daemonset = object("DaemonSet", "nflog-agent");
    let in_pod = strings(&daemonset["spec"]["template"]["spec"]["containers"][0]["args"]);
    let unit = read("systemd/nflog-agent.service");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/bin/nflog-agent "));
    let installed = start.unwrap().replace(
        "/etc/nflog-agent/nflog-agent.toml",
        deploy("systemd/nflog-agent.toml").to_str().unwrap(),
    );
    for arguments in [in_pod, installed.split(' ').collect()] {
        // Arguments before --help are read first, and an unknown one is an error.
        let mut agent = Command::new(env!("CARGO_BIN_EXE_nflog-agent"));
        let (ok, text) = verdict(agent.args(&arguments).arg("--help"));
        assert!(ok, "{arguments:?}: {text}");
    }
}

/// Capabilities as setpriv writes them, from names such as `CAP_NET_ADMIN` or `NET_ADMIN`.
fn capability_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names = names
        .into_iter()
        .map(|name| name.trim_start_matches("CAP_").to_lowercase());
    std::iter::once("-all".to_owned())
        .chain(names.map(|name| format!("+{name}")))
        .collect::<Vec<_>>()
        .join(",")
}

/// Runs the agent as this user with these capabilities only, until it has named a process of root that sends packets.
fn assert_names_owners(user: u32, capabilities: &str) {
    let netns = Netns::new("caps");
    netns.nft("table inet t { chain out { type filter hook output priority 0; udp dport 9 log group 7; }; }");
    let sender = sender(&netns);
    let (_directory, records) = scratch("records", "");
    let agent = netns
        .command("setpriv")
        .args([
            format!("--reuid={user}"),
            format!("--regid={user}"),
            "--clear-groups".to_owned(),
        ])
        .args(["--inh-caps", "--ambient-caps", "--bounding-set"].map(|set| format!("{set}={capabilities}")))
        .arg("--no-new-privs")
        .arg(env!("CARGO_BIN_EXE_nflog-agent"))
        .args(["run", "--group", GROUP, "--output", "json"])
        .stdout(fs::File::create(&records).unwrap())
        .spawn()
        .unwrap();
    let mut agent = Running(agent);
    let wanted = format!("\"process.pid\":{}", sender.0.id());
    wait_for("a record that names the sender", || {
        assert_eq!(agent.0.try_wait().unwrap(), None, "the agent ended");
        let records = fs::read_to_string(&records).unwrap();
        let mut after = records
            .match_indices(&wanted)
            .map(|(at, _)| &records[at + wanted.len()..]);
        after.any(|rest| rest.starts_with([',', '}'])).then_some(())
    });
}

/// A process that is ended on drop, so that a failing test leaves none behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that sends ten datagrams a second to port 9 of the loopback address.
fn sender(netns: &Netns) -> Running {
    // `sleep` must not inherit the socket, or it would hold it as well.
    let script = "exec 3<>/dev/udp/127.0.0.1/9; while sleep 0.1 3>&-; do echo >&3; done";
    let mut command = netns.command("bash");
    Running(
        command
            .args(["-c", script])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    )
}

#[test]
fn the_units_capabilities_are_enough_for_a_user_without_rights() {
    let unit = read("systemd/nflog-agent.service");
    let sets = ["CapabilityBoundingSet=", "AmbientCapabilities="]
        .map(|set| unit.lines().find_map(|line| line.strip_prefix(set)).unwrap());
    assert_eq!(sets[0], sets[1]);
    assert_names_owners(65534, &capability_list(sets[0].split_ascii_whitespace()));
}

#[test]
fn the_daemonsets_capabilities_are_enough_for_root() {
    let pod = &object("DaemonSet", "nflog-agent")["spec"]["template"]["spec"];
    let added = &pod["containers"][0]["securityContext"]["capabilities"]["add"];
    assert_names_owners(0, &capability_list(strings(added)));
}
