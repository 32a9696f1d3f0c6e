//! Goals: rare and telling moments that fault runs must reach at least sometimes, or they prove little (the "sometimes
//! assertions" of Antithesis, SIMULATION.md 4.4). The code says where such a moment is; `skerry-sim` counts how often
//! it came, and says which never did.
//!
//! Counted only where debug assertions are on and the simulator has asked for it; in a release build [`reached`] is
//! nothing.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

static COUNTING: AtomicBool = AtomicBool::new(false);
static REACHED: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// From now on this process counts. Called by the simulator, which runs each seed in a process of its own.
pub fn count_goals() {
    COUNTING.store(true, Ordering::Relaxed);
}

/// Goals count here and now.
pub(crate) fn is_counting() -> bool {
    COUNTING.load(Ordering::Relaxed)
}

/// The goal `name` is reached here and now. Its meaning stands in the simulator's list of goals.
#[inline]
pub fn reached(name: &'static str) {
    if cfg!(debug_assertions) && COUNTING.load(Ordering::Relaxed) {
        let mut all = REACHED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *all.entry(name).or_default() += 1;
    }
}

/// The goal `name` is reached here and now where `happened`.
#[inline]
pub fn sometimes(name: &'static str, happened: bool) {
    if happened {
        reached(name);
    }
}

/// Does `what` without counting: what the simulator tries out on copies did not happen.
pub fn uncounted<T>(what: impl FnOnce() -> T) -> T {
    let before = COUNTING.swap(false, Ordering::Relaxed);
    let result = what();
    COUNTING.store(before, Ordering::Relaxed);
    result
}

/// How often each goal was reached by this process.
#[must_use]
pub fn goals_reached() -> BTreeMap<&'static str, u64> {
    REACHED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_count_once_somebody_wants_to_know() {
        reached("before");
        count_goals();
        reached("a-goal");
        sometimes("a-goal", true);
        sometimes("another", false);
        uncounted(|| reached("another"));
        let found = goals_reached();
        assert_eq!(found.get("a-goal"), Some(&2));
        assert!(
            !found.contains_key("before") && !found.contains_key("another"),
            "{found:?}"
        );
    }
}
