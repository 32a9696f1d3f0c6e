//! The fault world: the shipped node runs, unchanged, on a simulated network, disk and clock.
//!
//! One seed gives one history, to the byte. That rests on five things: tokio draws its own choices from the seed
//! (`--cfg tokio_unstable`), turmoil runs every host on one thread, [`env`] replaces the clock, the sockets, the disk
//! and the tasks, every seed runs in a process of its own (tokio's task ids are a process-wide counter, and the order
//! in which a crash drops tasks depends on them), and no code iterates a hash map where the order is visible.
//!
//! * [`disk`]: what a power cut leaves of the bytes that nobody synced.
//! * [`env`]: one host's world behind `skerry_env`.
//! * [`oracle`]: reads the broker's own sockets, and compares each answer with what is durable at that moment.
//! * [`trace`]: what happened, line by line.
//!
//! The verdict on a finished history is of `skerry_checker`, which knows nothing of the simulator.
#![forbid(unsafe_code)]
#![expect(
    unexpected_cfgs,
    reason = "`tokio_unstable` is no feature of this crate, it is required of the whole build"
)]

#[cfg(not(any(tokio_unstable, doc)))]
compile_error!(
    "the simulator needs `--cfg tokio_unstable` (.cargo/config.toml): an exported RUSTFLAGS hides it"
);

pub mod checks;
mod complaints;
pub mod disk;
pub mod env;
pub mod goals;
mod invariants;
mod links;
pub mod oracle;
pub mod plants;
mod process;
mod record;
mod rot;
pub mod scenario;
pub mod story;
mod survivors;
pub mod trace;
pub mod workload;
pub mod world;
