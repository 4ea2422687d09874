//! The store of [`Processes`](super::Processes): events in, images out. Pure memory, bounded.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use nflog_common::{ImageId, ProcessEvent, ProcessText, process_event};

use super::{Arguments, Image, Parent, path};
use crate::lingering::Lingering;
use crate::owner::Comm;

/// A process for the life of the boot: its pid and its start, ns since boot.
pub(super) type ProcessId = (u32, u64);

/// Images by process and exec.
///
/// Those that run stay until their process ends; the others linger, as packets are read from NFLOG later than they are logged:
/// the last `capacity / 2` of them at least, however fast they come.
pub(super) struct Cache {
    /// What each process runs now, with its exec id.
    running: HashMap<ProcessId, (u32, Arc<Image>)>,
    ended: Lingering<ImageId, Arc<Image>>,
    /// Path of each cgroup in which a program began, by v2 id. Neither ever changes.
    cgroups: Lingering<u64, Arc<str>>,
    capacity: usize,
}

/// How many images are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheSize {
    /// Of processes that run.
    pub running: usize,
    /// Of processes that have ended or run something else by now.
    pub ended: usize,
}

impl Cache {
    /// Keeps up to `capacity` images that run, and as many that do not.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            running: HashMap::new(),
            ended: Lingering::new(capacity),
            cgroups: Lingering::new(capacity),
            capacity,
        }
    }

    /// Takes in an event with its text.
    pub(super) fn apply(&mut self, event: &ProcessEvent, text: ProcessText<'_>) {
        match event.kind {
            process_event::FORK => {
                let origin = self.image(&event.origin);
                let image = Image {
                    parent: parent(event),
                    ..origin.as_deref().cloned().unwrap_or_default()
                };
                self.begin(event.image, image);
            }
            process_event::EXEC => {
                if self.cgroups.get(&event.cgroup_id).is_none()
                    && let Some(path) = path(text.cgroup)
                {
                    self.cgroups.insert(event.cgroup_id, path);
                }
                let cut = event.args_cut != 0;
                let image = Image {
                    executable: path(text.path),
                    arguments: (!text.args.is_empty()).then(|| Arc::new(Arguments::new(text.args, cut))),
                    parent: parent(event),
                };
                self.begin(event.image, image);
            }
            process_event::EXIT => self.end(process(&event.image)),
            _ => {}
        }
    }

    /// What the process ran, or runs, after that exec; `None` if nobody said.
    pub(super) fn image(&mut self, id: &ImageId) -> Option<Arc<Image>> {
        match self.running.get(&process(id)) {
            Some((exec_id, image)) if *exec_id == id.exec_id => Some(Arc::clone(image)),
            _ => self.ended.get(id).cloned(),
        }
    }

    /// The path of the cgroup with this v2 id, if a program began in it; not of the root.
    pub(super) fn cgroup(&mut self, id: u64) -> Option<Arc<str>> {
        self.cgroups.get(&id).cloned()
    }

    /// Which exec the process is known to run after, if it runs.
    pub(super) fn current(&self, process: ProcessId) -> Option<u32> {
        self.running.get(&process).map(|(exec_id, _)| *exec_id)
    }

    /// Processes that are held to run.
    pub(super) fn running(&self) -> Vec<ProcessId> {
        self.running.keys().copied().collect()
    }

    /// The process has ended.
    pub(super) fn end(&mut self, process: ProcessId) {
        if let Some((exec_id, image)) = self.running.remove(&process) {
            self.retire(process, exec_id, image);
        }
    }

    pub(super) fn size(&self) -> CacheSize {
        CacheSize {
            running: self.running.len(),
            ended: self.ended.len(),
        }
    }

    /// Whether there is little room left for processes that run: some may have ended unseen.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.running.len() >= self.capacity / 8 * 7
    }

    fn begin(&mut self, id: ImageId, image: Image) {
        let image = Arc::new(image);
        let full = self.running.len() >= self.capacity;
        match self.running.entry(process(&id)) {
            Entry::Occupied(mut entry) => {
                let (exec_id, before) = entry.insert((id.exec_id, image));
                self.retire(process(&id), exec_id, before);
            }
            Entry::Vacant(_) if full => self.ended.insert(id, image),
            Entry::Vacant(entry) => {
                entry.insert((id.exec_id, image));
            }
        }
    }

    fn retire(&mut self, (tgid, start_boottime): ProcessId, exec_id: u32, image: Arc<Image>) {
        let id = ImageId {
            start_boottime,
            tgid,
            exec_id,
        };
        self.ended.insert(id, image);
    }
}

const fn process(id: &ImageId) -> ProcessId {
    (id.tgid, id.start_boottime)
}

fn parent(event: &ProcessEvent) -> Option<Parent> {
    let pid = event.parent.tgid;
    (pid != 0).then(|| Parent {
        pid,
        comm: Comm::new(event.parent_comm),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(tgid: u32, start_boottime: u64, exec_id: u32) -> ImageId {
        ImageId {
            start_boottime,
            tgid,
            exec_id,
        }
    }

    fn event(kind: u8, image: ImageId, origin: ImageId) -> ProcessEvent {
        let parent = id(1, 1, 1);
        ProcessEvent {
            image,
            origin,
            parent,
            cgroup_id: 1,
            parent_comm: *b"init\0\0\0\0\0\0\0\0\0\0\0\0",
            kind,
            args_cut: 0,
            path_len: 0,
            cgroup_len: 0,
            args_len: 0,
        }
    }

    fn exec(cache: &mut Cache, image: ImageId, names: &[u8]) {
        let nobody = ImageId::default();
        let text = ProcessText {
            path: names,
            cgroup: b"a.service\0system.slice\0",
            args: b"x\0y\0",
        };
        cache.apply(&event(process_event::EXEC, image, nobody), text);
    }

    fn fork(cache: &mut Cache, maker: ImageId, image: ImageId) {
        cache.apply(&event(process_event::FORK, image, maker), ProcessText::default());
    }

    fn exit(cache: &mut Cache, image: ImageId) {
        let nobody = ImageId::default();
        cache.apply(&event(process_event::EXIT, image, nobody), ProcessText::default());
    }

    fn executable(cache: &mut Cache, image: ImageId) -> Option<String> {
        Some(cache.image(&image)?.executable.as_deref()?.to_owned())
    }

    #[test]
    fn a_program_is_known_beyond_the_end_of_its_process() {
        let mut cache = Cache::new(64);
        exec(&mut cache, id(10, 500, 3), b"curl\0bin\0");
        exit(&mut cache, id(10, 500, 3));
        assert_eq!(cache.current((10, 500)), None);
        let image = cache.image(&id(10, 500, 3)).unwrap();
        assert_eq!(image.executable.as_deref(), Some("/bin/curl"));
        assert_eq!(image.parent.map(|parent| parent.pid), Some(1));
        let arguments = image.arguments.as_ref().unwrap();
        assert_eq!(arguments.iter().collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(cache.cgroup(1).as_deref(), Some("/system.slice/a.service"));
    }

    #[test]
    fn each_exec_of_a_process_has_its_own_program() {
        let mut cache = Cache::new(64);
        exec(&mut cache, id(10, 500, 3), b"sh\0bin\0");
        exec(&mut cache, id(10, 500, 4), b"curl\0bin\0");
        assert_eq!(executable(&mut cache, id(10, 500, 3)).as_deref(), Some("/bin/sh"));
        assert_eq!(
            executable(&mut cache, id(10, 500, 4)).as_deref(),
            Some("/bin/curl")
        );
        assert_eq!(executable(&mut cache, id(10, 500, 5)), None);
        assert_eq!(cache.current((10, 500)), Some(4));
    }

    #[test]
    fn a_fork_without_exec_goes_on_with_its_makers_program() {
        let mut cache = Cache::new(64);
        exec(&mut cache, id(10, 500, 3), b"nginx\0sbin\0");
        fork(&mut cache, id(10, 500, 3), id(11, 600, 3));
        // What the maker does later is not the worker's.
        exec(&mut cache, id(10, 500, 4), b"other\0bin\0");
        exit(&mut cache, id(10, 500, 4));
        assert_eq!(
            executable(&mut cache, id(11, 600, 3)).as_deref(),
            Some("/sbin/nginx")
        );
    }

    #[test]
    fn a_fork_of_an_unknown_process_has_a_parent_and_no_program() {
        let mut cache = Cache::new(64);
        fork(&mut cache, id(10, 500, 3), id(11, 600, 3));
        let image = cache.image(&id(11, 600, 3)).unwrap();
        assert_eq!(
            (image.executable.as_deref(), image.parent.is_some()),
            (None, true)
        );
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let mut cache = Cache::new(64);
        exec(&mut cache, id(10, 500, 3), b"first\0");
        exit(&mut cache, id(10, 500, 3));
        exec(&mut cache, id(10, 900, 3), b"second\0");
        assert_eq!(executable(&mut cache, id(10, 500, 3)).as_deref(), Some("/first"));
        assert_eq!(executable(&mut cache, id(10, 900, 3)).as_deref(), Some("/second"));
    }

    #[test]
    fn a_lost_exec_is_unknown_and_not_the_program_before_it() {
        let mut cache = Cache::new(64);
        exec(&mut cache, id(10, 500, 3), b"sh\0");
        fork(&mut cache, id(10, 500, 3), id(11, 600, 3));
        // Exec 4 of process 11 was lost.
        assert_eq!(executable(&mut cache, id(11, 600, 4)), None);
        fork(&mut cache, id(11, 600, 4), id(12, 700, 4));
        assert_eq!(executable(&mut cache, id(12, 700, 4)), None);
    }

    #[test]
    fn memory_is_bounded_even_if_no_end_is_seen() {
        let mut cache = Cache::new(64);
        for pid in 1..1000 {
            exec(&mut cache, id(pid, 500, 1), b"x\0");
            assert!(executable(&mut cache, id(pid, 500, 1)).is_some());
        }
        let CacheSize { running, ended } = cache.size();
        assert!(running <= 64 && ended <= 64, "{:?}", cache.size());
        assert!(cache.is_nearly_full());
        for process in cache.running() {
            cache.end(process);
        }
        assert_eq!(cache.size().running, 0);
    }
}
