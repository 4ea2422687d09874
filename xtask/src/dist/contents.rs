//! The files of a package, wherever they are installed.
//!
//! Everything is there already, in `deploy/` or in the program itself: its manual pages and completions are written by it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::epoch::Epoch;
use super::release::Program;
use crate::paths;
use crate::process::{bytes, run};

/// What a package manager does with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Replaces it.
    Plain,
    /// Keeps the administrator's changes.
    Config,
    /// Documentation.
    Doc,
}

/// One file.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// From the root on, without the first slash.
    pub(super) path: String,
    pub(super) mode: &'static str,
    pub(super) kind: Kind,
    content: Vec<u8>,
}

/// All files.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    pub(super) items: Vec<Item>,
}

const MODE_PROGRAM: &str = "0755";
const MODE_FILE: &str = "0644";
/// It may hold a token for the collector.
const MODE_SECRET: &str = "0600";

impl Contents {
    /// Those of a program.
    pub(super) fn of(program: &Program, work: &Path, epoch: &Epoch) -> Result<Self> {
        let mut all = Self { items: Vec::new() };
        all.add(
            "usr/bin/nflog-agent",
            MODE_PROGRAM,
            Kind::Plain,
            read(&program.path)?,
        );
        for (from, to, mode, kind) in [
            (
                "deploy/systemd/nflog-agent.service",
                "usr/lib/systemd/system/nflog-agent.service",
                MODE_FILE,
                Kind::Plain,
            ),
            (
                "deploy/systemd/nflog-agent.env",
                "etc/nflog-agent/nflog-agent.env",
                MODE_SECRET,
                Kind::Config,
            ),
            (
                "deploy/systemd/nflog-agent.toml",
                "etc/nflog-agent/nflog-agent.toml",
                MODE_FILE,
                Kind::Config,
            ),
            (
                "deploy/nftables/example.nft",
                "usr/share/doc/nflog-agent/example.nft",
                MODE_FILE,
                Kind::Doc,
            ),
            (
                "README.md",
                "usr/share/doc/nflog-agent/README.md",
                MODE_FILE,
                Kind::Doc,
            ),
            (
                "CHANGELOG.md",
                "usr/share/doc/nflog-agent/CHANGELOG.md",
                MODE_FILE,
                Kind::Doc,
            ),
        ] {
            all.add(to, mode, kind, read(&paths::root().join(from))?);
        }
        all.add(
            "usr/share/doc/nflog-agent/copyright",
            MODE_FILE,
            Kind::Doc,
            copyright()?,
        );
        all.add_completions(program)?;
        all.add_manual_pages(program, &work.join("man1"), epoch)?;
        all.items.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(all)
    }

    fn add(&mut self, path: &str, mode: &'static str, kind: Kind, content: Vec<u8>) {
        self.items.push(Item {
            path: path.to_owned(),
            mode,
            kind,
            content,
        });
    }

    fn add_completions(&mut self, program: &Program) -> Result<()> {
        for (shell, path) in [
            ("bash", "usr/share/bash-completion/completions/nflog-agent"),
            ("fish", "usr/share/fish/vendor_completions.d/nflog-agent.fish"),
            ("zsh", "usr/share/zsh/site-functions/_nflog-agent"),
        ] {
            let script = bytes(program.command().args(["completions", shell]))?;
            self.add(path, MODE_FILE, Kind::Plain, script);
        }
        Ok(())
    }

    fn add_manual_pages(&mut self, program: &Program, directory: &Path, epoch: &Epoch) -> Result<()> {
        run(program.command().args(["man", "--directory"]).arg(directory))?;
        let mut pages = 0;
        for page in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
            let page = page?.path();
            let packed = bytes(
                epoch
                    .command("gzip")
                    .args(["-9", "--no-name", "--stdout"])
                    .arg(&page),
            )?;
            let name = page
                .file_name()
                .and_then(|name| name.to_str())
                .context("a name in UTF-8")?;
            self.add(
                &format!("usr/share/man/man1/{name}.gz"),
                MODE_FILE,
                Kind::Doc,
                packed,
            );
            pages += 1;
        }
        ensure!(pages > 1, "the program wrote {pages} manual pages");
        Ok(())
    }

    /// The same with what is below one directory below another one.
    pub(super) fn moved(&self, from: &str, to: &str) -> Self {
        let mut moved = self.clone();
        for item in &mut moved.items {
            if let Some(rest) = item.path.strip_prefix(from) {
                item.path = format!("{to}{rest}");
            }
        }
        moved
    }

    /// Files of one kind, with the first slash.
    pub(super) fn paths(&self, kind: Kind) -> Vec<String> {
        let chosen = self.items.iter().filter(|item| item.kind == kind);
        chosen.map(|item| format!("/{}", item.path)).collect()
    }

    /// Writes them all below a directory that does not exist, with their modes and the time that packages have.
    pub(super) fn write(&self, root: &Path, epoch: &Epoch) -> Result<()> {
        for item in &self.items {
            let path = root.join(&item.path);
            write(&path, &item.content, item.mode)?;
        }
        settle(root, epoch)
    }
}

/// Writes a file with its mode, and the directories that lead to it.
pub(super) fn write(path: &Path, content: &[u8], mode: &str) -> Result<()> {
    let directory = path.parent().context("a file is in a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
    run(Command::new("chmod").arg(mode).arg(path))
}

/// Gives all below a directory the time that packages have, and directories their mode whatever the umask is.
pub(super) fn settle(root: &Path, epoch: &Epoch) -> Result<()> {
    run(Command::new("find")
        .arg(root)
        .args(["-type", "d", "-exec", "chmod", "0755", "{}", "+"]))?;
    let touch = [
        "-exec",
        "touch",
        "--no-dereference",
        "--date",
        &epoch.at(),
        "{}",
        "+",
    ];
    run(Command::new("find").arg(root).args(touch))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Both licences.
fn copyright() -> Result<Vec<u8>> {
    let mut text =
        b"nflog-agent is licensed under either of two licences, at your option: MIT or Apache-2.0.\n\
        The eBPF programs in it are \"Dual MIT/GPL\".\n"
            .to_vec();
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        text.extend(b"\n----\n\n");
        text.extend(read(&paths::root().join(file))?);
    }
    Ok(text)
}
