//! A process in cgroups that are named as a container runtime does it, which sends a datagram when it is told to.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, id};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use super::{Netns, cgroup2_root};

/// A shell. It sends a datagram for each line it is given; all cgroups made for it are removed on drop.
#[derive(Debug)]
pub(crate) struct Sender {
    child: Child,
    cgroups: Vec<PathBuf>,
    /// Its cgroup's path below the root of the hierarchy.
    pub(crate) path: String,
}

impl Sender {
    /// In the cgroup of these names, each below the one before, of cgroup v2.
    #[track_caller]
    pub(crate) fn start(netns: &Netns, names: &[&str], to: &str) -> Self {
        Self::start_below(&cgroup2_root(), netns, names, to)
    }

    /// The same in the hierarchy that is mounted at `root`. Above all names is one that no other process uses.
    #[track_caller]
    pub(crate) fn start_below(root: &Path, netns: &Netns, names: &[&str], to: &str) -> Self {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut path = format!("/nflogtest-{}-{number}", id());
        let mut cgroups = Vec::new();
        for name in std::iter::once(None).chain(names.iter().map(Some)) {
            path.extend(name.iter().flat_map(|name| ["/", name]));
            let directory = root.join(path.trim_start_matches('/'));
            fs::create_dir_all(&directory).unwrap_or_else(|error| {
                panic!(
                    "this test needs root, and makes cgroups: {}: {error}",
                    directory.display()
                )
            });
            cgroups.push(directory);
        }
        let to: SocketAddr = to.parse().expect("an address with a port");
        // Its program begins in the cgroup, as a container's does.
        let script = format!(
            "echo $$ > {}/cgroup.procs || exit; exec bash -c 'exec 3>/dev/udp/{}/{}; while read -r line; do echo x >&3; done'",
            cgroups.last().expect("one at least").display(),
            to.ip(),
            to.port()
        );
        // Not by `ip netns exec`, which hides the cgroup file system behind a new /sys.
        let child = netns.run(|| {
            let mut command = Command::new("bash");
            command
                .args(["-c", &script])
                .stdin(Stdio::piped())
                .stderr(Stdio::null());
            command.spawn().unwrap()
        });
        Self { child, cgroups, path }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn send(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        stdin.write_all(b"\n").expect("the sender runs");
    }

    /// Ends it, and removes its cgroups.
    pub(crate) fn end(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for cgroup in self.cgroups.drain(..).rev() {
            // Busy for a moment after its last process has ended.
            for _ in 0..50 {
                if fs::remove_dir(&cgroup).is_ok() {
                    break;
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.end();
    }
}
