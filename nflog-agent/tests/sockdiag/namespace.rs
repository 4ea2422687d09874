//! Two network namespaces joined by a veth pair.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A named network namespace with `lo` up; deleted on drop.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(role: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = std::fs::metadata("/proc/self/ns/net")
            .map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata));
        assert_eq!(
            id.ok(),
            Some(0),
            "this test needs root: it creates network namespaces"
        );
        let name = format!(
            "sd-{role}-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"]);
        namespace
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A command that will run in the namespace, under its own pid.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    pub(crate) fn ip(&self, arguments: &str) {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split_ascii_whitespace());
        ip(&all);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Not asserted: a failing test should show its own message. The name is unique, so a leftover disturbs nothing.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// `left` has 10.77.0.1 and fd77::1, `right` has 10.77.0.2 and fd77::2.
pub(crate) fn pair() -> (Namespace, Namespace) {
    let (left, right) = (Namespace::new("left"), Namespace::new("right"));
    left.ip(&format!(
        "link add veth0 type veth peer name veth0 netns {}",
        right.name
    ));
    for (namespace, host) in [(&left, 1), (&right, 2)] {
        namespace.ip(&format!("address add 10.77.0.{host}/24 dev veth0"));
        namespace.ip(&format!("address add fd77::{host}/64 dev veth0 nodad"));
        namespace.ip("link set veth0 up");
    }
    (left, right)
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("cannot run ip: install iproute2");
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}
