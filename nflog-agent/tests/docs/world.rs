//! Where the blocks of a page are carried out: a network namespace, and /etc and /var/lib with a layer above them that is thrown away.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nflog_agent::settings;

use super::block::Block;
use super::program::{Agent, binary};
use super::support::{Netns, wait_for};
use super::traffic::{self, Neighbours};

pub(crate) struct World {
    netns: Netns,
    directory: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["bin", "here", "etc", "etc.work", "lib", "lib.work"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        symlink(
            fs::canonicalize(binary()).unwrap(),
            directory.path().join("bin/nflog-agent"),
        )
        .unwrap();
        // What the guides name as `deploy/...`.
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        symlink(
            fs::canonicalize(deploy).unwrap(),
            directory.path().join("here/deploy"),
        )
        .unwrap();
        Self {
            netns: Netns::new("docs"),
            directory,
        }
    }

    /// The programs of `cargo xtask setup`.
    fn tools() -> PathBuf {
        let default = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools/venv");
        env::var_os("NFLOG_TEST_VENV")
            .map_or(default, PathBuf::from)
            .join("bin")
    }

    /// A script, in the namespaces.
    fn script(&self, script: &str) -> Command {
        let place = self.directory.path().display();
        let inside = format!(
            "mount -t overlay docs -o lowerdir=/etc,upperdir={place}/etc,workdir={place}/etc.work /etc
             mount -t overlay docs -o lowerdir=/var/lib,upperdir={place}/lib,workdir={place}/lib.work /var/lib
             cd {place}/here\n{script}"
        );
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.netns.path().display()))
            .args(["unshare", "--mount", "--propagation", "private"])
            .args(["bash", "-euo", "pipefail", "-c", &inside])
            .env(
                "PATH",
                format!(
                    "{place}/bin:{}:{}",
                    Self::tools().display(),
                    env::var("PATH").unwrap()
                ),
            )
            .env("HOME", self.directory.path().join("here"))
            .env("RUST_LOG", "info")
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
        command
    }

    /// Everything that a script prints, if it succeeds.
    fn output(&self, script: &str) -> Result<String, String> {
        let output = self
            .script(script)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            Err(format!("{}: {text}", output.status))
        }
    }

    pub(crate) fn carry_out(&self, block: &Block) -> Result<(), String> {
        match block.verb.as_str() {
            "run" => {
                let text = self.output(&format!("{}{}", block.given, block.text))?;
                expect(block, &text)
            }
            "agent" => {
                let script = last_command_is_the_process(&block.text);
                self.agent(block, &format!("{}{script}", block.given))
            }
            "rules" => Self::new().rules(block),
            "config" => self.config(&block.text),
            "values" => self.values(&block.text),
            _ => Ok(()),
        }
    }

    /// Starts an agent, sends traffic until what is expected appears, and stops it.
    fn agent(&self, block: &Block, script: &str) -> Result<(), String> {
        let traffic = block.attribute("traffic");
        let neighbours = traffic.contains("forward:").then(|| Neighbours::of(&self.netns));
        let mut agent = Agent::from(&mut self.script(script));
        agent.wait_until_said("reading group");
        let wanted = block.attribute("expect");
        wait_for(&format!("`{wanted}` at line {}", block.line), || {
            if !traffic.is_empty() {
                traffic::send(traffic, &self.netns, neighbours.as_ref()).unwrap();
            }
            let seen = agent.said(wanted) || agent.output().iter().any(|line| line.contains(wanted));
            seen.then_some(())
        });
        let ended = agent.stop();
        match ended.code {
            Some(0) => Ok(()),
            code => Err(format!("the agent ended with {code:?}: {}", ended.messages())),
        }
    }

    fn rules(&self, block: &Block) -> Result<(), String> {
        let script = if block.language == "nft" {
            format!("nft -f - <<'RULES'\n{}\nRULES", block.text)
        } else {
            block.text.clone()
        };
        self.output(&format!("{}{script}", block.given))?;
        let groups = groups(&block.text).join(",");
        if groups.is_empty() || block.attribute("traffic").is_empty() || block.attribute("expect").is_empty()
        {
            return Err("rules need a group, traffic and what to expect".to_owned());
        }
        let command = format!("exec nflog-agent run --output json --group {groups}");
        self.agent(block, &command)
    }

    fn config(&self, file: &str) -> Result<(), String> {
        let path = self.directory.path().join("here/block.toml");
        let has_group = file.lines().any(|line| line.starts_with("group"));
        let group = if has_group { "" } else { "group = 7\n" };
        fs::write(&path, format!("{group}{file}")).unwrap();
        let arguments = ["nflog-agent", "run", "--config"].map(OsString::from);
        match settings::read(arguments.into_iter().chain([path.into_os_string()])) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn values(&self, values: &str) -> Result<(), String> {
        fs::write(self.directory.path().join("here/block.yaml"), values).unwrap();
        self.output("helm template nflog-agent deploy/helm/nflog-agent --values block.yaml")
            .map(|_| ())
    }
}

fn expect(block: &Block, text: &str) -> Result<(), String> {
    let wanted = block.attribute("expect");
    if text.contains(wanted) {
        Ok(())
    } else {
        Err(format!("no `{wanted}` in: {text}"))
    }
}

/// The script with `exec` before its last command, so that signals reach that.
fn last_command_is_the_process(script: &str) -> String {
    let lines: Vec<&str> = script.trim_end().lines().collect();
    let first_of_last = (0..lines.len())
        .rev()
        .find(|at| *at == 0 || !lines[at - 1].ends_with('\\'))
        .unwrap_or(0);
    let (before, last) = lines.split_at(first_of_last);
    format!("{}\nexec env {}", before.join("\n"), last.join("\n"))
}

/// The groups that rules log to.
fn groups(rules: &str) -> Vec<String> {
    let words: Vec<&str> = rules.split_ascii_whitespace().collect();
    let named = words
        .windows(2)
        .filter(|pair| ["group", "--nflog-group"].contains(&pair[0]));
    let mut groups: Vec<String> = named
        .map(|pair| pair[1].trim_matches(|c: char| !c.is_ascii_digit()).to_owned())
        .filter(|group| !group.is_empty())
        .collect();
    groups.sort();
    groups.dedup();
    groups
}

#[test]
fn the_last_command_gets_the_signals() {
    let script = "a\nX=1 b \\\n    c\n";
    assert_eq!(last_command_is_the_process(script), "a\nexec env X=1 b \\\n    c");
    assert_eq!(last_command_is_the_process("a b\n"), "\nexec env a b");
}

#[test]
fn groups_are_found_in_nft_and_in_iptables() {
    let rules =
        "log prefix \"x\" group 7 snaplen 128; log group 8;\n-j NFLOG --nflog-group 9 --nflog-prefix \"y\"";
    assert_eq!(groups(rules), ["7", "8", "9"]);
}
