//! Packets to a capture file and back through the agent.

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::support::{Netns, wait_for};
use super::{binary, nflog_agent, stdout};

const RULES: &str = "
    table inet t {
        chain out { type filter hook output priority 0; udp dport 4242 counter log prefix \"fwd-drop\" group 7 comment \"a\"; }
    }";

fn send(netns: &Netns, packets: u16) {
    netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..packets {
            // The reply is a port-unreachable error, reported by the next send.
            let _ = socket.send_to(&number.to_be_bytes(), "127.0.0.1:4242");
        }
    });
}

/// The program recording group 7 of a namespace, which is bound when this returns.
fn recording(netns: &Netns, file: &Path, more: &[&str]) -> Child {
    let child = Command::new(binary())
        .arg("record")
        .arg(file)
        .args(["--group", "7", "--netns"])
        .arg(netns.path())
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    wait_for("the group to be bound", || {
        netns.bound_groups().contains(&7).then_some(())
    });
    child
}

fn interrupt(child: Child) -> Output {
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    child.wait_with_output().expect("it ends")
}

fn replayed(arguments: &[&str]) -> Vec<Value> {
    let fixed = ["replay", "--output", "json"].into_iter();
    let lines = stdout(fixed.chain(arguments.iter().copied()));
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn packets_are_recorded_until_the_interrupt_and_replayed_with_what_the_configuration_says() {
    let netns = Netns::new("record");
    netns.nft(RULES);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.pcap");
    let child = recording(&netns, &file, &[]);
    send(&netns, 100);
    let ended = interrupt(child);
    let messages = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(0), "{messages}");
    assert!(messages.contains("100 packets recorded, 0 lost"), "{messages}");
    assert_eq!(netns.counter("a"), 100);

    let config = directory.path().join("agent.toml");
    std::fs::write(
        &config,
        "group = 9\noutput = 'console'\n[[prefix]]\ntemplate = '{chain}-{action}'\n[[rule]]\nthen = { sample = 10 }\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let records = replayed(&["--config", config.to_str().unwrap(), file]);
    assert_eq!(records.len(), 10, "one of each ten");
    for record in &records {
        let attributes = &record["attributes"];
        assert_eq!(attributes["nflog.rule.action"], "drop");
        assert_eq!(attributes["nflog.group"], 7);
        assert_eq!(attributes["destination.port"], 4242);
        assert_eq!(attributes["nflog.owner.reason"], "replayed");
        assert_eq!(attributes.get("nflog.netns.inode"), None);
    }
    // A file's `output` is a default as in `run`.
    let console = stdout(["replay", "--config", config.to_str().unwrap(), file]);
    assert!(
        console.lines().count() == 10 && console.contains("none(replayed)"),
        "{console}"
    );
}

#[test]
fn a_recording_ends_after_its_count_and_leaves_a_file_that_is_there_alone() {
    let netns = Netns::new("record-count");
    netns.nft(RULES);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.pcap");
    let child = recording(&netns, &file, &["--count", "3", "--copy-range", "30"]);
    send(&netns, 10);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(replayed(&[file.to_str().unwrap()]).len(), 3);

    let before = std::fs::read(&file).unwrap();
    let refused = Command::new(binary())
        .args(["record", "--group", "7", "--netns"])
        .arg(netns.path())
        .arg(&file)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(64), "{stderr}");
    assert!(stderr.contains("--overwrite"), "{stderr}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn a_full_disk_is_said_with_the_number_of_packets_in_the_file() {
    let netns = Netns::new("record-full");
    let ended = Command::new(binary())
        .args(["record", "/dev/full", "--overwrite", "--group", "7", "--netns"])
        .arg(netns.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(74), "{stderr}");
    assert!(
        stderr.contains("No space left") && stderr.contains("0 packets"),
        "{stderr}"
    );
}

#[test]
fn what_does_not_fit_on_the_disk_leaves_a_capture_of_whole_packets() {
    let netns = Netns::new("record-room");
    netns.nft(RULES);
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path();
    let mount = |arguments: &[&str]| {
        let mut command = Command::new(arguments[0]);
        let done = command.args(&arguments[1..]).arg(disk).status().unwrap();
        assert!(done.success(), "{arguments:?}");
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=16k", "record"]);
    let file = disk.join("x.pcap");
    let child = recording(&netns, &file, &[]);
    for _ in 0..10 {
        send(&netns, 20);
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    let records = replayed(&[file.to_str().unwrap()]).len();
    mount(&["umount"]);
    assert_eq!(ended.status.code(), Some(74), "{stderr}");
    assert!(
        records > 0 && stderr.contains(&format!("; {records} packets are in the file")),
        "{records}: {stderr}"
    );
}

#[test]
fn a_file_is_a_capture_before_the_first_packet() {
    let netns = Netns::new("record-none");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.pcap");
    let child = recording(&netns, &file, &[]);
    wait_for("the header", || {
        std::fs::metadata(&file)
            .is_ok_and(|file| file.len() > 0)
            .then_some(())
    });
    assert_eq!(replayed(&[file.to_str().unwrap()]).len(), 0);
    assert_eq!(interrupt(child).status.code(), Some(0));
}

#[test]
fn a_second_signal_ends_a_recording_whose_reader_has_stopped() {
    let netns = Netns::new("record-stuck");
    netns.nft(RULES);
    let mut child = recording(&netns, Path::new("-"), &[]);
    // More than a pipe holds.
    send(&netns, 2000);
    let pid = Pid::from_child(&child);
    // Signals that come while another one waits are one.
    let status = wait_for("the second signal to be heeded", || {
        let ended = child.try_wait().unwrap();
        if ended.is_none() {
            kill_process(pid, Signal::INT).unwrap();
        }
        ended
    });
    assert_eq!(status.code(), Some(130));
}

#[test]
fn a_replay_waits_for_its_reader_and_loses_nothing() {
    // Far more than the queue holds.
    let files = vec![fixture("inet-output.pcap"); 10_000];
    let mut child = Command::new(binary())
        .args(["replay", "--output", "json"])
        .args(&files)
        .env("RUST_LOG", "info")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let each = replayed(&[&files[0]]).len();
    // So that the queue is full before the first record is read.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let mut records = 0;
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    for line in lines {
        assert!(line.unwrap().ends_with('}'), "whole lines");
        records += 1;
    }
    assert_eq!(records, each * files.len());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_is_no_capture_is_named_and_what_comes_before_the_damage_is_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let whole = std::fs::read(fixture("inet-output.pcap")).unwrap();
    let torn = directory.path().join("torn.pcap");
    std::fs::write(&torn, &whole[..whole.len() - 5]).unwrap();
    let output = nflog_agent([
        "replay".as_ref(),
        "--output".as_ref(),
        "json".as_ref(),
        torn.as_os_str(),
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{stderr}");
    assert!(stderr.contains("torn.pcap"), "{stderr}");
    let all = replayed(&[&fixture("inet-output.pcap")]).len();
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), all - 1);

    for (file, code, word) in [
        ("/nowhere.pcap", 66, "No such file"),
        ("/proc/self/status", 65, "pcap"),
    ] {
        let output = nflog_agent(["replay", file]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(file) && stderr.contains(word), "{stderr}");
    }
}

#[test]
fn a_replay_to_a_collector_that_is_away_says_how_many_packets_it_did_not_deliver() {
    let output = Command::new(binary())
        .args(["replay", "--output", "otlp", "--drain-timeout", "1s"])
        .arg(fixture("inet-output.pcap"))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{stderr}");
    assert!(stderr.contains("6 packets were not delivered"), "{stderr}");
}
