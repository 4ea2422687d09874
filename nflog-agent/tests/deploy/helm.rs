//! The Helm chart: rendered by helm itself, compared with golden files, judged by the Kubernetes schema, and its configuration file by
//! the agent. `NFLOG_GOLDEN=write` writes the golden files anew.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use nflog_agent::settings;
use serde_json::Value;

use super::tools::{assert_strictly_valid, deploy, documents, keys, read, scratch, strings, tool, verdict};

const CHART: &str = "helm/nflog-agent";

/// What each directory of `tests/` stands for: the capabilities that its values lead to.
const CASES: [(&str, &[&str]); 5] = [
    ("defaults", &["NET_ADMIN", "BPF", "PERFMON", "SYS_PTRACE"]),
    (
        "everything",
        &["NET_ADMIN", "BPF", "PERFMON", "SYS_PTRACE", "SYSLOG"],
    ),
    (
        "namespaces",
        &[
            "NET_ADMIN",
            "BPF",
            "PERFMON",
            "SYS_PTRACE",
            "DAC_READ_SEARCH",
            "SYS_RESOURCE",
            "SYS_ADMIN",
        ],
    ),
    (
        "own-network",
        &["NET_ADMIN", "BPF", "PERFMON", "SYS_PTRACE", "SYS_ADMIN"],
    ),
    ("sockdiag", &["NET_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"]),
];

fn helm(arguments: &[&str]) -> (bool, String) {
    // helm keeps caches in its home; this has none.
    let home = tempfile::tempdir().unwrap();
    verdict(
        tool("helm")
            .args(arguments)
            .env("HOME", home.path())
            .env("HELM_NO_PLUGINS", "1"),
    )
}

pub(crate) fn template(arguments: &[&str]) -> (bool, String) {
    let chart = deploy(CHART).display().to_string();
    let fixed = ["template", "nflog-agent", &chart, "--namespace", "nflog-agent"];
    helm(&[&fixed, arguments].concat())
}

/// A case as helm renders it.
pub(crate) fn rendered(case: &str) -> String {
    let values = deploy(CHART).join("tests").join(case).join("values.yaml");
    let (ok, text) = template(&["--values", &values.display().to_string()]);
    assert!(ok, "{case}: {text}");
    text
}

/// The one object of a kind.
pub(crate) fn one(kind: &str, yaml: &str) -> Value {
    let mut found = documents(yaml)
        .into_iter()
        .filter(|object| object["kind"] == kind);
    let object = found.next().unwrap_or_else(|| panic!("no {kind} in {yaml}"));
    assert_eq!(found.next(), None, "two of {kind}");
    object
}

fn container(daemonset: &Value) -> &Value {
    &daemonset["spec"]["template"]["spec"]["containers"][0]
}

/// The value of a variable of the container.
fn variable(daemonset: &Value, name: &str) -> String {
    let variables = container(daemonset)["env"].as_array().unwrap();
    let found = variables.iter().find(|variable| variable["name"] == name);
    found.unwrap()["value"].as_str().unwrap().to_owned()
}

#[test]
fn the_chart_renders_as_its_golden_files() {
    let directories: BTreeSet<String> = fs::read_dir(deploy(CHART).join("tests"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(directories, CASES.map(|(case, _)| case.to_owned()).into());
    for (case, _) in CASES {
        let text = rendered(case);
        let golden = deploy(CHART).join("tests").join(case).join("rendered.yaml");
        if env::var_os("NFLOG_GOLDEN").is_some_and(|value| value == "write") {
            fs::write(&golden, &text).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        let difference = text.lines().zip(expected.lines()).find(|(is, was)| is != was);
        assert!(
            text == expected,
            "{} differs at {difference:?}; if that is meant: NFLOG_GOLDEN=write",
            golden.display()
        );
    }
}

#[test]
fn what_the_chart_renders_passes_the_strict_kubernetes_schema() {
    for (case, _) in CASES {
        assert_strictly_valid(case, &documents(&rendered(case)));
    }
}

/// The operator's definitions are in no package of a schema: these are the fields of its documentation.
#[test]
fn monitors_find_the_pods_and_their_port() {
    for (case, kind, endpoints) in [
        ("everything", "PodMonitor", "podMetricsEndpoints"),
        ("own-network", "ServiceMonitor", "endpoints"),
    ] {
        let text = rendered(case);
        let (monitor, daemonset) = (one(kind, &text), one("DaemonSet", &text));
        let spec = &monitor["spec"];
        assert_eq!(keys(spec), BTreeSet::from(["selector", endpoints]));
        assert_eq!(spec["selector"], daemonset["spec"]["selector"]);
        let endpoint = &spec[endpoints][0];
        let known = BTreeSet::from(["port", "path", "interval", "relabelings"]);
        assert!(keys(endpoint).is_subset(&known), "{endpoint}");
        let port = &container(&daemonset)["ports"][0];
        assert_eq!(endpoint["port"], port["name"]);
        let listen = variable(&daemonset, "NFLOG_AGENT_LISTEN");
        assert_eq!(listen, format!("[$(POD_IP)]:{}", port["containerPort"]));
        for probe in ["livenessProbe", "readinessProbe"] {
            assert_eq!(
                container(&daemonset)[probe]["httpGet"].get("host"),
                None,
                "{case}"
            );
        }
    }
    let service = one("Service", &rendered("own-network"));
    assert_eq!(service["spec"]["clusterIP"], "None");
    assert_eq!(service["spec"]["ports"][0]["name"], "metrics");
}

#[test]
fn without_a_monitor_only_the_node_itself_can_ask() {
    let daemonset = one("DaemonSet", &rendered("defaults"));
    assert_eq!(variable(&daemonset, "NFLOG_AGENT_LISTEN"), "127.0.0.1:6356");
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(container(&daemonset)[probe]["httpGet"]["host"], "127.0.0.1");
    }
}

#[test]
fn the_chart_passes_lint() {
    let chart = deploy(CHART).display().to_string();
    let (ok, text) = helm(&["lint", "--strict", &chart]);
    assert!(ok, "{text}");
}

#[test]
fn the_charts_configuration_file_is_one_that_the_agent_reads() {
    let problems = |file: &str| {
        let (_directory, path) = scratch("nflog-agent.toml", file);
        let arguments = ["nflog-agent", "run", "--config"].map(OsString::from);
        let arguments = arguments.into_iter().chain([path.into_os_string()]);
        settings::read(arguments).err().map(|error| error.to_string())
    };
    for (case, _) in CASES {
        let file = one("ConfigMap", &rendered(case))["data"]["nflog-agent.toml"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(problems(&file), None, "{case}: {file}");
        let wrong = problems(&format!("grop = 7\n{file}"));
        assert!(
            wrong.is_some_and(|text| text.contains("did you mean 'group'")),
            "{case}"
        );
    }
}

#[test]
fn capabilities_are_those_of_what_is_enabled_each_with_its_reason() {
    for (case, expected) in CASES {
        let text = rendered(case);
        let daemonset = one("DaemonSet", &text);
        let context = &container(&daemonset)["securityContext"];
        assert_eq!(strings(&context["capabilities"]["add"]), expected, "{case}");
        assert_eq!(strings(&context["capabilities"]["drop"]), ["ALL"]);
        for (field, value) in [
            ("privileged", false),
            ("allowPrivilegeEscalation", false),
            ("readOnlyRootFilesystem", true),
        ] {
            assert_eq!(context[field], value, "{case}: {field}");
        }
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for capability in expected {
            let at = lines.iter().position(|line| *line == format!("- {capability}"));
            let above = lines[at.unwrap() - 1];
            assert!(above.starts_with("# "), "{case}: {capability} without a reason");
        }
    }
}

#[test]
fn rights_that_are_not_needed_are_not_asked_for() {
    let text = rendered("sockdiag");
    let kinds: Vec<Value> = documents(&text)
        .into_iter()
        .map(|object| object["kind"].clone())
        .collect();
    assert_eq!(
        kinds,
        ["ConfigMap", "DaemonSet"],
        "no account, no right to read pods"
    );
    let daemonset = one("DaemonSet", &text);
    let pod = &daemonset["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    let volumes = pod["volumes"].as_array().unwrap();
    let of_the_node: Vec<&Value> = volumes
        .iter()
        .filter_map(|volume| volume.get("hostPath"))
        .map(|volume| &volume["path"])
        .collect();
    assert_eq!(of_the_node, ["/sys/fs/cgroup"]);
}

#[test]
fn a_network_policy_lets_in_who_fetches_metrics_and_nobody_else() {
    let text = rendered("own-network");
    let policy = one("NetworkPolicy", &text);
    assert_eq!(strings(&policy["spec"]["policyTypes"]), ["Ingress", "Egress"]);
    let ingress = policy["spec"]["ingress"].as_array().unwrap();
    assert_eq!(ingress.len(), 1);
    assert_eq!(
        ingress[0]["ports"],
        serde_json::json!([{"port": "metrics", "protocol": "TCP"}])
    );
    let selector = &policy["spec"]["podSelector"]["matchLabels"];
    let daemonset = one("DaemonSet", &text);
    assert_eq!(selector, &daemonset["spec"]["selector"]["matchLabels"]);
    assert_eq!(daemonset["spec"]["template"]["spec"]["hostNetwork"], false);
    let file = &one("ConfigMap", &text)["data"]["nflog-agent.toml"];
    assert!(
        file.as_str().unwrap().contains("netns = \"/proc/1/ns/net\""),
        "{file}"
    );
}

#[test]
fn an_empty_spool_is_none() {
    for value in ["config.spool=", "config.spool=null"] {
        let (ok, text) = template(&["--set", value]);
        assert!(ok, "{text}");
        let file = &one("ConfigMap", &text)["data"]["nflog-agent.toml"];
        assert!(!file.as_str().unwrap().contains("spool"), "{value}: {file}");
        let pod = &one("DaemonSet", &text)["spec"]["template"]["spec"];
        let volumes = pod["volumes"].as_array().unwrap();
        assert!(
            volumes.iter().all(|volume| volume["name"] != "spool"),
            "{value}: {volumes:?}"
        );
    }
}

/// Values that are refused, and a word of what is said.
const REFUSED: [(&[&str], &str); 9] = [
    (&["imag.tag=1"], "imag"),
    (&["image.tagg=1"], "tagg"),
    (&["config.group={70000}"], "/config/group/0"),
    (&["config.attribution=magic"], "attribution"),
    (
        &["securityContext.seccompProfile.type=Localhost"],
        "localhostProfile",
    ),
    (&["extraCapabilities={CAP_BPF}"], "extraCapabilities"),
    (
        &["networkPolicy.enabled=true"],
        "set hostNetwork to false, or the policy off",
    ),
    (
        &["podMonitor.enabled=true", "serviceMonitor.enabled=true"],
        "each pod would be scraped twice",
    ),
    (
        &["priorityClass.create=true"],
        "names that begin with system- are Kubernetes' own",
    ),
];

#[test]
fn values_that_make_no_sense_are_refused_with_their_name() {
    for (values, word) in REFUSED {
        let arguments: Vec<&str> = values.iter().flat_map(|value| ["--set", value]).collect();
        let (ok, text) = template(&arguments);
        assert!(!ok && text.contains(word), "{values:?}: {text}");
    }
}

#[test]
fn every_value_is_described_and_known_to_the_schema() {
    let text = read(&format!("{CHART}/values.yaml"));
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let is_key = line.starts_with(|c: char| c.is_ascii_lowercase());
        assert!(
            !is_key || lines[number - 1].starts_with("# "),
            "{line}: not described"
        );
    }
    let values = documents(&text).remove(0);
    let schema: Value = serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).unwrap();
    let known = &schema["properties"];
    let mut top = keys(known);
    // What helm puts there for subcharts.
    assert!(top.remove("global"));
    assert_eq!(top, keys(&values));
    for (name, value) in values.as_object().unwrap() {
        let members = keys(&known[name]["properties"]);
        if known[name]["additionalProperties"] == false {
            let set: BTreeSet<&str> = keys(value);
            assert!(set.is_subset(&members), "{name}: {set:?}, {members:?}");
        }
    }
}

#[test]
fn the_chart_and_the_manifests_agree() {
    let text = rendered("defaults");
    let (chart, manifest) = (one("DaemonSet", &text), super::object("DaemonSet", "nflog-agent"));
    let (of_chart, of_manifest) = (container(&chart), container(&manifest));
    let config = super::object("ConfigMap", "nflog-agent");
    assert_eq!(
        variable(&chart, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        config["data"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    );
    assert_eq!(of_chart["securityContext"], of_manifest["securityContext"]);
    assert_eq!(of_chart["resources"], of_manifest["resources"]);
    assert_eq!(of_chart["image"], of_manifest["image"]);
    let (chart, manifest) = (
        &chart["spec"]["template"]["spec"],
        &manifest["spec"]["template"]["spec"],
    );
    for field in [
        "hostNetwork",
        "hostPID",
        "dnsPolicy",
        "tolerations",
        "priorityClassName",
        "nodeSelector",
        "terminationGracePeriodSeconds",
        "automountServiceAccountToken",
    ] {
        assert_eq!(chart[field], manifest[field], "{field}");
    }
    let rules = |role: &Value| role["rules"].clone();
    assert_eq!(
        rules(&one("ClusterRole", &text)),
        rules(&super::object("ClusterRole", "nflog-agent"))
    );
}

#[test]
fn after_an_installation_is_said_what_is_still_missing() {
    let chart = deploy(CHART).display().to_string();
    let install = |values: &[&str]| {
        let fixed = ["install", "nflog-agent", &chart, "--dry-run=client"];
        let (ok, text) = helm(&[&fixed, values].concat());
        assert!(ok, "{text}");
        text.split_once("NOTES:").unwrap().1.to_owned()
    };
    let plain = install(&[]);
    assert!(
        plain.contains("NFLOG group 7 on every node") && plain.contains("The agent makes no rules"),
        "{plain}"
    );
    assert!(
        !plain.contains("SYS_ADMIN") && !plain.contains("config.spool"),
        "{plain}"
    );
    let bare = install(&["--set", "rbac.create=false,config.spool=null,hostNetwork=false"]);
    for word in ["rbac.create is false", "config.spool is not set", "CAP_SYS_ADMIN"] {
        assert!(bare.contains(word), "{word}: {bare}");
    }
}

#[test]
fn the_package_has_the_chart_and_not_its_tests() {
    let target = tempfile::tempdir().unwrap();
    let chart = deploy(CHART).display().to_string();
    let (ok, text) = helm(&[
        "package",
        &chart,
        "--destination",
        &target.path().display().to_string(),
    ]);
    assert!(ok, "{text}");
    let version = documents(&read(&format!("{CHART}/Chart.yaml"))).remove(0)["version"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let package = target.path().join(format!("nflog-agent-{version}.tgz"));
    let (ok, listing) = verdict(Command::new("tar").arg("tzf").arg(&package));
    assert!(ok && listing.contains("values.schema.json"), "{listing}");
    assert!(!listing.contains("/tests/"), "{listing}");
    // What was packaged renders as what was not.
    let (ok, text) = helm(&[
        "template",
        "nflog-agent",
        &package.display().to_string(),
        "--namespace",
        "nflog-agent",
    ]);
    assert!(
        ok && documents(&text) == documents(&rendered("defaults")),
        "{text}"
    );
    assert!(Path::new(&package).exists());
}
