//! `cargo xtask dist`: what is installed on machines, below `target/dist`: archive, deb and rpm of one static program, its SBOM, checksums.
//!
//! The same sources give the same bytes: the only time in them is that of the last commit, or `SOURCE_DATE_EPOCH`.

mod archive;
mod contents;
mod deb;
mod epoch;
mod rpm;
mod sbom;
pub(crate) mod trial;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::artifacts::{self, Artifacts};
use crate::paths;
use crate::process::{bytes, run};
use crate::setup;
use crate::vm::remove_directory;
use contents::Contents;
use epoch::Epoch;

/// Options of `cargo xtask dist`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How the program is built
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// Package this program, which is there, and build none
    #[arg(long, value_name = "PATH", conflicts_with = "profile")]
    program: Option<PathBuf>,
    /// Also install, upgrade and remove packages of it, in roots of their own
    #[arg(long)]
    trial: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// As it is shipped.
    #[default]
    Release,
    /// As the tests have it: to look at the packages.
    Dev,
}

/// Runs the verb.
pub(crate) fn main(options: &Options) -> Result<()> {
    setup::ensure_packaging()?;
    let program = match &options.program {
        Some(program) => program.clone(),
        None => build(options.profile)?,
    };
    let place = paths::target().join("dist");
    remove_directory(&place)?;
    for file in make(&program, env!("CARGO_PKG_VERSION"), &place)? {
        println!("{}", file.display());
    }
    if options.trial {
        let (_, failed) = trial::run_all(&program)?;
        ensure!(failed == 0, "{failed} trials failed");
    }
    Ok(())
}

/// The program that the tests have.
pub(crate) fn test_program() -> Result<PathBuf> {
    setup::ensure_packaging()?;
    build(Profile::Dev)
}

fn build(profile: Profile) -> Result<PathBuf> {
    let artifacts = match profile {
        Profile::Dev => Artifacts::build()?,
        Profile::Release => {
            let mut command = artifacts::cargo("build");
            command.args(["--package", "nflog-agent", "--bin", "nflog-agent", "--release"]);
            Artifacts::of(&mut command)?
        }
    };
    artifacts.program("nflog-agent")
}

/// Makes everything of a program, in a directory that need not exist. Returns the files.
fn make(program: &Path, version: &str, place: &Path) -> Result<Vec<PathBuf>> {
    let work = place.join("parts");
    remove_directory(&work)?;
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let epoch = Epoch::of_sources()?;
    let stripped = strip(program, &work)?;
    let contents = Contents::of(&stripped, &work, &epoch)?;
    let mut files = vec![
        archive::build(&contents, version, &epoch, &work, place)?,
        deb::build(&contents, version, &epoch, &work, place)?,
        rpm::build(&contents, version, &epoch, &work, place)?,
        sbom::write(version, &epoch, place)?,
    ];
    files.push(checksums(&files, place)?);
    remove_directory(&work)?;
    Ok(files)
}

/// The program without what only debuggers read.
fn strip(program: &Path, work: &Path) -> Result<PathBuf> {
    let stripped = work.join("nflog-agent");
    run(Command::new("strip")
        .arg("--strip-all")
        .arg("-o")
        .arg(&stripped)
        .arg(program))?;
    Ok(stripped)
}

/// `SHA256SUMS`, as `sha256sum --check` reads it.
fn checksums(files: &[PathBuf], place: &Path) -> Result<PathBuf> {
    let mut command = Command::new("sha256sum");
    command.current_dir(place);
    for file in files {
        command.arg(file.file_name().context("a file has a name")?);
    }
    let sums = place.join("SHA256SUMS");
    fs::write(&sums, bytes(&mut command)?).with_context(|| format!("cannot write {}", sums.display()))?;
    Ok(sums)
}
