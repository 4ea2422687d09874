//! What `--help` and the manual pages say.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nflog_agent::{cli, exit_codes};

use super::{nflog_agent, stdout};

/// Every command, as arguments; the program itself first.
fn commands() -> Vec<Vec<String>> {
    fn add(command: &clap::Command, path: &[String], all: &mut Vec<Vec<String>>) {
        all.push(path.to_vec());
        for command in command.get_subcommands() {
            add(command, &[path, &[command.get_name().to_owned()]].concat(), all);
        }
    }
    let mut all = Vec::new();
    add(&cli::command(), &[], &mut all);
    all
}

fn help(command: &[String]) -> String {
    stdout(command.iter().map(String::as_str).chain(["--help"]))
}

#[test]
fn every_command_has_examples() {
    assert!(commands().contains(&vec!["rules".to_owned(), "install".to_owned()]));
    for command in commands() {
        let help = help(&command);
        let examples = help.split_once("\nExamples:\n").map(|(_, rest)| rest);
        let examples = examples.unwrap_or_else(|| panic!("{command:?} has none:\n{help}"));
        let called = ["nflog-agent"]
            .into_iter()
            .chain(command.iter().map(String::as_str));
        let called = called.collect::<Vec<_>>().join(" ");
        assert!(
            examples.contains(&called),
            "no example calls `{called}`:\n{examples}"
        );
    }
}

#[test]
fn the_exit_codes_of_every_help_text_are_those_of_the_program() {
    for command in commands() {
        let help = help(&command);
        let (_, codes) = help.split_once("\nExit codes:\n").expect("a list of exit codes");
        let codes: Vec<_> = codes
            .lines()
            .take_while(|line| !line.is_empty())
            .map(|line| line.trim().split_once(' ').expect("a code and what it means"))
            .map(|(code, meaning)| (code.parse().expect("a number"), meaning.trim()))
            .collect();
        assert_eq!(codes, exit_codes::ALL, "{command:?}");
    }
}

#[test]
fn exit_codes_are_numbers_in_one_file_only() {
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let defined = text.lines().find(|line| line.contains("const EXIT_"));
                assert_eq!(defined, None, "{}: belongs into exit_codes.rs", path.display());
            }
        }
    }
}

#[test]
fn there_is_a_manual_page_for_every_command_with_all_sections() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("man1");
    stdout(["man".as_ref(), "--directory".as_ref(), path.as_os_str()]);
    for command in commands() {
        let name = ["nflog-agent".to_owned()]
            .into_iter()
            .chain(command)
            .collect::<Vec<_>>()
            .join("-");
        let page = fs::read_to_string(path.join(format!("{name}.1")))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        for section in [
            "NAME",
            "SYNOPSIS",
            "OPTIONS",
            "EXAMPLES",
            "\"EXIT STATUS\"",
            "ENVIRONMENT",
            "FILES",
        ] {
            assert!(
                page.contains(&format!(".SH {section}\n")),
                "{name} has no {section}:\n{page}"
            );
        }
        for (code, meaning) in exit_codes::ALL {
            let text = format!(".TP\n\\fB{code}\\fR\n{}", meaning.replace('-', "\\-"));
            assert!(
                page.contains(&text),
                "{name} does not say {code}, {meaning}:\n{page}"
            );
        }
    }
    let rules = fs::read_to_string(path.join("nflog-agent-rules.1")).unwrap();
    assert!(
        rules.contains("what opens a connection through this host"),
        "wishes: {rules}"
    );
    let whole = stdout(["man"]);
    assert_eq!(whole, fs::read_to_string(path.join("nflog-agent.1")).unwrap());
}

#[test]
fn manual_pages_are_understood_by_man() {
    let mut man = Command::new("man")
        .args(["--warnings", "--local-file", "-"])
        .env("MANWIDTH", "120")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("man-db is installed: `cargo xtask setup`");
    std::io::Write::write_all(&mut man.stdin.take().unwrap(), stdout(["man"]).as_bytes()).unwrap();
    let output = man.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    for (code, meaning) in exit_codes::ALL {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(&code.to_string()));
        assert!(line.is_some_and(|line| line.contains(meaning)), "{code}: {text}");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_with_its_code() {
    let output = nflog_agent(["man", "--directory", "/proc/no/such"]);
    assert_eq!(output.status.code(), Some(exit_codes::IO.into()), "{output:?}");
}

/// Runs the program with an end of a pipe that nobody reads as its output or its errors.
fn unheard(arguments: &[&str], errors: bool) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (stdout, stderr) = if errors {
        (Stdio::null(), Stdio::from(writer))
    } else {
        (Stdio::from(writer), Stdio::null())
    };
    let mut command = Command::new(super::binary());
    command.args(arguments).stdout(stdout).stderr(stderr);
    command.status().unwrap().code()
}

#[test]
fn that_nobody_reads_what_is_said_is_no_bug() {
    for arguments in [
        &["--help"][..],
        &["rules", "install", "--help"],
        &["man"],
        &["completions", "zsh"],
        &["config-schema"],
        &["rules", "print", "new"],
    ] {
        assert_eq!(unheard(arguments, false), Some(0), "{arguments:?}");
    }
    for (arguments, code) in [
        (&["run", "--bad"][..], 64),
        (&["record", "-g", "7", "/no/such"], 74),
        (&["replay", "/no/such"], 66),
    ] {
        assert_eq!(unheard(arguments, true), Some(code), "{arguments:?}");
    }
}

#[test]
fn that_what_is_said_cannot_be_written_is_told() {
    for arguments in [&["--help"][..], &["man"], &["config-schema"]] {
        let full = fs::File::create("/dev/full").unwrap();
        let mut command = Command::new(super::binary());
        let output = command.args(arguments).stdout(full).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit_codes::IO.into()), "{arguments:?}");
        assert!(stderr.contains("No space left"), "{stderr}");
    }
}
