//! Planted bugs: mistakes that the simulator must find, to prove that it can (`skerry-sim plant --all`).
//!
//! They exist only where debug assertions do; in a release build [`is_planted`] is the constant `false` and the
//! branch behind it is gone.

use std::sync::OnceLock;

static PLANTED: OnceLock<String> = OnceLock::new();

/// Plants `name` for the life of this process. Called by the simulator, which runs each seed in its own process.
///
/// # Panics
/// In a release build, and when a bug is already planted.
pub fn plant(name: &str) {
    if !cfg!(debug_assertions) {
        panic!("bugs cannot be planted in a release build");
    }
    PLANTED
        .set(name.to_owned())
        .expect("one planted bug for each process");
}

/// True where the bug `name` must be made.
#[inline]
#[must_use]
pub fn is_planted(name: &str) -> bool {
    cfg!(debug_assertions) && PLANTED.get().is_some_and(|planted| planted == name)
}
