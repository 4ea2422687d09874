//! Standard error that nobody reads: whoever says something goes on.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::Value;

use crate::flood::{RULES, burst, numbers};
use crate::program::{Agent, binary};
use crate::seen::Seen;
use crate::support::{Netns, wait_for};

/// A pipe with a name, of which this process has both ends.
fn pipe(path: &Path) -> File {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let ends = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    ends.unwrap()
}

/// Leaves not a byte of room.
fn fill(mut pipe: &File) {
    for length in [4096, 1] {
        while pipe.write(&vec![b'\n'; length]).is_ok() {}
    }
}

/// What is in it.
fn drain(mut pipe: &File) -> String {
    let mut text = Vec::new();
    let ended = pipe.read_to_end(&mut text).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::WouldBlock);
    String::from_utf8(text).unwrap()
}

/// Packets of loss records, each record's.
fn losses(agent: &[String]) -> Vec<u64> {
    let records = agent
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    records
        .filter(|record| record["event_name"] == "nflog.loss")
        .map(|record| record["attributes"]["nflog.loss.packets"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_standard_error_that_nobody_reads_holds_up_neither_a_reader_nor_the_end() {
    let netns = Netns::new("blocked");
    netns.nft(RULES);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stderr");
    let pipe = pipe(&path);
    let script = format!(
        "exec {} run --group 7 --netns {} --output json --receive-buffer 200000 2> {}",
        binary().display(),
        netns.path().display(),
        path.display()
    );
    let agent = Agent::from(Command::new("sh").args(["-c", &script]).env("RUST_LOG", "info"));
    wait_for("the group", || (netns.bound_groups() == [7]).then_some(()));
    burst(&netns, 0, 10);
    wait_for("the first packets", || {
        (Seen::from_json(&agent.output()).len() == 10).then_some(())
    });
    fill(&pipe);
    let mut sent = 10;
    // The reader itself says that packets were lost, once a second.
    for reported in 0..3 {
        agent.signal(Signal::STOP);
        burst(&netns, sent, 20_000);
        sent += 20_000;
        agent.signal(Signal::CONT);
        wait_for("a loss record", || {
            burst(&netns, sent, 1);
            sent += 1;
            (losses(&agent.output()).len() > reported).then_some(())
        });
    }
    // What waited comes out once somebody reads.
    let mut said = String::new();
    wait_for("the messages", || {
        said.push_str(&drain(&pipe));
        (said.matches("packets lost in the kernel").count() >= 3).then_some(())
    });
    fill(&pipe);
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{said}");
    let numbers = numbers(&Seen::from_json(&ended.stdout));
    let lost: u64 = losses(&ended.stdout).iter().sum();
    assert_eq!(numbers.len() as u64 + lost, u64::from(sent));
    assert_eq!(netns.counter("sent"), u64::from(sent));
}
