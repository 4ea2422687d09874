//! A thread of the agent that hangs: ptrace stops one thread and leaves the others running.

use std::fs;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Stopped, as a hung call would stop it, until this is dropped: also by a panic, since a process cannot be waited for while one
/// of its threads is traced.
pub(crate) struct Hung(Pid);

impl Hung {
    /// Stops the thread of the process whose name begins so.
    #[track_caller]
    pub(crate) fn stop(process: u32, name: &str) -> Self {
        let thread = thread(process, name);
        ptrace::seize(thread, Options::empty()).expect("root may trace the agent");
        let hung = Self(thread);
        ptrace::interrupt(thread).unwrap();
        let stopped = waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        assert!(
            matches!(stopped, WaitStatus::PtraceEvent(_, Signal::SIGTRAP, _)),
            "{stopped:?}"
        );
        hung
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        ptrace::detach(self.0, None).expect("it is stopped");
    }
}

#[track_caller]
fn thread(process: u32, name: &str) -> Pid {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let found = tasks
        .map(|task| task.unwrap())
        .find(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.starts_with(name)));
    let id = found.unwrap_or_else(|| panic!("no thread {name}")).file_name();
    Pid::from_raw(id.to_str().unwrap().parse().unwrap())
}
