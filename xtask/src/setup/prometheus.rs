//! Prometheus and its promtool, in `target/tools/prometheus`: unpacked from the distribution's package and not installed, as that
//! would start a server on this host.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::packages::Requirement;
use crate::exit::Exit;
use crate::paths::{self, find_program};
use crate::process::{run, succeeds};

const PACKAGE: &str = "prometheus";
const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// What unpacks it.
pub(crate) const REQUIREMENT: Requirement = Requirement::program("dpkg-deb", "dpkg");

/// The directory whose `bin` has the programs.
pub(crate) fn directory() -> PathBuf {
    paths::tools().join("prometheus")
}

/// Unpacks the package unless its programs are there and run.
pub(crate) fn ensure() -> Result<()> {
    let directory = directory();
    let runs = |name: &&str| succeeds(Command::new(directory.join("bin").join(name)).arg("--version"));
    if PROGRAMS.iter().all(runs) {
        return Ok(());
    }
    if find_program("apt-get").is_none() {
        let message = format!(
            "put prometheus and promtool into {}: there is no apt-get here to fetch them",
            directory.join("bin").display()
        );
        return Err(Exit::unavailable(message).into());
    }
    println!("setup: unpacking Prometheus into {}", directory.display());
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => fs::create_dir_all(directory.join("bin"))?,
    }
    let package = download(&directory)?;
    let unpacked = directory.join("unpacked");
    run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
    for name in PROGRAMS {
        let from = unpacked.join("usr/bin").join(name);
        fs::rename(&from, directory.join("bin").join(name))
            .with_context(|| format!("{} is not in the package {PACKAGE}", from.display()))?;
    }
    fs::remove_dir_all(&unpacked)?;
    Ok(fs::remove_file(&package)?)
}

/// Downloads the package; with new package lists if the present ones do not know it, or know an older one.
fn download(directory: &Path) -> Result<PathBuf> {
    let get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(["-qq", "-o", "APT::Sandbox::User=root"])
            .args(arguments)
            .current_dir(directory);
        command
    };
    if !succeeds(&mut get(&["download", PACKAGE])) {
        run(&mut get(&["update"])).context("cannot fetch the package lists")?;
        run(&mut get(&["download", PACKAGE]))?;
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            return Ok(path);
        }
    }
    anyhow::bail!("apt-get downloaded no {PACKAGE} into {}", directory.display())
}
