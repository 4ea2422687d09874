//! The plain archive, for machines without a package manager that we serve.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::contents::Contents;
use super::epoch::Epoch;
use super::release::Release;
use crate::process::run;

/// `nflog-agent-VERSION-ARCH-linux.tar.gz`, with the tree as the packages install it.
pub(super) fn build(
    contents: &Contents,
    release: Release<'_>,
    epoch: &Epoch,
    work: &Path,
    place: &Path,
) -> Result<PathBuf> {
    let name = release.archive();
    let staging = work.join("archive");
    contents.write(&staging.join(&name), epoch)?;
    let archive = place.join(format!("{name}.tar.gz"));
    let mut tar = epoch.command("tar");
    tar.arg("--create")
        .args([
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--format=gnu",
        ])
        .arg(format!("--mtime={}", epoch.at()))
        .args(["--use-compress-program", "gzip -9 --no-name", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(&staging)
        .arg(&name);
    run(&mut tar)?;
    Ok(archive)
}
