//! Legal but unlikely behaviour on demand (FoundationDB's BUGGIFY, SIMULATION.md 4.4): an answer that comes late, a
//! segment that is full at once, a leader that says for once that it is none. Peers and clients must live with all of
//! it, and a quiet cluster shows none of it.
//!
//! Which sites are active, and when they act, follows from the seed. They exist only where debug assertions do, and
//! act only after the simulator has asked for it; in a release build [`buggify`] is the constant `false`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::goal;

static ACTING: AtomicBool = AtomicBool::new(false);
static SITES: Mutex<Sites> = Mutex::new(Sites {
    seed: 0,
    asked: BTreeMap::new(),
});

struct Sites {
    seed: u64,
    /// How often each was asked.
    asked: BTreeMap<&'static str, u64>,
}

/// How late what comes late comes: longer than a heartbeat, shorter than a session.
pub const BUGGIFY_LATE: Duration = Duration::from_millis(150);
/// One site of so many is active in a seed.
const ACTIVE_ONE_IN: u64 = 4;

/// From now on a quarter of the sites act in this process. Called by the simulator, which runs each seed in a process
/// of its own.
pub fn start_buggify(seed: u64) {
    let mut sites = SITES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    sites.seed = seed;
    sites.asked.clear();
    ACTING.store(true, Ordering::Relaxed);
}

/// No site acts any more.
pub fn stop_buggify() {
    ACTING.store(false, Ordering::Relaxed);
}

/// True where the site `name` is active, and must act this time: once in `one_in` times. Each time is a goal reached, of
/// that name.
#[inline]
#[must_use]
pub fn buggify(name: &'static str, one_in: u64) -> bool {
    cfg!(debug_assertions) && ACTING.load(Ordering::Relaxed) && goal::is_counting() && acts(name, one_in)
}

fn acts(name: &'static str, one_in: u64) -> bool {
    let mut sites = SITES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let site = name
        .bytes()
        .fold(sites.seed, |seed, byte| mixed(seed ^ u64::from(byte)));
    if !site.is_multiple_of(ACTIVE_ONE_IN) {
        return false;
    }
    let asked = sites.asked.entry(name).or_default();
    *asked += 1;
    let acts = mixed(site ^ *asked).is_multiple_of(one_in);
    drop(sites);
    goal::sometimes(name, acts);
    acts
}

/// SplitMix64.
fn mixed(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
