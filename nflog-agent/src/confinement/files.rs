//! Which files the threads of the network may see and write: Landlock, as far as the kernel has it.
//!
//! A rule is about a directory as it is now: a file that is replaced in it is covered, a directory that is replaced is not.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, LandlockStatus, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError, path_beneath_rules,
};
use rustix::fs::{Access, access};

/// Read by the resolver, the search for certificate authorities, and the C library; `/proc/self` by the metrics.
const READ: [&str; 11] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/proc",
    "/sys",
    "/run",
    "/var/run",
    "/var/lib/ca-certificates",
    "/nix/store",
    "/dev/urandom",
];
/// May be a link to anywhere.
const RESOLVER: &str = "/etc/resolv.conf";
/// Where the host's certificate authorities are, if not in the usual places.
const AUTHORITIES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The newest rights that are asked for; fewer where the kernel has fewer.
const NEWEST: ABI = ABI::V5;

/// What may be seen and written.
pub(super) struct Paths {
    read: BTreeSet<PathBuf>,
    write: Option<PathBuf>,
}

impl Paths {
    /// `files` and what lies beside them may be read, `write` and what is in it written.
    pub(super) fn of(files: &[PathBuf], write: Option<&Path>) -> Self {
        let variables = AUTHORITIES.iter().filter_map(std::env::var_os).map(PathBuf::from);
        let named: Vec<_> = files
            .iter()
            .cloned()
            .chain(variables)
            .chain([RESOLVER.into()])
            .collect();
        let mut read: BTreeSet<_> = READ.map(PathBuf::from).into();
        for file in &named {
            read.extend(surroundings(file));
            // A link: what it leads to, also once that is renewed.
            read.extend(fs::canonicalize(file).ok().as_deref().and_then(surroundings));
        }
        Self {
            read,
            write: write.map(Path::to_owned),
        }
    }

    pub(super) const fn are_read_only(&self) -> bool {
        self.write.is_none()
    }

    /// Restricts this thread. Paths that do not exist are left out.
    pub(super) fn restrict(&self) -> Result<Reached, RulesetError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let write: BitFlags<AccessFs> =
            read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
        let status = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .create()?
            .add_rules(path_beneath_rules(&self.read, read))?
            .add_rules(path_beneath_rules(&self.write, write))?
            .restrict_self()?;
        Ok(Reached(Some(status.landlock)))
    }
}

/// The directory of a file, so that a renewed file is covered; the file alone if that is the root; a directory itself.
fn surroundings(file: &Path) -> Option<PathBuf> {
    if file.is_dir() {
        return Some(file.to_owned());
    }
    let directory = file.parent()?;
    let alone = directory.parent().is_none() || directory.as_os_str().is_empty();
    Some(if alone { file } else { directory }.to_owned())
}

/// What the kernel gave.
#[derive(Debug, Default)]
pub(super) struct Reached(Option<LandlockStatus>);

impl Reached {
    /// Whether Landlock is in force.
    pub(super) const fn is_enforced(&self) -> bool {
        matches!(self.0, Some(LandlockStatus::Available { .. }))
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(LandlockStatus::Available { effective_abi, .. }) => {
                write!(
                    f,
                    "only the files that they need (Landlock, ABI {})",
                    *effective_abi as i32
                )
            }
            Some(LandlockStatus::NotEnabled) => {
                f.write_str("any file (Landlock is off in this kernel: boot with lsm=landlock,…)")
            }
            _ => f.write_str("any file (no Landlock here: Linux 5.13 has it)"),
        }
    }
}

/// Whether the permissions of a file are in the way.
pub(super) fn is_denied(path: &Path) -> bool {
    File::open(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Whether the permissions of a directory are in the way of writing.
pub(super) fn is_not_writable(directory: &Path) -> bool {
    access(directory, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) == Err(rustix::io::Errno::ACCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_brings_its_directory_and_a_link_also_that_of_its_target() {
        let directory = tempfile::tempdir().unwrap();
        let (live, archive) = (directory.path().join("live"), directory.path().join("archive"));
        fs::create_dir(&live).unwrap();
        fs::create_dir(&archive).unwrap();
        fs::write(archive.join("key1.pem"), "x").unwrap();
        std::os::unix::fs::symlink(archive.join("key1.pem"), live.join("key.pem")).unwrap();
        let paths = Paths::of(&[live.join("key.pem")], None);
        assert!(paths.read.contains(&live) && paths.read.contains(&archive.canonicalize().unwrap()));
        assert!(!paths.read.contains(directory.path()));
    }

    #[test]
    fn a_file_in_the_root_does_not_bring_the_root() {
        assert_eq!(surroundings(Path::new("/key.pem")), Some("/key.pem".into()));
        assert_eq!(surroundings(Path::new("/a/key.pem")), Some("/a".into()));
        assert_eq!(surroundings(Path::new("key.pem")), Some("key.pem".into()));
    }
}
