//! [`Processes`]: the events of the kernel probes, taken in by whoever comes first: a thread of their own as they arrive, or a
//! reader that is about to look somebody up.
//!
//! The lock is held over memory operations only: for some microseconds by that thread, which takes a few events at a time.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use nflog_common::ImageId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::Image;
pub use super::cache::CacheSize;
use super::cache::{Cache, ProcessId};
use crate::owner::{Counters, ProcFs, ProcessEvents, Stat};

/// Images that are kept of processes that run, and as many again of those that do not.
const CAPACITY: usize = 1 << 15;

/// Events that the thread takes in before it lets others have the lock.
const AT_ONCE: usize = 64;

/// Longest sleep of the thread: how late its end may be.
const POLL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// At most this often the thread looks for processes whose end it was not told of.
const SWEEP: Duration = Duration::from_secs(10);

/// What is known of processes. Shared by all readers.
pub struct Processes {
    state: Mutex<State>,
    counters: Option<Counters>,
    arguments: bool,
}

struct State {
    /// `None` in unit tests.
    events: Option<ProcessEvents>,
    cache: Cache,
}

impl Processes {
    /// `arguments`: the probes were asked for arguments.
    #[must_use]
    pub fn new(events: ProcessEvents, counters: Counters, arguments: bool) -> Self {
        let state = State {
            events: Some(events),
            cache: Cache::new(CAPACITY),
        };
        Self {
            state: Mutex::new(state),
            counters: Some(counters),
            arguments,
        }
    }

    /// One that was told these events and hears no others.
    #[cfg(test)]
    pub(crate) fn told(events: &[(nflog_common::ProcessEvent, nflog_common::ProcessText<'_>)]) -> Self {
        let mut cache = Cache::new(CAPACITY);
        for (event, text) in events {
            cache.apply(event, *text);
        }
        Self {
            state: Mutex::new(State { events: None, cache }),
            counters: None,
            arguments: false,
        }
    }

    /// Takes in all events that have arrived.
    ///
    /// A reader calls it after it has received packets and before it looks up their owners: what these did before the packets
    /// were logged is then known. An event that another CPU is just writing holds up those after it for a moment, much shorter
    /// than the time that packets wait to be read.
    pub fn refresh(&self) {
        self.lock().drain(usize::MAX);
    }

    /// The program with this id; `None` if it began before the agent or the event was lost.
    #[must_use]
    pub fn image(&self, id: &ImageId) -> Option<Arc<Image>> {
        self.lock().cache.image(id)
    }

    /// The path of the cgroup with this v2 id, as the root cgroup namespace has it, if a program began in it. Not of the root.
    #[must_use]
    pub fn cgroup_path(&self, id: u64) -> Option<Arc<str>> {
        self.lock().cache.cgroup(id)
    }

    /// Whether the process may by now run another program than that with this id, as far as events tell.
    #[must_use]
    pub fn has_moved_on(&self, id: &ImageId) -> bool {
        let mut state = self.lock();
        state.drain(usize::MAX);
        let current = state.cache.current((id.tgid, id.start_boottime));
        current.is_some_and(|exec_id| exec_id != id.exec_id)
    }

    /// Whether arguments are wanted.
    #[must_use]
    pub const fn wants_arguments(&self) -> bool {
        self.arguments
    }

    /// Events that were lost because the ring buffer was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let Some(counters) = &self.counters else { return 0 };
        let lost = counters.read().map(|counts| {
            counts
                .into_iter()
                .find(|(stat, _)| *stat == Stat::ProcessEventsLost)
        });
        match lost {
            Ok(lost) => lost.map_or(0, |(_, count)| count),
            Err(error) => {
                tracing::warn!("cannot read the probes' counters: {error}");
                u64::MAX
            }
        }
    }

    /// How much is known.
    #[must_use]
    pub fn size(&self) -> CacheSize {
        self.lock().cache.size()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves no event half applied that matters: keys are never reused.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the ends that were lost: takes each process that is held to run and does not for ended.
    fn sweep(&self, proc: &ProcFs) {
        let running = self.lock().cache.running();
        let gone: Vec<_> = running
            .into_iter()
            .filter(|process| is_gone(proc, *process))
            .collect();
        for process in gone {
            self.lock().cache.end(process);
        }
    }
}

impl State {
    /// Takes in at most this many events; whether there may be more.
    fn drain(&mut self, most: usize) -> bool {
        let Self {
            events: Some(events),
            cache,
        } = self
        else {
            return false;
        };
        for _ in 0..most {
            if !events.next(|event, text| cache.apply(event, text)) {
                return false;
            }
        }
        true
    }
}

/// Only if `/proc` says so clearly.
fn is_gone(proc: &ProcFs, (pid, start): ProcessId) -> bool {
    match proc.stat(pid) {
        Ok(stat) => stat.start_ticks != proc.ns_to_ticks(start),
        Err(error) => error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH),
    }
}

/// Takes in events as they arrive, so that the ring buffer does not fill up while nothing is logged. Ends when dropped.
pub struct Follower {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no room for another thread.
    pub fn start(processes: &Arc<Processes>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = Builder::new().name("processes".to_owned()).spawn({
            let (stop, processes) = (Arc::clone(&stop), Arc::clone(processes));
            move || follow(&processes, &stop)
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that follows processes ended in a bug");
        }
    }
}

fn follow(processes: &Processes, stop: &AtomicBool) {
    let proc = ProcFs::new("/proc");
    // A duplicate, so that the lock is free meanwhile.
    let ring = processes
        .lock()
        .events
        .as_ref()
        .map(|events| fcntl_dupfd_cloexec(events, 0));
    let ring = match ring {
        Some(Ok(ring)) => ring,
        Some(Err(error)) => return warn(error),
        None => return,
    };
    let mut swept = Instant::now();
    let mut lost = 0;
    while !stop.load(Ordering::Relaxed) {
        match poll(&mut [PollFd::new(&ring, PollFlags::IN)], Some(&POLL)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return warn(error),
        }
        while processes.lock().drain(AT_ONCE) {}
        if swept.elapsed() < SWEEP {
            continue;
        }
        swept = Instant::now();
        let lost_now = processes.lost();
        if lost_now > lost {
            tracing::warn!(
                "{} events of processes were lost, as their buffer was full: executables may be missing in records \
                 (--process-buffer takes more)",
                lost_now - lost
            );
        }
        if lost_now > lost || processes.lock().cache.is_nearly_full() {
            processes.sweep(&proc);
        }
        lost = lost_now;
    }
}

fn warn(error: Errno) {
    tracing::warn!("cannot wait for what happens to processes: {error}; readers look for it themselves");
}
