//! Names of pods and Services: what the Kubernetes API says of the pods of this node and, if that is wanted, of the cluster's Services.
//!
//! [`Pods`] and [`Services`] are the stores that readers look into; a `Watch` keeps each true. Invariants:
//! - readers never wait for the API server: they look into memory, and a pod that is not known yet is a pod UID alone;
//! - what the cgroup path says comes first: a pod is found by the UID of the path, its container only within that pod;
//! - a pod that was deleted keeps its names for [`LINGER`], so that its last packets have them;
//! - memory is bounded: [`CAPACITY`] pods and [`FRONTENDS`] of Services, of each only what records carry.

#[cfg(feature = "kubernetes")]
mod config;
#[cfg(feature = "kubernetes")]
mod failure;
#[cfg(feature = "kubernetes")]
mod followed;
mod image;
mod keys;
#[cfg(feature = "kubernetes")]
mod object;
mod owners;
#[cfg(feature = "kubernetes")]
mod page;
mod peer;
mod pods;
#[cfg(feature = "kubernetes")]
mod service;
mod services;
mod store;
#[cfg(feature = "kubernetes")]
mod trial;
#[cfg(feature = "kubernetes")]
mod watch;

#[cfg(feature = "kubernetes")]
pub use config::{Access, AccessError, is_node_name};
#[cfg(feature = "kubernetes")]
pub use followed::{Followed, NodePods};
pub use image::Image;
pub use keys::{KeyPattern, KeyPatternError, chosen};
#[cfg(feature = "kubernetes")]
pub use object::{Chosen, Object};
pub use owners::{Controller, Owners};
pub use peer::{Addresses, Peer};
pub use pods::{Container, Pod};
#[cfg(feature = "kubernetes")]
pub use service::ServiceObject;
pub use services::{FRONTENDS, Frontend, Holder, Service, Services};
pub use store::{CAPACITY, Found, LINGER, Observed, Pods};
#[cfg(feature = "kubernetes")]
pub(crate) use trial::trial;
#[cfg(feature = "kubernetes")]
pub use watch::{Pace, Watch};
