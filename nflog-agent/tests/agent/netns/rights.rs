//! Which capabilities `--netns-of-cgroup` takes, and what is said when one is missing.

use std::process::Command;

use super::{Cgroup, Pod, assert_account};
use crate::program::{Agent, binary};

/// What the agent has in `deploy/` on a kernel without kprobes.
const DEPLOYED: [&str; 3] = ["net_admin", "sys_ptrace", "dac_read_search"];

/// An agent of another user with these capabilities only.
fn agent(cgroup: &Cgroup, capabilities: &[&str]) -> Agent {
    let set = format!("-all,+{}", capabilities.join(",+"));
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
        ])
        .args(["--inh-caps", "--ambient-caps", "--bounding-set"].map(|kind| format!("{kind}={set}")))
        .arg(binary())
        .args([
            "run",
            "--group",
            "7",
            "--output",
            "json",
            "--attribution",
            "sockdiag",
        ])
        .args(["--netns-of-cgroup", &cgroup.path])
        .env("RUST_LOG", "info");
    let mut agent = Agent::from(&mut command);
    agent.wait_until_said("reading group");
    agent
}

#[test]
fn with_sys_admin_and_sys_ptrace_a_user_without_rights_reads_found_namespaces() {
    let cgroup = Cgroup::new("rights");
    let place = format!("{}/pod", cgroup.path);
    let mut agent = agent(&cgroup, &[&DEPLOYED[..], &["sys_admin"]].concat());
    let mut pod = Pod::new(&cgroup.child("pod"));
    agent.wait_until_said(&format!(" reading {}", pod.named(&place)));
    pod.send(5);
    pod.end();
    agent.wait_until_said(&format!("no longer reading {}", pod.named(&place)));
    assert_account(&agent.stop(), 5);
}

#[test]
fn without_sys_admin_a_found_namespace_is_refused_with_the_remedy() {
    let cgroup = Cgroup::new("noadmin");
    let pod = Pod::new(&cgroup.child("pod"));
    let agent = agent(&cgroup, &DEPLOYED);
    let ended = agent.stop();
    let messages = ended.messages();
    let refusal = format!(
        "{} is not read for now",
        pod.named(&format!("{}/pod", cgroup.path))
    );
    let line = ended.stderr.iter().find(|line| line.contains(&refusal));
    let line = line.unwrap_or_else(|| panic!("no `{refusal}` in:\n{messages}"));
    assert!(line.contains("CAP_SYS_ADMIN is needed"), "{messages}");
    assert!(!line.contains("/proc/self/fd"), "{messages}");
    assert_account(&ended, 0);
}

#[test]
fn without_sys_ptrace_that_is_said_once() {
    let cgroup = Cgroup::new("noptrace");
    let pod = Pod::new(&cgroup.child("pod"));
    let mut agent = agent(&cgroup, &["net_admin", "dac_read_search", "sys_admin"]);
    agent.wait_until_said("CAP_SYS_PTRACE is needed");
    // Signs to look again.
    let others = ["a", "b"].map(|name| Pod::new(&cgroup.child(name)));
    std::thread::sleep(std::time::Duration::from_secs(1));
    drop((pod, others));
    let ended = agent.stop();
    let said = ended
        .stderr
        .iter()
        .filter(|line| line.contains("CAP_SYS_PTRACE is needed"))
        .count();
    assert_eq!(said, 1, "{}", ended.messages());
    assert_account(&ended, 0);
}
