//! Debian packages by apt itself, from a private apt root below `target/vm` for each architecture, that holds the suites of all
//! supported kernels and knows nothing of this system's installed packages. apt checks signatures and checksums.
//!
//! The mirrors are those of this system's own apt sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::arch::Arch;
use crate::paths;
use crate::process::{output, run};

/// Suites on the main mirror and on the security mirror.
const SUITES: [&str; 4] = ["bullseye", "bookworm", "trixie", "trixie-backports"];
const SECURITY_SUITES: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// A private apt root, with current package lists.
pub(crate) struct Apt {
    root: PathBuf,
    arch: Arch,
}

impl Apt {
    /// Prepares the root and fetches the package lists.
    pub(crate) fn update(arch: Arch) -> Result<Self> {
        let root = paths::vm().join(match arch {
            Arch::X86_64 => "apt",
            Arch::Arm64 => "apt-arm64",
        });
        let directories = [
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
            "var/lib/apt/lists/partial",
        ];
        for directory in
            directories
                .into_iter()
                .chain(["var/lib/dpkg", "var/cache/apt/archives/partial", "debs"])
        {
            fs::create_dir_all(root.join(directory)).with_context(|| format!("cannot create {directory}"))?;
        }
        fs::write(root.join("var/lib/dpkg/status"), "")?;
        fs::write(
            root.join("etc/apt/sources.list"),
            sources(&Mirrors::of_this_system()?, arch)?,
        )?;
        let apt = Self { root, arch };
        println!(
            "fetching the package lists of {} Debian suites ({})",
            SUITES.len() + SECURITY_SUITES.len(),
            arch.debian()
        );
        // A suite that is gone from the mirror only matters to the kernel that is in it.
        if let Err(error) = run(apt.command("apt-get").args(["-qq", "update"])) {
            eprintln!("warning: not all package lists could be fetched: {error:#}");
        }
        Ok(apt)
    }

    /// Names of existing packages that begin with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads packages with all that they depend on, and unpacks them all into `directory`.
    pub(crate) fn unpack_with_dependencies(&self, packages: &[&str], directory: &Path) -> Result<()> {
        run(self
            .command("apt-get")
            .args([
                "-qq",
                "install",
                "--download-only",
                "--yes",
                "--no-install-recommends",
            ])
            .args(packages))?;
        let archives = self.root.join("var/cache/apt/archives");
        for entry in fs::read_dir(&archives).with_context(|| format!("cannot list {}", archives.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                unpack(&path, directory)?;
            }
        }
        Ok(())
    }

    /// Downloads a package (of a version, if it says `name=version`; else the newest) and returns the archive's path.
    pub(crate) fn download(&self, package: &str) -> Result<PathBuf> {
        let directory = self.root.join("debs").join(package);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&directory)?,
        }
        run(self
            .command("apt-get")
            .args(["-qq", "download", package])
            .current_dir(&directory))?;
        only_entry(&directory)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in [
            format!("Dir={}", self.root.display()),
            format!(
                "Dir::State::status={}",
                self.root.join("var/lib/dpkg/status").display()
            ),
            format!("APT::Architecture={}", self.arch.debian()),
            format!("APT::Architectures::={}", self.arch.debian()),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }
}

/// Unpacks an archive's files into a directory.
pub(crate) fn unpack(archive: &Path, directory: &Path) -> Result<()> {
    run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(directory))
}

/// The one entry of a directory.
pub(crate) fn only_entry(directory: &Path) -> Result<PathBuf> {
    let entries: Vec<_> = fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?
        .collect::<Result<_, _>>()?;
    ensure!(
        entries.len() == 1,
        "{} holds {} entries instead of one",
        directory.display(),
        entries.len()
    );
    Ok(entries[0].path())
}

/// Base addresses of the mirrors that this system uses.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    fn of_this_system() -> Result<Self> {
        let format = "$(ORIGIN)|$(RELEASE)|$(REPO_URI)";
        let targets = output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            format,
            "Created-By: Packages",
        ]))
        .context("kernels are fetched by apt, from a Debian mirror")?;
        Self::parse(&targets)
    }

    fn parse(targets: &str) -> Result<Self> {
        let (mut main, mut security) = (None, None);
        for target in targets.lines() {
            let mut fields = target.splitn(3, '|');
            let (Some("Debian"), Some(release), Some(address)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let slot = if release.ends_with("-security") {
                &mut security
            } else {
                &mut main
            };
            slot.get_or_insert_with(|| address.to_owned());
        }
        match (main, security) {
            (Some(main), Some(security)) => Ok(Self { main, security }),
            _ => bail!(
                "apt's sources name no Debian mirror with both a release and its security updates; \
                 add them and run `apt-get update`"
            ),
        }
    }
}

fn sources(mirrors: &Mirrors, arch: Arch) -> Result<String> {
    let keyring = KEYRINGS
        .into_iter()
        .find(|keyring| Path::new(keyring).exists())
        .context("no Debian keyring; run `apt-get install debian-archive-keyring`")?;
    let arch = arch.debian();
    let line =
        |mirror: &str, suite: &str| format!("deb [arch={arch} signed-by={keyring}] {mirror} {suite} main\n");
    let main = SUITES.iter().map(|suite| line(&mirrors.main, suite));
    let security = SECURITY_SUITES.iter().map(|suite| line(&mirrors.security, suite));
    Ok(main.chain(security).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_debian_s_release_and_security_addresses() {
        let targets = "Other|nodistro|https://other.invalid/\n\
            Debian|bookworm|http://mirror.invalid/debian/\n\
            Debian|bookworm-updates|http://second.invalid/debian/\n\
            Debian|bookworm-security|http://mirror.invalid/debian-security/\n";
        let mirrors = Mirrors::parse(targets).expect("both are there");
        assert_eq!(mirrors.main, "http://mirror.invalid/debian/");
        assert_eq!(mirrors.security, "http://mirror.invalid/debian-security/");
    }

    #[test]
    fn a_missing_security_mirror_is_an_error_with_a_remedy() {
        let error =
            Mirrors::parse("Debian|bookworm|http://mirror.invalid/debian/").expect_err("no security mirror");
        assert!(error.to_string().contains("apt-get update"), "{error}");
    }
}
