//! The collectors on the nodes and the gateway behind them. No registry has a collector, so their configuration is compared with the keys
//! that the collector's documentation and schemas have, and with each other.

use serde_json::Value;

use super::tools::{documents, read, strings};

const NODE: &str = "kustomize/collector-per-node/node-collector.yaml";
const GATEWAY: &str = "kustomize/collector-per-node/gateway.yaml";

/// The keys of a component, as paths; what is below the last one is a value.
const KEYS: [(&str, &[&str]); 7] = [
    (
        "receivers.otlp",
        &[
            "protocols.grpc.endpoint",
            "protocols.grpc.max_recv_msg_size_mib",
            "protocols.http.endpoint",
        ],
    ),
    (
        "processors.memory_limiter",
        &["check_interval", "limit_percentage", "spike_limit_percentage"],
    ),
    (
        "processors.k8s_attributes",
        &["extract.metadata", "filter.node_from_env_var", "pod_association"],
    ),
    (
        "exporters.load_balancing",
        &[
            "routing_key",
            "resolver.dns.hostname",
            "resolver.dns.interval",
            "resolver.dns.port",
            "protocol.otlp.timeout",
            "protocol.otlp.compression",
            "protocol.otlp.tls.insecure",
            "protocol.otlp.sending_queue.enabled",
            "protocol.otlp.retry_on_failure.enabled",
        ],
    ),
    ("exporters.otlp_http", &["endpoint", "compression", "timeout"]),
    ("extensions.health_check", &["endpoint"]),
    (
        "extensions.file_storage",
        &[
            "directory",
            "compaction.cleanup_on_start",
            "compaction.directory",
            "compaction.on_rebound",
            "compaction.on_start",
        ],
    ),
];

/// What every exporter has.
const HELPER: [&str; 13] = [
    "retry_on_failure.enabled",
    "retry_on_failure.initial_interval",
    "retry_on_failure.max_elapsed_time",
    "retry_on_failure.max_interval",
    "sending_queue.batch.flush_timeout",
    "sending_queue.batch.max_size",
    "sending_queue.batch.min_size",
    "sending_queue.batch.sizer",
    "sending_queue.enabled",
    "sending_queue.num_consumers",
    "sending_queue.queue_size",
    "sending_queue.sizer",
    "sending_queue.storage",
];

/// The object of a kind in one of the files.
fn object(file: &str, kind: &str) -> Value {
    let mut objects = documents(&read(file)).into_iter();
    objects.find(|object| object["kind"] == kind).unwrap()
}

fn config(file: &str) -> Value {
    let map = object(file, "ConfigMap");
    documents(map["data"]["config.yaml"].as_str().unwrap()).remove(0)
}

fn paths(value: &Value, above: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let path = if above.is_empty() {
                    key.clone()
                } else {
                    format!("{above}.{key}")
                };
                paths(value, &path, into);
            }
        }
        _ => into.push(above.to_owned()),
    }
}

/// Keys that the documentation does not have.
fn unknown_keys(config: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for section in ["receivers", "processors", "exporters", "extensions"] {
        for (name, component) in config[section].as_object().unwrap() {
            let full = format!("{section}.{name}");
            let known = KEYS.iter().find(|(known, _)| *known == full);
            let Some((_, known)) = known else {
                unknown.push(full);
                continue;
            };
            let mut found = Vec::new();
            paths(component, "", &mut found);
            let is_helper = |path: &str| section == "exporters" && HELPER.contains(&path);
            let strange = found
                .into_iter()
                .filter(|path| !known.contains(&path.as_str()) && !is_helper(path));
            unknown.extend(strange.map(|path| format!("{full}.{path}")));
        }
    }
    unknown
}

#[test]
fn the_collectors_have_only_keys_that_are_documented() {
    for file in [NODE, GATEWAY] {
        let config = config(file);
        assert_eq!(unknown_keys(&config), [] as [String; 0], "{file}");
        assert_eq!(super::pipeline_problems(&config), [] as [String; 0], "{file}");
    }
    let mut wrong = config(NODE);
    wrong["exporters"]["load_balancing"]["sending_queue"]["storge"] = true.into();
    wrong["processors"]["batches"] = serde_json::json!({});
    assert_eq!(
        unknown_keys(&wrong),
        [
            "processors.batches",
            "exporters.load_balancing.sending_queue.storge"
        ]
    );
}

#[test]
fn all_collectors_are_of_one_version() {
    let image = |file: &str, kind: &str| {
        let workload = object(file, kind);
        workload["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    let single = image("kubernetes/collector.yaml", "Deployment");
    assert_eq!(image(NODE, "DaemonSet"), single);
    assert_eq!(image(GATEWAY, "StatefulSet"), single);
}

/// The queue of the file's exporter.
fn queue(config: &Value) -> &Value {
    let exporters = config["exporters"].as_object().unwrap();
    assert_eq!(exporters.len(), 1);
    &exporters.values().next().unwrap()["sending_queue"]
}

#[test]
fn what_a_collector_has_answered_for_is_on_its_disk() {
    for (file, kind) in [(NODE, "DaemonSet"), (GATEWAY, "StatefulSet")] {
        let config = config(file);
        assert_eq!(queue(&config)["storage"], "file_storage", "{file}");
        for pipeline in config["service"]["pipelines"].as_object().unwrap().values() {
            assert!(!strings(&pipeline["processors"]).contains(&"batch"), "{file}");
        }
        let directory = &config["extensions"]["file_storage"]["directory"];
        let workload = object(file, kind);
        let mounts = workload["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
            .as_array()
            .unwrap()
            .clone();
        let mount = mounts
            .iter()
            .find(|mount| &mount["mountPath"] == directory)
            .unwrap();
        assert_eq!(
            (&mount["name"], mount.get("readOnly")),
            (&"queue".into(), None),
            "{file}"
        );
    }
    let room = &object(GATEWAY, "StatefulSet")["spec"]["volumeClaimTemplates"][0]["spec"]["resources"];
    let gibibytes: u64 = room["requests"]["storage"]
        .as_str()
        .and_then(|size| size.strip_suffix("Gi")?.parse().ok())
        .unwrap();
    // Compaction makes a second file before it removes the first.
    let queued = queue(&config(GATEWAY))["queue_size"].as_u64().unwrap();
    assert!(2 * queued <= gibibytes << 30, "{queued} bytes in {gibibytes} GiB");
}

#[test]
fn records_find_their_way_from_agent_to_gateway() {
    let (node, gateway) = (config(NODE), config(GATEWAY));
    let service = object(NODE, "Service");
    let labels = |workload: &Value| {
        workload["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"].clone()
    };
    let selected = |service: &Value| service["spec"]["selector"]["app.kubernetes.io/name"].clone();
    assert_eq!(selected(&service), labels(&object(NODE, "DaemonSet")));
    let behind = object(GATEWAY, "Service");
    assert_eq!(selected(&behind), labels(&object(GATEWAY, "StatefulSet")));
    assert_eq!(behind["spec"]["clusterIP"], "None", "each gateway has an address");
    let dns = &node["exporters"]["load_balancing"]["resolver"]["dns"];
    let expected = format!(
        "{}.{}.svc",
        behind["metadata"]["name"].as_str().unwrap(),
        behind["metadata"]["namespace"].as_str().unwrap()
    );
    assert_eq!(dns["hostname"], expected);
    for (config, port) in [
        (&node, &service["spec"]["ports"][0]["port"]),
        (&gateway, &dns["port"]),
    ] {
        let endpoint = config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
            .as_str()
            .unwrap();
        let port = port.as_str().map_or_else(|| port.to_string(), str::to_owned);
        assert!(endpoint.ends_with(&format!(":{port}")), "{endpoint} and {port}");
    }
    // Only this node's pods, known by the UID that the agent reads.
    let enrich = &node["processors"]["k8s_attributes"];
    assert_eq!(enrich["filter"]["node_from_env_var"], "K8S_NODE_NAME");
    assert_eq!(enrich["pod_association"][0]["sources"][0]["name"], "k8s.pod.uid");
    let source = serde_json::json!([{"sources": [{"from": "resource_attribute", "name": "k8s.pod.uid"}]}]);
    assert_eq!(enrich["pod_association"], source);
}
