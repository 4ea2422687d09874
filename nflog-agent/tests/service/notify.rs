//! What the agent tells the service manager.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;

use crate::hung::Hung;
use crate::manager::{Manager, State};
use crate::program::Agent;
use crate::support::{Netns, PATIENCE, wait_for};

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
    let first = Agent::on(&netns, &[], &[]);
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
    let deaf = [("NOTIFY_SOCKET", "/nonexistent/notify"), ("FDSTORE", "4")];
    let agent = Agent::on(&netns, &[], &deaf);
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

#[test]
fn a_reload_is_announced_and_one_serves_all_who_ask_before_it_begins() {
    let netns = Netns::new("reloading");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    let text = format!("group = 7\nnetns = '{}'\n", netns.path().display());
    std::fs::write(&file, text).unwrap();
    let manager = Manager::new(true);
    let agent = manager.start(&["--config", &file.display().to_string()]);
    let reloads = || manager.look(|state| state.count("RELOADING=1"));
    let ready = || manager.look(|state| state.count("READY=1"));
    let wait_for_ready = |times: usize| wait_for("READY=1", || (ready() >= times).then_some(()));
    agent.signal(Signal::HUP);
    wait_for_ready(2);
    assert_eq!(reloads(), 1);
    let has_time = |state: &State| state.lines.iter().any(|line| line.starts_with("MONOTONIC_USEC="));
    assert!(manager.look(has_time));
    let hung = Hung::stop(agent.pid(), "nflog-agent");
    for _ in 0..100 {
        agent.signal(Signal::HUP);
        // Signals that come at once are one already.
        sleep(Duration::from_millis(1));
    }
    drop(hung);
    wait_for_ready(3);
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages());
    // The last signal may have come when the main loop had begun.
    assert!(reloads() <= 3, "{}", reloads());
    assert_eq!(reloads() + 1, ready(), "each ends");
}

#[test]
fn a_manager_that_listens_on_a_name_without_a_file_hears_too() {
    let netns = Netns::new("abstract");
    let name = format!("nflog-notify-{}", netns.inode());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // A watchdog that waits for no time is none.
    let environment = [("NOTIFY_SOCKET", &*format!("@{name}")), ("WATCHDOG_USEC", "0")];
    let agent = Agent::on(&netns, &[], &environment);
    let mut message = [0; 64];
    let length = socket.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1");
    let ended = agent.stop();
    assert!(!ended.messages().contains("ERROR"), "{}", ended.messages());
}
