//! From an owner to its process: cgroup from `/proc`, the program from what the kernel probes saw, else from `/proc`.
//!
//! Invariants: a pid is never resolved without checking that the process started when the owner did, before and after
//! reading, so a reused pid is never taken for the owner; what `/proc` says of the program is not taken if the process may have
//! run another one since; equal workloads share one `Arc`; memory is bounded.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use nflog_common::CGROUP_V1;

use super::created::created;
use super::engines::Engines;
use super::kubernetes::Pods;
use super::membership::{self, Membership};
use super::naming::Naming;
use super::snapshot::Snapshot;
use super::{Process, Workload};
use crate::lingering::Lingering;
use crate::owner::{Cgroups, Owner, ProcFs};
use crate::process::{Image, ImageId, Processes};

/// Processes that are remembered, running or not.
pub const DEFAULT_CAPACITY: usize = 8192;

/// A process and which of its programs.
type Identity = (u32, u64, Option<u32>);

/// Resolves owners, and remembers them beyond the end of their process: packets are read from NFLOG later than they are
/// logged.
pub struct Resolver {
    proc: ProcFs,
    cgroups: Cgroups,
    history: Option<Arc<Processes>>,
    /// Processes are in the v2 hierarchy alone.
    only_unified: bool,
    processes: Lingering<Identity, Known>,
    /// By cgroup id, for processes that were gone before they could be read.
    places: Lingering<u64, Arc<Process>>,
    workloads: HashSet<Arc<Workload>>,
    naming: Option<Naming>,
    capacity: usize,
    /// Size of `workloads` at which those that nothing refers to are dropped.
    sweep_at: usize,
}

/// What is known of a process, for good.
#[derive(Clone)]
enum Known {
    /// It was read.
    Placed(Arc<Process>),
    /// It was gone before its place could be read. Its program, if that is known.
    Gone(Option<Arc<Image>>),
}

impl Resolver {
    /// `proc` is the procfs to read, that of the host's pid namespace; `capacity` processes are remembered. `history`: what the
    /// kernel probes saw of processes.
    #[must_use]
    pub fn new(proc: impl Into<PathBuf>, capacity: usize, history: Option<Arc<Processes>>) -> Self {
        let proc = ProcFs::new(proc);
        let own = std::fs::read(proc.root().join("self/cgroup"));
        Self {
            only_unified: own.is_ok_and(|own| membership::is_unified(&own)),
            cgroups: Cgroups::find(proc.root()),
            proc,
            history,
            processes: Lingering::new(capacity),
            places: Lingering::new(capacity),
            workloads: HashSet::new(),
            naming: None,
            capacity,
            sweep_at: capacity.max(16),
        }
    }

    /// Gives processes the names of their pods and containers, where there is somebody who knows them.
    #[must_use]
    pub fn with_names(self, pods: Option<Arc<Pods>>, engines: Option<Arc<Engines>>) -> Self {
        let anybody = pods.is_some() || engines.is_some();
        let naming = anybody.then(|| Naming::new(pods, engines, self.capacity));
        Self { naming, ..self }
    }

    /// Call it after packets were received and before their owners are resolved: learns what processes did until then.
    pub fn refresh(&self) {
        if let Some(history) = &self.history {
            history.refresh();
        }
    }

    /// The process of an owner: its place, its program and its parent.
    ///
    /// The program is the one that the process ran when it took the socket. Without probes, it is what the process ran when it was
    /// first seen here. `None` when the process ended before anything of it was seen, or its start time is not known, and no
    /// other process of its cgroup has been seen.
    pub fn resolve(&mut self, owner: &Owner) -> Option<Arc<Process>> {
        let process = self.place(owner)?;
        Some(match &mut self.naming {
            Some(naming) => naming.name(process),
            None => process,
        })
    }

    fn place(&mut self, owner: &Owner) -> Option<Arc<Process>> {
        let Some(start) = owner.start_boottime else {
            return self.by_cgroup(owner);
        };
        let identity = (owner.pid, start, owner.exec_id);
        let known = match self.processes.get(&identity) {
            Some(known) => known.clone(),
            None => match self.read(owner, start) {
                Ok(known) => {
                    self.processes.insert(identity, known.clone());
                    known
                }
                // Neither read nor known to be gone (out of descriptors, no permission): the next packet tries again.
                Err(_) => Known::Gone(self.image(owner, start)),
            },
        };
        match known {
            Known::Placed(process) => Some(process),
            // The event may have been behind another one that was just being written: it is asked for again.
            Known::Gone(image) => match image.or_else(|| self.image(owner, start)) {
                Some(image) => Some(self.gone(owner, identity, &image)),
                None => self.by_cgroup(owner),
            },
        }
    }

    fn by_cgroup(&mut self, owner: &Owner) -> Option<Arc<Process>> {
        let id = owner.cgroup_id?;
        if let Some(place) = self.places.get(&id) {
            return Some(Arc::clone(place));
        }
        let membership = self.seen_by_probes(id)?;
        Some(self.add_place(id, membership))
    }

    /// What the probes saw of a cgroup, if `/proc` would have chosen the same path: v2 where there is nothing else; v1 only where
    /// the path tells of a container, pod or unit, as another hierarchy might tell more.
    fn seen_by_probes(&self, id: u64) -> Option<Membership> {
        if !self.cgroups.is_whole(id) {
            return None;
        }
        let membership = Membership::of_path(&self.history.as_ref()?.cgroup_path(id)?);
        let agrees = if id & CGROUP_V1 == 0 {
            self.only_unified
        } else {
            let Workload {
                container_id,
                pod_uid,
                unit,
                ..
            } = &membership.workload;
            container_id.is_some() || pod_uid.is_some() || unit.is_some()
        };
        agrees.then_some(membership)
    }

    /// A process that only the probes saw, where others of its cgroup are; that may be learnt later.
    fn gone(&mut self, owner: &Owner, identity: Identity, image: &Image) -> Arc<Process> {
        let place = self.by_cgroup(owner);
        let placed = place.is_some();
        let place = place.map(|place| (*place).clone()).unwrap_or_default();
        let (_, start, _) = identity;
        let process = Arc::new(Process {
            executable: image.executable.as_deref().map(str::to_owned),
            arguments: image.arguments.clone(),
            parent: image.parent,
            created: Some(created(start)),
            ..place
        });
        if placed {
            self.processes
                .insert(identity, Known::Placed(Arc::clone(&process)));
        }
        process
    }

    /// What the probes saw of the owner's program.
    fn image(&self, owner: &Owner, start_boottime: u64) -> Option<Arc<Image>> {
        let id = ImageId {
            start_boottime,
            tgid: owner.pid,
            exec_id: owner.exec_id?,
        };
        self.history.as_ref()?.image(&id)
    }

    fn read(&mut self, owner: &Owner, start: u64) -> io::Result<Known> {
        let image = self.image(owner, start);
        let arguments = self
            .history
            .as_ref()
            .is_some_and(|history| history.wants_arguments());
        let identity = (owner.pid, self.proc.ns_to_ticks(start));
        let Some(mut snapshot) = Snapshot::read(&self.proc, identity, arguments)? else {
            return Ok(Known::Gone(image));
        };
        if !self.is_still_true(owner, start, &snapshot) {
            snapshot.executable = None;
            snapshot.arguments = None;
        }
        self.remember_place(&snapshot, owner.cgroup_id);
        let Membership { path, workload } = snapshot.membership;
        let image = image.unwrap_or_default();
        let executable = image.executable.as_deref().map(str::to_owned);
        let process = Process {
            workload: self.intern(workload),
            cgroup_path: Some(path),
            executable: executable.or(snapshot.executable),
            arguments: image.arguments.clone().or(snapshot.arguments),
            parent: image.parent.or(snapshot.parent),
            created: Some(created(start)),
        };
        Ok(Known::Placed(Arc::new(process)))
    }

    /// Whether the program that `/proc` shows is the owner's, and not one that the process ran later.
    fn is_still_true(&self, owner: &Owner, start_boottime: u64, snapshot: &Snapshot) -> bool {
        let (Some(history), Some(exec_id)) = (&self.history, owner.exec_id) else {
            return true;
        };
        let id = ImageId {
            start_boottime,
            tgid: owner.pid,
            exec_id,
        };
        // An exec that nobody told of changes the name, too.
        !history.has_moved_on(&id) && (snapshot.stat.comm == owner.comm || history.lost() == 0)
    }

    /// Notes where a cgroup id leads, unless the process has moved since the id was taken, or is best described by a path of
    /// another hierarchy than the id's. The root is left out: on a hybrid system every process is in it.
    fn remember_place(&mut self, snapshot: &Snapshot, cgroup_id: Option<u64>) {
        let membership = &snapshot.membership;
        let Some(id) = cgroup_id.filter(|_| membership.path != "/") else {
            return;
        };
        if let Some((now, path)) = self.cgroups.place(&snapshot.cgroup)
            && now == id
            && path == membership.path
        {
            self.add_place(id, membership.clone());
        }
    }

    fn add_place(&mut self, id: u64, membership: Membership) -> Arc<Process> {
        let Membership { path, workload } = membership;
        let place = Arc::new(Process {
            workload: self.intern(workload),
            cgroup_path: Some(path),
            ..Process::default()
        });
        self.places.insert(id, Arc::clone(&place));
        place
    }

    fn intern(&mut self, workload: Workload) -> Arc<Workload> {
        if let Some(known) = self.workloads.get(&workload) {
            return Arc::clone(known);
        }
        if self.workloads.len() >= self.sweep_at {
            self.workloads.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = self.sweep_at.max(self.workloads.len() * 2);
        }
        let shared = Arc::new(workload);
        self.workloads.insert(Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    use nflog_common::{ProcessEvent, ProcessText, process_event};

    use super::*;
    use crate::owner::Comm;

    /// A procfs and a cgroup v2 hierarchy in a temporary directory.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            let mount = tree.cgroups().to_str().unwrap().to_owned();
            fs::create_dir_all(tree.path().join("self")).unwrap();
            fs::create_dir_all(&mount).unwrap();
            let line = format!("30 24 0:26 / {mount} rw - cgroup2 cgroup2 rw\n");
            fs::write(tree.path().join("self/mountinfo"), line).unwrap();
            tree
        }

        fn path(&self) -> &Path {
            self.0.path()
        }

        fn cgroups(&self) -> PathBuf {
            self.path().join("cgroup-mount")
        }

        fn cgroup(&self, path: &str) -> u64 {
            let directory = self.cgroups().join(path.trim_start_matches('/'));
            fs::create_dir_all(&directory).unwrap();
            fs::metadata(directory).unwrap().ino()
        }

        fn process(&self, pid: u32, start_ticks: u64, cgroup: &str, executable: Option<&str>) {
            self.end(pid);
            let directory = self.path().join(pid.to_string());
            fs::create_dir(&directory).unwrap();
            let stat =
                format!("{pid} (x) S 1 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 {start_ticks} 1 1 1\n");
            fs::write(directory.join("stat"), stat).unwrap();
            fs::write(directory.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
            if let Some(executable) = executable {
                symlink(executable, directory.join("exe")).unwrap();
            }
        }

        fn end(&self, pid: u32) {
            if let Err(error) = fs::remove_dir_all(self.path().join(pid.to_string())) {
                assert_eq!(error.kind(), io::ErrorKind::NotFound);
            }
        }

        fn resolver(&self) -> Resolver {
            Resolver::new(self.path(), 64, None)
        }
    }

    /// `start` in ticks, with a rest below a tick as the eBPF programs report it.
    fn owner(pid: u32, start_ticks: u64, cgroup_id: Option<u64>) -> Owner {
        let start_boottime = Some(start_ticks * 10_000_000 + 1_234_567);
        Owner {
            pid,
            start_boottime,
            exec_id: None,
            uid: 0,
            comm: Comm::new([0; 16]),
            cgroup_id,
        }
    }

    /// The owner as the probes report it.
    fn stamped(pid: u32, start_ticks: u64, exec_id: u32, cgroup_id: Option<u64>) -> Owner {
        Owner {
            exec_id: Some(exec_id),
            ..owner(pid, start_ticks, cgroup_id)
        }
    }

    /// The exec of it.
    fn exec(owner: &Owner) -> ProcessEvent {
        let id = |tgid, start_boottime, exec_id| ImageId {
            start_boottime,
            tgid,
            exec_id,
        };
        ProcessEvent {
            image: id(owner.pid, owner.start_boottime.unwrap(), owner.exec_id.unwrap()),
            origin: ImageId::default(),
            parent: id(7, 1, 1),
            cgroup_id: owner.cgroup_id.unwrap_or(0),
            parent_comm: *b"cron\0\0\0\0\0\0\0\0\0\0\0\0",
            kind: process_event::EXEC,
            args_cut: 0,
            path_len: 0,
            cgroup_len: 0,
            args_len: 0,
        }
    }

    fn told(tree: &Tree, events: &[(ProcessEvent, &[u8])]) -> Resolver {
        let cgroup = b"web.service\0system.slice\0".as_slice();
        let events: Vec<_> = events
            .iter()
            .map(|&(event, path)| {
                let args = b"".as_slice();
                (event, ProcessText { path, cgroup, args })
            })
            .collect();
        let events = events.as_slice();
        Resolver::new(tree.path(), 64, Some(Arc::new(Processes::told(events))))
    }

    #[test]
    fn a_process_that_only_the_probes_saw_has_its_program_and_later_its_place() {
        let tree = Tree::new();
        let id = tree.cgroup("/system.slice/web.service");
        let gone = stamped(10, 500, 3, Some(id));
        let mut resolver = told(&tree, &[(exec(&gone), b"curl\0bin\0")]);
        let process = resolver.resolve(&gone).unwrap();
        assert_eq!(process.executable.as_deref(), Some("/bin/curl"));
        assert_eq!(process.parent.map(|parent| parent.pid), Some(7));
        assert_eq!(
            (process.cgroup_path.as_deref(), process.created.is_some()),
            (None, true)
        );
        tree.process(11, 600, "/system.slice/web.service", None);
        resolver.resolve(&owner(11, 600, Some(id))).unwrap();
        for _ in 0..2 {
            let process = resolver.resolve(&gone).unwrap();
            assert_eq!(process.cgroup_path.as_deref(), Some("/system.slice/web.service"));
            assert_eq!(process.executable.as_deref(), Some("/bin/curl"));
        }
    }

    #[test]
    fn a_cgroup_that_only_the_probes_saw_has_its_path_where_procfs_would_have_the_same() {
        let tree = Tree::new();
        let gone = stamped(10, 500, 3, Some(77));
        for (hierarchies, expected) in [
            ("0::/\n", Some("/system.slice/web.service")),
            ("1:name=systemd:/\n0::/\n", None),
        ] {
            fs::write(tree.path().join("self/cgroup"), hierarchies).unwrap();
            let mut resolver = told(&tree, &[(exec(&gone), b"curl\0bin\0")]);
            let process = resolver.resolve(&gone).unwrap();
            assert_eq!(process.cgroup_path.as_deref(), expected);
            assert_eq!(process.workload.unit.is_some(), expected.is_some());
        }
    }

    #[test]
    fn a_v1_cgroup_that_only_the_probes_saw_has_its_path_if_that_tells_of_something() {
        let tree = Tree::new();
        let mount = tree.cgroups();
        let line = format!("31 24 0:27 / {} rw - cgroup cgroup rw,pids\n", mount.display());
        fs::write(tree.path().join("self/mountinfo"), line).unwrap();
        fs::write(tree.path().join("cgroups"), "pids 8 60 1\n").unwrap();
        let gone = stamped(10, 500, 3, Some(CGROUP_V1 | 77));
        let process = told(&tree, &[(exec(&gone), b"curl\0bin\0")])
            .resolve(&gone)
            .unwrap();
        assert_eq!(process.workload.unit.as_deref(), Some("web.service"));
        assert_eq!(process.workload.slice.as_deref(), Some("system.slice"));
        let (mut event, text) = (exec(&gone), b"user.slice\0".as_slice());
        event.cgroup_id = CGROUP_V1 | 78;
        let text = ProcessText {
            path: b"curl\0bin\0",
            cgroup: text,
            args: b"",
        };
        let history = Arc::new(Processes::told(&[(event, text)]));
        let elsewhere = stamped(10, 500, 3, Some(CGROUP_V1 | 78));
        let process = Resolver::new(tree.path(), 64, Some(history))
            .resolve(&elsewhere)
            .unwrap();
        assert_eq!(process.cgroup_path, None);
    }

    #[test]
    fn a_later_program_in_procfs_is_not_the_owners() {
        let tree = Tree::new();
        let (before, after) = (stamped(10, 500, 3, None), stamped(10, 500, 4, None));
        tree.process(10, 500, "/x.service", Some("/bin/later"));
        let mut resolver = told(&tree, &[(exec(&after), b"later\0bin\0")]);
        let process = resolver.resolve(&before).unwrap();
        assert_eq!(
            (process.executable.as_deref(), process.cgroup_path.as_deref()),
            (None, Some("/x.service"))
        );
        let process = resolver.resolve(&after).unwrap();
        assert_eq!(process.executable.as_deref(), Some("/bin/later"));
    }

    #[test]
    fn a_process_older_than_the_probes_has_the_program_of_procfs() {
        let tree = Tree::new();
        tree.process(10, 500, "/x.service", Some("/bin/older"));
        let process = told(&tree, &[]).resolve(&stamped(10, 500, 3, None)).unwrap();
        assert_eq!(process.executable.as_deref(), Some("/bin/older"));
    }

    #[test]
    fn a_process_is_resolved_with_its_unit_and_executable() {
        let tree = Tree::new();
        tree.process(
            10,
            500,
            "/system.slice/ssh.service",
            Some("/usr/sbin/sshd (deleted)"),
        );
        let process = tree.resolver().resolve(&owner(10, 500, None)).unwrap();
        assert_eq!(process.cgroup_path.as_deref(), Some("/system.slice/ssh.service"));
        assert_eq!(process.executable.as_deref(), Some("/usr/sbin/sshd"));
        assert_eq!(process.workload.unit.as_deref(), Some("ssh.service"));
    }

    #[test]
    fn a_reused_pid_is_not_the_owner() {
        let tree = Tree::new();
        tree.process(10, 900, "/system.slice/other.service", None);
        assert_eq!(tree.resolver().resolve(&owner(10, 500, None)), None);
    }

    #[test]
    fn a_process_keeps_its_place_after_it_ended_and_its_pid_went_to_another() {
        let tree = Tree::new();
        let mut resolver = tree.resolver();
        tree.process(10, 500, "/system.slice/first.service", Some("/first"));
        let first = resolver.resolve(&owner(10, 500, None)).unwrap();
        tree.process(10, 900, "/system.slice/second.service", Some("/second"));
        assert_eq!(resolver.resolve(&owner(10, 500, None)), Some(first));
        assert_eq!(
            resolver
                .resolve(&owner(10, 900, None))
                .unwrap()
                .executable
                .as_deref(),
            Some("/second")
        );
    }

    #[test]
    fn equal_workloads_share_one_arc() {
        let tree = Tree::new();
        let mut resolver = tree.resolver();
        for pid in [10, 11] {
            tree.process(pid, 500, "/system.slice/web.service", None);
        }
        tree.process(12, 500, "/system.slice/other.service", None);
        let [one, same, other] = [10, 11, 12].map(|pid| resolver.resolve(&owner(pid, 500, None)).unwrap());
        assert!(Arc::ptr_eq(&one.workload, &same.workload));
        assert!(!Arc::ptr_eq(&one.workload, &other.workload));
    }

    #[test]
    fn a_process_that_was_never_read_is_placed_by_its_cgroup() {
        let tree = Tree::new();
        let mut resolver = tree.resolver();
        let id = tree.cgroup("/system.slice/web.service");
        tree.process(10, 500, "/system.slice/web.service", Some("/usr/bin/web"));
        assert_eq!(resolver.resolve(&owner(11, 600, Some(id))), None);
        resolver.resolve(&owner(10, 500, Some(id))).unwrap();
        let gone = resolver.resolve(&owner(11, 600, Some(id))).unwrap();
        assert_eq!(gone.workload.unit.as_deref(), Some("web.service"));
        assert_eq!(gone.executable, None);
        let unknown_start = Owner {
            start_boottime: None,
            ..owner(12, 0, Some(id))
        };
        assert!(resolver.resolve(&unknown_start).is_some());
    }

    #[test]
    fn a_cgroup_id_taken_before_the_process_moved_teaches_nothing() {
        let tree = Tree::new();
        let mut resolver = tree.resolver();
        let (before, now) = (tree.cgroup("/before.service"), tree.cgroup("/now.service"));
        tree.process(10, 500, "/now.service", None);
        resolver.resolve(&owner(10, 500, Some(before))).unwrap();
        assert_eq!(resolver.resolve(&owner(11, 600, Some(before))), None);
        assert_eq!(resolver.resolve(&owner(11, 600, Some(now))), None);
    }

    #[test]
    fn the_root_cgroup_places_nobody() {
        let tree = Tree::new();
        let mut resolver = tree.resolver();
        let root = tree.cgroup("/");
        tree.process(10, 500, "/", None);
        assert!(resolver.resolve(&owner(10, 500, Some(root))).is_some());
        assert_eq!(resolver.resolve(&owner(11, 600, Some(root))), None);
    }

    #[test]
    fn a_process_that_could_not_be_read_is_tried_again() {
        let tree = Tree::new();
        let mut resolver = tree.resolver();
        tree.process(10, 500, "/x.service", None);
        let cgroup = tree.path().join("10/cgroup");
        fs::write(&cgroup, "").unwrap();
        assert_eq!(resolver.resolve(&owner(10, 500, None)), None);
        fs::write(&cgroup, "0::/x.service\n").unwrap();
        assert!(resolver.resolve(&owner(10, 500, None)).is_some());
    }

    #[test]
    fn on_a_hybrid_host_a_process_that_is_gone_is_placed_by_its_v1_cgroup() {
        let tree = Tree::new();
        let v1 = tree.path().join("v1");
        let contained = format!("/docker/{}", "ab".repeat(32));
        fs::create_dir_all(v1.join(contained.trim_start_matches('/'))).unwrap();
        let inode = |path: &str| fs::metadata(v1.join(path.trim_start_matches('/'))).unwrap().ino();
        fs::write(tree.path().join("cgroups"), "pids 8 60 1\n").unwrap();
        let mountinfo = tree.path().join("self/mountinfo");
        let mut mounts = fs::read_to_string(&mountinfo).unwrap();
        mounts.push_str(&format!(
            "31 24 0:27 / {} rw - cgroup cgroup rw,pids\n",
            v1.display()
        ));
        fs::write(mountinfo, mounts).unwrap();
        let shim = tree.cgroup("/system.slice/containerd.service");
        let live = |pid: u32, path: &str| {
            tree.process(pid, 500, "/", None);
            let lines = format!("8:pids:{path}\n0::/system.slice/containerd.service\n");
            fs::write(tree.path().join(format!("{pid}/cgroup")), lines).unwrap();
        };
        live(10, &contained);
        let mut resolver = tree.resolver();
        let id = inode(&contained) | CGROUP_V1;
        assert_eq!(resolver.resolve(&owner(11, 600, Some(id))), None);
        let seen = resolver.resolve(&owner(10, 500, Some(id))).unwrap();
        let gone = resolver.resolve(&owner(11, 600, Some(id))).unwrap();
        assert_eq!(gone.cgroup_path.as_deref(), Some(contained.as_str()));
        assert!(Arc::ptr_eq(&gone.workload, &seen.workload) && gone.workload.runtime == Some("docker"));
        // Neither the same number in v2 nor the v2 cgroup of the shim is the container.
        for other in [inode(&contained), shim] {
            assert_eq!(resolver.resolve(&owner(12, 600, Some(other))), None);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let tree = Tree::new();
        let mut resolver = tree.resolver();
        for pid in 1..1000 {
            let cgroup = format!("/system.slice/unit{pid}.service");
            let id = tree.cgroup(&cgroup);
            tree.process(pid, 500, &cgroup, None);
            resolver.resolve(&owner(pid, 500, Some(id))).unwrap();
        }
        assert!(resolver.processes.len() <= 64);
        assert!(resolver.places.len() <= 64);
        assert!(resolver.workloads.len() <= 256, "{}", resolver.workloads.len());
    }

    #[test]
    fn this_process_is_resolved_from_the_real_procfs() {
        let proc = ProcFs::new("/proc");
        let myself = proc.owner(std::process::id(), &Cgroups::default()).unwrap();
        let process = Resolver::new("/proc", DEFAULT_CAPACITY, None)
            .resolve(&myself)
            .unwrap();
        let executable = std::env::current_exe().unwrap();
        assert_eq!(process.executable.as_deref(), executable.to_str());
        assert!(
            process
                .cgroup_path
                .as_deref()
                .is_some_and(|path| path.starts_with('/'))
        );
    }
}
