//! `--netns`: names, paths and pids, and what becomes of them.

use std::process::Command;

use super::{Cgroup, Pod, RULES, agent, assert_account, flood, records_of};
use crate::support::{Netns, wait_for};

#[test]
fn names_paths_and_pids_are_read_at_once_and_each_namespace_once() {
    let cgroup = Cgroup::new("named");
    let (named, by_path) = (Netns::new("named"), Netns::new("path"));
    let name = named.path().file_name().unwrap().to_str().unwrap().to_owned();
    let pods = [Pod::new(&cgroup.child("a")), Pod::new(&cgroup.child("b"))];
    let path = by_path.path().display().to_string();
    let pids = [
        pods[0].child.id().to_string(),
        format!("/proc/{}/ns/net", pods[1].child.id()),
    ];
    let list = [&name, &path, &pids[0], &pids[1]].map(String::as_str).join(",");
    // Once more, under other names.
    let again = named.path().display().to_string();
    let agent = agent(&["--netns", &list, "--netns", &again, "--netns", &pids[1]]);
    assert!(agent.said("is read already, under another name"));

    for netns in [&named, &by_path] {
        netns.nft(RULES);
        netns.run(|| flood(30));
    }
    pods.iter().for_each(|pod| pod.send(40));
    let ended = agent.stop();
    assert_eq!((named.counter("sent"), by_path.counter("sent")), (30, 30));
    for (inode, sent) in [
        (named.inode(), 30),
        (by_path.inode(), 30),
        (pods[0].inode, 40),
        (pods[1].inode, 40),
    ] {
        assert_eq!(records_of(&ended, inode), sent, "namespace {inode}");
    }
    assert_account(&ended, 140);
}

#[test]
fn a_name_is_followed_to_the_namespace_that_is_made_under_it() {
    let netns = Netns::new("again");
    let name = netns.path().file_name().unwrap().to_str().unwrap().to_owned();
    let first = netns.inode();
    netns.nft(RULES);
    let mut agent = agent(&["--netns", &name, "--netns-interval", "200ms"]);
    netns.run(|| flood(10));
    ip(&["netns", "del", &name]);
    agent.wait_until_said(&format!("no longer reading {name}"));

    ip(&["netns", "add", &name]);
    netns.ip("link set lo up");
    let second = netns.inode();
    agent.wait_until_said(&format!("reading {name} (network namespace {second})"));
    netns.nft(RULES);
    netns.run(|| flood(20));

    // At once: the old namespace still is the agent's when the new one is made.
    ip(&["netns", "del", &name]);
    ip(&["netns", "add", &name]);
    netns.ip("link set lo up");
    let third = netns.inode();
    assert_ne!(third, second, "the second namespace was still open in the agent");
    agent.wait_until_said(&format!("reading {name} (network namespace {third})"));
    agent.wait_until_said(&format!("no longer reading {name} (network namespace {second})"));
    netns.nft(RULES);
    netns.run(|| flood(40));
    let ended = agent.stop();
    // The number of the first one is free again.
    let same = if third == first { 10 } else { 0 };
    assert_eq!(records_of(&ended, third), 40 + same);
    assert_eq!(records_of(&ended, second), if second == first { 30 } else { 20 });
    assert_account(&ended, 70);
}

#[test]
fn the_agent_ends_with_the_last_process_that_was_named() {
    let cgroup = Cgroup::new("last");
    let mut pods = [Pod::new(&cgroup.child("a")), Pod::new(&cgroup.child("b"))];
    let pids = pods.each_ref().map(|pod| pod.child.id().to_string());
    let mut agent = agent(&["--netns", &pids.join(","), "--netns-interval", "200ms"]);
    pods[0].send(5);
    pods[0].end();
    agent.wait_until_said(&format!("no longer reading {}", pids[0]));
    pods[1].send(7);
    pods[1].end();
    let ended = agent.wait();
    assert!(ended.messages().contains("has ended"), "{}", ended.messages());
    assert_account(&ended, 12);
}

#[test]
fn a_name_made_again_whose_group_is_taken_is_said_and_read_later() {
    let netns = Netns::new("taken");
    let name = netns.path().file_name().unwrap().to_str().unwrap().to_owned();
    let mut agent = agent(&["--netns", &name, "--netns-interval", "200ms"]);
    ip(&["netns", "del", &name]);
    agent.wait_until_said(&format!("no longer reading {name}"));
    // The new namespace gets its name only when its group has a reader.
    let pod_cgroup = Cgroup::new("taken");
    let pod = Pod::new(&pod_cgroup.child("a"));
    let busy = super::reader(&pod);
    ip(&["netns", "attach", &name, &pod.child.id().to_string()]);
    agent.wait_until_said(&format!(
        "{name} (network namespace {}) is not read for now",
        pod.inode
    ));
    drop(busy);
    wait_for("the agent to try again", || {
        agent
            .said(&format!("reading {name} (network namespace {})", pod.inode))
            .then_some(())
    });
    pod.send(9);
    assert_account(&agent.stop(), 9);
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}
