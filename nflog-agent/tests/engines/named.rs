//! The agent as a process: a sender in a container's cgroup, a rule, and a record with the container's name.

use serde_json::Value;

use crate::engine::{DOCKER, Engine, Fault, id};
use crate::program::Agent;
use crate::support::sender::Sender;
use crate::support::{Netns, wait_for};

const RULES: &str = "table inet t {
    chain out { type filter hook output priority 0; udp dport 9999 log prefix \"container \" group 7; }
}";

/// Sends until a record's Resource is as wanted.
fn send_until(agent: &Agent, sender: &mut Sender, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for("the record", || {
        sender.send();
        let lines = agent.take_output();
        let records = lines
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        records
            .map(|mut record| record["resource"].take())
            .find(|resource| wanted(resource))
    })
}

#[test]
fn a_record_of_a_container_has_its_id_first_and_its_name_once_its_engine_answers() {
    let netns = Netns::new("engine");
    netns.nft(RULES);
    let directory = tempfile::tempdir().unwrap();
    let docker = Engine::start(&directory.path().join("docker"), DOCKER);
    docker.fail([Fault::Status(500), Fault::Status(500)]);
    let sockets = format!(
        "{},{}",
        directory.path().join("away").display(),
        docker.socket().display()
    );
    let more = ["--output", "json", "--container-sockets", &sockets];
    let mut agent = Agent::on(&netns, &more, &[("KUBECONFIG", "")]);
    let container = id(DOCKER);
    let mut sender = Sender::start(&netns, &[&format!("docker-{container}.scope")], "127.0.0.1:9999");
    let bare = send_until(&agent, &mut sender, |resource| {
        resource["container.id"] == container.as_str()
    });
    assert_eq!(
        (bare.get("container.name"), &bare["container.runtime.name"]),
        (None, &"docker".into())
    );
    agent.wait_until_said("answers with status 500");
    let named = send_until(&agent, &mut sender, |resource| {
        resource.get("container.name").is_some()
    });
    for (name, value) in [
        ("container.name", "shop-web-1"),
        ("container.id", container.as_str()),
        ("container.image.name", "registry.example:5000/nginx"),
        ("service.name", "nflog-agent"),
    ] {
        assert_eq!(named[name], value, "{name}: {named}");
    }
    assert_eq!(named["container.image.tags"], serde_json::json!(["1.27"]));
    assert_eq!(named.get("k8s.container.name"), None);
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages());
    assert_eq!(docker.requests().len(), 3, "{:?}", docker.requests());
}
