//! `--max-netns`.

use super::{Cgroup, Pod, agent, assert_account};
use crate::program::Agent;
use crate::support::Netns;

#[test]
fn beyond_the_limit_namespaces_are_named_and_read_when_there_is_room() {
    let cgroup = Cgroup::new("limit");
    let names = ["a", "b"].map(|name| format!("{}/{name}", cgroup.path));
    let mut agent = agent(&["--netns-of-cgroup", &cgroup.path, "--max-netns", "1"]);
    let mut first = Pod::new(&cgroup.child("a"));
    agent.wait_until_said(&format!(" reading {}", first.named(&names[0])));
    let second = Pod::new(&cgroup.child("b"));
    agent.wait_until_said(&format!(
        "not read, as --max-netns 1 are: {}",
        second.named(&names[1])
    ));
    first.send(5);
    first.end();
    agent.wait_until_said(&format!(" reading {}", second.named(&names[1])));
    second.send(6);
    let ended = agent.stop();
    assert!(
        ended
            .messages()
            .contains("appeared 2, vanished 2, refused 0, over-limit 1"),
        "{}",
        ended.messages()
    );
    assert_account(&ended, 11);
}

#[test]
fn more_names_than_the_limit_are_a_usage_error() {
    let netns = [Netns::new("one"), Netns::new("two")];
    let list = netns
        .each_ref()
        .map(|netns| netns.path().display().to_string())
        .join(",");
    let arguments = [
        "--group",
        "7",
        "--attribution",
        "sockdiag",
        "--netns",
        &list,
        "--max-netns",
        "1",
    ];
    let ended = Agent::spawn(&arguments, &[]).wait();
    assert_eq!(ended.code, Some(64), "{}", ended.messages());
    assert!(
        ended.messages().contains("names 2 network namespaces") && ended.messages().contains("--max-netns"),
        "{}",
        ended.messages()
    );
}

#[test]
fn a_process_that_does_not_exist_is_named() {
    let arguments = ["--group", "7", "--attribution", "sockdiag", "--netns", "4194304"];
    let ended = Agent::spawn(&arguments, &[]).wait();
    assert_eq!(ended.code, Some(64), "{}", ended.messages());
    assert!(
        ended.messages().contains("/proc/4194304/ns/net"),
        "{}",
        ended.messages()
    );
}

#[test]
fn a_file_that_is_no_network_namespace_is_named() {
    for path in ["/proc/self/ns/mnt", "/proc/self/status"] {
        let arguments = ["--group", "7", "--attribution", "sockdiag", "--netns", path];
        let ended = Agent::spawn(&arguments, &[]).wait();
        assert_eq!(ended.code, Some(64), "{}", ended.messages());
        let words = format!("{path} is not a network namespace");
        assert!(ended.messages().contains(&words), "{}", ended.messages());
    }
}
