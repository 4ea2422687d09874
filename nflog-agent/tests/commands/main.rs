//! The commands beside `run`, by the program itself: a file for each.
#![cfg(feature = "agent")]

mod check;
mod completions;
mod config_schema;
mod help;
#[path = "../agent/otlp.rs"]
mod otlp;
#[allow(dead_code, reason = "shared with the tests of the agent")]
#[path = "../agent/program.rs"]
mod program;
mod record;
mod rules;
#[path = "../support/mod.rs"]
mod support;
mod top;

use std::ffi::OsStr;
use std::process::{Command, Output};

use program::binary;

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
