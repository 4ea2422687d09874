//! What a confined process cannot do any more, and what it still can: each act is tried in a process of its own, first with all
//! rights, where it must not fail for want of them, then in each role.
//!
//! Needs root.
#![cfg(feature = "agent")]

#[path = "confinement/child.rs"]
mod child;
#[path = "support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{ExitStatusExt as _, parent_id};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::Duration;

use aya::programs::{ProgramError, ProgramType};
use aya::sys::is_program_supported;
use nflog_agent::confinement::{Confinement, Needs, Role};
use nflog_agent::nflog::{Config, Nflog};
use nix::kmod::{DeleteModuleFlags, delete_module};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{Pid, Resource, Rlimit, setrlimit, test_kill_process};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, capabilities, move_into_link_name_space};
use support::Netns;

/// The directory and the role, for the process under observation.
const ORDER: &str = "NFLOG_CONFINED";

/// Runs [`act`] with an order in a process and a network namespace of its own; returns how it ended, and what it said.
#[track_caller]
fn run(role: &str) -> (ExitStatus, String) {
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["trusted", "elsewhere", "spool"] {
        fs::create_dir(directory.path().join(name)).expect("a directory");
    }
    for name in ["trusted/ca.pem", "elsewhere/secret", "elsewhere/a", "elsewhere/b"] {
        fs::write(directory.path().join(name), "x").expect("a file");
    }
    let netns = Netns::new("confined");
    let program = std::env::current_exe().expect("path of the test binary");
    let output = netns
        .command(program.to_str().expect("UTF-8"))
        .args(["--exact", "act", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ORDER, format!("{role} {}", directory.path().display()))
        .env("RUST_BACKTRACE", "1")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status, said.into_owned())
}

#[track_caller]
fn observe(role: &str) {
    let (status, said) = run(role);
    assert!(status.success(), "{said}");
    assert!(said.contains("all acts tried"), "{said}");
}

/// The C library aborts by a signal to itself, and a backtrace reads the program's file.
#[test]
fn a_bug_still_says_where_it_is_and_an_abort_is_one() {
    for role in ["inward-abort", "outward-abort"] {
        let (status, said) = run(role);
        assert_eq!(
            status.signal(),
            Some(nix::sys::signal::Signal::SIGABRT as i32),
            "{said}"
        );
        assert!(said.contains("on purpose"), "{said}");
        assert!(said.contains("stack backtrace"), "{said}");
    }
}

#[test]
fn readers_run_nothing_write_nothing_and_go_on_reading() {
    observe("inward");
}

#[test]
fn network_threads_see_only_what_they_need_and_write_only_the_spool() {
    observe("outward");
}

#[test]
fn network_threads_without_a_spool_write_nothing() {
    observe("outward-without-spool");
}

/// Those of the acts that only Landlock forbids to threads that write the spool.
const WRITES: [&str; 4] = [
    "to make a file",
    "to write a file",
    "to write a setting of the kernel",
    "to remove a file",
];

/// What is tried: a name, and the act.
type Act<'a> = (&'static str, Box<dyn Fn() -> io::Result<()> + Send + Sync + 'a>);

/// Not a test: the body of the process under observation.
#[test]
#[ignore = "runs inside the other tests, as the process under observation"]
fn act() {
    let order = std::env::var(ORDER).expect("started by a test, not by hand");
    let (role, directory) = order.split_once(' ').expect("a role and a directory");
    let at = |name: &str| Path::new(directory).join(name);
    // What must be there before.
    let nflog = Nflog::open(&Config::builder().group(7).build().unwrap()).expect("a group");
    let acts = forbidden(directory);
    for (name, act) in &acts {
        assert!(!is_denied(&act()), "{name} is denied to root already");
    }
    let spool = (role != "outward-without-spool").then(|| at("spool"));
    let needs = Needs {
        files: vec![at("trusted/ca.pem")],
        spool,
        ..Needs::default()
    };
    let confinement = Confinement::start(&needs).expect("confined");
    let inward = role.starts_with("inward");
    confinement.enter(if inward { Role::Inward } else { Role::Outward });
    if role.ends_with("-abort") {
        let bug = thread::spawn(|| panic!("on purpose"));
        assert!(bug.join().is_err());
        let no_core = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        setrlimit(Resource::Core, no_core).expect("no core file");
        std::process::abort();
    }
    let writes_are_known = inward || role == "outward-without-spool" || confinement.restricts_files();
    if !writes_are_known {
        println!("SKIPPED: without Landlock the threads that write the spool can write other files");
    }
    let tried = || {
        for (name, act) in acts
            .iter()
            .filter(|(name, _)| writes_are_known || !WRITES.contains(name))
        {
            let outcome = act();
            assert!(is_denied(&outcome), "{name} in the role {role}: {outcome:?}");
        }
    };
    tried();
    // Threads that come later have the role of who starts them.
    thread::scope(|scope| scope.spawn(tried).join().expect("denied there, too"));
    if inward {
        goes_on_reading(nflog);
    } else {
        goes_on_sending(&needs);
        if confinement.restricts_files() {
            for hidden in [
                at("elsewhere/secret"),
                format!("/proc/{}/environ", parent_id()).into(),
            ] {
                let read = fs::read(&hidden).map(drop);
                assert!(is_denied(&read), "{}: {read:?}", hidden.display());
            }
        }
    }
    println!("all acts tried");
}

fn is_denied(outcome: &io::Result<()>) -> bool {
    outcome
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Forbidden in every role.
fn forbidden(directory: &str) -> Vec<Act<'static>> {
    let at = |name: &str| Path::new(directory).join(name);
    let (new, old) = (at("elsewhere/new"), at("elsewhere/secret"));
    let change = old.clone();
    // The first goes when the act is still allowed.
    let removed = ["elsewhere/a", "elsewhere/b"].map(at);
    let parent = Pid::from_raw(i32::try_from(parent_id()).unwrap());
    let ours = nix::unistd::Pid::this();
    let own = File::open("/proc/self/ns/net").expect("/proc is mounted");
    vec![
        (
            "to run a program",
            Box::new(|| Command::new("true").status().map(drop)),
        ),
        (
            "to mount",
            Box::new(|| {
                let none: Option<&str> = None;
                Ok(mount(
                    none,
                    "/nonexistent",
                    Some("tmpfs"),
                    MsFlags::empty(),
                    none,
                )?)
            }),
        ),
        (
            "to trace a process",
            Box::new(move || Ok(ptrace::detach(ours, None)?)),
        ),
        (
            "to unload a module",
            Box::new(|| Ok(delete_module(c"no_such_module", DeleteModuleFlags::empty())?)),
        ),
        (
            "to load a program into the kernel",
            Box::new(|| match is_program_supported(ProgramType::SocketFilter) {
                Err(ProgramError::SyscallError(error)) => Err(error.io_error),
                Err(error) => Err(io::Error::other(error)),
                Ok(_) => Ok(()),
            }),
        ),
        (
            "to make a namespace",
            Box::new(|| Ok(unshare(CloneFlags::CLONE_NEWUTS)?)),
        ),
        (
            "to start a process in a namespace of its own",
            Box::new(child::by_clone),
        ),
        ("to start one by another call", Box::new(child::by_clone3)),
        (
            "to enter a namespace",
            Box::new(move || {
                Ok(move_into_link_name_space(
                    own.as_fd(),
                    Some(LinkNameSpaceType::Network),
                )?)
            }),
        ),
        (
            "to send another process a signal",
            Box::new(move || Ok(test_kill_process(parent.expect("a parent"))?)),
        ),
        (
            "to open a packet socket",
            Box::new(|| Ok(socket(AddressFamily::PACKET, SocketType::RAW, None).map(drop)?)),
        ),
        ("to make a file", Box::new(move || File::create(&new).map(drop))),
        (
            "to write a file",
            Box::new(move || File::options().write(true).open(&old).map(drop)),
        ),
        (
            "to write a setting of the kernel",
            Box::new(|| {
                File::options()
                    .write(true)
                    .open("/proc/sys/kernel/core_pattern")
                    .map(drop)
            }),
        ),
        (
            "to remove a file",
            Box::new(move || {
                let there = removed.iter().find(|path| path.exists());
                fs::remove_file(there.expect("one is left"))
            }),
        ),
        (
            "to change who may read a file",
            Box::new(move || fs::set_permissions(&change, fs::Permissions::from_mode(0o600))),
        ),
    ]
}

/// Of this thread.
fn kept() -> CapabilitySet {
    let sets = capabilities(None).expect("capget");
    assert!(
        sets.inheritable.is_empty() && sets.effective == sets.permitted,
        "{sets:?}"
    );
    sets.permitted
}

fn goes_on_reading(mut nflog: Nflog) {
    assert_eq!(kept(), CapabilitySet::NET_ADMIN | CapabilitySet::SYS_PTRACE);
    let link = format!("/proc/{}/exe", parent_id());
    fs::read_link(&link).unwrap_or_else(|error| panic!("{link}: {error}"));
    fs::read("/proc/1/stat").expect("/proc is read");
    assert!(
        nflog
            .recv(Some(Duration::from_millis(20)))
            .expect("it reads")
            .is_none()
    );
    // Of a namespace that comes later.
    let later = Nflog::open(&Config::builder().group(8).build().unwrap()).expect("another group");
    for reader in [nflog, later] {
        reader.close(|_| {}).expect("left in order");
    }
}

fn goes_on_sending(needs: &Needs) {
    assert_eq!(kept(), CapabilitySet::empty());
    assert_eq!(fs::read(&needs.files[0]).expect("the certificates"), b"x");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
    (&stream).write_all(b"x").expect("it sends");
    assert!(
        "localhost:80"
            .to_socket_addrs()
            .expect("names are resolved")
            .next()
            .is_some()
    );
    let Some(spool) = &needs.spool else { return };
    let path = spool.join("segment");
    let mut file = File::create(&path).expect("the spool is written");
    file.write_all(b"x")
        .and_then(|()| file.sync_data())
        .expect("likewise");
    file.set_len(0).expect("and cut");
    fs::read(&path)
        .and_then(|_| fs::remove_file(&path))
        .expect("and read, and emptied");
}
