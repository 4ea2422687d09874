//! A bounded map that keeps what was used last.

use std::collections::HashMap;
use std::hash::Hash;

/// Holds between `capacity / 2` and `capacity` of the entries used last.
///
/// Two generations: a used entry moves to the young one; when that is half the capacity it becomes the old one, and what
/// was left of the old one is dropped. Constant time, no list to keep.
#[derive(Debug)]
pub(crate) struct Lingering<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash, V> Lingering<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            half: (capacity / 2).max(1),
        }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        self.get_mut(key).map(|value| &*value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        } else {
            // Else the old value would come back with the next use.
            self.old.remove(&key);
        }
        self.young.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut map = Lingering::new(8);
        map.insert(0, "used");
        for key in 1..100 {
            map.insert(key, "once");
            assert_eq!(map.get(&0), Some(&"used"), "after {key}");
            assert!(map.len() <= 8, "{}", map.len());
        }
        assert_eq!(map.get(&1), None);
        assert!(map.get(&99).is_some());
    }

    #[test]
    fn a_new_value_replaces_the_old_one() {
        let mut map = Lingering::new(2);
        map.insert(1, 'a');
        map.insert(2, 'b');
        map.insert(1, 'c');
        assert_eq!(map.get(&1), Some(&'c'));
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn a_new_value_replaces_one_that_was_not_used_lately() {
        let mut map = Lingering::new(4);
        for (key, value) in [(1, 'a'), (2, 'b'), (3, 'c'), (1, 'd')] {
            map.insert(key, value);
        }
        assert_eq!(map.get(&1), Some(&'d'));
        assert_eq!(map.len(), 3);
    }
}
