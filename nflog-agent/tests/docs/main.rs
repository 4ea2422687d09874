//! What the guides say is true: each fenced block is run on the real thing, or says why it is not.
//!
//! The info string of a block says what becomes of it, after its language:
//!
//! | word | what is done |
//! |---|---|
//! | `run` | a script that must succeed; the blocks of a page share a network namespace and what they write into `/etc` and `/var/lib` |
//! | `agent` | the same, but its last command is an agent: it is started, sent `traffic`, and stopped |
//! | `rules` | rules (nft, or a script that makes them) in a namespace of their own, an agent on the groups that they name, and `traffic` |
//! | `config` | a configuration file that the agent must accept; without a group it gets one |
//! | `values` | values that the Helm chart must accept |
//! | `given` | a script that is run before the next block, in one shell with it: what other programs make. In an HTML comment, as a rule |
//! | `skip="why"` | nothing |
//!
//! `traffic="udp:53,tcp:22,forward:udp:53"` is sent over loopback, or through this namespace from a second one to a third. `expect="text"`
//! must then appear. `needs="program"` leaves a block out where that program is not: `cargo xtask setup` does not install what would take over the
//! host's firewall. Blocks of `text` are not commands.
//!
//! Needs root, and what `cargo xtask setup` installs. Nothing outside of namespaces is changed: /etc and /var/lib are overlaid.

mod block;
#[allow(dead_code, reason = "shared with the agent's tests")]
#[path = "../agent/program.rs"]
mod program;
#[path = "../support/mod.rs"]
mod support;
mod traffic;
mod world;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use block::{Block, blocks};
use nflog_agent::telemetry::ledger::LossReason;
use world::World;

macro_rules! pages {
    ($($name:ident: $path:literal,)*) => {
        const PAGES: &[&str] = &[$($path),*];
        $(
            #[test]
            fn $name() {
                carry_out($path);
            }
        )*
    };
}

pages! {
    the_readme_does_what_it_says: "README.md",
    contributing_does_what_it_says: "CONTRIBUTING.md",
    the_quick_start_does_what_it_says: "nflog-agent/docs/quick-start.md",
    the_guide_to_configuration_does_what_it_says: "nflog-agent/docs/configuration.md",
    nftables_recipes_log_what_they_say: "nflog-agent/docs/nftables.md",
    iptables_recipes_log_what_they_say: "nflog-agent/docs/iptables.md",
    the_guide_to_containers_does_what_it_says: "nflog-agent/docs/containers.md",
    the_guide_to_kubernetes_does_what_it_says: "nflog-agent/docs/kubernetes.md",
    the_guide_to_many_nodes_does_what_it_says: "nflog-agent/docs/scale.md",
    troubleshooting_shows_what_it_says: "nflog-agent/docs/troubleshooting.md",
    upgrading_does_what_it_says: "nflog-agent/docs/upgrade.md",
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// Every page of the project that a reader can take a command from.
fn every_page() -> BTreeSet<String> {
    let mut pages = BTreeSet::new();
    for directory in ["", "nflog-agent/docs", "deploy"] {
        for entry in fs::read_dir(root().join(directory)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                pages.insert(format!("{directory}/{name}").trim_start_matches('/').to_owned());
            }
        }
    }
    pages
}

#[track_caller]
fn carry_out(page: &str) {
    let world = World::new();
    let mut given = String::new();
    for mut block in blocks(&read(page)).unwrap_or_else(|error| panic!("{page}: {error}")) {
        println!("{page}:{}: {}", block.line, block.verb);
        if block.verb == "given" {
            given = block.text;
            continue;
        }
        block.given = std::mem::take(&mut given);
        if !is_there(block.attribute("needs")) {
            println!("SKIPPED: {} is not installed", block.attribute("needs"));
            continue;
        }
        if let Err(problem) = world.carry_out(&block) {
            panic!("{page}:{}: {problem}\n{}", block.line, block.text);
        }
    }
}

/// Whether a program is in PATH; no name is no need.
fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap();
    program.is_empty() || env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[test]
fn every_block_says_what_becomes_of_it() {
    let mut problems = Vec::new();
    for page in every_page() {
        match blocks(&read(&page)) {
            Err(problem) => problems.push(format!("{page}: {problem}")),
            Ok(blocks) => {
                let acts = blocks.iter().any(Block::acts);
                if acts && !PAGES.contains(&page.as_str()) {
                    problems.push(format!(
                        "{page} has commands to run, and no test in tests/docs/main.rs"
                    ));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_link_leads_somewhere() {
    for page in every_page() {
        let text = read(&page);
        let above = root().join(&page).parent().unwrap().to_owned();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap();
            let file = target.split('#').next().unwrap();
            let is_local = !file.is_empty() && !target.contains("://");
            assert!(
                !is_local || above.join(file).exists(),
                "{page}: {target} is not there"
            );
        }
    }
}

#[test]
fn troubleshooting_has_every_reason_for_a_loss() {
    let page = read("nflog-agent/docs/troubleshooting.md");
    let rows: String = page.lines().filter(|line| line.starts_with("| ")).collect();
    for reason in LossReason::ALL {
        assert!(rows.contains(reason.name()), "{}", reason.name());
    }
}
