//! Which container, pod or systemd unit a process runs in, and which program.

mod created;
pub mod engines;
pub mod kubernetes;
mod membership;
mod naming;
mod peers;
mod resolve;
mod snapshot;

use std::sync::Arc;

pub use peers::{Other, Peers};
pub use resolve::{DEFAULT_CAPACITY, Resolver};

use crate::cgroup_path::Place;
use crate::process::{Arguments, Parent};
use kubernetes::{Container, Pod};

/// What the records of one container (or unit, or the host itself) share: the OTLP Resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Full container id: 64 hex digits, for LXC its name.
    pub container_id: Option<String>,
    /// `containerd`, `cri-o`, `docker`, `podman` or `lxc`, as far as the cgroup path tells.
    pub runtime: Option<&'static str>,
    /// Kubernetes pod UID, with dashes.
    pub pod_uid: Option<String>,
    /// systemd unit.
    pub unit: Option<String>,
    /// systemd slice of the unit, or of a process in none.
    pub slice: Option<String>,
    /// What the Kubernetes API says of the pod, once it is known.
    pub pod: Option<Arc<Pod>>,
    /// The same of the container in it; of a container outside of Kubernetes what its engine says (Docker, Podman).
    pub container: Option<Arc<Container>>,
}

impl From<Place> for Workload {
    fn from(place: Place) -> Self {
        let Place {
            container_id,
            runtime,
            pod_uid,
            unit,
            slice,
        } = place;
        Self {
            container_id,
            runtime,
            pod_uid,
            unit,
            slice,
            ..Self::default()
        }
    }
}

/// A process's place, and the program that it runs: shared by all its records, resolved once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// The Resource its records go under.
    pub workload: Arc<Workload>,
    /// cgroup path below the cgroup root, with a leading `/`.
    pub cgroup_path: Option<String>,
    /// Target of `/proc/PID/exe`.
    pub executable: Option<String>,
    /// Its parent when it began to run this program; for a process older than the agent, when it was first seen.
    pub parent: Option<Parent>,
    /// Arguments, if they are wanted.
    pub arguments: Option<Arc<Arguments>>,
    /// When it was created: RFC 3339, UTC, to the millisecond.
    pub created: Option<String>,
}
