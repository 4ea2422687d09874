//! The components beside the manifests: what kubectl's kustomize makes of each passes the Kubernetes schema, and says what it is for.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::tools::{assert_strictly_valid, deploy, documents, strings, tool, verdict};

/// The components, and how many objects each adds to the manifests.
const COMPONENTS: [(&str, isize); 6] = [
    ("collector-per-node", 4),
    ("namespaces", 0),
    ("network-policy", 1),
    ("openshift", 1),
    ("seccomp", 0),
    ("services", 0),
];

fn build(directory: &Path) -> String {
    let (ok, text) = verdict(tool("kubectl").arg("kustomize").arg(directory));
    assert!(ok, "{}: {text}", directory.display());
    text
}

/// The manifests with these components, as a user's own kustomization has them.
pub(crate) fn with(components: &[&str]) -> Vec<Value> {
    // kustomize takes relative paths only.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let from = fs::canonicalize(directory.path()).unwrap();
    let up = "../".repeat(from.components().count() - 1);
    let relative = |path: &str| {
        let to = fs::canonicalize(deploy(path)).unwrap();
        format!("{up}{}", to.strip_prefix("/").unwrap().display())
    };
    let list: String = components
        .iter()
        .map(|component| format!("  - {}\n", relative(&format!("kustomize/{component}"))))
        .collect();
    let kustomization = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - {}\ncomponents:\n{list}",
        relative("kubernetes")
    );
    fs::write(directory.path().join("kustomization.yaml"), kustomization).unwrap();
    documents(&build(directory.path()))
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
}

fn agent(objects: &[Value]) -> &Value {
    &find(objects, "DaemonSet", "nflog-agent").unwrap()["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn what_kustomize_makes_of_each_component_passes_the_strict_schema() {
    let directories: BTreeSet<String> = fs::read_dir(deploy("kustomize"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut expected: BTreeSet<String> = COMPONENTS.map(|(name, _)| name.to_owned()).into();
    expected.insert("production".to_owned());
    assert_eq!(directories, expected);
    let plain = documents(&build(&deploy("kubernetes"))).len();
    let mut all: Vec<(String, Vec<Value>)> = COMPONENTS
        .iter()
        .map(|(name, more)| {
            let objects = with(&[name]);
            assert_eq!(objects.len(), plain.checked_add_signed(*more).unwrap(), "{name}");
            ((*name).to_owned(), objects)
        })
        .collect();
    let names = COMPONENTS.map(|(name, _)| name);
    all.push(("all of them".to_owned(), with(&names)));
    let production = documents(&build(&deploy("kustomize/production")));
    all.push(("production".to_owned(), production));
    for (name, objects) in all {
        assert_strictly_valid(&name, &objects);
    }
}

#[test]
fn each_component_changes_what_it_says() {
    let plain = with(&["network-policy"]);
    let added = |objects: &[Value]| -> Vec<String> {
        let capabilities = &agent(objects)["securityContext"]["capabilities"]["add"];
        strings(capabilities).into_iter().map(str::to_owned).collect()
    };
    let namespaces = with(&["namespaces"]);
    assert_eq!(
        added(&namespaces),
        [added(&plain), vec!["SYS_ADMIN".to_owned()]].concat()
    );
    let config = |objects: &[Value], key: &str| {
        find(objects, "ConfigMap", "nflog-agent").unwrap()["data"][key].clone()
    };
    assert_eq!(config(&namespaces, "NFLOG_AGENT_NETNS_OF_CGROUP"), "/kubepods*");
    let named = with(&["services"]);
    assert_eq!(config(&named, "NFLOG_AGENT_KUBERNETES_SERVICES"), "true");
    let allowed = |objects: &[Value]| find(objects, "ClusterRole", "nflog-agent").unwrap()["rules"].clone();
    let verbs = ["get", "list", "watch"];
    let rules =
        |resources: &[&str]| serde_json::json!([{"apiGroups": [""], "resources": resources, "verbs": verbs}]);
    assert_eq!(allowed(&named), rules(&["pods", "services"]));
    assert_eq!(allowed(&plain), rules(&["pods"]));
    let confined = with(&["seccomp"]);
    let profile = &agent(&confined)["securityContext"]["seccompProfile"];
    assert_eq!(profile["localhostProfile"], "profiles/nflog-agent.json");
    let scaled = with(&["collector-per-node"]);
    assert_eq!(find(&scaled, "Deployment", "nflog-collector"), None);
    let endpoint = config(&scaled, "OTEL_EXPORTER_OTLP_ENDPOINT");
    assert_eq!(endpoint, "http://nflog-node-collector.nflog-agent.svc:4317");
    let service = find(&scaled, "Service", "nflog-node-collector").unwrap();
    assert_eq!(service["spec"]["internalTrafficPolicy"], "Local");
}

#[test]
fn openshift_grants_what_the_daemonset_asks_for_and_no_more() {
    let objects = with(&["openshift"]);
    let granted = find(&objects, "SecurityContextConstraints", "nflog-agent").unwrap();
    let daemonset = find(&objects, "DaemonSet", "nflog-agent").unwrap();
    let pod = &daemonset["spec"]["template"]["spec"];
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(granted["allowedCapabilities"], context["capabilities"]["add"]);
    assert_eq!(granted["allowHostNetwork"], pod["hostNetwork"]);
    assert_eq!(granted["allowHostPID"], pod["hostPID"]);
    assert_eq!(granted["allowPrivilegedContainer"], false);
    let account = format!(
        "system:serviceaccount:{}:{}",
        daemonset["metadata"]["namespace"].as_str().unwrap(),
        pod["serviceAccountName"].as_str().unwrap()
    );
    assert_eq!(strings(&granted["users"]), [account]);
}
