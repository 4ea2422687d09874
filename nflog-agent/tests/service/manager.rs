//! A service manager as far as one service sees it: the socket that it listens on, its descriptor store, and how it starts the service.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::program::{Agent, binary};
use crate::support::wait_for;

/// Descriptors beyond those that a shell uses.
const HIGH: i32 = 100;

/// What the service has said, and what is kept for it.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) lines: Vec<String>,
    store: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    name: String,
    descriptor: OwnedFd,
    watched: bool,
}

impl State {
    /// How often a line was said.
    pub(crate) fn count(&self, line: &str) -> usize {
        self.lines.iter().filter(|said| *said == line).count()
    }

    /// Names in the store, each once.
    pub(crate) fn kept(&self) -> Vec<String> {
        let mut names: Vec<_> = self.store.iter().map(|kept| kept.name.clone()).collect();
        names.dedup();
        names
    }
}

/// The manager; its thread ends on drop.
pub(crate) struct Manager {
    directory: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    keeps: bool,
    watchdog: Option<Duration>,
}

impl Manager {
    /// `keeps`: the service has a descriptor store.
    pub(crate) fn new(keeps: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (state, stop) = (Arc::<Mutex<State>>::default(), Arc::<AtomicBool>::default());
        let thread = {
            let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
            spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    if let Some((text, descriptors)) = receive(&socket) {
                        take(&mut state.lock().unwrap(), &text, descriptors, keeps);
                    }
                    drop_broken(&mut state.lock().unwrap().store);
                }
            })
        };
        Self {
            directory,
            state,
            stop,
            thread: Some(thread),
            keeps,
            watchdog: None,
        }
    }

    /// The service must give a sign of life in this time.
    pub(crate) fn with_watchdog(mut self, interval: Duration) -> Self {
        self.watchdog = Some(interval);
        self
    }

    /// Looks at what was said and kept.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&State) -> T) -> T {
        at(&self.state.lock().unwrap())
    }

    /// Starts `nflog-agent run` with what is kept, as systemd does, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(&self, arguments: &[&str]) -> Agent {
        let before = self.look(|state| state.count("READY=1"));
        let mut agent = self.spawn(arguments);
        agent.wait_until_said("reading group");
        wait_for("READY=1", || {
            (self.look(|state| state.count("READY=1")) > before).then_some(())
        });
        agent
    }

    /// Starts it, whatever becomes of it.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Agent {
        // One at a time: what one is to inherit must not get into another one.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap();
        let (passed, names): (Vec<_>, Vec<_>) = self.look(|state| {
            let kept = state.store.iter();
            kept.map(|kept| (inheritable(&kept.descriptor), kept.name.clone()))
                .unzip()
        });
        let mut script = "export LISTEN_PID=$$; exec \"$0\" \"$@\"".to_owned();
        for (number, descriptor) in passed.iter().enumerate() {
            let (to, from) = (3 + number, descriptor.as_raw_fd());
            script.push_str(&format!(" {to}<&{from} {from}<&-"));
        }
        let mut command = Command::new("bash");
        command
            .args(["-c", &script])
            .arg(binary())
            .arg("run")
            .args(arguments)
            .env("RUST_LOG", "info")
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
            .env("NOTIFY_SOCKET", self.directory.path().join("notify"));
        if self.keeps {
            command.env("FDSTORE", "64");
        }
        if !passed.is_empty() {
            command.env("LISTEN_FDS", passed.len().to_string());
            command.env("LISTEN_FDNAMES", names.join(":"));
        }
        if let Some(interval) = self.watchdog {
            command.env("WATCHDOG_USEC", interval.as_micros().to_string());
        }
        Agent::from(&mut command)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the manager's thread");
        }
    }
}

fn inheritable(descriptor: &OwnedFd) -> OwnedFd {
    let copy = fcntl_dupfd_cloexec(descriptor, HIGH).unwrap();
    fcntl_setfd(&copy, FdFlags::empty()).unwrap();
    copy
}

fn receive(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let text = std::str::from_utf8(&bytes[..received.bytes]).expect("text");
    Some((text.to_owned(), descriptors))
}

/// What systemd does with a message.
fn take(state: &mut State, text: &str, descriptors: Vec<OwnedFd>, keeps: bool) {
    let value = |key: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    let name = value("FDNAME").unwrap_or("stored");
    if value("FDSTOREREMOVE") == Some("1") {
        state.store.retain(|kept| kept.name != name);
    } else if value("FDSTORE") == Some("1") && keeps {
        for descriptor in descriptors {
            if !state.store.iter().any(|kept| same(&kept.descriptor, &descriptor)) {
                state.store.push(Kept {
                    name: name.to_owned(),
                    descriptor,
                    watched: value("FDPOLL") != Some("0"),
                });
            }
        }
    }
    state.lines.extend(text.lines().map(str::to_owned));
}

fn same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let identity = |descriptor| fstat(descriptor).map(|stat| (stat.st_dev, stat.st_ino)).unwrap();
    identity(one) == identity(other)
}

/// systemd drops a descriptor that shows an error, unless it is told not to look.
fn drop_broken(store: &mut Vec<Kept>) {
    store.retain(|kept| {
        let mut looked = [PollFd::new(&kept.descriptor, PollFlags::empty())];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut looked, Some(&now)).unwrap();
        !kept.watched || !looked[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    });
}
