//! A real Prometheus that scrapes an agent, and its promtool.

use std::env;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::nobody;
use crate::scrape::exchange;
use crate::support::wait_for;

/// A file below `deploy/`.
pub(crate) fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

#[track_caller]
pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Below `target/tools`, where `cargo xtask setup` puts it.
#[track_caller]
pub(crate) fn tool(variable: &str, place: &str, name: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools");
    let directory = env::var_os(variable).map_or_else(|| tools.join(place), PathBuf::from);
    let program = directory.join("bin").join(name);
    assert!(
        program.exists(),
        "{} is missing: run `cargo xtask setup`",
        program.display()
    );
    program
}

#[track_caller]
fn program(name: &str) -> Command {
    Command::new(tool("NFLOG_TEST_PROMETHEUS", "prometheus", name))
}

/// Whether promtool is content, and what it says.
#[track_caller]
pub(crate) fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = program("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// A running Prometheus; killed on drop.
pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Prometheus {
    /// Scrapes the agent at `target` every second, with the alert rules of this repository.
    #[track_caller]
    pub(crate) fn scraping(target: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rules = fs::canonicalize(deploy("prometheus/alerts.yaml")).unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\n\
             scrape_configs: [{{job_name: nflog-agent, static_configs: [{{targets: ['{target}']}}]}}]\n",
            rules.display()
        );
        let path = directory.path().join("prometheus.yml");
        fs::write(&path, config).unwrap();
        let address = nobody();
        let child = program("prometheus")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .args([
                "--web.console.templates=",
                "--web.console.libraries=",
                "--log.level=error",
            ])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut prometheus = Self {
            child,
            address,
            _directory: directory,
        };
        wait_for("Prometheus to scrape", || {
            assert_eq!(prometheus.child.try_wait().unwrap(), None, "Prometheus ended");
            std::net::TcpStream::connect(address).ok()?;
            // Until it has started it says so, in words.
            let scrapes = prometheus.ask("min(count_over_time(up{job=\"nflog-agent\"}[1m])) >= 3");
            (!scrapes["data"]["result"].as_array()?.is_empty()).then_some(())
        });
        prometheus
    }

    /// The result of an expression at this moment; its `status` must be success.
    #[track_caller]
    pub(crate) fn query(&self, expression: &str) -> Value {
        let answer = self.ask(expression);
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].clone()
    }

    #[track_caller]
    fn ask(&self, expression: &str) -> Value {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        self.get(&format!("/api/v1/query?query={encoded}"))
    }

    /// What it answers, if that is JSON.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = exchange(self.address, &format!("GET {path} HTTP/1.0\r\n\r\n"));
        serde_json::from_str(&answer.body).unwrap_or(Value::Null)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Ended already, if there is an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
