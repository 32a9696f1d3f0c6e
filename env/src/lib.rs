//! The only door to disk, network, time, randomness and task spawning.
//!
//! Production and the simulator differ in an [`Env`] and nowhere else; there is no other mock. Everything that the
//! broker and the quorum do to the outside world goes through the five things that it holds, and the linter bans the
//! rest by name (`clippy.toml`).
//!
//! The seams are trait objects: one indirect call for each system call, which no measurement finds, and the
//! simulator needs no conditional compilation in production crates.
#![forbid(unsafe_code)]

pub mod clock;
pub mod disk;
pub mod net;
mod os;
mod rng;
pub mod tasks;

use std::sync::Arc;

pub use clock::{Clock, Elapsed};
pub use disk::{Disk, DynDisk, File, OpenMode};
pub use net::{Conn, Listener, Network};
pub use rng::Rng;
pub use tasks::{TaskHandle, Tasks};

/// What a node may touch of the world. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Monotonic and wall clock, sleep.
    pub clock: Clock,
    /// Random numbers.
    pub rng: Rng,
    /// Spawned tasks and blocking work.
    pub tasks: Tasks,
    /// Sockets.
    pub net: Network,
    /// Files.
    pub disk: DynDisk,
}

impl Env {
    /// The world of the operating system. Must be called within a tokio runtime.
    #[must_use]
    pub fn os() -> Self {
        Self {
            clock: Clock::new(Arc::new(os::OsClock::new())),
            rng: Rng::from_os(),
            tasks: Tasks::new(Arc::new(os::OsTasks)),
            net: Network::new(Arc::new(os::OsNetwork)),
            disk: Arc::new(os::OsDisk),
        }
    }
}

/// The operating system's disk alone, for sync tools (`skerry log dump`) and tests.
#[must_use]
pub fn os_disk() -> DynDisk {
    Arc::new(os::OsDisk)
}
