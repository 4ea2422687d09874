//! The packages as administrators meet them: installed, changed, upgraded, removed, each in a root directory of its own.
//!
//! The program is that of the tests, so nothing is built for this. The roots have a shell, for the packages' scripts, and no C library.

mod booted;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::contents::write;
use super::make;
use super::release::{Program, Release};
use crate::arch::Arch;
use crate::paths::{self, find_program};
use crate::process::{output, render, run};
use crate::vm::remove_directory;

/// A configuration file, and what an administrator writes into it.
const CONFIG: &str = "etc/nflog-agent/nflog-agent.toml";
const CHANGED: &str = "group = [9]\n";

/// Where programs for arm64 find what runs them.
const EMULATOR: &str = "bin/qemu";

/// What is installed where, and its mode.
const INSTALLED: [(&str, u32); 6] = [
    ("usr/bin/nflog-agent", 0o755),
    ("usr/lib/systemd/system/nflog-agent.service", 0o644),
    ("etc/nflog-agent/nflog-agent.env", 0o600),
    (CONFIG, 0o644),
    ("usr/share/man/man1/nflog-agent-run.1.gz", 0o644),
    ("usr/share/bash-completion/completions/nflog-agent", 0o644),
];

/// One version of everything.
struct Dist {
    program: Program,
    place: PathBuf,
    version: &'static str,
}

impl Dist {
    fn make(program: &Program, version: &'static str, name: &str) -> Result<Self> {
        let place = home().join(name);
        remove_directory(&place)?;
        make(program, version, &place)?;
        Ok(Self {
            program: program.clone(),
            place,
            version,
        })
    }

    fn release(&self) -> Release<'_> {
        Release {
            version: self.version,
            arch: self.program.arch,
        }
    }

    fn deb(&self) -> PathBuf {
        self.place.join(self.release().deb())
    }

    fn rpm(&self) -> PathBuf {
        self.place.join(self.release().rpm())
    }
}

/// A root directory with a shell and nothing else but, for programs of another architecture, what runs them.
struct Root {
    directory: PathBuf,
    arch: Arch,
}

type Trial = (&'static str, fn(&Dist, &Dist) -> Result<()>);

const TRIALS: [Trial; 5] = [
    ("the same sources give the same bytes", reproducible),
    ("checksums and SBOM", checked),
    ("deb: install, upgrade, remove, purge", debian),
    ("rpm: read, install, verify, upgrade, erase", redhat),
    ("archive: unpack and run", archive),
];

const BOOTED: Trial = (
    "deb under systemd: start, restart, reload, upgrade and purge, and no packet lost",
    booted::systemd,
);

/// Tries everything with packages of a program; returns how many trials passed and failed.
pub(crate) fn run_all(program: &Program) -> Result<(usize, usize)> {
    let first = Dist::make(program, env!("CARGO_PKG_VERSION"), "first")?;
    let second = Dist::make(program, "99.0.0", "second")?;
    let mut trials = TRIALS.to_vec();
    match program.arch {
        Arch::X86_64 => trials.push(BOOTED),
        Arch::Arm64 => println!("SKIPPED {}: this machine's kernel is for x86-64", BOOTED.0),
    }
    let mut failed = 0;
    for (name, trial) in &trials {
        match trial(&first, &second) {
            Ok(()) => println!("ok      {name}"),
            Err(error) => {
                failed += 1;
                println!("FAILED  {name}: {error:#}");
            }
        }
    }
    Ok((trials.len() - failed, failed))
}

fn home() -> PathBuf {
    paths::target().join("dist-trial")
}

fn reproducible(first: &Dist, _: &Dist) -> Result<()> {
    let again = Dist::make(&first.program, first.version, "again")?;
    let sums =
        |dist: &Dist| fs::read_to_string(dist.place.join("SHA256SUMS")).context("cannot read SHA256SUMS");
    let (one, other) = (sums(first)?, sums(&again)?);
    ensure!(one == other, "\n{one}\n{other}");
    Ok(())
}

fn checked(first: &Dist, _: &Dist) -> Result<()> {
    let mut check = Command::new("sha256sum");
    let said = output(
        check
            .current_dir(&first.place)
            .args(["--check", "--strict", "SHA256SUMS"]),
    )?;
    ensure!(
        said.lines().count() == 4,
        "not all files have a checksum:\n{said}"
    );
    let path = first
        .place
        .join(format!("nflog-agent-{}.cdx.json", first.version));
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let bom: serde_json::Value = serde_json::from_str(&text).context("the SBOM is JSON")?;
    let components = bom["components"].as_array().context("the SBOM has components")?;
    let names: Vec<_> = components
        .iter()
        .filter_map(|component| component["name"].as_str())
        .collect();
    for (name, wanted) in [
        ("aya", true),
        ("aya-ebpf", true),
        ("tonic", true),
        ("criterion", false),
    ] {
        ensure!(names.contains(&name) == wanted, "the SBOM and {name}: {names:?}");
    }
    let unlicensed = components
        .iter()
        .find(|component| component["licenses"].is_null());
    ensure!(unlicensed.is_none(), "no licence is known of {unlicensed:?}");
    Ok(())
}

fn debian(first: &Dist, second: &Dist) -> Result<()> {
    let root = Root::new("deb", first.program.arch)?;
    for (file, content) in [
        ("info/format", "1\n"),
        ("status", ""),
        ("available", ""),
        ("arch", "amd64\narm64\n"),
    ] {
        write(&root.path("var/lib/dpkg").join(file), content.as_bytes(), "0644")?;
    }
    let dpkg = |arguments: &[&str], package: &Path| {
        // As without a terminal: a file that the administrator has changed stays.
        let mut command = Command::new("dpkg");
        command
            .arg(format!("--root={}", root.directory.display()))
            .arg("--force-confold");
        run(command.args(arguments).arg(package))
    };
    dpkg(&["--install"], &first.deb())?;
    root.expect_installed()?;
    root.change_config()?;
    dpkg(&["--install"], &second.deb())?;
    root.expect_changed_config()?;
    root.expect_runs()?;
    dpkg(&["--remove"], Path::new("nflog-agent"))?;
    root.expect_gone("usr/bin/nflog-agent")?;
    root.expect_changed_config()?;
    write(&root.path("var/lib/nflog-agent/00.spool"), b"", "0600")?;
    dpkg(&["--purge"], Path::new("nflog-agent"))?;
    root.expect_gone("etc/nflog-agent")?;
    root.expect_gone("var/lib/nflog-agent")
}

fn redhat(first: &Dist, second: &Dist) -> Result<()> {
    let package = first.rpm();
    run(Command::new("rpm")
        .args(["--checksig", "--nosignature"])
        .arg(&package))?;
    let listed = output(
        Command::new("rpm")
            .args(["--query", "--list", "--package"])
            .arg(&package),
    )?;
    for (path, _) in INSTALLED {
        let path = format!("/{path}");
        ensure!(
            listed.lines().any(|line| line == path),
            "{path} is not in\n{listed}"
        );
    }
    let root = Root::new("rpm", first.program.arch)?;
    let rpm = |arguments: &[&str], package: &Path| {
        let mut command = Command::new("rpm");
        command
            .arg("--root")
            .arg(&root.directory)
            .args(["--nodeps", "--nosignature"]);
        run(command.args(arguments).arg(package))
    };
    rpm(&["--ignorearch", "--install"], &package)?;
    root.expect_installed()?;
    rpm(&["--verify"], Path::new("nflog-agent"))?;
    root.change_config()?;
    rpm(&["--ignorearch", "--upgrade"], &second.rpm())?;
    root.expect_changed_config()?;
    root.expect_runs()?;
    rpm(&["--erase"], Path::new("nflog-agent"))?;
    root.expect_gone("usr/bin/nflog-agent")?;
    root.expect_gone("usr/share/doc/nflog-agent")?;
    root.expect_gone(CONFIG)
}

fn archive(first: &Dist, _: &Dist) -> Result<()> {
    let root = Root::new("archive", first.program.arch)?;
    let archive = first.place.join(format!("{}.tar.gz", first.release().archive()));
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--strip-components=1", "--file"])
        .arg(archive);
    run(tar.arg("--directory").arg(&root.directory))?;
    root.expect_installed()
}

impl Root {
    fn new(name: &str, arch: Arch) -> Result<Self> {
        let directory = home().join("roots").join(name);
        remove_directory(&directory)?;
        let root = Self { directory, arch };
        root.add("busybox", "bin/sh")?;
        root.add("busybox", "bin/rm")?;
        if arch == Arch::Arm64 {
            root.add("qemu-aarch64-static", EMULATOR)?;
        }
        Ok(root)
    }

    /// Copies a program of this machine, one without libraries.
    fn add(&self, program: &str, path: &str) -> Result<()> {
        let found = find_program(program).with_context(|| format!("{program} is missing"))?;
        let content = fs::read(&found).with_context(|| format!("cannot read {}", found.display()))?;
        write(&self.path(path), &content, "0755")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    fn expect_installed(&self) -> Result<()> {
        for (path, mode) in INSTALLED {
            let found = fs::metadata(self.path(path)).with_context(|| format!("{path} is not installed"))?;
            let found = found.permissions().mode() & 0o7777;
            ensure!(found == mode, "{path} has mode {found:o} instead of {mode:o}");
        }
        self.expect_runs()
    }

    /// Without any library, as nothing else is in the root.
    fn expect_runs(&self) -> Result<()> {
        let said = output(self.program().arg("--version"))?;
        ensure!(said.starts_with("nflog-agent "), "--version says {said}");
        let mut wrong = self.program();
        let status = wrong
            .args(["run", "--group", "70000"])
            .status()
            .with_context(|| render(&wrong))?;
        ensure!(status.code() == Some(64), "a wrong group ends with {status}");
        Ok(())
    }

    fn program(&self) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.directory);
        if self.arch == Arch::Arm64 {
            command.arg(format!("/{EMULATOR}"));
        }
        command.arg("/usr/bin/nflog-agent");
        command
    }

    fn change_config(&self) -> Result<()> {
        fs::write(self.path(CONFIG), CHANGED).context("cannot change the configuration")
    }

    fn expect_changed_config(&self) -> Result<()> {
        let text = fs::read_to_string(self.path(CONFIG)).context("the changed configuration is gone")?;
        ensure!(text == CHANGED, "the changed configuration was replaced");
        Ok(())
    }

    fn expect_gone(&self, path: &str) -> Result<()> {
        if self.path(path).exists() {
            bail!("{path} is still there");
        }
        Ok(())
    }
}
