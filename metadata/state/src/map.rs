//! An ordered map whose clone costs a reference count and whose changes copy little.
//!
//! Two levels: a list of sorted runs, each of at most [`RUN_MAX`] entries, all shared with the clones. A change copies
//! one run and the list of runs: at 10,000 topics some hundred pointers. A tree of more levels would copy less only
//! far beyond the sizes that a cluster has.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A run that grows beyond this is split in two.
const RUN_MAX: usize = 128;

/// An ordered map with cheap clones. The runs are never empty and their keys grow from run to run.
pub struct PersistentMap<K, V> {
    runs: Arc<Vec<Run<K, V>>>,
    len: usize,
}

type Run<K, V> = Arc<Vec<(K, V)>>;

impl<K, V> Clone for PersistentMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            runs: Arc::clone(&self.runs),
            len: self.len,
        }
    }
}

impl<K, V> Default for PersistentMap<K, V> {
    fn default() -> Self {
        Self {
            runs: Arc::new(Vec::new()),
            len: 0,
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for PersistentMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.runs
                    .iter()
                    .flat_map(|run| run.iter())
                    .map(|(key, value)| (key, value)),
            )
            .finish()
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for PersistentMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len
            && self
                .runs
                .iter()
                .flat_map(|run| run.iter())
                .eq(other.runs.iter().flat_map(|run| run.iter()))
    }
}

impl<K: Eq, V: Eq> Eq for PersistentMap<K, V> {}

/// Where a key is, or where it belongs.
enum Place {
    Found { run: usize, slot: usize },
    Missing { run: usize, slot: usize },
}

impl<K, V> PersistentMap<K, V> {
    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True for no entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.runs
            .iter()
            .flat_map(|run| run.iter())
            .map(|(key, value)| (key, value))
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Place
    where
        K: Borrow<Q>,
    {
        // The last run that starts at or before the key; a key before all of them belongs to the first.
        let run = self
            .runs
            .partition_point(|run| run[0].0.borrow() <= key)
            .saturating_sub(1);
        let Some(entries) = self.runs.get(run) else {
            return Place::Missing { run: 0, slot: 0 };
        };
        match entries.binary_search_by(|(other, _)| other.borrow().cmp(key)) {
            Ok(slot) => Place::Found { run, slot },
            Err(slot) => Place::Missing { run, slot },
        }
    }

    /// The value of `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match self.find(key) {
            Place::Found { run, slot } => Some(&self.runs[run][slot].1),
            Place::Missing { .. } => None,
        }
    }

    /// True if `key` has a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The entries from the first key that is not below `key`, in order.
    pub fn range_from<'a, Q: Ord + ?Sized>(
        &'a self,
        key: &Q,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let (Place::Found { run, slot } | Place::Missing { run, slot }) = self.find(key);
        let head = self.runs.get(run).map_or(&[][..], |entries| &entries[slot..]);
        let tail = self.runs.get(run + 1..).unwrap_or(&[]);
        head.iter()
            .chain(tail.iter().flat_map(|run| run.iter()))
            .map(|(key, value)| (key, value))
    }
}

impl<K: Clone + Ord, V: Clone> PersistentMap<K, V> {
    /// The value of `key`, to change it in place. Copies the run where a clone shares it.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let Place::Found { run, slot } = self.find(key) else {
            return None;
        };
        let runs = Arc::make_mut(&mut self.runs);
        Some(&mut Arc::make_mut(&mut runs[run])[slot].1)
    }

    /// Sets the value of `key` and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (run, slot) = match self.find(&key) {
            Place::Found { .. } => {
                let old = self.get_mut(&key).expect("just found");
                return Some(std::mem::replace(old, value));
            }
            Place::Missing { run, slot } => (run, slot),
        };
        self.len += 1;
        let runs = Arc::make_mut(&mut self.runs);
        if runs.is_empty() {
            runs.push(Arc::new(vec![(key, value)]));
            return None;
        }
        let entries = Arc::make_mut(&mut runs[run]);
        entries.insert(slot, (key, value));
        if entries.len() > RUN_MAX {
            let upper = entries.split_off(RUN_MAX / 2);
            runs.insert(run + 1, Arc::new(upper));
        }
        None
    }

    /// Removes `key` and returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let Place::Found { run, slot } = self.find(key) else {
            return None;
        };
        self.len -= 1;
        let runs = Arc::make_mut(&mut self.runs);
        let entries = Arc::make_mut(&mut runs[run]);
        let (_, value) = entries.remove(slot);
        // Runs that only shrink are not joined: topics come back, and an almost empty run costs a pointer.
        if entries.is_empty() {
            runs.remove(run);
        }
        Some(value)
    }
}

impl<K: Clone + Ord, V: Clone> FromIterator<(K, V)> for PersistentMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_an_ordered_map(ops in prop::collection::vec((any::<bool>(), 0_u16..600, any::<u8>()), 0..2_000), from in 0_u16..600) {
            let mut map = PersistentMap::default();
            let mut model = BTreeMap::new();
            let mut snapshots = Vec::new();
            for (step, (insert, key, value)) in ops.into_iter().enumerate() {
                if insert {
                    prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                if step % 97 == 0 {
                    snapshots.push((map.clone(), model.clone()));
                }
            }
            snapshots.push((map, model));
            for (map, model) in snapshots {
                prop_assert_eq!(map.len(), model.len());
                prop_assert!(map.iter().eq(model.iter()));
                prop_assert!(map.range_from(&from).eq(model.range(from..)));
            }
        }
    }
}
