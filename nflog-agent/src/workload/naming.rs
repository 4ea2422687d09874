//! Gives the processes of pods the names of their pods, and those of other containers the names of their containers, as soon and as long
//! as these are known.
//!
//! A process is resolved once; its names come later, or change. So names are a layer above: a process in a container is looked up again
//! when a store has changed, and gets a new `Arc<Workload>` if the answer has. A name once known is kept.

use std::sync::Arc;
use std::time::Instant;

use super::engines::{Engines, Told};
use super::kubernetes::Pods;
use super::{Process, Workload};
use crate::lingering::Lingering;

/// The layer, of one reader.
pub(super) struct Naming {
    pods: Option<Arc<Pods>>,
    engines: Option<Arc<Engines>>,
    /// By the address of the process without names, which is held so that the address stays its own.
    processes: Lingering<usize, Named<Process>>,
    /// The same for workloads, so that the processes of a container share one.
    workloads: Lingering<usize, Named<Workload>>,
}

struct Named<T> {
    _bare: Arc<T>,
    named: Arc<T>,
    /// That of the stores, when it was looked up; `None`: to be looked up again in any case.
    generation: Option<u64>,
}

impl Naming {
    pub(super) fn new(pods: Option<Arc<Pods>>, engines: Option<Arc<Engines>>, capacity: usize) -> Self {
        Self {
            pods,
            engines,
            processes: Lingering::new(capacity),
            workloads: Lingering::new(capacity),
        }
    }

    /// The process with all the names that are known now.
    pub(super) fn name(&mut self, process: Arc<Process>) -> Arc<Process> {
        let bare = &process.workload;
        if bare.pod_uid.is_none() && bare.container_id.is_none() {
            return process;
        }
        // Read before the lookup: a change in between is looked up again.
        let generation = self.generation();
        let address = Arc::as_ptr(&process).addr();
        let known = self.processes.get(&address);
        if let Some(known) = known.filter(|known| known.generation == Some(generation)) {
            return Arc::clone(&known.named);
        }
        let before = known.map(|known| Arc::clone(&known.named));
        let (workload, generation) = self.workload(&process.workload, generation);
        let named = match before {
            Some(before) if Arc::ptr_eq(&before.workload, &workload) => before,
            _ if Arc::ptr_eq(&process.workload, &workload) => Arc::clone(&process),
            _ => Arc::new(Process {
                workload,
                ..(*process).clone()
            }),
        };
        let entry = Named {
            _bare: process,
            named: Arc::clone(&named),
            generation,
        };
        self.processes.insert(address, entry);
        named
    }

    /// Grows whenever a lookup in one of the stores may have another answer than before.
    fn generation(&self) -> u64 {
        let pods = self.pods.as_ref().map_or(0, |pods| pods.generation());
        let engines = self.engines.as_ref().map_or(0, |engines| engines.generation());
        pods + engines
    }

    /// The workload with all the names that are known now, and up to when that is all.
    fn workload(&mut self, bare: &Arc<Workload>, generation: u64) -> (Arc<Workload>, Option<u64>) {
        let address = Arc::as_ptr(bare).addr();
        let known = self.workloads.get(&address);
        if let Some(known) = known.filter(|known| known.generation == Some(generation)) {
            return (Arc::clone(&known.named), known.generation);
        }
        let before = Arc::clone(known.map_or(bare, |known| &known.named));
        let in_pod = self.in_pod(bare, &before);
        let (named, generation) = if Arc::ptr_eq(&in_pod, &before) && before.pod.is_none() {
            match self.in_engine(bare, &before) {
                Some(named) => (named, Some(generation)),
                None => (before, None),
            }
        } else {
            (in_pod, Some(generation))
        };
        let entry = Named {
            _bare: Arc::clone(bare),
            named: Arc::clone(&named),
            generation,
        };
        self.workloads.insert(address, entry);
        (named, generation)
    }

    /// `before`, with what the Kubernetes API says by now.
    fn in_pod(&self, bare: &Arc<Workload>, before: &Arc<Workload>) -> Arc<Workload> {
        let pods = self.pods.as_ref();
        let found = pods.and_then(|pods| pods.find(bare.pod_uid.as_deref(), bare.container_id.as_deref()));
        let Some(found) = found else {
            return Arc::clone(before);
        };
        // A container that the API server has forgotten keeps its name.
        let container = found.container.or_else(|| before.container.clone());
        if before.pod.as_ref() == Some(&found.pod) && before.container == container {
            return Arc::clone(before);
        }
        Arc::new(Workload {
            pod: Some(found.pod),
            container,
            ..(**bare).clone()
        })
    }

    /// `before`, with what its container's engine says by now. `None`: it must be asked again.
    fn in_engine(&self, bare: &Arc<Workload>, before: &Arc<Workload>) -> Option<Arc<Workload>> {
        let id = bare
            .container_id
            .as_deref()
            .filter(|_| bare.pod_uid.is_none() && matches!(bare.runtime, None | Some("docker" | "podman")));
        let (Some(engines), Some(id)) = (&self.engines, id) else {
            return Some(Arc::clone(before));
        };
        match engines.find(id, Instant::now()) {
            Told::Busy => None,
            Told::Named(container) if before.container.as_ref() != Some(&container) => {
                Some(Arc::new(Workload {
                    container: Some(container),
                    ..(**bare).clone()
                }))
            }
            Told::Named(_) | Told::Nothing => Some(Arc::clone(before)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::workload::kubernetes::{Container, Observed, Pod};

    fn process(uid: Option<&str>, container: Option<&str>) -> Arc<Process> {
        Arc::new(Process {
            workload: Arc::new(Workload {
                container_id: container.map(str::to_owned),
                pod_uid: uid.map(str::to_owned),
                ..Workload::default()
            }),
            ..Process::default()
        })
    }

    fn observed(uid: &str, name: &str, containers: &[(&str, &str)]) -> Observed {
        let container = |name: &str| Container {
            name: name.to_owned(),
            image: None,
        };
        Observed {
            uid: uid.to_owned(),
            pod: Pod {
                name: name.to_owned(),
                ..Pod::default()
            },
            containers: containers
                .iter()
                .map(|(id, name)| ((*id).to_owned(), container(name)))
                .collect(),
            addresses: Vec::new(),
            of_node: Vec::new(),
        }
    }

    fn names(process: &Process) -> (Option<&str>, Option<&str>) {
        let workload = &process.workload;
        (
            workload.pod.as_ref().map(|pod| pod.name.as_str()),
            workload
                .container
                .as_ref()
                .map(|container| container.name.as_str()),
        )
    }

    #[test]
    fn names_arrive_change_and_stay() {
        let pods = Arc::new(Pods::default());
        let mut naming = Naming::new(Some(Arc::clone(&pods)), None, 16);
        let (one, two) = (process(Some("u"), Some("c")), process(Some("u"), Some("c")));
        let before = naming.name(Arc::clone(&one));
        assert!(Arc::ptr_eq(&before, &one), "nothing is known, nothing is made");

        let now = Instant::now();
        pods.see(observed("u", "web", &[]), now);
        assert_eq!(names(&naming.name(Arc::clone(&one))), (Some("web"), None));
        pods.see(observed("u", "web", &[("c", "app")]), now);
        let named = naming.name(Arc::clone(&one));
        assert_eq!(names(&named), (Some("web"), Some("app")));
        assert_eq!(names(&naming.name(Arc::clone(&two))), (Some("web"), Some("app")));

        // A change elsewhere makes no new value.
        pods.see(observed("other", "x", &[]), now);
        assert!(Arc::ptr_eq(&naming.name(Arc::clone(&one)), &named));
        assert!(Arc::ptr_eq(&naming.name(Arc::clone(&one)), &named));

        // Forgotten by the store: a record's name does not go away.
        pods.delete("u", now);
        pods.delete("u", now + crate::workload::kubernetes::LINGER);
        assert_eq!(pods.find(Some("u"), None), None);
        pods.see(observed("third", "y", &[]), now);
        assert_eq!(names(&naming.name(Arc::clone(&one))), (Some("web"), Some("app")));

        // Known again, without its container: nor does a change elsewhere make a new value then.
        pods.see(observed("u", "web", &[]), now);
        let again = naming.name(Arc::clone(&one));
        assert_eq!(names(&again), (Some("web"), Some("app")));
        pods.see(observed("fourth", "z", &[]), now);
        assert!(Arc::ptr_eq(&naming.name(one), &again));
    }

    #[test]
    fn processes_of_one_workload_share_the_named_one() {
        let pods = Arc::new(Pods::default());
        pods.see(observed("u", "web", &[]), Instant::now());
        let mut naming = Naming::new(Some(pods), None, 16);
        let one = process(Some("u"), None);
        let two = Arc::new((*one).clone());
        let (one, two) = (naming.name(one), naming.name(two));
        assert!(!Arc::ptr_eq(&one, &two) && Arc::ptr_eq(&one.workload, &two.workload));
    }

    #[test]
    fn what_is_in_no_pod_is_left_alone() {
        let mut naming = Naming::new(Some(Arc::default()), None, 16);
        let unit = process(None, None);
        assert!(Arc::ptr_eq(&naming.name(Arc::clone(&unit)), &unit));
        assert_eq!(naming.processes.len(), 0);
    }
}
