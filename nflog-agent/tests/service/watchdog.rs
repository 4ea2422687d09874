//! Signs of life: while all loops move, and only then.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::manager::Manager;
use crate::support::{Netns, wait_for};

/// The thread of a process whose name begins so.
fn thread(pid: u32, name: &str) -> Pid {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let named = tasks.map(|task| task.unwrap()).find(|task| {
        let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        comm.starts_with(name)
    });
    let task = named.unwrap_or_else(|| panic!("no thread {name}"));
    Pid::from_raw(task.file_name().to_str().unwrap().parse().unwrap())
}

/// A thread that is stopped, as a hung call would stop it, until this is dropped: also by a panic, since a process cannot be waited for
/// while one of its threads is traced.
struct Hung(Pid);

impl Hung {
    fn stop(thread: Pid) -> Self {
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        ptrace::detach(self.0, None).expect("it is stopped");
    }
}

#[test]
fn signs_of_life_end_when_a_loop_hangs_and_come_back_with_it() {
    let netns = Netns::new("watchdog");
    let path = netns.path().display().to_string();
    let interval = Duration::from_secs(2);
    let manager = Manager::new(true).with_watchdog(interval);
    let signs = || manager.look(|state| state.count("WATCHDOG=1"));
    let more = |than: usize| wait_for("a sign of life", || (signs() > than).then_some(()));
    let agent = manager.start(&["--group", "7", "--netns", &path]);
    more(2);
    for (name, says) in [("nflog ", "the reader of "), ("network", "the exporter")] {
        let said = agent.count_said(says);
        let hung = Hung::stop(thread(agent.pid(), name));
        wait_for("the agent to notice", || {
            (agent.count_said(says) > said).then_some(())
        });
        let before = signs();
        sleep(2 * interval);
        assert_eq!(signs(), before, "{name}");
        drop(hung);
        more(before);
    }
    assert_eq!(agent.stop().code, Some(0));
}
