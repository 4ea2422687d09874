//! `cargo xtask dist`: what is installed on machines, below `target/dist`: archive, deb and rpm of one static program, its SBOM, checksums.
//!
//! For x86-64, or by `--arch` for arm64, in `target/dist-arm64`: cross-built, its manual pages written under emulation.
//!
//! The same sources give the same bytes: the only time in them is that of the last commit, or `SOURCE_DATE_EPOCH`.

mod archive;
mod contents;
mod deb;
mod epoch;
mod release;
mod rpm;
mod sbom;
pub(crate) mod trial;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::arch::Arch;
use crate::artifacts::{self, Artifacts};
use crate::cross;
use crate::paths;
use crate::process::{bytes, run};
use crate::setup;
use crate::vm::remove_directory;
use contents::Contents;
use epoch::Epoch;
use release::{Program, Release};

/// Options of `cargo xtask dist`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What the program runs on
    #[arg(long, value_enum, default_value_t)]
    arch: Arch,
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
    setup::ensure_packaging(options.arch)?;
    let program = match &options.program {
        Some(path) => Program::of(path.clone(), options.arch)?,
        None => build(options.profile, options.arch)?,
    };
    let place = paths::target().join(match options.arch {
        Arch::X86_64 => "dist",
        Arch::Arm64 => "dist-arm64",
    });
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
pub(crate) fn test_program() -> Result<Program> {
    setup::ensure_packaging(Arch::X86_64)?;
    build(Profile::Dev, Arch::X86_64)
}

fn build(profile: Profile, arch: Arch) -> Result<Program> {
    let path = match (arch, profile) {
        (Arch::X86_64, Profile::Dev) => Artifacts::build()?.program("nflog-agent")?,
        (Arch::X86_64, Profile::Release) => {
            let mut command = artifacts::cargo("build");
            command.args(["--package", "nflog-agent", "--bin", "nflog-agent", "--release"]);
            Artifacts::of(&mut command)?.program("nflog-agent")?
        }
        (Arch::Arm64, Profile::Dev) => cross::build("dev")?,
        (Arch::Arm64, Profile::Release) => cross::build("release")?,
    };
    Program::of(path, arch)
}

/// Makes everything of a program, in a directory that need not exist. Returns the files.
fn make(program: &Program, version: &str, place: &Path) -> Result<Vec<PathBuf>> {
    let work = place.join("parts");
    remove_directory(&work)?;
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let epoch = Epoch::of_sources()?;
    let stripped = strip(program, &work)?;
    let contents = Contents::of(&stripped, &work, &epoch)?;
    let release = Release {
        version,
        arch: program.arch,
    };
    let mut files = vec![
        archive::build(&contents, release, &epoch, &work, place)?,
        deb::build(&contents, release, &epoch, &work, place)?,
        rpm::build(&contents, release, &epoch, &work, place)?,
        sbom::write(release, &epoch, place)?,
    ];
    files.push(checksums(&files, place)?);
    remove_directory(&work)?;
    Ok(files)
}

/// The program without what only debuggers read.
fn strip(program: &Program, work: &Path) -> Result<Program> {
    let stripped = work.join("nflog-agent");
    run(Command::new(program.arch.strip())
        .arg("--strip-all")
        .arg("-o")
        .arg(&stripped)
        .arg(&program.path))?;
    Ok(Program {
        path: stripped,
        arch: program.arch,
    })
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
