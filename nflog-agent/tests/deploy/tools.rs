//! The programs that judge what is in `deploy/`, and how the tests read files there.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

pub(crate) fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

pub(crate) fn read(path: &str) -> String {
    let path = deploy(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A program of the Python environment that xtask makes.
pub(crate) fn tool(name: &str) -> Command {
    let default = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools/venv");
    let venv = env::var_os("NFLOG_TEST_VENV").map_or(default, PathBuf::from);
    let program = venv.join("bin").join(name);
    assert!(
        program.exists(),
        "{} is missing: run `cargo xtask setup`",
        program.display()
    );
    Command::new(program)
}

pub(crate) fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}: run `cargo xtask setup`"))
}

/// What the program printed, and whether it was content.
pub(crate) fn verdict(command: &mut Command) -> (bool, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = output(command);
    (
        status.success(),
        String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned(),
    )
}

pub(crate) fn documents(yaml: &str) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.argv[1]))))";
    let (ok, text) = verdict(tool("python").args(["-c", script, yaml]));
    assert!(ok, "{text}");
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"))
        .iter()
        .map(|item| item.as_str().unwrap())
        .collect()
}

pub(crate) fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .map(|object| object.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

pub(crate) fn scratch(name: &str, content: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    (directory, path)
}

/// Kinds that are not Kubernetes' own, and so not in its schema.
const FOREIGN: [&str; 3] = ["PodMonitor", "ServiceMonitor", "SecurityContextConstraints"];

/// Fails unless every object passes the schema of Kubernetes, or is of a kind that is not its own.
#[track_caller]
pub(crate) fn assert_strictly_valid(name: &str, objects: &[Value]) {
    let known: Vec<String> = objects
        .iter()
        .filter(|object| !FOREIGN.contains(&object["kind"].as_str().unwrap()))
        .map(ToString::to_string)
        .collect();
    assert!(known.len() + 1 >= objects.len(), "{name}");
    let (_directory, path) = scratch("objects.yaml", &known.join("\n---\n"));
    let (ok, text) = verdict(tool("kubernetes-validate").arg("--strict").arg(path));
    assert!(ok, "{name}: {text}");
    assert_eq!(text.matches(" passed ").count(), known.len(), "{name}: {text}");
}
