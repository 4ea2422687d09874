//! Bad input: one line that names the thing and the remedy, and an exit code that says which kind it is.

use std::process::{Command, Output};

use crate::has_kprobes;
use crate::program::{Agent, binary};
use crate::support::Netns;

const RULES: &str = "
    table inet t {
        chain out { type filter hook output priority 0; udp dport 4242 log group 7; }
    }";

/// One packet for the rule.
fn knock(netns: &Netns) {
    netns.run(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", "127.0.0.1:4242").unwrap();
    });
}

/// A reading agent that a shell started, with `after` behind its command line.
#[track_caller]
fn from_shell(netns: &Netns, after: &str) -> Agent {
    let arguments = format!(
        "run --group 7 --netns {} --attribution sockdiag --output json",
        netns.path().display()
    );
    let script = format!("{} {arguments} {after}", binary().display());
    let mut agent = Agent::from(Command::new("sh").args(["-c", &script]).env("RUST_LOG", "info"));
    agent.wait_until_said("reading group");
    agent
}

/// Runs the agent to its end.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary());
    command
        .arg("run")
        .args(arguments)
        .env("RUST_LOG", "error")
        .env("NFLOG_AGENT_ATTRIBUTION", "sockdiag")
        .envs(environment.iter().copied());
    command.output().expect("the agent starts")
}

/// Asserts one line on standard error with each of `words`, and the exit code.
#[track_caller]
fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "not one line:\n{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no `{word}` in: {stderr}");
    }
}

#[test]
fn an_unknown_flag_is_a_usage_error_with_a_tip() {
    assert_fails(&run(&["--grop", "7"], &[]), 64, &["--grop", "--group", "--help"]);
}

#[test]
fn where_standard_error_takes_nothing_the_exit_code_still_says_it() {
    for arguments in [
        ["--grop", "7"].as_slice(),
        &["--group", "7", "--netns", "no-such-netns"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(binary());
        let status = command.arg("run").args(arguments).stderr(full).status();
        assert_eq!(status.unwrap().code(), Some(64), "{arguments:?}");
    }
}

#[test]
fn a_group_that_cannot_exist_is_a_usage_error() {
    assert_fails(&run(&["--group", "70000"], &[]), 64, &["70000", "0 to 65535"]);
}

#[test]
fn a_namespace_that_does_not_exist_is_named() {
    assert_fails(
        &run(&["--group", "7", "--netns", "no-such-netns"], &[]),
        64,
        &["/run/netns/no-such-netns", "ip netns list"],
    );
}

#[test]
fn an_endpoint_that_is_no_address_is_named() {
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", "not an address")];
    assert_fails(
        &run(&["--group", "7"], &environment),
        64,
        &["OTEL_EXPORTER_OTLP_ENDPOINT", "not an address"],
    );
}

#[test]
fn without_privileges_the_remedy_is_root() {
    // In a guest there is no setpriv; the agent's own check is the same everywhere.
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--clear-groups", "--inh-caps=-all"])
        .arg(binary());
    match command
        .args(["run", "--group", "7"])
        .env("RUST_LOG", "error")
        .output()
    {
        Ok(output) => assert_fails(&output, 77, &["CAP_NET_ADMIN", "root"]),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIPPED: no setpriv in this guest");
        }
        Err(error) => panic!("setpriv: {error}"),
    }
}

#[test]
fn a_busy_group_names_its_reader() {
    let netns = Netns::new("busy");
    let path = netns.path().display().to_string();
    let first = Agent::on(&netns, &["--output", "json", "--attribution", "sockdiag"], &[]);
    let output = run(&["--group", "7", "--netns", &path], &[]);
    assert_fails(&output, 75, &["group 7", "nflog-agent", "another group"]);
    assert_eq!(first.stop().code, Some(0));
}

#[test]
fn a_collector_that_is_down_is_said_once_and_its_records_are_counted() {
    let netns = Netns::new("down");
    netns.nft(RULES);
    // Nobody listens on the discard port of this host's loopback.
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
        ("NFLOG_AGENT_ATTRIBUTION", "sockdiag"),
    ];
    let agent = Agent::on(&netns, &["--shutdown-timeout", "1s"], &environment);
    knock(&netns);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages());
    assert_eq!(
        (
            ended.count("received"),
            ended.count("exported"),
            ended.count("lost")
        ),
        (1, 0, 1)
    );
    let warnings = ended
        .stderr
        .iter()
        .filter(|line| line.contains("cannot deliver to http://127.0.0.1:9"));
    assert_eq!(warnings.count(), 1, "{}", ended.messages());
}

#[test]
fn a_kernel_without_kprobes_is_said_once_and_the_agent_runs() {
    if has_kprobes() {
        return;
    }
    let netns = Netns::new("degraded");
    let path = netns.path().display().to_string();
    let ended = Agent::on(&netns, &["--output", "json"], &[]).stop();
    let degraded: Vec<_> = ended
        .stderr
        .iter()
        .filter(|line| line.contains("degraded attribution"))
        .collect();
    assert_eq!(degraded.len(), 1, "{}", ended.messages());
    assert!(degraded[0].contains("CONFIG_KPROBE_EVENTS"), "{degraded:?}");
    let demanded = run(
        &["--group", "7", "--netns", &path, "--attribution", "probes"],
        &[],
    );
    assert_fails(&demanded, 69, &["kprobes", "--attribution auto"]);
}

/// The kernel's BTF is hidden behind an empty file system in a mount namespace of the agent's own.
#[test]
fn a_kernel_without_btf_is_said_once_and_the_agent_runs() {
    if !has_kprobes() {
        return;
    }
    let netns = Netns::new("no-btf");
    let script = format!(
        "mount -t tmpfs none /sys/kernel/btf && exec {} run --group 7 --netns {} --output json",
        binary().display(),
        netns.path().display()
    );
    let mut command = Command::new("unshare");
    let mut agent = Agent::from(command.args(["-m", "sh", "-c", &script]).env("RUST_LOG", "info"));
    agent.wait_until_said("reading group");
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages());
    let degraded: Vec<_> = ended
        .stderr
        .iter()
        .filter(|line| line.contains("degraded attribution"))
        .collect();
    assert_eq!(degraded.len(), 1, "{}", ended.messages());
    assert!(degraded[0].contains("CONFIG_DEBUG_INFO_BTF"), "{degraded:?}");
}

#[test]
fn a_full_disk_ends_the_agent_with_an_error_and_a_count() {
    let netns = Netns::new("full");
    netns.nft(RULES);
    let agent = from_shell(&netns, "> /dev/full");
    knock(&netns);
    let ended = agent.wait();
    assert_eq!(ended.code, Some(74), "{}", ended.messages());
    assert!(
        ended.messages().contains("cannot write the output"),
        "{}",
        ended.messages()
    );
    assert_eq!(
        (
            ended.count("received"),
            ended.count("exported"),
            ended.count("lost")
        ),
        (1, 0, 1)
    );
}

#[test]
fn a_reader_of_the_output_that_goes_away_ends_the_agent_quietly() {
    let netns = Netns::new("pipe");
    netns.nft(RULES);
    let agent = from_shell(&netns, "| head -n 1");
    for _ in 0..20 {
        knock(&netns);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let ended = agent.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.messages());
    assert_eq!(ended.stdout.len(), 1);
}
