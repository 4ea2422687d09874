//! What a [`Watch`](super::Watch) follows: one kind of resource, and the store that it is kept in.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use serde::de::DeserializeOwned;

use super::{Chosen, Object, Pods, ServiceObject, Services};

/// A kind of resource, and its store.
pub trait Followed {
    /// The part of it that is read.
    type Object: Clone + Debug + DeserializeOwned + Send + 'static;

    /// Its name in the API, and in RBAC.
    const RESOURCE: &'static str;
    /// Where a role is that allows it.
    const ROLE: &'static str;
    /// Path of its lists over all namespaces.
    const URL: &'static str;
    /// Objects in a page: bounds what is held of them at a time.
    const PAGE: u32;

    /// Which of them: a field selector.
    fn fields(&self) -> Option<String>;
    /// As messages name them.
    fn name(&self) -> String;
    /// What records lack while they are not known.
    fn lack(&self) -> &'static str;
    /// Identity of an object, as the store has it.
    fn uid(object: &Self::Object) -> &str;
    /// Version of an object.
    fn version(object: &Self::Object) -> &str;
    /// One was added or changed. `false`: there is no room for it.
    fn see(&self, object: &Self::Object) -> bool;
    /// One was deleted.
    fn delete(&self, uid: &str);
    /// These are all that there are.
    fn keep_only(&self, there: &HashSet<String>);
    /// How many are known.
    fn count(&self) -> usize;
}

/// The pods of one node.
#[derive(Clone, Debug)]
pub struct NodePods {
    /// The node.
    pub node: String,
    /// What is kept of them.
    pub chosen: Chosen,
    /// Where.
    pub pods: Arc<Pods>,
}

impl Followed for NodePods {
    type Object = Object;

    const RESOURCE: &'static str = "pods";
    const ROLE: &'static str = "deploy/kubernetes/rbac.yaml";
    const URL: &'static str = "/api/v1/pods";
    const PAGE: u32 = 50;

    fn fields(&self) -> Option<String> {
        Some(format!("spec.nodeName={}", self.node))
    }

    fn name(&self) -> String {
        format!("pods of node {}", self.node)
    }

    fn lack(&self) -> &'static str {
        "are not named, records have their UIDs"
    }

    fn uid(object: &Object) -> &str {
        object.uid()
    }

    fn version(object: &Object) -> &str {
        object.resource_version()
    }

    fn see(&self, object: &Object) -> bool {
        object
            .observed(&self.chosen)
            .is_none_or(|observed| self.pods.see(observed, Instant::now()))
    }

    fn delete(&self, uid: &str) {
        self.pods.delete(uid, Instant::now());
    }

    fn keep_only(&self, there: &HashSet<String>) {
        self.pods.keep_only(|uid| there.contains(uid), Instant::now());
    }

    fn count(&self) -> usize {
        self.pods.len()
    }
}

/// All of the cluster.
impl Followed for Arc<Services> {
    type Object = ServiceObject;

    const RESOURCE: &'static str = "services";
    const ROLE: &'static str = "deploy/kustomize/services";
    const URL: &'static str = "/api/v1/services";
    const PAGE: u32 = 500;

    fn fields(&self) -> Option<String> {
        None
    }

    fn name(&self) -> String {
        "Services of the cluster".to_owned()
    }

    fn lack(&self) -> &'static str {
        "are not named"
    }

    fn uid(object: &ServiceObject) -> &str {
        object.uid()
    }

    fn version(object: &ServiceObject) -> &str {
        object.resource_version()
    }

    fn see(&self, object: &ServiceObject) -> bool {
        object
            .service()
            .is_none_or(|service| Services::see(self, service, object.frontends()))
    }

    fn delete(&self, uid: &str) {
        Services::delete(self, uid);
    }

    fn keep_only(&self, there: &HashSet<String>) {
        Services::keep_only(self, |uid| there.contains(uid));
    }

    fn count(&self) -> usize {
        self.len()
    }
}
