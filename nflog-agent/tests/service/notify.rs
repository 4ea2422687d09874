//! What the agent tells the service manager.

use crate::manager::{Manager, State};
use crate::program::Agent;
use crate::support::{Netns, wait_for};

#[test]
fn the_manager_hears_of_start_state_and_end() {
    let netns = Netns::new("notify");
    let path = netns.path().display().to_string();
    let manager = Manager::new(true);
    let agent = manager.start(&["--group", "7", "--netns", &path]);
    assert_eq!(netns.bound_groups(), [7], "ready before the group is bound");
    let status = wait_for("a status", || {
        let status = |state: &State| {
            let lines = state.lines.iter();
            lines
                .filter_map(|line| line.strip_prefix("STATUS="))
                .next_back()
                .map(str::to_owned)
        };
        manager.look(status)
    });
    assert!(status.contains("1 network namespace"), "{status}");
    assert_eq!(manager.look(|state| state.count("STOPPING=1")), 0);
    agent.stop();
    wait_for("the end", || {
        manager.look(|state| (state.count("STOPPING=1") == 1).then_some(()))
    });
    assert_eq!(manager.look(|state| state.count("READY=1")), 1);
    assert_eq!(
        manager.look(|state| state.count("WATCHDOG=1")),
        0,
        "nobody asked for it"
    );
}

#[test]
fn an_agent_that_cannot_read_is_never_ready() {
    let netns = Netns::new("busy");
    let path = netns.path().display().to_string();
    let first = Agent::start(&["--group", "7", "--netns", &path], &[]);
    let manager = Manager::new(true);
    let second = manager.spawn(&["--group", "7", "--netns", &path]).wait();
    assert_eq!(second.code, Some(75), "{}", second.messages());
    assert_eq!(manager.look(|state| state.count("READY=1")), 0);
    assert_eq!(manager.look(State::kept), [] as [String; 0]);
    first.stop();
}

#[test]
fn a_manager_that_does_not_listen_is_said_once_and_changes_nothing() {
    let netns = Netns::new("deaf");
    let path = netns.path().display().to_string();
    let deaf = [("NOTIFY_SOCKET", "/nonexistent/notify"), ("FDSTORE", "4")];
    let agent = Agent::start(&["--group", "7", "--netns", &path], &deaf);
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages());
    let said = ended.stderr.iter().filter(|line| line.contains("NOTIFY_SOCKET"));
    assert_eq!(said.count(), 1, "{}", ended.messages());
}

#[test]
fn descriptors_that_are_not_ours_are_left_alone() {
    let netns = Netns::new("strange");
    let path = netns.path().display().to_string();
    let mut command = std::process::Command::new("bash");
    let script = "export LISTEN_PID=$$; exec \"$0\" run --group 7 --netns \"$1\" 3</dev/null";
    command
        .args(["-c", script])
        .arg(crate::program::binary())
        .arg(&path);
    command.envs([("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "web")]);
    let mut agent = Agent::from(&mut command);
    agent.wait_until_said("reading group");
    assert!(agent.said("'web'"));
    assert_eq!(agent.stop().code, Some(0));
}
