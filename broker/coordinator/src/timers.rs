use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skerry_types::Instant;

/// What a deadline is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKey {
    /// A member's session, or a pending member's time to join.
    Session { group: Arc<str>, member: Arc<str> },
    /// The end of the join phase.
    Join { group: Arc<str> },
    /// The end of the sync phase.
    Sync { group: Arc<str> },
    /// The next look at the age of offsets.
    OffsetExpiry,
}

/// Deadlines by name and by time. At most one for each name.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_key: BTreeMap<TimerKey, Instant>,
    by_time: BTreeSet<(Instant, TimerKey)>,
}

impl Timers {
    /// Sets or moves a deadline.
    pub(crate) fn schedule(&mut self, key: TimerKey, at: Instant) {
        if let Some(before) = self.by_key.insert(key.clone(), at) {
            if before == at {
                return;
            }
            self.by_time.remove(&(before, key.clone()));
        }
        self.by_time.insert((at, key));
    }

    /// Forgets a deadline, if there is one.
    pub(crate) fn cancel(&mut self, key: &TimerKey) {
        if let Some((key, at)) = self.by_key.remove_entry(key) {
            self.by_time.remove(&(at, key));
        }
    }

    /// Takes the earliest deadline that has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<TimerKey> {
        if self.by_time.first()?.0 > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    pub(crate) fn contains(&self, key: &TimerKey) -> bool {
        self.by_key.contains_key(key)
    }

    pub(crate) fn clear(&mut self) {
        self.by_key.clear();
        self.by_time.clear();
    }

    pub(crate) fn check(&self) {
        assert_eq!(
            self.by_key.len(),
            self.by_time.len(),
            "every deadline is in both orders"
        );
    }
}
