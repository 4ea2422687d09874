//! The commands beside `run`, by the program itself: a file for each.
#![cfg(feature = "agent")]

mod completions;
mod help;
mod record;
#[path = "../support/mod.rs"]
mod support;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output};

/// The binary: in a guest where the harness says, else the one cargo built.
fn binary() -> PathBuf {
    std::env::var_os("NFLOG_AGENT_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_nflog-agent").into(), PathBuf::from)
}

/// Runs the program to its end.
fn nflog_agent<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    Command::new(binary())
        .args(arguments)
        .output()
        .expect("the program starts")
}

/// Standard output of a run that must succeed.
#[track_caller]
fn stdout<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> String {
    let output = nflog_agent(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}
