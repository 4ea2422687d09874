//! `--netns-of-cgroup`: namespaces that come and go with the processes in them.

use std::path::Path;

use super::{Cgroup, Pod, RULES, agent, assert_account, held, reader, records_of};
use crate::program::Agent;
use crate::support::{Netns, mount, veth, wait_for};

/// Rounds of appearing and vanishing; a leak of one descriptor per round is far beyond what varies. In a guest, which is emulated,
/// one takes as long as ten here.
fn rounds() -> u64 {
    if std::env::var_os("NFLOG_TEST_AGENT").is_some() {
        3
    } else {
        30
    }
}

#[test]
fn namespaces_come_and_go_without_a_trace() {
    let cgroup = Cgroup::new("come");
    let host = Netns::new("host");
    let place = format!("{}/pod", cgroup.path);
    // With probes where there are any: they keep a list of namespaces as well.
    let arguments = [
        "--group",
        "7",
        "--output",
        "json",
        "--netns-of-cgroup",
        &cgroup.path,
    ];
    let mut agent = Agent::start(&arguments, &[]);
    let mut before = None;
    let rounds = rounds();
    for round in 0..rounds {
        let netns = Netns::new("pod");
        netns.nft(RULES);
        let (other_end, _) = veth(&host, &netns);
        let mut pod = Pod::inside(&netns, &cgroup.child("pod"));
        // Only the process holds the namespace now.
        drop(netns);
        agent.wait_until_said(&format!(" reading {}", pod.named(&place)));
        pod.send(round + 1);
        assert_eq!(pod.counter(), round + 1);
        pod.end();
        agent.wait_until_said(&format!("no longer reading {}", pod.named(&place)));
        wait_for("the kernel to free the namespace", || {
            host.try_ip(&format!("link show dev {}", other_end.device)).err()
        });
        // One more while it looks.
        let least = (0..20).map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            held(&agent)
        });
        let least = least.min().expect("20 of them");
        assert_eq!(
            *before.get_or_insert(least),
            least,
            "descriptors and threads after round {round}"
        );
    }
    let ended = agent.stop();
    assert!(
        !ended.messages().contains("go on to answer"),
        "{}",
        ended.messages()
    );
    assert!(
        ended.messages().contains(&format!(
            "appeared {rounds}, vanished {rounds}, refused 0, over-limit 0"
        )),
        "{}",
        ended.messages()
    );
    assert_account(&ended, rounds * (rounds + 1) / 2);
}

#[test]
fn those_found_and_those_named_are_read_together_and_others_are_not() {
    let cgroup = Cgroup::new("some");
    let named = Netns::new("named");
    named.nft(RULES);
    let first = Pod::new(&cgroup.child("pod1"));
    let other = Pod::new(&cgroup.child("other"));
    // In the pattern, and named: one reader.
    let both = Pod::inside(&named, &cgroup.child("pod2"));
    let pattern = format!("{}/pod*", cgroup.path);
    let path = named.path().display().to_string();
    let mut agent = agent(&["--netns", &path, "--netns-of-cgroup", &pattern]);
    assert!(agent.said(&format!(
        " reading {}",
        first.named(&format!("{}/pod1", cgroup.path))
    )));
    let second = Pod::new(&cgroup.child("pod3"));
    agent.wait_until_said(&format!(
        " reading {}",
        second.named(&format!("{}/pod3", cgroup.path))
    ));
    assert!(
        !agent.said(&other.inode.to_string()),
        "a namespace of another cgroup"
    );
    // Nobody reads the group there.
    drop(reader(&other));

    for (pod, packets) in [(&first, 20), (&second, 30), (&other, 40), (&both, 50)] {
        pod.send(packets);
    }
    assert_eq!(
        [&first, &second, &other, &both].map(Pod::counter),
        [20, 30, 40, 50]
    );
    let ended = agent.stop();
    for (pod, records) in [(&first, 20), (&second, 30), (&other, 0), (&both, 50)] {
        assert_eq!(records_of(&ended, pod.inode), records);
    }
    assert_account(&ended, 100);
}

#[test]
fn a_namespace_whose_name_is_deleted_is_still_read_for_a_process_in_it() {
    let cgroup = Cgroup::new("kept");
    let named = Netns::new("kept");
    named.nft(RULES);
    let mut pod = Pod::inside(&named, &cgroup.child("pod"));
    let path = named.path().display().to_string();
    let mut agent = agent(&[
        "--netns",
        &path,
        "--netns-of-cgroup",
        &cgroup.path,
        "--netns-interval",
        "200ms",
    ]);
    pod.send(3);
    drop(named);
    agent.wait_until_said(&format!("{path} is gone"));
    pod.send(4);
    pod.end();
    agent.wait_until_said(&format!("no longer reading {path}"));
    assert_account(&agent.stop(), 7);
}

#[test]
fn a_process_that_moves_into_a_matching_cgroup_brings_its_namespace_and_takes_it_along() {
    let cgroup = Cgroup::new("move");
    let inside = cgroup.child("inside");
    let pattern = format!("{}/inside", cgroup.path);
    let mut agent = agent(&["--netns-of-cgroup", &pattern]);
    let pod = Pod::new(&cgroup.child("outside"));
    let to = |cgroup: &Path| std::fs::write(cgroup.join("cgroup.procs"), pod.child.id().to_string()).unwrap();
    to(&inside);
    agent.wait_until_said(&format!(" reading {}", pod.named(&pattern)));
    pod.send(11);
    to(&cgroup.child("outside"));
    agent.wait_until_said(&format!("no longer reading {}", pod.named(&pattern)));
    pod.run(|| super::flood(13));
    assert_account(&agent.stop(), 11);
}

#[test]
fn a_group_that_is_taken_in_a_found_namespace_is_said_once_and_read_later() {
    let cgroup = Cgroup::new("busy");
    let place = format!("{}/pod", cgroup.path);
    let netns = Netns::new("busy");
    netns.nft(RULES);
    let mut agent = agent(&["--netns-of-cgroup", &cgroup.path, "--netns-interval", "100ms"]);
    let outside = Cgroup::new("outside");
    let pod = Pod::inside(&netns, &outside.child("pod"));
    let busy = reader(&pod);
    let entry = cgroup.child("pod").join("cgroup.procs");
    std::fs::write(entry, pod.child.id().to_string()).unwrap();
    let refusal = format!(
        "{} is not read for now: NFLOG group 7 is already read by",
        pod.named(&place)
    );
    agent.wait_until_said(&refusal);
    // Several attempts and looks later.
    std::thread::sleep(std::time::Duration::from_secs(4));
    drop(busy);
    agent.wait_until_said(&format!(" reading {}", pod.named(&place)));
    pod.send(8);
    let ended = agent.stop();
    let said = ended.stderr.iter().filter(|line| line.contains(&refusal)).count();
    assert_eq!(said, 1, "{}", ended.messages());
    assert!(ended.messages().contains("refused 1"), "{}", ended.messages());
    assert_account(&ended, 8);
}

#[test]
fn a_cgroup_of_a_v1_hierarchy_matches_as_well() {
    let Some(v1) =
        mount(|fields| fields[2] == "cgroup" && fields[3].split(',').any(|option| option == "pids"))
    else {
        println!("SKIPPED: no cgroup v1 hierarchy `pids` is mounted here");
        return;
    };
    let cgroup = Cgroup::in_hierarchy(&v1, "v1");
    let mut agent = agent(&["--netns-of-cgroup", &cgroup.path]);
    let mut pod = Pod::new(&cgroup.child("pod"));
    let place = format!("{}/pod", cgroup.path);
    agent.wait_until_said(&format!(" reading {}", pod.named(&place)));
    pod.send(6);
    pod.end();
    agent.wait_until_said(&format!("no longer reading {}", pod.named(&place)));
    assert_account(&agent.stop(), 6);
}
