//! Rules of the repository, as tests.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::paths;

/// Lines of a file outside its unit tests.
const LONGEST: usize = 600;
const LONGEST_MEDIAN: usize = 150;

/// The only places with `unsafe`.
const QUARANTINE: [&str; 7] = [
    "nflog-ebpf/src/",
    "nflog-common/src/pod.rs",
    "nflog-agent/src/nflog/socket.rs",
    "nflog-agent/src/service/descriptors.rs",
    "nflog-agent/tests/attribution/worker/ring.rs",
    "nflog-agent/tests/attribution/worker/tap.rs",
    "nflog-agent/tests/confinement/child.rs",
];

const BANNED_NAMES: [&str; 5] = ["utils.rs", "util.rs", "helpers.rs", "types.rs", "common.rs"];

/// What git knows and what it would add, so that a rule is not first broken in a commit.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(paths::root())
        .output()
        .expect("git runs");
    let names = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    let files: Vec<_> = names
        .lines()
        .filter(|name| endings.iter().any(|ending| name.ends_with(ending)))
        .filter_map(|name| {
            Some((
                name.to_owned(),
                fs::read_to_string(paths::root().join(name)).ok()?,
            ))
        })
        .collect();
    assert!(!files.is_empty(), "no files {endings:?}");
    files
}

fn without_tests(text: &str) -> &str {
    text.split("\nmod tests {").next().unwrap_or(text)
}

#[test]
fn every_source_file_says_what_it_is() {
    for (name, text) in files(&[".rs"]) {
        assert!(text.starts_with("//!"), "{name} does not begin with `//!`");
    }
}

#[test]
fn files_are_short() {
    let mut lengths = Vec::new();
    for (name, text) in files(&[".rs"]) {
        let length = without_tests(&text).lines().count();
        assert!(
            length <= LONGEST || name.contains("/tests/"),
            "{name}: {length} lines without tests, more than {LONGEST}"
        );
        if name.contains("/src/") {
            lengths.push(length);
        }
    }
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    println!(
        "{} files, median {median} lines, longest {:?}",
        lengths.len(),
        lengths.last()
    );
    assert!(
        median <= LONGEST_MEDIAN,
        "median {median} lines, more than {LONGEST_MEDIAN}"
    );
}

#[test]
fn file_names_are_nouns() {
    for (name, _) in files(&[".rs"]) {
        let file = PathBuf::from(&name);
        let file = file
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        assert!(
            !BANNED_NAMES.contains(&file),
            "{name}: name the file after what it holds"
        );
    }
}

#[test]
fn unsafe_is_in_quarantine_and_explained() {
    for (name, text) in files(&[".rs"]) {
        let lines: Vec<_> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !code.contains("unsafe {") && !code.contains("unsafe impl") && !code.contains("unsafe fn") {
                continue;
            }
            let place = format!("{name}:{}", number + 1);
            assert!(
                name == "xtask/src/tidy.rs" || QUARANTINE.iter().any(|allowed| name.starts_with(allowed)),
                "{place}: unsafe"
            );
            let above = &lines[number.saturating_sub(4)..number];
            let explained = above
                .iter()
                .any(|line| line.contains("SAFETY:") || line.contains("# Safety"));
            assert!(
                explained || name == "xtask/src/tidy.rs",
                "{place}: unsafe without SAFETY"
            );
        }
    }
}

#[test]
fn nothing_is_left_to_do() {
    let words = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
        ["unimple", "mented!("].concat(),
    ];
    for (name, text) in files(&[".rs", ".md", ".toml", ".yaml"]) {
        for word in &words {
            assert!(!text.contains(word.as_str()), "{name} contains {word}");
        }
    }
}

#[test]
fn nothing_names_this_machine() {
    let words = [
        ["/wo", "rk/"].concat(),
        ["/ro", "ot/"].concat(),
        ["debian", ".org"].concat(),
        ["static.crates", ".io"].concat(),
    ];
    for (name, text) in files(&[
        ".rs",
        ".md",
        ".toml",
        ".yaml",
        ".sh",
        ".service",
        ".nft",
        "Dockerfile",
        "run",
    ]) {
        for word in &words {
            assert!(!text.contains(word.as_str()), "{name} contains {word}");
        }
    }
}

#[test]
fn the_readme_names_the_two_commands() {
    let (_, readme) = files(&["README.md"])
        .into_iter()
        .find(|(name, _)| name == "README.md")
        .expect("a README");
    for command in ["cargo xtask run", "cargo xtask test"] {
        assert!(readme.contains(command), "README.md does not mention `{command}`");
    }
}

#[test]
fn ci_runs_the_test_command_and_nothing_else() {
    let script = fs::read_to_string(paths::root().join(".ci/run")).expect(".ci/run");
    let substance: Vec<_> = script
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    assert_eq!(substance, ["exec cargo xtask test"]);
}

#[test]
fn top_level_folders_are_the_agreed_ones() {
    let folders = [
        "nflog-agent",
        "nflog-common",
        "nflog-ebpf",
        "xtask",
        "deploy",
        ".ci",
        ".cargo",
    ];
    for (name, _) in files(&[".rs", ".md", ".toml", ".yaml", "run"]) {
        if let Some((folder, _)) = name.split_once('/') {
            assert!(folders.contains(&folder), "{name}: no other top-level folder");
        }
    }
}
