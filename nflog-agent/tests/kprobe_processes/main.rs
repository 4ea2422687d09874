//! Processes that are gone before their packet is read: their executable, parent and arguments are in the records all the same,
//! and never another's.
//!
//! The agent reads packets half a second after they were logged, so that every process here has ended by then unless it waits on
//! purpose. Each process is told apart by a mark on its packets (`SO_MARK`), and runs from a file of its own, a hard link to
//! this test binary. Skips, loudly, only on a kernel built without kprobes.

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "shared with the tests of the agent")]
#[path = "../agent/program.rs"]
mod program;
#[allow(dead_code, reason = "shared with the tests of the agent")]
#[path = "../agent/seen.rs"]
mod seen;

mod scene;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use scene::{ARGUMENTS, INSTEAD, Scene, comm};
use seen::Seen;
use support::cgroup2_root;
use support::wait_for;

/// So many processes are started one after the other.
const MANY: u32 = 40;

/// What every record of a child of this process says of its parent.
#[track_caller]
fn assert_child_of_ours(record: &Seen) {
    let myself = u64::from(std::process::id());
    assert_eq!(record.number("process.parent_pid"), Some(myself), "{record:?}");
    assert_eq!(
        record.text("nflog.owner.parent.comm"),
        Some(comm().as_str()),
        "{record:?}"
    );
    let created = record.text("process.creation.time").expect("a time");
    assert!(humantime::parse_rfc3339(created).is_ok(), "{created}");
}

#[test]
fn each_of_many_processes_that_are_gone_has_its_program_parent_and_arguments() {
    let Some(scene) = Scene::begin(&["--process-command-line"]) else {
        return;
    };
    let started: Vec<_> = (1..=MANY)
        .map(|mark| {
            let program = scene.program(&format!("short{mark}"));
            let pid = scene.run(&mut scene.sender(&program, mark));
            (mark, program, pid)
        })
        .collect();
    let ended = scene.end();
    for (mark, program, pid) in started {
        let record = ended.only(mark);
        let path = program.to_str().expect("UTF-8");
        assert_eq!(record.number("process.pid"), Some(pid.into()), "{record:?}");
        assert_eq!(record.text("process.executable.path"), Some(path), "{record:?}");
        assert_eq!(
            record.text("process.executable.name"),
            Some(format!("short{mark}").as_str())
        );
        let arguments: Vec<_> = [path].into_iter().chain(ARGUMENTS).collect();
        assert_eq!(
            record.text("process.command_args"),
            Some(serde_json::to_string(&arguments).expect("JSON").as_str())
        );
        assert_child_of_ours(record);
    }
}

#[test]
fn arguments_are_not_in_records_that_nobody_asked_them_for() {
    let Some(scene) = Scene::begin(&[]) else { return };
    scene.run(&mut scene.sender(&scene.program("plain"), 1));
    let ended = scene.end();
    let record = ended.only(1);
    assert_eq!(record.text("process.command_args"), None, "{record:?}");
    assert!(record.text("process.executable.path").is_some(), "{record:?}");
}

#[test]
fn many_arguments_are_cut_and_said_to_be() {
    let Some(scene) = Scene::begin(&["--process-command-line"]) else {
        return;
    };
    let program = scene.program("wordy");
    let mut command = scene.sender(&program, 1);
    // To the test harness of the child, one more name to look for.
    command.arg("x".repeat(1000));
    scene.run(&mut command);
    let ended = scene.end();
    let record = ended.only(1);
    assert_eq!(
        record.text("nflog.owner.args.truncated"),
        Some("true"),
        "{record:?}"
    );
    let list: Vec<String> =
        serde_json::from_str(record.text("process.command_args").expect("arguments")).expect("a list");
    let bytes: usize = list.iter().map(|argument| argument.len() + 1).sum();
    // The last one has no end.
    assert_eq!(bytes, 512 + 1, "{list:?}");
}

#[test]
fn a_script_is_its_interpreter_and_a_link_is_its_file() {
    let Some(scene) = Scene::begin(&["--process-command-line"]) else {
        return;
    };
    let interpreter = scene.program("interpreter");
    let script = scene.path("script");
    fs::write(&script, format!("#!{} --quiet\n", interpreter.display())).expect("a file");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a mode");
    scene.run(&mut scene.sender(&script, 1));

    let file = scene.program("file");
    let link = scene.path("link");
    symlink(&file, &link).expect("a link");
    scene.run(&mut scene.sender(&link, 2));
    let mut relative = scene.sender(Path::new("./link"), 3);
    relative.current_dir(scene.directory());
    scene.run(&mut relative);

    let ended = scene.end();
    let scripted = ended.only(1);
    assert_eq!(
        scripted.text("process.executable.path"),
        interpreter.to_str(),
        "{scripted:?}"
    );
    let arguments: Vec<String> =
        serde_json::from_str(scripted.text("process.command_args").expect("arguments")).expect("a list");
    assert_eq!(arguments[2], script.to_str().expect("UTF-8"), "{arguments:?}");
    for mark in [2, 3] {
        let record = ended.only(mark);
        assert_eq!(
            record.text("process.executable.path"),
            file.to_str(),
            "{record:?}"
        );
    }
}

#[test]
fn a_forked_worker_that_runs_nothing_else_has_its_makers_program() {
    let Some(scene) = Scene::begin(&[]) else { return };
    let port = scene.port();
    let script = format!("(echo a > /dev/udp/127.0.0.1/{port}; echo $BASHPID); echo $$");
    let output = scene.output(Command::new("bash").args(["-c", &script]));
    let pids: Vec<u64> = output.lines().map(|line| line.parse().expect("a pid")).collect();
    let [worker, maker] = pids[..] else {
        panic!("two pids: {output}");
    };
    assert_ne!(worker, maker);
    let ended = scene.end();
    let record = ended.only_unmarked();
    assert_eq!(record.number("process.pid"), Some(worker), "{record:?}");
    assert_eq!(record.number("process.parent_pid"), Some(maker), "{record:?}");
    assert_eq!(record.text("nflog.owner.parent.comm"), Some("bash"), "{record:?}");
    assert_eq!(record.text("process.executable.name"), Some("bash"), "{record:?}");
}

#[test]
fn a_process_that_was_alone_in_its_cgroup_has_the_cgroups_path() {
    let Some(scene) = Scene::begin(&[]) else { return };
    let name = format!("nflog-gone-{}.service", std::process::id());
    let cgroup = cgroup2_root().join(&name);
    fs::create_dir(&cgroup).expect("a cgroup");
    let script = format!("echo 0 > {}/cgroup.procs; exec \"$@\"", cgroup.display());
    let program = scene.program("alone");
    let mut command = scene.order("bash", 1);
    command
        .args(["-c", &script, "bash"])
        .arg(&program)
        .args(ARGUMENTS);
    scene.run(&mut command);
    let inode = fs::metadata(&cgroup).expect("the cgroup").ino();
    fs::remove_dir(&cgroup).expect("nobody is in it");
    let ended = scene.end();
    let record = ended.only(1);
    assert_eq!(record.number("nflog.cgroup.id"), Some(inode), "{record:?}");
    assert_eq!(
        record.text("process.executable.path"),
        program.to_str(),
        "{record:?}"
    );
    let path = format!("/{name}");
    assert_eq!(
        record.text("process.linux.cgroup"),
        Some(path.as_str()),
        "{record:?}"
    );
}

#[test]
fn a_socket_that_is_kept_over_an_exec_has_the_program_that_sends() {
    let Some(scene) = Scene::begin(&[]) else { return };
    let port = scene.port();
    let program = scene.program("second");
    // The program writes the list of its tests to its standard output, which is the socket.
    let script = format!(
        "echo $$; exec > /dev/udp/127.0.0.1/{port}; echo first; read; exec {} --list",
        program.display()
    );
    let mut child = scene.spawn(
        Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    );
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("a pid");
    let pid: u64 = line.trim().parse().expect("a pid");
    wait_for("the first record", || (!scene.records().is_empty()).then_some(()));
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(b"\n")
        .expect("it reads");
    assert!(child.wait().expect("it ends").success());
    let ended = scene.end();
    let (first, later) = ended.records.split_first().expect("records");
    assert!(!later.is_empty(), "{first:?}");
    assert_eq!(first.text("process.executable.name"), Some("bash"), "{first:?}");
    assert_eq!(first.number("process.pid"), Some(pid), "{first:?}");
    for record in later {
        assert_eq!(record.number("process.pid"), Some(pid), "{record:?}");
        assert_eq!(
            record.text("process.executable.path"),
            program.to_str(),
            "{record:?}"
        );
        assert_eq!(
            record.text("process.executable.name"),
            Some("second"),
            "{record:?}"
        );
    }
}

#[test]
fn an_exec_by_a_later_thread_leaves_the_process_its_pid_and_changes_its_program() {
    let Some(scene) = Scene::begin(&[]) else { return };
    let (first, second) = (scene.program("one"), scene.program("two"));
    let pid = scene.run(scene.sender(&first, 1).env(INSTEAD, &second));
    let ended = scene.end();
    let record = ended.only(1);
    assert_eq!(record.number("process.pid"), Some(pid.into()), "{record:?}");
    assert_eq!(
        record.text("process.executable.path"),
        second.to_str(),
        "{record:?}"
    );
    assert_child_of_ours(record);
}

#[test]
fn a_pid_that_comes_again_has_the_program_of_each() {
    let Some(scene) = Scene::begin(&[]) else { return };
    let mut started = Vec::new();
    let mut first = None;
    for mark in 1..=12 {
        let program = scene.program(&format!("again{mark}"));
        let pid = scene.run_as(&mut scene.sender(&program, mark), first);
        first.get_or_insert(pid);
        started.push((mark, program, pid));
    }
    let again = started.iter().filter(|(_, _, pid)| Some(*pid) == first).count();
    assert!(again > 6, "the pid came again {again} times");
    let ended = scene.end();
    for (mark, program, pid) in started {
        let record = ended.only(mark);
        assert_eq!(record.number("process.pid"), Some(pid.into()), "{record:?}");
        assert_eq!(
            record.text("process.executable.path"),
            program.to_str(),
            "{record:?}"
        );
    }
}

#[test]
fn a_buffer_that_is_full_costs_programs_and_is_counted_and_none_is_wrong() {
    let Some(scene) = Scene::begin(&["--process-buffer", "4096"]) else {
        return;
    };
    scene.signal(Signal::STOP);
    let started: Vec<_> = (1..=MANY)
        .map(|mark| {
            let program = scene.program(&format!("lost{mark}"));
            scene.run(&mut scene.sender(&program, mark));
            (mark, program)
        })
        .collect();
    scene.signal(Signal::CONT);
    let ended = scene.end();
    let mut unknown = 0;
    for (mark, program) in started {
        let record = ended.only(mark);
        let path = record.text("process.executable.path");
        assert!(path.is_none() || path == program.to_str(), "{record:?}");
        // Without the path its `comm`, which is with the socket.
        assert_eq!(
            record.text("process.executable.name"),
            Some(format!("lost{mark}").as_str()),
            "{record:?}"
        );
        unknown += u64::from(path.is_none());
    }
    let lost = program::counted(&ended.messages, "process-events-lost");
    assert!(unknown > 0 && lost >= unknown, "{unknown} unknown, {lost} lost");
    assert!(unknown < u64::from(MANY), "the buffer held some");
}
