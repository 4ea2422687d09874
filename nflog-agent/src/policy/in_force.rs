//! The policy that all readers follow, as it is replaced while they run.
//!
//! A reader looks whether there is a newer one before each batch, at the cost of reading a number; the lock is held only while a pointer
//! is copied. So each packet is decided on by one policy, the one in force when its batch was begun.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Policy;

/// The policy in force.
#[derive(Debug)]
pub struct InForce {
    /// Rises with each replacement.
    generation: AtomicU64,
    policy: Mutex<Arc<Policy>>,
}

impl InForce {
    /// Begins with this one, as generation 0.
    #[must_use]
    pub const fn new(policy: Arc<Policy>) -> Self {
        Self {
            generation: AtomicU64::new(0),
            policy: Mutex::new(policy),
        }
    }

    /// From now on it is this one: for each batch that is begun after this call.
    pub fn replace(&self, policy: Arc<Policy>) {
        let mut current = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        *current = policy;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Its generation, and itself.
    #[must_use]
    pub fn get(&self) -> (u64, Arc<Policy>) {
        let current = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        (self.generation.load(Ordering::Acquire), Arc::clone(&current))
    }

    /// The same if it is not of this generation any more.
    #[must_use]
    pub fn newer(&self, generation: u64) -> Option<(u64, Arc<Policy>)> {
        (self.generation.load(Ordering::Acquire) != generation).then(|| self.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_policy_is_seen_once() {
        let in_force = InForce::new(Arc::default());
        let (generation, first) = in_force.get();
        assert!(in_force.newer(generation).is_none());
        in_force.replace(Arc::default());
        let (newer, second) = in_force.newer(generation).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(in_force.newer(newer).is_none());
    }
}
