//! What people see: colour on a terminal and nowhere else, unless they want it otherwise.

use std::fs::File;
use std::io::Read as _;
use std::net::UdpSocket;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::program::binary;
use crate::support::{Netns, wait_for};

const RULES: &str = "
    table inet t {
        chain out { type filter hook output priority 0; udp dport 4242 log prefix \"seen \" group 7; }
    }";

/// What a packet looks like on the agent's output, which is a terminal or a pipe.
fn shown(name: &str, terminal: bool, more: &[&str], environment: &[(&str, &str)]) -> String {
    let netns = Netns::new(name);
    netns.nft(RULES);
    let (reader, writer) = if terminal { new_terminal() } else { new_pipe() };
    let path = netns.path().display().to_string();
    let arguments = [
        "run",
        "--group",
        "7",
        "--netns",
        &path,
        "--attribution",
        "sockdiag",
    ];
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .args(more)
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
        .env_remove("NO_COLOR")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::null());
    let mut child = Running(command.spawn().expect("the agent starts"));
    // Its end of the terminal is its alone, so that reading ends with it.
    drop(command);
    let text = Arc::new(Mutex::new(String::new()));
    let reading = std::thread::spawn({
        let text = Arc::clone(&text);
        move || read(reader, &text)
    });
    wait_for("a line", || {
        netns.run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.send_to(b"x", "127.0.0.1:4242").unwrap();
        });
        text.lock().unwrap().contains('\n').then_some(())
    });
    kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
    child.0.wait().unwrap();
    reading.join().unwrap();
    let text = text.lock().unwrap();
    text.lines().next().unwrap().to_owned()
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn new_terminal() -> (File, Stdio) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(name.to_str().unwrap())
        .unwrap();
    (ours.into(), theirs.into())
}

fn new_pipe() -> (File, Stdio) {
    let (ours, theirs) = std::io::pipe().unwrap();
    (File::from(std::os::fd::OwnedFd::from(ours)), theirs.into())
}

fn read(mut from: File, text: &Mutex<String>) {
    let mut buffer = [0; 4096];
    // A terminal whose other end is closed answers with an error.
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let read = String::from_utf8_lossy(&buffer[..read]);
        text.lock().unwrap().push_str(&read);
    }
}

#[test]
fn a_terminal_has_colours_and_a_pipe_has_none() {
    if !Path::new("/dev/pts/ptmx").exists() {
        println!("SKIPPED: no terminals in this guest (devpts)");
        return;
    }
    let on_terminal = shown("colour-tty", true, &[], &[]);
    assert!(on_terminal.contains("\x1b["), "{on_terminal:?}");
    let on_pipe = shown("colour-pipe", false, &[], &[]);
    assert!(
        !on_pipe.contains('\x1b') && on_pipe.contains("seen"),
        "{on_pipe:?}"
    );
    let plain = shown("colour-no", true, &[], &[("NO_COLOR", "1")]);
    assert!(!plain.contains('\x1b') && plain.contains("seen"), "{plain:?}");
    let never = shown("colour-never", true, &["--color", "never"], &[]);
    assert!(!never.contains('\x1b') && never.contains("seen"), "{never:?}");
    let always = shown("colour-always", false, &["--color", "always"], &[]);
    assert!(always.contains("\x1b["), "{always:?}");
}
