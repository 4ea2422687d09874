//! A cgroup's path as nft wants it: below `/sys/fs/cgroup`, where version 2 may be mounted further down (hybrid hosts), and with
//! the number of names in the path below the root of version 2. The rule itself keeps the id of the cgroup that has the path now.

use std::path::{Path, PathBuf};

use procfs::process::Process;

use super::RulesError;

/// Where nft looks.
const NFT_ROOT: &str = "/sys/fs/cgroup";

/// Level and path of a rule's `socket cgroupv2`. `path` is below the root of version 2.
pub(super) fn for_nft(path: &str) -> Result<(usize, String), RulesError> {
    let level = path.split('/').count();
    Ok((level, below(&root()?, path)?))
}

/// That there is such a cgroup.
pub(super) fn exists(path: &str) -> Result<(), RulesError> {
    let cgroup = mounted()?.ok_or(RulesError::CgroupsHidden)?.join(path);
    if cgroup.is_dir() {
        Ok(())
    } else {
        Err(RulesError::NoCgroup { path: cgroup })
    }
}

fn below(root: &Path, path: &str) -> Result<String, RulesError> {
    let under = root.strip_prefix(NFT_ROOT).map_err(|_| RulesError::CgroupRoot {
        root: root.to_owned(),
    })?;
    Ok(under.join(path).display().to_string())
}

/// Where cgroup version 2 is mounted; where it usually is, if nowhere: so that rules for another host can be printed.
fn root() -> Result<PathBuf, RulesError> {
    Ok(mounted()?.unwrap_or_else(|| PathBuf::from(NFT_ROOT)))
}

fn mounted() -> Result<Option<PathBuf>, RulesError> {
    let mounts = Process::myself().and_then(|myself| myself.mountinfo());
    let mounts = mounts.map_err(|error| RulesError::Mounts(error.to_string()))?;
    let found = mounts.into_iter().find(|mount| mount.fs_type == "cgroup2");
    Ok(found.map(|mount| mount.mount_point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_has_version_2_further_down() {
        let path = "system.slice/a.service";
        assert_eq!(below(Path::new("/sys/fs/cgroup"), path).unwrap(), path);
        let hybrid = below(Path::new("/sys/fs/cgroup/unified"), path).unwrap();
        assert_eq!(hybrid, "unified/system.slice/a.service");
        assert!(below(Path::new("/mnt/cgroup"), path).is_err());
    }
}
