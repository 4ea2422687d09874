//! `check`: what it says of what is there and of what is not, and the exit codes.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::binary;
use crate::otlp::Collector;
use crate::program::Agent;
use crate::support::Netns;

/// A report, and the exit code that came with it.
struct Report {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Report {
    #[track_caller]
    fn of(command: &mut Command) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().expect("it starts");
        let findings = serde_json::from_slice(&stdout).unwrap_or_else(|error| {
            let complaint = String::from_utf8_lossy(&stderr);
            panic!("no report ({error}): {complaint}");
        });
        Self {
            code: status.code(),
            findings,
        }
    }

    /// Status, what was found, and the remedy.
    #[track_caller]
    fn get(&self, check: &str) -> (&str, &str, &str) {
        let finding = self.findings.iter().find(|finding| finding["check"] == check);
        let finding = finding.unwrap_or_else(|| panic!("no {check} in {:#?}", self.findings));
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        (text("status"), text("found"), text("remedy"))
    }
}

/// `check` in a namespace of its own, with a report for programs.
fn check(netns: &Netns, arguments: &[&str]) -> Command {
    let program = binary();
    let mut command = netns.command(program.to_str().expect("UTF-8"));
    command
        .args(["check", "--output", "json"])
        .args(arguments)
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    command
}

const RULES: &str = "
    table inet t {
        chain out {
            type filter hook output priority 0
            udp dport 9 log group 7
        }
    }";

#[test]
fn where_everything_is_there_it_says_so_of_each_prerequisite_and_exits_with_0() {
    let netns = Netns::new("check");
    netns.nft(RULES);
    let report = Report::of(&mut check(&netns, &["--group", "7"]));
    assert_eq!(report.code, Some(0), "{:#?}", report.findings);
    for name in [
        "configuration",
        "kernel",
        "CAP_NET_ADMIN",
        "CAP_SYS_PTRACE",
        "group 7",
        "rules",
        "receive-buffer",
        "collector",
        "spool",
        "kubernetes",
        "clock",
    ] {
        assert_eq!(report.get(name).0, "ok", "{name}: {:?}", report.get(name));
    }
    for finding in &report.findings {
        let keys: Vec<_> = finding
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(keys, ["check", "found", "remedy", "status"], "{finding}");
        let quiet = finding["remedy"].is_null();
        assert_eq!(
            quiet,
            finding["status"] == "ok",
            "a remedy where something is wrong: {finding}"
        );
    }
}

#[test]
fn rules_are_seen_without_a_program_that_lists_them_whoever_made_them() {
    let (nft, iptables) = (Netns::new("check"), Netns::new("check"));
    nft.nft(RULES);
    let log = ["-A", "OUTPUT", "-j", "NFLOG", "--nflog-group", "8"];
    for program in ["iptables-nft", "ip6tables-nft"] {
        assert!(iptables.command(program).args(log).status().unwrap().success());
    }
    for (netns, group) in [(&nft, "7"), (&iptables, "8")] {
        let path = netns.path().display().to_string();
        let mut command = Command::new(binary());
        command.args(["check", "--output", "json", "--group", group, "--netns", &path]);
        let report = Report::of(command.env("PATH", "/no/such"));
        let rules = report.get(&format!("rules in {path}"));
        assert_eq!(rules.0, "ok", "{rules:?}");
    }
}

#[test]
fn rules_of_the_old_iptables_are_seen() {
    let netns = Netns::new("check");
    let mut old = netns.command("iptables-legacy");
    let log = ["-A", "OUTPUT", "-j", "NFLOG", "--nflog-group", "9"];
    if !old.args(log).status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: no old iptables, or a kernel without it");
        return;
    }
    let report = Report::of(&mut check(&netns, &["--group", "9"]));
    assert_eq!(report.get("rules").0, "ok", "{:?}", report.get("rules"));
    let report = Report::of(&mut check(&netns, &["--group", "10"]));
    let (status, found, _) = report.get("rules");
    assert!(status == "warning" && found.contains("for group 9"), "{found}");
}

#[test]
fn a_variable_that_means_nothing_is_named_with_the_one_that_is_meant() {
    let mut command = Command::new(binary());
    command
        .args(["check", "--output", "json", "--group", "7"])
        .env("NFLOG_AGENT_GROUP", "7");
    let report = Report::of(&mut command);
    let (status, found, remedy) = report.get("environment");
    assert_eq!(status, "warning");
    assert!(
        found.contains("NFLOG_AGENT_GROUP is set") && remedy.contains("NFLOG_AGENT_GROUPS"),
        "{found} {remedy}"
    );
    let output = Command::new(binary())
        .arg("run")
        .env("NFLOG_AGENT_GROUP", "7")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("did you mean NFLOG_AGENT_GROUPS?"), "{stderr}");
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let empty = [
        "CONFIG",
        "GROUPS",
        "NETNS",
        "SPOOL",
        "LISTEN",
        "VERBOSE",
        "KUBERNETES_LABELS",
    ];
    let mut command = Command::new(binary());
    command
        .args(["check", "--output", "json", "--group", "7"])
        .envs(empty.map(|name| (format!("NFLOG_AGENT_{name}"), "")));
    let report = Report::of(&mut command);
    assert_eq!(
        report.get("configuration").0,
        "ok",
        "{:?}",
        report.get("configuration")
    );
    report.get("group 7");
}

#[test]
fn people_get_a_line_each() {
    let output = Command::new(binary())
        .args(["check", "--group", "4711"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().count() > 15, "{text}");
    for line in text.lines() {
        let status = line.split(' ').next().unwrap_or_default();
        assert!(["ok", "warning", "FAILED"].contains(&status), "{line}");
        assert_eq!(line.contains(" => "), status != "ok", "{line}");
        let (_, found) = line.split_at(9 + 28);
        assert!(
            line[..9 + 28].ends_with(' ') && !found.starts_with(' '),
            "columns: {line}"
        );
    }
}

#[test]
fn everything_that_is_wrong_with_a_file_is_found_and_nothing_else_is_looked_at() {
    let netns = Netns::new("check");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.toml");
    fs::write(&path, "grup = 7\ncopy-range = 0\n").unwrap();
    let report = Report::of(&mut check(&netns, &["--config", path.to_str().unwrap()]));
    assert_eq!(report.code, Some(64));
    let found: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert!(
        found.iter().all(|finding| finding.contains("\"configuration\"")),
        "{found:?}"
    );
    assert!(
        found[0].contains("line 1") && found[0].contains("did you mean 'group'"),
        "{found:?}"
    );
    assert!(
        found[1].contains("line 2") && found[1].contains("copy-range"),
        "{found:?}"
    );
}

#[test]
fn a_group_that_is_read_is_named_with_its_reader() {
    let netns = Netns::new("check");
    let reader = netns.reader(7);
    let report = Report::of(&mut check(&netns, &["--group", "7"]));
    let (status, found, remedy) = report.get("group 7");
    assert_eq!((report.code, status), (Some(75), "failed"), "{found}");
    assert!(
        found.contains(&format!("process {}", std::process::id())) && remedy.contains("another group"),
        "{found}"
    );
    reader.close(|_| {}).unwrap();
}

#[test]
fn without_a_rule_for_the_group_it_says_which_there_are_and_how_to_add_one() {
    let netns = Netns::new("check");
    netns.nft(RULES);
    let report = Report::of(&mut check(&netns, &["--group", "8"]));
    let (status, found, remedy) = report.get("rules");
    assert_eq!((report.code, status), (Some(0), "warning"));
    assert!(
        found.contains("none logs to group 8") && found.contains("for group 7"),
        "{found}"
    );
    assert!(remedy.contains("rules print new --group 8"), "{remedy}");
}

#[test]
fn without_any_rule_what_it_says_helps() {
    let (here, there) = (Netns::new("check"), Netns::new("check"));
    let path = there.path().display().to_string();
    let arguments = ["--group", "8", "--netns", &path];
    let report = Report::of(&mut check(&here, &arguments));
    let rules = format!("rules in {path}");
    let (status, found, remedy) = report.get(&rules);
    assert_eq!(status, "warning", "{found}");
    let command = remedy
        .strip_prefix("add one, as nflog-agent ")
        .expect("a command");
    let added = Command::new(binary()).args(command.split(' ')).status();
    assert!(added.unwrap().success(), "{remedy}");
    assert_eq!(Report::of(&mut check(&here, &arguments)).get(&rules).0, "ok");
}

#[test]
fn other_namespaces_are_looked_into_by_name() {
    let (here, there) = (Netns::new("check"), Netns::new("check"));
    there.nft(RULES);
    let path = there.path().display().to_string();
    let report = Report::of(&mut check(&here, &["--group", "7", "--netns", &path]));
    assert_eq!(report.get(&format!("rules in {path}")).0, "ok");
    assert_eq!(report.get(&format!("group 7 in {path}")).0, "ok");
    assert_eq!(report.get("CAP_SYS_ADMIN").0, "ok");
}

#[test]
fn the_way_to_the_collector_is_tried_to_its_end() {
    let collector = Collector::start();
    let ask = |endpoint: &str| {
        let mut command = Command::new(binary());
        command
            .args(["check", "--output", "json"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        Report::of(&mut command)
    };
    let report = ask(&collector.endpoint());
    for name in ["collector-name", "collector-connection", "collector"] {
        assert_eq!(report.get(name).0, "ok", "{:?}", report.get(name));
    }
    assert_eq!(collector.requests().len(), 1, "an empty one");
    assert!(collector.requests()[0].resource_logs.is_empty());

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let report = ask(&format!("http://{nobody}"));
    assert_eq!(
        (report.code, report.get("collector-connection").0),
        (Some(69), "failed")
    );

    let report = ask("http://no-such-host.invalid:4317");
    assert_eq!(
        (report.code, report.get("collector-name").0),
        (Some(69), "failed")
    );
}

#[test]
fn a_receiver_of_another_kind_is_told_from_a_collector() {
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = web.local_addr().unwrap();
    std::thread::spawn(move || {
        // The first connection is that of the step before.
        for stream in web.incoming().flatten() {
            use std::io::{Read as _, Write as _};
            let mut request = [0; 1024];
            if (&stream).read(&mut request).unwrap_or(0) > 0 {
                let page = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
                (&stream).write_all(page.as_bytes()).unwrap();
            }
        }
    });
    let mut command = Command::new(binary());
    command
        .args(["check", "--output", "json"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
    let report = Report::of(&mut command);
    let (status, found, _) = report.get("collector");
    assert_eq!((report.code, status), (Some(69), "failed"));
    assert!(found.contains("404"), "{found}");
}

#[test]
fn a_spool_that_is_no_directory_is_found() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let spool = |path: &Path| {
        let mut command = Command::new(binary());
        command
            .args(["check", "--output", "json", "--", "--spool"])
            .arg(path)
            .args(["--output", "otlp"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        Report::of(&mut command)
    };
    let report = spool(file.path());
    let (status, found, _) = report.get("spool");
    assert_eq!(status, "failed", "{found}");
    assert!(found.contains("not a directory"), "{found}");
    let directory = tempfile::tempdir().unwrap();
    assert_ne!(spool(&directory.path().join("new")).get("spool").0, "failed");
}

#[test]
fn missing_privileges_are_named_and_exit_with_77() {
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-all,+sys_ptrace", "--inh-caps=-all"])
        .arg(binary())
        .args(["check", "--output", "json", "--group", "7"]);
    let report = Report::of(&mut command);
    let (status, found, remedy) = report.get("CAP_NET_ADMIN");
    assert_eq!((report.code, status), (Some(77), "failed"), "{found}");
    assert!(remedy.contains("root"), "{remedy}");
    assert_eq!(report.get("CAP_SYS_PTRACE").0, "ok");
    assert_eq!(report.get("group 7").0, "failed");
}

#[test]
fn a_process_that_is_no_agent_does_not_keep_its_promises_and_none_is_not_there() {
    let running =
        |pid: &str| Report::of(Command::new(binary()).args(["check", "--output", "json", "--running", pid]));
    let report = running(&std::process::id().to_string());
    assert_eq!((report.code, report.get("seccomp").0), (Some(77), "failed"));
    assert!(report.get("capabilities-readers").1.contains("CAP_SYS_MODULE"));
    // The largest pid is 2^22.
    let report = running("4194305");
    assert_eq!((report.code, report.get("agent").0), (Some(69), "failed"));
}

#[test]
fn of_several_agents_one_has_to_be_named_and_where_none_runs_none_is_found() {
    let netns = [Netns::new("check"), Netns::new("check")];
    let agents = netns.each_ref().map(|netns| {
        let path = netns.path().display().to_string();
        Agent::start(&["--group", "7", "--output", "json", "--netns", &path], &[])
    });
    let report = Report::of(Command::new(binary()).args(["check", "--output", "json", "--running"]));
    let (status, found, remedy) = report.get("agent");
    assert_eq!((report.code, status), (Some(64), "failed"), "{found}");
    for agent in &agents {
        assert!(found.contains(&agent.pid().to_string()), "{found}");
    }
    assert!(remedy.contains("check --running PID"), "{remedy}");
    let mut alone = Command::new("unshare");
    alone.args(["--pid", "--fork", "--mount-proc"]).arg(binary());
    let report = Report::of(alone.args(["check", "--output", "json", "--running"]));
    let (status, found, _) = report.get("agent");
    assert_eq!((report.code, status), (Some(69), "failed"), "{found}");
    for agent in agents {
        assert_eq!(agent.stop().code, Some(0));
    }
}

#[test]
fn a_kubeconfig_that_runs_a_program_is_refused_by_the_agent_and_found_before() {
    let netns = Netns::new("check");
    let directory = tempfile::tempdir().unwrap();
    let (config, ran) = (directory.path().join("config"), directory.path().join("ran"));
    let text = format!(
        "apiVersion: v1
kind: Config
current-context: c
clusters: [{{name: k, cluster: {{server: 'http://127.0.0.1:9'}}}}]
users: [{{name: u, user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, command: touch, args: ['{}']}}}}}}]
contexts: [{{name: c, context: {{cluster: k, user: u}}}}]
",
        ran.display()
    );
    fs::write(&config, text).unwrap();
    let environment = [
        ("KUBECONFIG", config.to_str().unwrap()),
        ("K8S_NODE_NAME", "node-1"),
    ];
    let report = Report::of(check(&netns, &["--group", "7"]).envs(environment));
    let (status, found, remedy) = report.get("kubernetes");
    assert_eq!((report.code, status), (Some(64), "failed"), "{found}");
    assert!(remedy.contains("--sandbox off"), "{remedy}");
    let mut run = netns.command(binary().to_str().unwrap());
    let output = run
        .args(["run", "--group", "7"])
        .envs(environment)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    assert!(
        stderr.contains(config.to_str().unwrap()) && stderr.contains("--sandbox off"),
        "{stderr}"
    );
    assert!(!ran.exists(), "it was run");
}
