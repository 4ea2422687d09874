//! Ids of cgroups: of the v1 hierarchy of a controller if the host has one and the process is not in its root, else of cgroup v2.
//!
//! The probes choose likewise. An id of v1 has the bit [`CGROUP_V1`], so that the two never meet. On a hybrid host container runtimes may
//! leave their processes in the v2 cgroup of whoever started them, and systemd makes its units in both.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nflog_common::CGROUP_V1;

/// Controllers whose v1 hierarchy tells where a process is, the best first: runtimes and systemd make cgroups in these for all.
const CONTROLLERS: [&str; 2] = ["pids", "memory"];

/// The controller with a v1 hierarchy to take ids from; `None` on a host with cgroup v2 alone. `proc` is a procfs.
#[must_use]
pub(crate) fn v1_controller(proc: &Path) -> Option<&'static str> {
    // Without the file the kernel has no v1.
    parse_controllers(&fs::read_to_string(proc.join("cgroups")).ok()?)
}

/// Lines `NAME HIERARCHY COUNT ENABLED`; a controller that has no v1 hierarchy has number 0.
fn parse_controllers(file: &str) -> Option<&'static str> {
    let is_v1 = |name: &&str| {
        file.lines().any(|line| {
            let mut fields = line.split_ascii_whitespace();
            fields.next() == Some(*name) && fields.next().is_some_and(|hierarchy| hierarchy != "0")
        })
    };
    CONTROLLERS.into_iter().find(is_v1)
}

/// The hierarchies of this host, as far as they are mounted here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cgroups {
    unified: Option<Mount>,
    v1: Option<(&'static str, Option<Mount>)>,
}

impl Cgroups {
    /// Finds them. `proc` is a procfs.
    pub(crate) fn find(proc: &Path) -> Self {
        let mounts = fs::read(proc.join("self/mountinfo")).unwrap_or_default();
        let v1 = v1_controller(proc);
        Self {
            unified: Mount::find(&mounts, |kind, _| kind == b"cgroup2"),
            v1: v1.map(|name| {
                let of_name = |option: &[u8]| option == name.as_bytes();
                let is_its = |kind: &[u8], options: &[u8]| {
                    kind == b"cgroup" && options.split(|&byte| byte == b',').any(of_name)
                };
                (name, Mount::find(&mounts, is_its))
            }),
        }
    }

    /// The path that a process's id is of, and the id: by its `/proc/PID/cgroup`. `None` if the cgroup is gone or cannot be seen here.
    pub(crate) fn place<'a>(&self, file: &'a [u8]) -> Option<(u64, &'a str)> {
        if let Some((name, mount)) = &self.v1
            && let Some(path) = v1_path(file, name).filter(|path| *path != "/")
        {
            return Some((mount.as_ref()?.id(path)? | CGROUP_V1, path));
        }
        let path = unified_path(file)?;
        Some((self.unified.as_ref()?.id(path)?, path))
    }

    /// Whether the whole hierarchy that this id is of is visible, so that paths are those of the root cgroup namespace.
    pub(crate) fn is_whole(&self, id: u64) -> bool {
        let mount = if id & CGROUP_V1 == 0 {
            self.unified.as_ref()
        } else {
            self.v1.as_ref().and_then(|(_, mount)| mount.as_ref())
        };
        mount.is_some_and(|mount| mount.top == "/")
    }
}

/// Where a hierarchy is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    place: PathBuf,
    /// The cgroup that is visible there.
    top: String,
}

impl Mount {
    /// Prefers the mount that shows most of the hierarchy. A mount that a later one hides does not count. `is_its` is given a file system's
    /// type and its options.
    fn find(mountinfo: &[u8], is_its: impl Fn(&[u8], &[u8]) -> bool) -> Option<Self> {
        let mut visible: HashMap<&[u8], Option<&str>> = HashMap::new();
        for line in mountinfo.split(|&byte| byte == b'\n') {
            // 36 35 98:0 ROOT MOUNTPOINT OPTIONS TAGS... - FSTYPE SOURCE OPTIONS
            let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
            let separator = fields.iter().position(|field| *field == b"-");
            let Some(separator) = separator.filter(|at| *at >= 6) else {
                continue;
            };
            let field = |at: usize| fields.get(separator + at).copied().unwrap_or_default();
            let top = std::str::from_utf8(fields[3])
                .ok()
                .filter(|_| is_its(field(1), field(3)));
            visible.insert(fields[4], top);
        }
        let its = visible.into_iter().filter_map(|(mount, top)| Some((mount, top?)));
        let (place, top) = its.min_by_key(|(place, top)| (top.len(), place.len()))?;
        Some(Self {
            place: PathBuf::from(OsStr::from_bytes(place)),
            top: top.to_owned(),
        })
    }

    /// Id of a cgroup: the inode of its directory (64-bit kernels since 5.5). `None` if it is gone or outside the mount.
    fn id(&self, path: &str) -> Option<u64> {
        let below = path.strip_prefix(self.top.trim_end_matches('/'))?;
        if !(below.is_empty() || below.starts_with('/')) || below.split('/').any(|part| part == "..") {
            return None;
        }
        fs::metadata(self.place.join(below.trim_start_matches('/')))
            .ok()
            .map(|metadata| metadata.ino())
    }
}

/// The process's path in the cgroup v2 hierarchy, from `/proc/PID/cgroup`.
fn unified_path(cgroup: &[u8]) -> Option<&str> {
    let mut lines = cgroup.split(|&byte| byte == b'\n');
    let path = lines.find_map(|line| line.strip_prefix(b"0::"))?;
    std::str::from_utf8(path).ok()
}

/// The same in the v1 hierarchy of a controller.
fn v1_path<'a>(cgroup: &'a [u8], controller: &str) -> Option<&'a str> {
    std::str::from_utf8(cgroup).ok()?.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers
            .split(',')
            .any(|name| name == controller)
            .then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unified(mountinfo: &[u8]) -> Option<Mount> {
        Mount::find(mountinfo, |kind, _| kind == b"cgroup2")
    }

    #[test]
    fn the_whole_hierarchy_is_preferred_to_a_part() {
        let mounts = b"30 24 0:26 /a/b /container/cgroup ro - cgroup2 cgroup2 rw\n\
            31 24 0:27 / /sys/fs/cgroup rw shared:4 - tmpfs tmpfs rw\n\
            32 24 0:26 / /sys/fs/cgroup/unified rw shared:5 - cgroup2 cgroup2 rw\n";
        let root = unified(mounts).unwrap();
        let expected = Mount {
            place: "/sys/fs/cgroup/unified".into(),
            top: "/".into(),
        };
        assert_eq!(root, expected);
    }

    #[test]
    fn a_mount_that_another_hides_does_not_count() {
        // A container's own cgroup mount, and the host's on top of it.
        let mounts = b"30 24 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n\
            31 30 0:26 /../../.. /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        assert_eq!(unified(mounts).unwrap().top, "/../../..");
        assert_eq!(
            unified(b"30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs rw\n"),
            None
        );
    }

    #[test]
    fn a_cgroup_outside_the_mount_has_no_id() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("x")).unwrap();
        let inode = fs::metadata(directory.path().join("x")).unwrap().ino();
        let mount = |top: &str| Mount {
            place: directory.path().to_owned(),
            top: top.to_owned(),
        };
        assert_eq!(mount("/").id("/x"), Some(inode));
        assert_eq!(mount("/").id("/../x"), None);
        assert_eq!(mount("/").id("/gone"), None);
        assert_eq!(mount("/pod").id("/pod/x"), Some(inode));
        assert_eq!(mount("/pod").id("/podium"), None);
    }

    #[test]
    fn a_controller_is_taken_only_where_it_has_a_v1_hierarchy() {
        let head = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n";
        for (lines, expected) in [
            ("cpu\t0\t1\t1\npids\t0\t60\t1\nmemory\t0\t1\t1\n", None),
            ("cpu\t2\t1\t1\nmemory\t4\t1\t1\npids\t8\t60\t1\n", Some("pids")),
            ("memory\t4\t1\t1\npids\t0\t60\t1\n", Some("memory")),
            ("", None),
        ] {
            assert_eq!(parse_controllers(&format!("{head}{lines}")), expected, "{lines}");
        }
    }

    /// A procfs, and hierarchies below `unified` and `v1`, in a temporary directory.
    fn host(controllers: &str) -> (tempfile::TempDir, Cgroups) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let text = root.to_str().unwrap();
        fs::create_dir_all(root.join("self")).unwrap();
        for path in ["unified/a.service", "v1/docker/b"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        let mounts = format!(
            "30 24 0:26 / {text}/v1 rw - cgroup cgroup rw,pids,misc\n\
             31 24 0:27 / {text}/cpu rw - cgroup cgroup rw,cpu\n\
             32 24 0:28 / {text}/unified rw - cgroup2 cgroup2 rw\n"
        );
        fs::write(root.join("self/mountinfo"), mounts).unwrap();
        fs::write(root.join("cgroups"), controllers).unwrap();
        let cgroups = Cgroups::find(root);
        (directory, cgroups)
    }

    #[test]
    fn on_a_hybrid_host_the_v1_cgroup_comes_first_unless_it_is_the_root() {
        let (directory, cgroups) = host("pids\t8\t60\t1\n");
        let inode = |path: &str| fs::metadata(directory.path().join(path)).unwrap().ino();
        let contained = b"2:cpu:/\n8:misc,pids:/docker/b\n0::/a.service\n";
        let id = inode("v1/docker/b") | CGROUP_V1;
        assert_eq!(cgroups.place(contained), Some((id, "/docker/b")));
        assert_eq!(
            cgroups.place(b"8:pids:/\n0::/a.service\n"),
            Some((inode("unified/a.service"), "/a.service"))
        );
        // A v1 cgroup that is gone is not answered by the v2 one.
        assert_eq!(cgroups.place(b"8:pids:/docker/gone\n0::/a.service\n"), None);
        assert!(cgroups.is_whole(id) && cgroups.is_whole(1));
    }

    #[test]
    fn on_a_host_with_v2_alone_the_v1_lines_do_not_count() {
        let (directory, cgroups) = host("pids\t0\t60\t1\n");
        let inode = fs::metadata(directory.path().join("unified/a.service"))
            .unwrap()
            .ino();
        let place = cgroups.place(b"8:pids:/docker/b\n0::/a.service\n");
        assert_eq!(place, Some((inode, "/a.service")));
        assert!(!cgroups.is_whole(CGROUP_V1 | 1));
    }
}
