//! A thread that hangs makes `/live` fail. Hanging is made by ptrace, which stops one thread and leaves the others running.

use std::fs;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::program::Agent;
use crate::scrape::get;
use crate::support::wait_for;
use crate::{logging, send, start};

/// A thread of the agent, by its name.
#[track_caller]
fn thread(agent: &Agent, name: &str) -> Pid {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    let found = tasks
        .map(|task| task.unwrap())
        .find(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.starts_with(name)));
    let id = found.unwrap_or_else(|| panic!("no thread {name}")).file_name();
    Pid::from_raw(id.to_str().unwrap().parse().unwrap())
}

#[test]
fn a_reader_that_hangs_makes_the_agent_not_live_until_it_goes_on() {
    let netns = logging("hang");
    let (agent, address) = start(&netns, &["--output", "json"], &[]);
    assert_eq!(get(address, "/live").status, 200);
    let reader = thread(&agent, "nflog ");
    ptrace::seize(reader, Options::empty()).expect("root may trace the agent");
    ptrace::interrupt(reader).unwrap();
    let stopped = waitpid(reader, Some(WaitPidFlag::__WALL)).unwrap();
    assert!(
        matches!(stopped, WaitStatus::PtraceEvent(_, Signal::SIGTRAP, _)),
        "{stopped:?}"
    );
    let failed = wait_for("the agent to notice", || {
        let live = get(address, "/live");
        (live.status != 200).then_some(live)
    });
    assert_eq!(failed.status, 503);
    assert!(
        failed.body.starts_with("the reader of ") && failed.body.contains("has not moved for"),
        "{}",
        failed.body
    );
    // It is not unready: whether to send it work is another question.
    assert_eq!(get(address, "/ready").status, 200);
    ptrace::detach(reader, None).unwrap();
    wait_for("the reader to go on", || {
        (get(address, "/live").status == 200).then_some(())
    });
    send(&netns, 3);
    let ended = agent.stop();
    assert_eq!(ended.count("received"), 3);
}
