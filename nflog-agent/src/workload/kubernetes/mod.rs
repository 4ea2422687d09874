//! Names of pods: what the Kubernetes API says of the pods of this node.
//!
//! [`Pods`] is the store that readers look into; `Watch` keeps it true. Invariants:
//! - readers never wait for the API server: they look into memory, and a pod that is not known yet is a pod UID alone;
//! - what the cgroup path says comes first: a pod is found by the UID of the path, its container only within that pod;
//! - a pod that was deleted keeps its names for [`LINGER`], so that its last packets have them;
//! - memory is bounded: [`CAPACITY`] pods, of each only what records carry.

#[cfg(feature = "kubernetes")]
mod config;
#[cfg(feature = "kubernetes")]
mod failure;
mod image;
mod keys;
#[cfg(feature = "kubernetes")]
mod object;
mod owners;
mod peer;
mod pods;
mod store;
#[cfg(feature = "kubernetes")]
mod trial;
#[cfg(feature = "kubernetes")]
mod watch;

#[cfg(feature = "kubernetes")]
pub use config::{Access, AccessError, is_node_name};
pub use image::Image;
pub use keys::{KeyPattern, KeyPatternError, chosen};
#[cfg(feature = "kubernetes")]
pub use object::{Chosen, Object};
pub use owners::{Controller, Owners};
pub use peer::{Addresses, Peer};
pub use pods::{Container, Pod};
pub use store::{CAPACITY, Found, LINGER, Observed, Pods};
#[cfg(feature = "kubernetes")]
pub(crate) use trial::trial;
#[cfg(feature = "kubernetes")]
pub use watch::{Pace, Watch};
