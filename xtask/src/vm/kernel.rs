//! Debian kernels: which package a kernel line comes from, fetched and unpacked once under `target/vm/<line>`, those of arm64 under
//! `target/vm/arm64-<line>`.
//!
//! A directory under `target/vm` is complete if it exists: it is renamed into place after everything is in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::arch::Arch;
use crate::paths;
use crate::process::run;
use crate::vm::apt::{Apt, only_entry, unpack};

/// A kernel line that the agent supports, each from the Debian suite that maintains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Line {
    /// bullseye-security.
    #[value(name = "5.10")]
    Linux5_10,
    /// bookworm.
    #[value(name = "6.1")]
    Linux6_1,
    /// trixie and bookworm-security.
    #[value(name = "6.12")]
    Linux6_12,
    /// The newest 7.x of trixie-backports.
    #[value(name = "7.x")]
    Linux7,
}

impl Line {
    /// Every line, oldest first.
    pub(crate) const ALL: [Self; 4] = [Self::Linux5_10, Self::Linux6_1, Self::Linux6_12, Self::Linux7];

    /// The name on the command line and of the directory.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Linux5_10 => "5.10",
            Self::Linux6_1 => "6.1",
            Self::Linux6_12 => "6.12",
            Self::Linux7 => "7.x",
        }
    }

    /// What the version in the package's name starts with.
    const fn version_prefix(self) -> &'static str {
        match self {
            Self::Linux5_10 => "5.10.",
            Self::Linux6_1 => "6.1.",
            Self::Linux6_12 => "6.12.",
            Self::Linux7 => "7.",
        }
    }
}

/// A kernel on disk.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// Its line.
    pub(crate) line: Line,
    /// Its architecture.
    pub(crate) arch: Arch,
    /// Its own directory below the target directory.
    pub(crate) directory: PathBuf,
    /// `uname -r`.
    pub(crate) release: String,
}

impl Kernel {
    /// The compressed kernel image.
    pub(crate) fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// `/lib/modules/<release>` of this kernel, with `modules.dep`.
    pub(crate) fn modules(&self) -> PathBuf {
        self.directory.join("lib/modules").join(&self.release)
    }

    fn open(line: Line, arch: Arch) -> Result<Self> {
        let directory = place(line, arch);
        let modules = only_entry(&directory.join("lib/modules"))?;
        let release = modules
            .file_name()
            .context("a directory has a name")?
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            line,
            arch,
            directory,
            release,
        })
    }
}

/// The kernels of these lines: those on disk, the others from Debian (all of them with `refresh`).
pub(crate) fn obtain(lines: &[Line], arch: Arch, refresh: bool) -> Result<Vec<Kernel>> {
    let missing: Vec<Line> = lines
        .iter()
        .copied()
        .filter(|line| refresh || !place(*line, arch).exists())
        .collect();
    if !missing.is_empty() {
        let apt = Apt::update(arch)?;
        for line in missing {
            fetch(&apt, line, arch)
                .with_context(|| format!("cannot get a kernel {} from Debian", line.name()))?;
        }
    }
    lines
        .iter()
        .copied()
        .map(|line| Kernel::open(line, arch))
        .collect()
}

fn place(line: Line, arch: Arch) -> PathBuf {
    match arch {
        Arch::X86_64 => paths::vm().join(line.name()),
        Arch::Arm64 => paths::vm().join(format!("arm64-{}", line.name())),
    }
}

fn fetch(apt: &Apt, line: Line, arch: Arch) -> Result<()> {
    let names = apt.names("linux-image-")?;
    let newest = newest(line, arch, names.iter().map(String::as_str)).context(
        "no such package in the suites; if Debian has moved the suite to its archive, point apt's sources to a mirror that has it",
    )?;
    println!("fetching {newest}");
    let place = place(line, arch);
    let staging = place.with_added_extension("new");
    let unpacked = staging.join("unpacked");
    remove_directory(&staging)?;
    fs::create_dir_all(staging.join("lib/modules"))?;
    unpack(&apt.download(newest)?, &unpacked)?;
    // From 7.2 on the image package is empty and depends on these.
    for part in ["linux-base-", "linux-binary-", "linux-modules-"] {
        let name = newest.replace("linux-image-", part);
        if apt.names(&name)?.contains(&name) {
            unpack(&apt.download(&name)?, &unpacked)?;
        }
    }
    arrange(&staging, &unpacked)?;
    remove_directory(&unpacked)?;
    remove_directory(&place)?;
    fs::rename(&staging, &place).with_context(|| format!("cannot move the kernel to {}", place.display()))
}

/// The newest cloud kernel image of a line among package names.
fn newest<'a>(line: Line, arch: Arch, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let prefix = format!("linux-image-{}", line.version_prefix());
    let suffix = format!("-cloud-{}", arch.debian());
    names
        .filter(|name| name.starts_with(&prefix) && name.ends_with(&suffix))
        .max_by_key(|name| version_numbers(name))
}

fn version_numbers(name: &str) -> Vec<u32> {
    name.split(|character: char| !character.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// Moves the image to `vmlinuz` and the modules to `lib/modules`, and writes `modules.dep`.
fn arrange(staging: &Path, unpacked: &Path) -> Result<()> {
    let trees: Vec<PathBuf> = ["lib/modules", "usr/lib/modules"]
        .iter()
        .map(|tree| unpacked.join(tree))
        .filter(|tree| tree.exists())
        .collect();
    let [tree] = trees.as_slice() else {
        bail!("the packages hold {} module trees instead of one", trees.len());
    };
    let modules = only_entry(tree)?;
    let release = modules.file_name().context("a directory has a name")?.to_owned();
    let images = [
        modules.join("vmlinuz"),
        unpacked
            .join("boot")
            .join(format!("vmlinuz-{}", release.display())),
    ];
    let images: Vec<_> = images.iter().filter(|image| image.exists()).collect();
    ensure!(
        images.len() == 1,
        "the packages hold {} kernel images instead of one",
        images.len()
    );
    fs::rename(images[0], staging.join("vmlinuz"))?;
    fs::rename(&modules, staging.join("lib/modules").join(&release))?;
    run(Command::new("depmod")
        .arg("-b")
        .arg(staging)
        .arg(&release)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin"))
}

/// Removes a directory and all in it, if it is there.
pub(crate) fn remove_directory(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 8] = [
        "linux-image-6.1.0-9-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64-dbg",
        "linux-image-6.12.117+deb12-cloud-amd64",
        "linux-image-7.2.12+deb13-cloud-amd64",
        "linux-image-7.3.4+deb13-cloud-amd64-unsigned",
        "linux-image-7.3.4+deb13-cloud-amd64",
        "linux-image-6.12.118+deb13-cloud-arm64",
    ];

    #[test]
    fn the_newest_signed_cloud_image_of_a_line_is_picked_by_number() {
        assert_eq!(
            newest(Line::Linux6_1, Arch::X86_64, NAMES.into_iter()),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(
            newest(Line::Linux6_12, Arch::X86_64, NAMES.into_iter()),
            Some("linux-image-6.12.117+deb12-cloud-amd64")
        );
        assert_eq!(
            newest(Line::Linux7, Arch::X86_64, NAMES.into_iter()),
            Some("linux-image-7.3.4+deb13-cloud-amd64")
        );
        assert_eq!(newest(Line::Linux5_10, Arch::X86_64, NAMES.into_iter()), None);
        assert_eq!(
            newest(Line::Linux6_12, Arch::Arm64, NAMES.into_iter()),
            Some("linux-image-6.12.118+deb13-cloud-arm64")
        );
    }

    #[test]
    fn each_line_has_the_name_it_has_on_the_command_line() {
        for line in Line::ALL {
            assert_eq!(Line::from_str(line.name(), false), Ok(line));
        }
    }
}
