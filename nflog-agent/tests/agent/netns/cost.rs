//! What namespaces cost: threads, memory, time to look.

use std::fs;

use super::{Cgroup, Pod, assert_account, held};
use crate::program::Agent;
use crate::support::wait_for;

/// As many pods as a large node has.
const PODS: u64 = 250;

/// Resident memory, KiB.
fn resident(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

/// User and system time, hundredths of a second.
fn cpu(agent: &Agent) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", agent.pid())).unwrap();
    let fields: Vec<_> = stat[stat.rfind(')').unwrap()..].split(' ').collect();
    fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
}

#[test]
#[ignore = "makes 250 namespaces; prints the figures of RELIABILITY.md"]
fn the_cost_of_250_namespaces() {
    let cgroup = Cgroup::new("cost");
    let arguments = [
        "--group",
        "7",
        "--output",
        "json",
        "--attribution",
        "sockdiag",
        "--netns-of-cgroup",
        &cgroup.path,
    ];
    let agent = Agent::start(
        &arguments,
        &[("RUST_LOG", "info,nflog_agent::agent::serve=debug")],
    );
    let (files, threads) = held(&agent);
    let memory = resident(&agent);
    let pods: Vec<_> = (0..PODS)
        .map(|pod| Pod::new(&cgroup.child(&format!("pod{pod}"))))
        .collect();
    let (more_files, more_threads) = wait_for("all to be read", || {
        let now = held(&agent);
        (now.1 >= threads + pods.len()).then_some(now)
    });
    let idle = resident(&agent);
    let before = cpu(&agent);
    std::thread::sleep(std::time::Duration::from_secs(60));
    let minute = cpu(&agent) - before;
    let look = agent.last_said("looked for namespaces in ");
    let processes = fs::read_dir("/proc").unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_str().is_some_and(|name| name.parse::<u32>().is_ok())
    });
    println!("COST one look at {} processes: {look}", processes.count());
    pods.iter().for_each(|pod| pod.send(100));
    std::thread::sleep(std::time::Duration::from_secs(2));
    let busy = resident(&agent);
    println!(
        "COST {PODS} namespaces: {} threads, {} descriptors, {} KiB each ({memory} -> {idle} KiB), {} KiB each after 100 packets, \
         {minute}0 ms of CPU in an idle minute",
        more_threads - threads,
        more_files - files,
        (idle - memory) / PODS,
        (busy - memory) / PODS,
    );
    assert_eq!(more_threads - threads, pods.len(), "one thread for each");
    assert!((idle - memory) / PODS < 256, "KiB for each namespace");
    assert_account(&agent.stop(), PODS * 100);
}
