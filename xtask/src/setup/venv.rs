//! The Python packages that tests judge our output by, in a virtual environment at `target/tools/venv`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::packages::Requirement;
use crate::paths;
use crate::process::run;

/// Debian's python3 comes without what makes a virtual environment.
pub(crate) const REQUIREMENT: Requirement = Requirement::python_module("ensurepip", "python3-venv");

/// The virtual environment's directory.
pub(crate) fn directory() -> PathBuf {
    paths::tools().join("venv")
}

/// Makes the environment anew unless it was made from the present `requirements.txt`.
pub(crate) fn ensure() -> Result<()> {
    let requirements = paths::root().join("xtask/requirements.txt");
    let wanted = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let directory = directory();
    let installed = directory.join("requirements.txt");
    if fs::read_to_string(&installed).is_ok_and(|text| text == wanted) {
        return Ok(());
    }
    println!("setup: installing Python packages into {}", directory.display());
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&directory))?;
    run(Command::new(directory.join("bin/python"))
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--requirement",
        ])
        .arg(&requirements))?;
    fs::write(&installed, wanted).with_context(|| format!("cannot write {}", installed.display()))
}
