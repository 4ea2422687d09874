//! What shells are given to complete the command line.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::{nflog_agent, stdout};

#[test]
fn bash_understands_its_completions() {
    let script = stdout(["completions", "bash"]);
    // The shell loads them, and asks them what can follow `nflog-agent run --gr`.
    let ask = "\nCOMP_WORDS=(nflog-agent run --gr); COMP_CWORD=2; _nflog__agent nflog-agent --gr run; echo ${COMPREPLY[@]}\n";
    let mut bash = Command::new("bash")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash");
    let mut stdin = bash.stdin.take().expect("piped");
    stdin.write_all((script + ask).as_bytes()).expect("bash reads");
    drop(stdin);
    let output = bash.wait_with_output().expect("bash ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "--group");
}

#[test]
fn an_unknown_shell_is_a_usage_error_that_names_those_there_are() {
    let output = nflog_agent(["completions", "tcsh"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    assert!(stderr.contains("'tcsh'") && stderr.contains("zsh"), "{stderr}");
}
