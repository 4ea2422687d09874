//! SIGHUP: the configuration is read again while packets come in, and none is lost or counted twice.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Agent, Ended, binary};
use crate::support::{Netns, wait_for};

const RULES: &str = "
    table inet t {
        chain out {
            type filter hook output priority 0
            udp dport 4242 counter log prefix \"one \" group 7 comment \"one\"
            udp dport 4243 counter log prefix \"two \" group 7 comment \"two\"
            udp dport 4244 counter log prefix \"mark \" group 7 comment \"mark\"
        }
    }";

/// A namespace with rules, and a configuration file for it.
struct Scene {
    netns: Netns,
    directory: tempfile::TempDir,
}

impl Scene {
    fn new(name: &str) -> Self {
        let netns = Netns::new(name);
        netns.nft(RULES);
        let directory = tempfile::tempdir().unwrap();
        Self { netns, directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("agent.toml")
    }

    /// Writes the file as an editor does: the whole of it at once.
    fn write(&self, more: &str) {
        let text = format!(
            "group = 7\nnetns = '{}'\noutput = 'json'\nattribution = 'sockdiag'\n{more}",
            self.netns.path().display()
        );
        let new = self.directory.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    fn start(&self) -> Agent {
        let file = self.file().display().to_string();
        Agent::start(&["--config", &file], &[])
    }

    /// Sends `packets` datagrams from one socket to a port where nobody listens.
    fn send(&self, port: u16, packets: u32) {
        self.netns.run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            for number in 0..packets {
                // The reply is a port-unreachable error, reported by the next send.
                let _ = socket.send_to(&number.to_be_bytes(), ("127.0.0.1", port));
            }
        });
    }

    /// Waits until what was sent so far has been read: a packet that no rule withholds comes after it.
    fn mark(&self, agent: &Agent) {
        let marks = || {
            let packets = events(&agent.output(), "nflog.packet");
            let marks = packets.iter().filter(|packet| {
                packet["nflog.prefix"]
                    .as_str()
                    .is_some_and(|text| text.starts_with("mark"))
            });
            marks.count()
        };
        let before = marks();
        self.send(4244, 1);
        wait_for("the mark", || (marks() > before).then_some(()));
    }

    fn logged(&self) -> u64 {
        ["one", "two", "mark"]
            .map(|rule| self.netns.counter(rule))
            .iter()
            .sum()
    }
}

/// SIGHUP. Waits until the agent has said this once more than `before` times.
fn hang_up(agent: &Agent, says: &str) {
    let before = agent.count_said(says);
    agent.signal(Signal::HUP);
    wait_for("an answer to SIGHUP", || {
        (agent.count_said(says) > before).then_some(())
    });
}

fn events(lines: &[String], name: &str) -> Vec<Value> {
    let records = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    records
        .filter(|record: &Value| record["event_name"] == name)
        .map(|mut record| record["attributes"].take())
        .collect()
}

fn sum(events: &[Value], key: &str) -> u64 {
    events.iter().map(|event| event[key].as_u64().unwrap()).sum()
}

/// What the account has for a word; 0 if it is not in there.
fn counted(ended: &Ended, word: &str) -> u64 {
    let has = ended
        .stderr
        .iter()
        .any(|line| line.contains(" received ") && line.contains(word));
    if has { ended.count(word) } else { 0 }
}

/// What was logged was received or missed; what was received is exported or withheld; what is exported has come out.
#[track_caller]
fn assert_account(ended: &Ended, logged: u64) {
    let messages = ended.messages();
    assert_eq!(ended.code, Some(0), "{messages}");
    let withheld: u64 = ["filtered", "sampled-out", "limited", "aggregated"]
        .iter()
        .map(|why| counted(ended, why))
        .sum();
    assert_eq!(
        ended.count("received") + ended.count("missed"),
        logged,
        "{messages}"
    );
    assert_eq!(
        ended.count("exported") + withheld,
        ended.count("received"),
        "{messages}"
    );
    let packets = events(&ended.stdout, "nflog.packet").len() as u64;
    let flows = events(&ended.stdout, "nflog.flow");
    assert_eq!(
        packets + flows.len() as u64,
        ended.count("exported"),
        "{messages}"
    );
    assert_eq!(
        sum(&flows, "nflog.flow.packets") - flows.len() as u64,
        counted(ended, "aggregated"),
        "{messages}"
    );
    let suppressed = events(&ended.stdout, "nflog.suppressed");
    assert_eq!(
        sum(&suppressed, "nflog.suppressed.packets"),
        counted(ended, "limited"),
        "{messages}"
    );
}

const AGGREGATED: &str = "
    [[rule]]
    name = 'first'
    match = { prefix = 'one' }
    then = { aggregate = { interval = '1h' } }
    [[rule]]
    name = 'second'
    match = { prefix = 'two' }
    then = { limit = { rate = '1/h', burst = 3 } }";

const DROPPED: &str = "
    [[rule]]
    name = 'second'
    match = { prefix = 'two' }
    then = 'drop'
    [[rule]]
    name = 'third'
    match = { prefix = 'one' }
    then = { sample = 7 }";

#[test]
fn other_rules_are_in_force_at_once_and_what_waited_for_the_old_ones_leaves() {
    let scene = Scene::new("reload-at-once");
    scene.write(AGGREGATED);
    let agent = scene.start();
    scene.send(4242, 10);
    scene.send(4243, 10);
    scene.mark(&agent);
    let [one, two] = ["one", "two"].map(|rule| scene.netns.counter(rule));
    scene.write(DROPPED);
    hang_up(&agent, "configuration reloaded: changed rule");
    // The flow would have lasted an hour, the report of the limit would have come after ten seconds.
    wait_for("the flow and what the limit held back", || {
        let lines = agent.output();
        let flows = sum(&events(&lines, "nflog.flow"), "nflog.flow.packets");
        let limited = sum(&events(&lines, "nflog.suppressed"), "nflog.suppressed.packets");
        ((flows, limited) == (one, two - 3)).then_some(())
    });
    scene.send(4243, 20);
    scene.send(4242, 14);
    let ended = agent.stop();
    assert_account(&ended, scene.logged());
    assert_eq!(ended.count("missed"), 0);
    assert_eq!(counted(&ended, "filtered"), scene.netns.counter("two") - two);
    assert_eq!(scene.netns.counter("one") - one, 14);
    assert_eq!(counted(&ended, "sampled-out"), 12);
    let two = scene.netns.counter("two");
    let of_second = format!("second: {two} matched, {} withheld", two - 3);
    assert!(
        ended.messages().contains(&of_second),
        "counts go on by name: {}",
        ended.messages()
    );
}

#[test]
fn while_packets_flow_no_reload_loses_one_or_counts_one_twice() {
    let scene = Scene::new("reload-flow");
    scene.write(AGGREGATED);
    let agent = scene.start();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                scene.send(4242, 20);
                scene.send(4243, 20);
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        for rules in [DROPPED, "", AGGREGATED, DROPPED, AGGREGATED, ""] {
            let (one, two) = (scene.netns.counter("one"), scene.netns.counter("two"));
            wait_for("packets", || {
                (scene.netns.counter("one") > one && scene.netns.counter("two") > two).then_some(())
            });
            scene.write(rules);
            hang_up(&agent, "configuration reloaded: changed rule");
        }
        done.store(true, Ordering::Relaxed);
        sender.join().unwrap();
    });
    assert_account(&agent.stop(), scene.logged());
}

#[test]
fn a_file_that_is_wrong_is_said_in_full_and_the_old_rules_stay() {
    let scene = Scene::new("reload-wrong");
    scene.write("[[rule]]\nmatch = { prefix = 'one' }\nthen = 'drop'\n");
    let agent = scene.start();
    scene.write("grop = 8\ncopy-range = 0\n[[rule]]\nthen = 'dorp'\n[[rule]]\nmatch = { hook = 'in' }\nthen = 'keep'\n");
    hang_up(&agent, "hook 'in'");
    for (line, word) in [("line 5", "grop"), ("line 6", "copy-range"), ("line 8", "dorp")] {
        assert!(
            agent.last_said(&format!("{line}: ")).contains(word),
            "{line} has {word}"
        );
    }
    assert_eq!(
        agent.count_said("configuration not reloaded, all stays as it is"),
        4
    );
    // Nor does one that is gone end the agent.
    std::fs::remove_file(scene.file()).unwrap();
    hang_up(&agent, "cannot be read");
    scene.send(4242, 10);
    let ended = agent.stop();
    assert_account(&ended, scene.logged());
    assert_eq!(ended.count("filtered"), scene.netns.counter("one"));
}

#[test]
fn what_needs_a_restart_is_named_each_time_and_the_rest_is_changed() {
    let scene = Scene::new("reload-restart");
    scene.write("account-interval = '1h'\n[otlp]\nheaders = { authorization = 'Bearer s3cret' }\n");
    let agent = scene.start();
    scene.send(4242, 5);
    let new =
        "account-interval = '50ms'\ncopy-range = 256\n[otlp]\nheaders = { authorization = 'Bearer 0ther' }\n";
    scene.write(new);
    let later = "not in force before a restart: copy-range (128, now 256), otlp.headers";
    hang_up(&agent, later);
    assert!(agent.said("configuration reloaded: changed account-interval (1h, now 50ms)"));
    wait_for("an account", || {
        (!events(&agent.output(), "nflog.account").is_empty()).then_some(())
    });
    hang_up(&agent, later);
    assert_eq!(agent.count_said("nothing to change at once"), 1);
    let ended = agent.stop();
    assert_account(&ended, scene.logged());
    let messages = ended.messages();
    assert!(
        !messages.contains("s3cret") && !messages.contains("0ther"),
        "{messages}"
    );
}

fn without_a_file(netns: &Netns) -> Vec<String> {
    let path = netns.path().display().to_string();
    let arguments = [
        "run",
        "--group",
        "7",
        "--output",
        "json",
        "--attribution",
        "sockdiag",
    ];
    let more = ["--netns".to_owned(), path];
    arguments.map(str::to_owned).into_iter().chain(more).collect()
}

#[test]
fn without_a_file_a_hang_up_is_a_stop() {
    let scene = Scene::new("reload-no-file");
    let arguments = without_a_file(&scene.netns);
    let mut agent = Agent::from(Command::new(binary()).args(arguments).env("RUST_LOG", "info"));
    agent.wait_until_said("reading group");
    scene.send(4242, 5);
    agent.signal(Signal::HUP);
    let ended = agent.wait();
    assert!(ended.messages().contains("stopping: SIGHUP"));
    assert_account(&ended, scene.logged());
}

#[test]
fn without_a_file_nohup_keeps_it_running() {
    let scene = Scene::new("reload-nohup");
    let script = format!(
        "trap '' HUP; exec {} {}",
        binary().display(),
        without_a_file(&scene.netns).join(" ")
    );
    let mut agent = Agent::from(Command::new("sh").args(["-c", &script]).env("RUST_LOG", "info"));
    agent.wait_until_said("reading group");
    agent.signal(Signal::HUP);
    scene.send(4242, 5);
    wait_for("packets", || {
        (events(&agent.output(), "nflog.packet").len() as u64 == scene.logged()).then_some(())
    });
    let ended = agent.stop();
    assert!(!ended.messages().contains("SIGHUP"), "{}", ended.messages());
    assert_account(&ended, scene.logged());
}
